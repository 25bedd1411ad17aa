//! The project's own rules about source files, which no lint knows: what opens a file, how long it
//! may be, which words and which modules it may not name.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cargo::root;
use crate::{deps, links};

/// More lines than this and a file holds more than one idea.
const MAX_LINES: usize = 600;

/// Files that are longer, with their length when they were listed. The list only shrinks: a file
/// may not grow beyond its number, and the number must follow when it gets shorter.
const LONG_FILES: &str = "xtask/long-files.txt";

/// Directory, and what nothing below it may name: the bans that the layers exist to enforce.
const BANS: &[(&str, &[&str])] = &[
    (
        "crates/memkv-store/src",
        &[
            "std::fs",
            "std::net",
            "std::time",
            "std::thread",
            "tokio::",
            "rand::",
            "SystemTime",
        ],
    ),
    (
        "crates/memkv-proto/src",
        &[
            "std::fs",
            "TcpStream",
            "std::time",
            "std::thread",
            "tokio::",
        ],
    ),
    (
        "crates/memkv-node/src",
        &["std::fs", "std::net", "parking_lot::", "openraft"],
    ),
    // Shared state is behind the locks that the panic hook knows.
    ("crates/memkv-server/src", &["parking_lot::"]),
];

/// What alone may name something that is banned beside it: a file, or all below a directory.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("crates/memkv-node/src/sync/lock.rs", "parking_lot::"),
    ("crates/memkv-node/src/engine/", "openraft"),
];

/// Layers, tidy and links: `cargo xtask tidy`.
pub(crate) fn run() -> Result<(), String> {
    deps::check()?;
    check()?;
    links::check()
}

/// All rules of this file.
pub(crate) fn check() -> Result<(), String> {
    let root = root();
    let mut sources = Vec::new();
    for top in ["benches", "crates", "tests", "xtask"] {
        files(&root.join(top), "rs", &mut sources)?;
    }
    if sources.is_empty() {
        return Err("found no source file".to_owned());
    }
    let mut faults = Vec::new();
    let mut long = Vec::new();
    for path in &sources {
        let name = path
            .strip_prefix(&root)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned();
        let text = read(path)?;
        faults.extend(source_faults(&name, &text));
        if text.lines().count() > MAX_LINES {
            long.push((name, text.lines().count()));
        }
    }
    faults.extend(length_faults(&long, &read(&root.join(LONG_FILES))?));
    let mut manifests = Vec::new();
    files(&root.join("crates"), "toml", &mut manifests)?;
    manifests.retain(|path| path.ends_with("Cargo.toml"));
    for path in &manifests {
        if !read(path)?.contains("[lints]\nworkspace = true") {
            faults.push(format!(
                "{}: does not inherit the workspace's lints",
                path.display()
            ));
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n  "))
    }
}

/// All files below `dir` with the extension, in the order of their names.
pub(crate) fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |error| format!("{}: {error}", dir.display());
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && !hidden && !path.ends_with("target") {
            files(&path, extension, found)?;
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    Ok(())
}

/// Reads a text file; an error names it.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn source_faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//!") {
        faults.push(format!(
            "{name}: does not open with `//!`: what is it, what does it never do?"
        ));
    }
    let bans = BANS
        .iter()
        .filter(|(dir, _)| name.starts_with(dir))
        .flat_map(|(_, words)| *words)
        .filter(|word| {
            let mut exceptions = EXCEPTIONS.iter();
            !exceptions.any(|(place, excepted)| name.starts_with(place) && excepted == *word)
        });
    let bans: Vec<&&str> = bans.collect();
    for (number, line) in (1..).zip(text.lines()) {
        let open = [concat!("TO", "DO"), concat!("FIX", "ME")]
            .iter()
            .any(|word| line.contains(word));
        if open && !mentions_issue(line) {
            faults.push(format!(
                "{name}:{number}: left open without the number of an issue"
            ));
        }
        if line.trim_start().starts_with(concat!("#[", "ignore")) {
            faults.push(format!(
                "{name}:{number}: a test that does not run shows nothing"
            ));
        }
        let code = line.split("//").next().unwrap_or_default();
        for word in bans.iter().filter(|word| code.contains(***word)) {
            faults.push(format!("{name}:{number}: this layer must not use `{word}`"));
        }
    }
    faults
}

fn mentions_issue(line: &str) -> bool {
    line.split('#')
        .skip(1)
        .any(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn length_faults(long: &[(String, usize)], list: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let listed: Vec<(&str, &str)> = list
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(' ').unwrap_or((line, "")))
        .collect();
    for (name, lines) in long {
        match listed.iter().find(|(file, _)| file == name) {
            None => faults.push(format!(
                "{name}: {lines} lines, at most {MAX_LINES} are allowed"
            )),
            Some((_, limit)) if *limit != lines.to_string() => faults.push(format!(
                "{name}: {lines} lines, {LONG_FILES} says {limit}; shorten it, and lower the number"
            )),
            Some(_) => {}
        }
    }
    for (file, _) in listed {
        if !long.iter().any(|(name, _)| name == file) {
            faults.push(format!(
                "{LONG_FILES}: {file} is short enough now, take it off the list"
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::{length_faults, source_faults};

    #[test]
    fn a_file_without_head_is_a_fault() {
        assert_eq!(source_faults("a.rs", "use std::fmt;\n").len(), 1);
        assert!(source_faults("a.rs", "//! What it is.\n").is_empty());
    }

    #[test]
    fn open_ends_need_an_issue() {
        let open = concat!("//! a\n// TO", "DO: later\n");
        assert_eq!(source_faults("a.rs", open).len(), 1);
        let issue = concat!("//! a\n// TO", "DO(#12): later\n");
        assert!(source_faults("a.rs", issue).is_empty());
    }

    #[test]
    fn bans_hold_in_code_and_not_in_comments() {
        let name = "crates/memkv-store/src/apply.rs";
        assert_eq!(
            source_faults(name, "//! a\nuse std::time::Instant;\n").len(),
            1
        );
        assert!(source_faults(name, "//! a\n// never std::time\n").is_empty());
        assert!(
            source_faults("crates/memkv-server/src/a.rs", "//! a\nuse std::time;\n").is_empty()
        );
        let engine = "//! a\nuse openraft::Raft;\n";
        assert_eq!(
            source_faults("crates/memkv-node/src/batch.rs", engine).len(),
            1
        );
        assert!(source_faults("crates/memkv-node/src/engine/handle.rs", engine).is_empty());
        let lock = "//! a\nuse parking_lot::Mutex;\n";
        assert_eq!(
            source_faults("crates/memkv-node/src/engine/handle.rs", lock).len(),
            1
        );
    }

    #[test]
    fn the_list_of_long_files_only_shrinks() {
        let long = [("a.rs".to_owned(), 700)];
        assert_eq!(length_faults(&long, "").len(), 1);
        assert_eq!(length_faults(&long, "a.rs 650\n").len(), 1);
        assert_eq!(length_faults(&long, "a.rs 800\n").len(), 1);
        assert!(length_faults(&long, "# head\na.rs 700\n").is_empty());
        assert_eq!(length_faults(&[], "a.rs 700\n").len(), 1);
    }
}
