//! `cargo xtask package`: the Debian package of the server, the client and what belongs to them. The files that
//! are written by hand are in `contrib/`; man pages and completions come from the programs' own definitions.
//!
//! Invariant: the same tree gives the same bytes. Times are those of the last commit, or `SOURCE_DATE_EPOCH`.

mod control;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cargo::{self, root, target_dir};
use crate::sbom;

/// What to make.
struct Options {
    /// The directory with the programs; without it they are built for release.
    programs: Option<PathBuf>,
    /// Where the package goes.
    out: PathBuf,
    /// The last part of its version: 2 is the second package of the same programs.
    revision: u32,
    /// As `dpkg-deb -Z` takes it.
    compression: String,
}

/// The programs, and the examples that write their manuals.
const PROGRAMS: [(&str, &str); 2] = [
    ("memkv_server", "server_manual"),
    ("memkv_client", "client_manual"),
];

/// Files of `contrib/`, and where they go.
const FILES: [(&str, &str); 3] = [
    ("debian/memkv.json", "etc/memkv/memkv.json"),
    ("memkv.service", "lib/systemd/system/memkv.service"),
    ("debian/copyright", "usr/share/doc/memkv/copyright"),
];

/// Files below `/etc`, which an upgrade leaves as the operator has them.
const CONFFILES: &str = "/etc/memkv/memkv.json\n";

/// Scripts that dpkg calls.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// `cargo xtask package`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let options = options(arguments)?;
    let programs = match &options.programs {
        Some(dir) => dir.clone(),
        None => {
            cargo::run(&mut cargo::cargo(cargo::RELEASE))?;
            target_dir().join("release")
        }
    };
    let version = format!("{}-{}", env!("CARGO_PKG_VERSION"), options.revision);
    let time = time()?;
    let tree = options.out.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).map_err(failed(&tree))?;
    }
    manuals(&tree)?;
    for (program, _) in PROGRAMS {
        copy(&programs.join(program), &tree.join("usr/bin").join(program))?;
    }
    for (from, to) in FILES {
        copy(&root().join("contrib").join(from), &tree.join(to))?;
    }
    documents(&tree, &version, time)?;
    let package = control::Package {
        version: &version,
        architecture: &said(Command::new("dpkg").arg("--print-architecture"))?,
        tree: &tree,
    };
    package.write(CONFFILES, &SCRIPTS)?;
    permissions(&tree)?;
    let file = options.out.join(package.file_name());
    let mut build = Command::new("dpkg-deb");
    build.arg(format!("-Z{}", options.compression));
    build.args(["--root-owner-group", "--build"]);
    build.arg(&tree).arg(&file);
    // Files that are newer get this time.
    cargo::run(build.env("SOURCE_DATE_EPOCH", time.to_string()))?;
    fs::remove_dir_all(&tree).map_err(failed(&tree))
}

/// `cargo xtask sbom`.
pub(crate) fn bill() -> Result<(), String> {
    sbom::print(&date(time()?, "+%Y-%m-%dT%H:%M:%SZ")?)
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        programs: None,
        out: target_dir().join("package"),
        revision: 1,
        compression: "xz".to_owned(),
    };
    let usage = "usage: cargo xtask package [--programs DIR] [--out DIR] [--revision N] [--compression xz|none]";
    for pair in arguments.chunks(2) {
        let [flag, value] = pair else {
            return Err(usage.to_owned());
        };
        match flag.as_str() {
            "--programs" => options.programs = Some(value.into()),
            "--out" => options.out = value.into(),
            "--revision" => options.revision = value.parse().map_err(|_| usage.to_owned())?,
            "--compression" if ["xz", "none"].contains(&value.as_str()) => {
                options.compression.clone_from(value);
            }
            _ => return Err(usage.to_owned()),
        }
    }
    Ok(options)
}

/// Man pages, compressed, and completions.
fn manuals(tree: &Path) -> Result<(), String> {
    // With the whole workspace: another selection of crates selects other features, and builds all anew.
    let mut build = cargo::cargo(["build", "--locked", "--workspace"]);
    for (_, example) in PROGRAMS {
        build.args(["--example", example]);
    }
    cargo::run(&mut build)?;
    for (_, example) in PROGRAMS {
        let example = target_dir().join("debug/examples").join(example);
        cargo::run(Command::new(example).arg(tree))?;
    }
    let mut pages = Vec::new();
    files(&tree.join("usr/share/man"), &mut pages)?;
    compress(&pages)
}

/// What `/usr/share/doc` has besides.
fn documents(tree: &Path, version: &str, time: u64) -> Result<(), String> {
    let dir = tree.join("usr/share/doc/memkv");
    let changes = format!(
        "memkv ({version}) unstable; urgency=medium\n\n  * Its changes are in changelog.gz.\n\n \
         -- The memkv maintainers <maintainers@memkv.invalid>  {}\n",
        date(time, "+%a, %d %b %Y %H:%M:%S +0000")?
    );
    let debian = dir.join("changelog.Debian");
    fs::write(&debian, changes).map_err(failed(&debian))?;
    let changelog = dir.join("changelog");
    copy(&root().join("CHANGELOG.md"), &changelog)?;
    compress(&[debian, changelog])?;
    let bill = dir.join("memkv.cdx.json");
    let text = sbom::bill(&date(time, "+%Y-%m-%dT%H:%M:%SZ")?)?;
    fs::write(&bill, text + "\n").map_err(failed(&bill))
}

/// Seconds since the epoch of everything in the package.
fn time() -> Result<u64, String> {
    let said = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let mut git = Command::new("git");
            said(git.args(["log", "-1", "--format=%ct"]).current_dir(root()))
                .map_err(|error| format!("{error}; without a repository, set SOURCE_DATE_EPOCH"))?
        }
    };
    let number = said.trim().parse();
    number.map_err(|_| format!("SOURCE_DATE_EPOCH is no number of seconds: {said:?}"))
}

/// A time in words, in UTC.
fn date(time: u64, form: &str) -> Result<String, String> {
    let mut date = Command::new("date");
    let date = date.env("LC_ALL", "C").args(["--utc", "--date"]);
    said(date.arg(format!("@{time}")).arg(form))
}

/// What a program prints, without the end of the line.
fn said(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|error| format!("{name}: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()),
        false => Err(format!(
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Copies a file to a place whose directory may not be there yet.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).map_err(failed(dir))?;
    }
    fs::copy(from, to).map(drop).map_err(failed(from))
}

/// All files below a directory, in the order of their names.
fn files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let entries = fs::read_dir(dir).map_err(failed(dir))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => files(&path, found)?,
            false => found.push(path),
        }
    }
    Ok(())
}

/// Compresses files in place, without a name and a time in them.
fn compress(files: &[PathBuf]) -> Result<(), String> {
    cargo::run(Command::new("gzip").args(["-9", "-n", "-f"]).args(files))
}

/// The same permissions whatever those are under which this runs.
fn permissions(dir: &Path) -> Result<(), String> {
    for entry in fs::read_dir(dir).map_err(failed(dir))?.flatten() {
        let path = entry.path();
        let is_run = path.starts_with(dir) && (is_script(&path) || dir.ends_with("usr/bin"));
        let mode = match path.is_dir() || is_run {
            true => 0o755,
            false => 0o644,
        };
        fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(failed(&path))?;
        if path.is_dir() {
            permissions(&path)?;
        }
    }
    fs::set_permissions(dir, Permissions::from_mode(0o755)).map_err(failed(dir))
}

fn is_script(path: &Path) -> bool {
    SCRIPTS
        .iter()
        .any(|name| path.ends_with(Path::new("DEBIAN").join(name)))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::options;

    #[test]
    fn wrong_options_are_refused() {
        let parsed = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|one| (*one).to_owned()).collect();
            options(&words)
        };
        assert_eq!(parsed(&[]).unwrap().revision, 1);
        assert_eq!(parsed(&["--revision", "7"]).unwrap().revision, 7);
        for wrong in [
            &["--revision"][..],
            &["--revision", "x"],
            &["--compression", "lzma"],
            &["--all", "1"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
