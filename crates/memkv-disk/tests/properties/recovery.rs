//! Opening a directory whose files were changed in any way must give a typed error, or only records that
//! were once written, and the same again at the next start.
//!
//! An input is a base (an empty directory, or one of three that a real node left behind) and a list of
//! changes to its files. A change may also put a fitting checksum over the changed bytes: then the content
//! is not judged, because it cannot be told from ours, but opening must still end in order.

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use memkv_disk::disk::sim::SimDisk;
use memkv_disk::disk::{Disk, read_exact_at};
use memkv_disk::{ClockFile, Opened, Options, PeersFile, Record};

#[path = "../common/mod.rs"]
mod common;

use common::{Node, id, layout, options, payload, record, records, vote};

/// Bytes of a segment's header, and where its checksum lies.
const SEGMENT_HEADER: usize = 512;
/// Bytes of a record's header; the last four are its checksum.
const RECORD_HEADER: usize = 72;
/// Bytes of the metadata before the identity; the last four are the checksum.
const METADATA_FIXED: usize = 256;
/// Most bytes by which one change makes a file longer.
const LONGEST: usize = 1 << 16;
/// Most changes: each opens and syncs something.
const MOST_CHANGES: usize = 32;

/// The bases, by the first byte of an input.
fn base(kind: u8) -> SimDisk {
    static BASES: OnceLock<[SimDisk; 4]> = OnceLock::new();
    let bases = BASES.get_or_init(|| {
        let os = Options {
            sync: false,
            ..options()
        };
        [
            nothing(),
            left_behind(options(), false),
            left_behind(options(), true),
            left_behind(os, true),
        ]
    });
    bases[usize::from(kind) % bases.len()].fork()
}

/// Directories with nothing in them.
fn nothing() -> SimDisk {
    let (disk, layout) = (SimDisk::new(7), layout());
    for dir in [&layout.log, &layout.metadata, &layout.snapshot] {
        disk.create_dir_all(dir).unwrap();
    }
    disk.kill()
}

/// A directory with segments before and after a truncation, votes, and snapshots.
fn left_behind(options: Options, clean: bool) -> SimDisk {
    let disk = SimDisk::new(7);
    let mut node = Node::open(Arc::new(disk.clone()), options).unwrap();
    node.append(records(1, 0..12, 200)).unwrap();
    node.call(|wal, done| wal.save_hard_state(vote(5), done))
        .unwrap();
    node.snapshot(id(1, 2), 2).unwrap();
    node.snapshot(id(1, 5), 2).unwrap();
    node.opened.wal.purge_through(id(1, 5));
    node.call(|wal, done| wal.truncate_after(Some(9), done))
        .unwrap();
    node.append(records(5, 10..14, 40)).unwrap();
    if clean {
        node.close();
    }
    disk.kill()
}

/// Takes bytes off the front of an input; zeros once it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        let bytes = [self.byte(), self.byte(), self.byte()];
        usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken.to_vec()
    }

    /// A path that means something to storage.
    fn path(&mut self) -> PathBuf {
        let layout = layout();
        let (kind, a, b) = (self.byte(), u64::from(self.byte()), u64::from(self.byte()));
        match kind % 8 {
            0 => layout.metadata.join("metadata-a"),
            1 => layout.metadata.join("metadata-b"),
            2 => layout
                .metadata
                .join(["peers", "condemned", "clock"][a as usize % 3]),
            3 => layout.log.join(format!("spare-{a:016x}")),
            4 => layout
                .snapshot
                .join(format!("00000000-{a:020}-{b:016x}-0000000000000001.snap")),
            5 => layout.log.join("reserve"),
            // The last of all indexes and generations are where numbers end.
            6 => layout
                .log
                .join(format!("{:020}-{b:016x}.log", u64::MAX - a)),
            _ => layout.log.join(format!("{a:020}-{b:016x}.log")),
        }
    }
}

fn contents(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    read_exact_at(&*file, 0, &mut bytes).unwrap();
    bytes
}

fn replace(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    let file = disk.create(path).unwrap();
    file.set_len(0).unwrap();
    file.write_at(0, &[IoSlice::new(bytes)]).unwrap();
}

/// Puts fitting checksums over the header at `at` in a file.
fn seal(path: &Path, bytes: &mut [u8], at: usize) {
    let name = path.file_name().unwrap().to_string_lossy();
    if name.starts_with("metadata-") && bytes.len() >= METADATA_FIXED {
        let len = u32::from_le_bytes(bytes[168..172].try_into().unwrap()) as usize;
        let end = METADATA_FIXED.saturating_add(len).min(bytes.len());
        let (fixed, rest) = bytes.split_at_mut(METADATA_FIXED);
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&fixed[..METADATA_FIXED - 4]);
        hasher.update(&rest[..end - METADATA_FIXED]);
        fixed[METADATA_FIXED - 4..].copy_from_slice(&hasher.finalize().to_le_bytes());
    } else if name.ends_with(".log") && bytes.len() >= SEGMENT_HEADER {
        let (header, records) = bytes.split_at_mut(SEGMENT_HEADER);
        let crc = crc32fast::hash(&header[..SEGMENT_HEADER - 4]);
        header[SEGMENT_HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        let at = at.saturating_sub(SEGMENT_HEADER) & !7;
        if let Some(record) = records
            .get_mut(at..)
            .filter(|rest| rest.len() >= RECORD_HEADER)
        {
            seal_record(record, &header[32..40]);
        }
    }
}

fn seal_record(record: &mut [u8], salt: &[u8]) {
    let len = u32::from_le_bytes(record[4..8].try_into().unwrap()) as usize;
    if let Some(payload) = record[RECORD_HEADER..].get(..len) {
        let crc = crc32fast::hash(payload);
        record[60..64].copy_from_slice(&crc.to_le_bytes());
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(salt);
    hasher.update(&record[..RECORD_HEADER - 4]);
    record[RECORD_HEADER - 4..RECORD_HEADER].copy_from_slice(&hasher.finalize().to_le_bytes());
}

/// Makes one change; returns whether it put a checksum over other bytes.
fn change(disk: &SimDisk, input: &mut Input<'_>) -> bool {
    let files: Vec<PathBuf> = disk.files().into_iter().map(|(path, _)| path).collect();
    let operation = input.byte() % 8;
    if operation == 7 {
        let path = input.path();
        replace(disk, &path, &input.bytes());
        return false;
    }
    if files.is_empty() {
        return false;
    }
    let path = &files[usize::from(input.byte()) % files.len()];
    let mut bytes = contents(disk, path);
    match operation {
        3 => disk.remove_file(path).unwrap(),
        4 => disk.rename(path, &input.path()).unwrap(),
        5 => replace(disk, &input.path(), &bytes),
        1 => replace(disk, path, &bytes[..input.number() % (bytes.len() + 1)]),
        2 => {
            bytes.resize(bytes.len() + input.number() % LONGEST, 0);
            replace(disk, path, &bytes);
        }
        0 => {
            let at = input.number() % (bytes.len() + 1);
            let new = input.bytes();
            bytes.resize(bytes.len().max(at + new.len()), 0);
            bytes[at..at + new.len()].copy_from_slice(&new);
            replace(disk, path, &bytes);
        }
        _ => {
            seal(path, &mut bytes, input.number());
            replace(disk, path, &bytes);
            return true;
        }
    }
    false
}

fn all(opened: &Opened) -> Vec<Record> {
    opened
        .log
        .read(0..u64::MAX, u64::MAX, usize::MAX)
        .unwrap_or_default()
}

/// Everything that a node reads from its directory besides the log.
fn read_the_rest(disk: &SimDisk, opened: &Opened) {
    if let Ok(Some(mut reader)) = opened.snapshots.open_latest() {
        while let Ok(Some(_)) = reader.next_block() {}
    }
    drop(ClockFile::open(disk, &layout()));
    drop(PeersFile::open(disk, &layout()));
}

/// Whether this record was once appended.
fn was_written(record: &Record) -> bool {
    let (term, index) = (record.id.term, record.id.index);
    let prefix = format!("{term}/{index}:").len();
    let known = matches!((term, index), (1, 0..12) | (5, 10..14));
    known && record.payload == payload(term, index, record.payload.len().saturating_sub(prefix))
}

/// One input.
pub(crate) fn check(data: &[u8]) {
    let mut input = Input(data);
    let disk = base(input.byte());
    let mut forged = false;
    for _ in 0..MOST_CHANGES {
        if input.0.is_empty() {
            break;
        }
        forged |= change(&disk, &mut input);
    }
    let disk = disk.kill();
    let Ok(node) = Node::open(Arc::new(disk.clone()), options()) else {
        return;
    };
    let found = all(&node.opened);
    read_the_rest(&disk, &node.opened);
    if forged {
        return;
    }
    let fresh = node.opened.recovery.fresh;
    assert!(
        found.iter().all(was_written),
        "records that were never written"
    );
    let follows = |pair: &[Record]| {
        pair[0].id.index + 1 == pair[1].id.index && pair[0].id.term <= pair[1].id.term
    };
    assert!(
        found.windows(2).all(follows),
        "records that do not follow each other"
    );
    let hard_state = node.opened.metadata.hard_state;
    assert!(
        hard_state == (!fresh).then_some(vote(5)),
        "a vote that was never saved"
    );
    assert!(!fresh || found.is_empty());
    // What recovery has made of it is as good as any directory.
    drop(node);
    let mut node = Node::open(Arc::new(disk.kill()), options()).unwrap();
    assert_eq!(all(&node.opened), found, "another log at the next start");
    let next = node.opened.log.last().or(node.opened.log.purged());
    let next = record(6, next.map_or(0, |last| last.index + 1), 30);
    node.append(vec![next.clone()]).unwrap();
    drop(node);
    let node = Node::open(Arc::new(disk.kill()), options()).unwrap();
    assert_eq!(all(&node.opened), [found, vec![next]].concat());
}
