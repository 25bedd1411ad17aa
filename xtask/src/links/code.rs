//! Files and folders of the code that the documentation names in backticks: each must exist.
//!
//! A path such as `write/sender.rs` or `engine/` is read from the repository's root, from a crate's
//! folder, or from the `src/` of a crate. Where the paragraph, list item or table row names crates, the
//! path must lie in one of them; it must fit exactly one file, so that a reader finds it.

use std::path::{Path, PathBuf};

/// Where the crates are that do not lie in `crates/` under their own names.
const ELSEWHERE: &[(&str, &str)] = &[
    ("memkv-black-box", "tests"),
    ("memkv-hot-path", "benches"),
    ("xtask", "xtask"),
];

/// Pages whose folders are values of settings, printed from the code.
const GENERATED: &[&str] = &[
    "docs/configuration.md",
    "docs/commands.md",
    "docs/metrics.md",
];

/// Every path of `text` that does not lead to one file, with the reason. `page` is relative to `root`.
pub(super) fn faults(root: &Path, page: &Path, text: &str) -> Vec<String> {
    if GENERATED
        .iter()
        .any(|generated| page == Path::new(generated))
    {
        return Vec::new();
    }
    let crates = crates(root);
    let mut faults = Vec::new();
    for block in blocks(text) {
        let named: Vec<&PathBuf> = crates
            .iter()
            .filter(|(name, _)| names(&block, name))
            .map(|(_, dir)| dir)
            .collect();
        for path in code_spans(&block).filter(|span| is_path(span)) {
            let all: Vec<PathBuf> = found(path, root, crates.iter().map(|(_, dir)| dir));
            let near: Vec<PathBuf> = found(path, root, named.iter().copied());
            match (all.len(), near.len()) {
                (_, 1) => {}
                (1, 0) if named.is_empty() => {}
                (0, _) => faults.push(format!(
                    "`{path}`: no such file in the repository or a crate"
                )),
                (_, 0) if !named.is_empty() => {
                    faults.push(format!("`{path}`: not in a crate that the paragraph names"));
                }
                _ => faults.push(format!("`{path}`: fits several files; name the crate")),
            }
        }
    }
    faults
}

/// The crates of the workspace: name and folder.
fn crates(root: &Path) -> Vec<(String, PathBuf)> {
    let mut crates: Vec<(String, PathBuf)> = ELSEWHERE
        .iter()
        .map(|(name, dir)| ((*name).to_owned(), root.join(dir)))
        .collect();
    let listed = std::fs::read_dir(root.join("crates"));
    for entry in listed.into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        crates.push((name, entry.path()));
    }
    crates
}

/// What `path` may mean: from the root, and from each of the folders or its `src/`.
fn found<'a>(path: &str, root: &Path, dirs: impl Iterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let mut candidates = vec![root.join(path)];
    for dir in dirs {
        candidates.push(dir.join("src").join(path));
        candidates.push(dir.join(path));
    }
    candidates.retain(|candidate| match path.ends_with('/') {
        true => candidate.is_dir(),
        false => candidate.is_file(),
    });
    candidates.sort();
    candidates.dedup();
    candidates
}

/// Paragraphs, list items, table rows and headings, outside fences.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in super::prose(text) {
        let start = line.trim_start();
        let numbered = start.split_once(". ").is_some_and(|(number, _)| {
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let begins = start.is_empty() || start.starts_with(['|', '#']) || start.starts_with("- ");
        if begins || numbered {
            blocks.push(String::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

/// Whether `text` names a crate, and not a longer name that begins with it.
fn names(text: &str, name: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        // `xtask` is a command, too, and a part of paths.
        let part_of_path = before == Some('/') || after == Some('/');
        let command = text[..at].ends_with("cargo ");
        !before.is_some_and(inside) && !after.is_some_and(inside) && !part_of_path && !command
    })
}

fn code_spans(block: &str) -> impl Iterator<Item = &str> {
    block.split('`').skip(1).step_by(2)
}

/// A source file or a folder, as this project names them: lower case, digits, `_` and `-`.
fn is_path(span: &str) -> bool {
    let plain = span
        .bytes()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'/' | b'.'));
    let named = span.starts_with(|first: char| first.is_ascii_lowercase());
    plain && named && (span.ends_with(".rs") || span.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::{blocks, faults, is_path, names};
    use crate::cargo::root;
    use std::path::Path;

    fn check(text: &str) -> Vec<String> {
        faults(&root(), Path::new("ARCHITECTURE.md"), text)
    }

    #[test]
    fn a_path_that_exists_is_no_fault() {
        assert_eq!(check("`links/code.rs` in xtask, and `xtask/`\n"), [""; 0]);
        assert_eq!(check("`crates/memkv-disk/src/wal.rs`\n"), [""; 0]);
        assert_eq!(check("memkv-disk has `wal.rs` and `disk/`\n"), [""; 0]);
    }

    #[test]
    fn a_path_that_does_not_exist_is_a_fault() {
        assert_eq!(check("`write/missing.rs`\n").len(), 1);
        assert_eq!(check("`missing/`\n").len(), 1);
        // A path begins at the root of a crate, not inside it.
        assert_eq!(check("`session/group_commit.rs`\n").len(), 1);
    }

    #[test]
    fn a_path_lies_in_a_crate_that_its_paragraph_names() {
        assert_eq!(check("`wal.rs` in memkv-store\n").len(), 1);
        assert_eq!(check("`wal.rs` in memkv-disk\n"), [""; 0]);
        assert_eq!(check("memkv-disk\n\n- `wal.rs` in memkv-store\n").len(), 1);
    }

    #[test]
    fn a_path_that_fits_several_files_is_a_fault() {
        assert_eq!(check("`lib.rs`\n").len(), 1);
        assert_eq!(check("`lib.rs` of memkv-disk\n"), [""; 0]);
        assert_eq!(check("`lib.rs` of memkv-disk and memkv-store\n").len(), 1);
    }

    #[test]
    fn what_is_no_path_of_the_code_is_left_alone() {
        for span in [
            "/v1/kv/",
            "quarantine-N/",
            "a.b",
            "raft_core.rs:24",
            "-x/",
            "x y/",
        ] {
            assert!(!is_path(span), "{span}");
        }
        assert!(check("```\n`missing.rs`\n```\n").is_empty());
    }

    #[test]
    fn blocks_end_at_items_rows_and_blank_lines() {
        let found = blocks("a\nb\n- c\n  d\n2. e\n| f |\n\ng\n");
        let found: Vec<&str> = found.iter().map(|block| block.trim()).collect();
        assert_eq!(found, ["a\nb", "- c\n  d", "2. e", "| f |", "g"]);
    }

    #[test]
    fn a_crate_is_named_by_its_whole_name() {
        assert!(names("in `memkv-disk`.", "memkv-disk"));
        assert!(!names("memkv-disks", "memkv-disk"));
        assert!(!names("crates/memkv-disk/src", "memkv-disk"));
        assert!(!names("cargo xtask test", "xtask"));
    }
}
