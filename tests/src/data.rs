//! Looking into and damaging data directories, as disks and operators do. Knows only what the
//! original's layout defines: the content of each directory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::cluster::Node;

/// All files below a directory, in the order of their names; none if it does not exist.
pub fn files_in(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Writes a new file that only this user can read, as the nodes demand of secrets.
pub fn write_secret(file: &Path, text: &str) {
    let mut options = fs::File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// Index of the first entry in a node's log, from the names of its segments.
pub fn first_index(node: &Node) -> u64 {
    let segments = files_in(&node.dir.join("log"));
    let names = segments
        .iter()
        .filter_map(|path| path.file_name()?.to_str());
    let first = names
        .filter(|name| name.ends_with(".log"))
        .filter_map(|name| name.split('-').next());
    first
        .map(|index| index.parse().unwrap())
        .min()
        .expect("a log has segments")
}

/// The finished snapshot below a directory that was written last.
pub fn newest_snapshot(dir: &Path) -> PathBuf {
    let modified = |path: &PathBuf| path.metadata().unwrap().modified().unwrap();
    // A node that was killed may have left an unfinished one, which a start removes unread.
    let is_finished = |path: &PathBuf| path.extension().is_some_and(|end| end == "snap");
    files_in(dir)
        .into_iter()
        .filter(is_finished)
        .max_by_key(modified)
        .unwrap_or_else(|| panic!("no snapshot in {}", dir.display()))
}

/// Flips the lowest bit of one byte.
pub fn flip_bit(file: &Path, offset: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[offset] ^= 1;
    fs::write(file, bytes).unwrap();
}
