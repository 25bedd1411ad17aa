//! Running cargo and other programs from the root of the workspace, with their output shown as
//! it arrives. Never interprets a program's output: it only passes its lines to the caller.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Root of the workspace: the parent of this package.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().expect("xtask/ has a parent").to_path_buf()
}

/// The directory of cargo's output.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// `cargo ARGUMENTS` at the root of the workspace.
pub(crate) fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    forget_package(&mut command);
    command
}

/// Takes the variables away that `cargo run` sets for this program: a cargo that gets them builds every crate anew
/// that reads them.
pub(crate) fn forget_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
}

/// Runs `command`; an error names it.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` ended with {status}", shown(command)))
    }
}

/// Runs `command`, shows its standard output and hands each of its lines to `line`.
pub(crate) fn run_lines(command: &mut Command, mut line: impl FnMut(&str)) -> Result<(), String> {
    command.stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    // A line that is not UTF-8 must not end the reading: the child would block on a full pipe.
    for bytes in BufReader::new(stdout).split(b'\n') {
        let bytes = bytes.map_err(|error| format!("{}: {error}", shown(command)))?;
        let text = String::from_utf8_lossy(&bytes);
        println!("{text}");
        line(&text);
    }
    let status = child
        .wait()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("`{}` ended with {status}", shown(command)))
    }
}

/// What a release build selects. Another selection selects other features of shared crates, so that every
/// crate is built once more; README's commands select the workspace's default members, whose features these are.
pub(crate) const RELEASE: [&str; 7] = [
    "build",
    "--release",
    "--locked",
    "-p",
    "memkv-server",
    "-p",
    "memkv-client",
];

/// Builds the release binaries of the product, and the load generator, and returns the directory
/// that holds them.
pub(crate) fn release_binaries() -> Result<PathBuf, String> {
    run(cargo(RELEASE).args(["-p", "memkv-bench", "--bins"]))?;
    Ok(target_dir().join("release"))
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
