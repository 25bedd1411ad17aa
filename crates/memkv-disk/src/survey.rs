//! What a directory holds, for a program that asks before it opens it: the identity, and which files it could not
//! read. Also for directories of newer and of older versions, and of nodes that run.
//!
//! Never writes, never locks and repairs nothing. It reads the heads of files only, so it finds other formats and
//! not every damage.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::format::Unreadable;
use crate::layout::{Layout, METADATA_FILES};
use crate::metadata::{LONGEST_COPY, Stored};
use crate::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::snapshot_format;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// What the directory holds as the node's identity, opaque; nothing if there is none.
    pub identity: Bytes,
    /// Files that this build cannot read, and why.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Segments and snapshots that it can.
    pub readable: usize,
}

/// Looks at the heads of all files.
///
/// # Errors
/// A file or a directory that exists and cannot be read.
pub fn survey(layout: &Layout) -> io::Result<Survey> {
    let mut survey = Survey::default();
    survey.metadata(&layout.metadata)?;
    for path in with_suffix(&layout.log, ".log")? {
        let mut head = [0; SEGMENT_HEADER_LEN as usize];
        let known = match head_of(&path, head.len() as u64)? {
            bytes if bytes.len() == head.len() => {
                head.copy_from_slice(&bytes);
                SegmentHeader::decode(&head).map(drop)
            }
            _ => Err(Unreadable::Damaged),
        };
        survey.note(path, known);
    }
    for path in with_suffix(&layout.snapshot, ".snap")? {
        let head = head_of(&path, snapshot_format::MAGIC.len() as u64)?;
        let known = match head == snapshot_format::MAGIC {
            true => Ok(()),
            false => Err(Unreadable::Damaged),
        };
        survey.note(path, known);
    }
    Ok(survey)
}

impl Survey {
    fn metadata(&mut self, dir: &Path) -> io::Result<()> {
        let (mut newest, mut bad) = (None::<Stored>, Vec::new());
        for name in METADATA_FILES {
            let path = dir.join(name);
            let bytes = match head_of(&path, LONGEST_COPY) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            match Stored::decode(&bytes) {
                Ok(stored) => {
                    newest = newest
                        .into_iter()
                        .chain([stored])
                        .max_by_key(|it| it.sequence)
                }
                Err(error) => bad.push((path, error)),
            }
        }
        // One copy may be torn at any time; of another format there is none.
        let is_whole = newest.is_some();
        bad.retain(|(_, error)| !is_whole || *error != Unreadable::Damaged);
        let bad = bad
            .into_iter()
            .map(|(path, error)| (path, error.to_string()));
        self.unreadable.extend(bad);
        self.identity = newest
            .map(|stored| stored.value.identity)
            .unwrap_or_default();
        Ok(())
    }

    fn note(&mut self, path: PathBuf, known: Result<(), Unreadable>) {
        match known {
            Ok(()) => self.readable += 1,
            Err(error) => self.unreadable.push((path, error.to_string())),
        }
    }
}

/// The first bytes of a file, up to so many.
fn head_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Files of a directory with this end of their names, sorted; none of a directory that is not there.
fn with_suffix(dir: &Path, suffix: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.ends_with(suffix)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Options;
    use crate::disk::real::RealDisk;

    fn names(survey: &Survey) -> Vec<(&str, &str)> {
        let mut found = Vec::new();
        for (path, why) in &survey.unreadable {
            found.push((
                path.file_name().and_then(|name| name.to_str()).unwrap(),
                &**why,
            ));
        }
        found
    }

    fn flip(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        bytes[100] ^= 1;
        fs::write(path, bytes).unwrap();
    }

    /// The header of a segment of this format version, whole.
    fn segment_of_version(version: u8) -> Vec<u8> {
        let header = SegmentHeader {
            store: 1,
            generation: 1,
            salt: 1,
            first: 0,
            synced: true,
            starts_log: true,
            previous: None,
            previous_checksum: 0,
        };
        let mut bytes = header.encode().to_vec();
        bytes[6] = version;
        let crc = crc32fast::hash(&bytes[..508]);
        bytes[508..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn other_formats_are_named_and_one_torn_copy_of_the_metadata_is_not() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::under(root.path());
        assert_eq!(
            survey(&layout).unwrap(),
            Survey::default(),
            "there is nothing"
        );
        drop(crate::open(Arc::new(RealDisk), &layout, Options::default()).unwrap());
        assert_eq!(names(&survey(&layout).unwrap()), []);
        flip(&layout.metadata.join("metadata-a"));
        assert_eq!(names(&survey(&layout).unwrap()), []);
        flip(&layout.metadata.join("metadata-b"));
        let both = [
            ("metadata-a", "it is damaged"),
            ("metadata-b", "it is damaged"),
        ];
        assert_eq!(names(&survey(&layout).unwrap()), both);
        for (name, version) in [("1-1.log", b'2'), ("2-2.log", b'3')] {
            fs::write(layout.log.join(name), segment_of_version(version)).unwrap();
        }
        fs::write(layout.log.join("3-3.log"), b"short").unwrap();
        fs::write(layout.snapshot.join("1.snap"), b"MKVSNAP2").unwrap();
        let found = survey(&layout).unwrap();
        assert_eq!(found.readable, 2, "one is that of the open");
        assert_eq!(
            names(&found)[2..],
            [
                (
                    "2-2.log",
                    "its format version is 3, and this build reads version 2 only"
                ),
                ("3-3.log", "it is damaged"),
                ("1.snap", "it is damaged"),
            ]
        );
    }
}
