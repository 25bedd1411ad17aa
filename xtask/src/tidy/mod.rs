//! The project's own rules about source files, which no lint knows: how long files and functions may
//! be, which words and modules they may not name, and how the modules of a crate depend on each other.

mod circles;
mod functions;
mod modules;
mod production;
mod ratchet;
mod source;
mod tokens;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use crate::cargo::root;
use crate::{deps, links};
use ratchet::Listed;

/// A file with more lines holds more than one idea.
const MAX_LINES: usize = 600;

/// Files that are longer, with their length.
const LONG_FILES: &str = "xtask/long-files.txt";

/// A source file: its path from the root of the workspace, and its text.
pub(crate) struct Source {
    name: String,
    text: String,
}

impl Source {
    #[cfg(test)]
    fn new(name: &str, text: &str) -> Source {
        let (name, text) = (name.to_owned(), text.to_owned());
        Source { name, text }
    }
}

/// `cargo xtask tidy`: layers, tidy and links; with `--circles` the import circles only.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    match arguments {
        [] => {
            deps::check()?;
            check()?;
            links::check()
        }
        [option] if option == "--circles" => {
            circles::print(&sources()?);
            Ok(())
        }
        other => Err(format!("tidy takes `--circles` or nothing, not {other:?}")),
    }
}

/// All rules of this folder.
pub(crate) fn check() -> Result<(), String> {
    let root = root();
    let sources = sources()?;
    let mut faults = Vec::new();
    for Source { name, text } in &sources {
        faults.extend(source::source_faults(name, text));
    }
    faults.extend(long_files(&sources, &read(&root.join(LONG_FILES))?));
    faults.extend(functions::check(
        &sources,
        &read(&root.join(functions::LIST))?,
    ));
    faults.extend(words::check(&sources));
    faults.extend(modules::check(&sources));
    faults.extend(circles::check(&sources));
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

/// Every source file of the workspace, in the order of their names.
fn sources() -> Result<Vec<Source>, String> {
    let root = root();
    let mut paths = Vec::new();
    for top in ["benches", "crates", "tests", "xtask"] {
        files(&root.join(top), "rs", &mut paths)?;
    }
    if paths.is_empty() {
        return Err("found no source file".to_owned());
    }
    let source = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap_or(path);
        let name = name.to_string_lossy().into_owned();
        Ok(Source {
            name,
            text: read(path)?,
        })
    };
    paths.iter().map(source).collect()
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

/// Files that are too long and not listed, or not as long as the list says.
fn long_files(sources: &[Source], list: &str) -> Vec<String> {
    let lengths = sources
        .iter()
        .map(|source| (source.name.clone(), source.text.lines().count()));
    let long: Vec<(String, usize)> = lengths.filter(|(_, lines)| *lines > MAX_LINES).collect();
    let mut found = Vec::new();
    let mut listed = Vec::new();
    let entries = list.lines();
    for line in entries.filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let entry = line.split_once(' ');
        match entry.and_then(|(key, lines)| Some((key.to_owned(), lines.parse().ok()?))) {
            Some((key, lines)) => listed.push(Listed { key, lines }),
            None => found.push(format!("{LONG_FILES}: `{line}` is not a file and a length")),
        }
    }
    found.extend(ratchet::faults(&long, &listed, LONG_FILES, MAX_LINES));
    found
}

#[cfg(test)]
mod tests {
    use super::{Source, long_files};

    #[test]
    fn a_file_of_601_lines_is_refused_unless_it_is_listed_with_its_length() {
        let of = |lines| [Source::new("a.rs", &"\n".repeat(lines))];
        assert!(long_files(&of(600), "").is_empty());
        assert_eq!(long_files(&of(601), "").len(), 1);
        assert!(long_files(&of(601), "# head\na.rs 601\n").is_empty());
        assert_eq!(long_files(&of(601), "a.rs 700\n").len(), 1);
        assert_eq!(long_files(&of(600), "a.rs 601\n").len(), 1);
        assert_eq!(long_files(&of(600), "a.rs\n").len(), 1);
    }
}
