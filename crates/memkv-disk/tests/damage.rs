//! Damage: every single-bit flip and every cut of a small data directory is detected or harmless.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::*;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::disk::{Disk, read_exact_at};
use memkv_disk::{HardState, OpenError, Record, SnapshotMeta};

/// The data that must be found after any single flipped bit.
struct Expected {
    records: Vec<Record>,
    hard_state: HardState,
    snapshot: SnapshotMeta,
}

/// A directory with two segments (the second after a truncation), a recycled one, votes and two
/// snapshots.
fn directory(clean: bool) -> (SimDisk, Expected) {
    let disk = SimDisk::new(7);
    let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    node.append(records(1, 0..40, 3000)).unwrap();
    node.call(|wal, done| wal.save_hard_state(vote(5), done))
        .unwrap();
    node.snapshot(id(1, 5), 3).unwrap();
    node.snapshot(id(1, 29), 3).unwrap();
    node.opened.wal.purge_through(id(1, 29));
    node.append(records(1, 40..42, 100)).unwrap();
    node.call(|wal, done| wal.truncate_after(Some(37), done))
        .unwrap();
    for index in 38..46 {
        node.append(vec![record(5, index, 300)]).unwrap();
    }
    let mut all = records(1, 30..38, 3000);
    all.extend(records(5, 38..46, 300));
    assert_eq!(node.all(), all);
    let snapshot = node.opened.snapshots.latest().unwrap();
    if clean {
        node.close();
    }
    (
        disk.kill(),
        Expected {
            records: all,
            hard_state: vote(5),
            snapshot,
        },
    )
}

/// Opens a damaged directory. True if the damage was refused; everything else must be complete.
/// `lost` are acknowledged records at the end that may be missing.
fn refused(disk: &SimDisk, expected: &Expected, lost: usize, what: &str) -> bool {
    let node = match Node::open(Arc::new(disk.clone()), options()) {
        Ok(node) => node,
        Err(OpenError::Corrupt { .. } | OpenError::Metadata { .. }) => return true,
        Err(error) => panic!("{what}: {error}"),
    };
    let records = node
        .opened
        .log
        .read(0..u64::MAX, u64::MAX, usize::MAX)
        .unwrap();
    let least = expected.records.len() - lost;
    assert!(records.len() >= least, "{what}: silently lost records");
    assert_eq!(records, expected.records[..records.len()], "{what}");
    assert_eq!(
        node.opened.metadata.hard_state,
        Some(expected.hard_state),
        "{what}"
    );
    let snapshots = &node.opened.snapshots;
    assert_eq!(
        snapshots.latest().as_ref(),
        Some(&expected.snapshot),
        "{what}"
    );
    let mut reader = snapshots.open_latest().unwrap().unwrap();
    while reader.next_block().unwrap().is_some() {}
    false
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// Bytes worth flipping: all that are not in a long run of zeros, and a sample of those.
fn offsets(disk: &SimDisk, path: &Path, len: u64) -> Vec<u64> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; len as usize];
    read_exact_at(&*file, 0, &mut bytes).unwrap();
    let near = |at: usize| bytes[at.saturating_sub(8)..(at + 8).min(bytes.len())].iter();
    (0..len)
        .filter(|&at| at % 509 == 0 || near(at as usize).any(|byte| *byte != 0))
        .collect()
}

/// Flips bits all over the directory, one at a time; returns flips, refusals, and the files whose
/// damage was refused.
fn flip_all(
    disk: &SimDisk,
    expected: &Expected,
    lost: usize,
    stride: usize,
) -> (u64, u64, Vec<PathBuf>) {
    let (mut flips, mut refusals, mut files) = (0, 0, Vec::new());
    for (path, len) in disk.files() {
        let before = refusals;
        // Headers are intricate; in a payload every byte is like every other.
        for (at, offset) in offsets(disk, &path, len).into_iter().enumerate() {
            let bits = if offset < 1024 {
                0..8
            } else {
                (at % 8) as u32..(at % 8) as u32 + 1
            };
            if offset >= 1024 && at % stride != 0 {
                continue;
            }
            for bit in bits {
                let disk = disk.fork();
                assert!(disk.flip_bit(&path, offset, bit));
                let what = format!("{} byte {offset} bit {bit}", name(&path));
                refusals += u64::from(refused(&disk, expected, lost, &what));
                flips += 1;
            }
        }
        if refusals > before {
            files.push(path);
        }
    }
    (flips, refusals, files)
}

#[test]
fn every_flip_after_a_clean_end_is_detected_or_harmless() {
    let (disk, expected) = directory(true);
    let (flips, refusals, files) = flip_all(&disk, &expected, 0, 5);
    assert!(flips > 10_000, "only {flips} flips");
    assert!(
        refusals > flips / 10,
        "only {refusals} of {flips} flips were refused"
    );
    assert!(
        files
            .iter()
            .filter(|path| name(path).ends_with(".log"))
            .count()
            >= 2
    );
}

#[test]
fn after_a_crash_only_the_last_batch_may_be_lost() {
    let (disk, expected) = directory(false);
    let (flips, refusals, _) = flip_all(&disk, &expected, 1, 11);
    assert!(
        flips > 10_000 && refusals > flips / 10,
        "{refusals} of {flips}"
    );
}

#[test]
fn either_metadata_copy_may_be_lost_but_not_both() {
    let (disk, expected) = directory(true);
    let [a, b] = ["metadata-a", "metadata-b"].map(|name| layout().metadata.join(name));
    for (path, other) in [(&a, &b), (&b, &a)] {
        let disk = disk.fork();
        assert!(disk.flip_bit(path, 50, 1));
        assert!(!refused(&disk, &expected, 0, "one copy"));
        // Repaired by that: now the other one may go.
        let disk = disk.kill();
        assert!(disk.flip_bit(other, 50, 1));
        assert!(!refused(&disk, &expected, 0, "the other copy"));
        let disk = disk.kill();
        assert!(disk.flip_bit(&a, 50, 1) && disk.flip_bit(&b, 90, 1));
        assert!(refused(&disk, &expected, 0, "both copies"));
    }
}

#[test]
fn every_cut_is_detected_or_harmless() {
    let (disk, expected) = directory(true);
    let (mut cuts, mut refusals) = (0, 0);
    for (path, len) in disk.files() {
        let step = (len / 150).max(1) as usize;
        for to in (0..len).step_by(step) {
            let disk = disk.fork();
            disk.open(&path).unwrap().set_len(to).unwrap();
            let what = format!("{} cut to {to}", name(&path));
            refusals += u64::from(refused(&disk, &expected, 0, &what));
            cuts += 1;
        }
    }
    assert!(cuts > 500 && refusals > 100, "{refusals} of {cuts}");
}

#[test]
fn files_that_changed_places_are_refused() {
    let (disk, expected) = directory(true);
    let files: Vec<_> = disk.files().into_iter().map(|(path, _)| path).collect();
    let (mut swaps, mut refusals) = (0, 0);
    for (at, one) in files.iter().enumerate() {
        for other in &files[at + 1..] {
            let disk = disk.fork();
            let middle = layout().log.join("middle");
            disk.rename(one, &middle).unwrap();
            disk.rename(other, one).unwrap();
            disk.rename(&middle, other).unwrap();
            let what = format!("{} and {}", name(one), name(other));
            refusals += u64::from(refused(&disk, &expected, 0, &what));
            swaps += 1;
        }
    }
    assert!(swaps > 20 && refusals > swaps / 2, "{refusals} of {swaps}");
}

#[test]
fn segment_of_another_node_is_refused() {
    let (disk, expected) = directory(true);
    let other = SimDisk::new(8);
    let mut node = Node::open(Arc::new(other.clone()), options()).unwrap();
    node.append(records(1, 0..3, 10)).unwrap();
    drop(node);
    let (path, len) = other
        .files()
        .into_iter()
        .find(|(path, _)| name(path).ends_with(".log"))
        .unwrap();
    let mut bytes = vec![0; len as usize];
    read_exact_at(&*other.kill().open(&path).unwrap(), 0, &mut bytes).unwrap();
    let target = layout()
        .log
        .join("00000000000000000046-00000000000000ff.log");
    let file = disk.create(&target).unwrap();
    file.write_at(0, &[std::io::IoSlice::new(&bytes)]).unwrap();
    assert!(refused(&disk, &expected, 0, "foreign segment"));
    let same = layout().log.join(name(&path));
    disk.rename(&target, &same).unwrap();
    let error = Node::open(Arc::new(disk.clone()), options()).err().unwrap();
    assert!(error.to_string().contains("another node"), "{error}");
}

/// The whole content of a file, changed and written back.
fn rewrite(disk: &SimDisk, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    read_exact_at(&*file, 0, &mut bytes).unwrap();
    change(&mut bytes);
    file.write_at(0, &[std::io::IoSlice::new(&bytes)]).unwrap();
    file.sync_data().unwrap();
}

/// Changes a byte of a file's fixed part and makes the checksum behind it fit.
fn reseal(bytes: &mut [u8], at: usize, to: u8, fixed: usize) {
    bytes[at] = to;
    let crc = crc32fast::hash(&bytes[..fixed - 4]);
    bytes[fixed - 4..fixed].copy_from_slice(&crc.to_le_bytes());
}

/// Changes a byte in the header of a segment's last record and makes the checksum fit.
fn reseal_last_record(bytes: &mut [u8], at: usize, to: u8) {
    let (generation, salt) = (bytes[24..32].to_vec(), bytes[32..40].to_vec());
    let is_record = |start: &usize| {
        bytes[*start..].starts_with(b"MKR2") && bytes[start + 8..start + 16] == generation[..]
    };
    let mut starts = (512..bytes.len() - 72).step_by(8);
    let start = starts.rfind(is_record).unwrap();
    let record = &mut bytes[start..start + 72];
    record[at] = to;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt);
    hasher.update(&record[..68]);
    record[68..].copy_from_slice(&hasher.finalize().to_le_bytes());
}

#[test]
fn intact_data_of_another_version_or_group_is_refused_by_name_and_left_as_it_is() {
    // After a crash nothing vouches for the last record: damaged, it would be cut.
    let (disk, _) = directory(false);
    let files = disk.files();
    let find = |end: &str| {
        let mut paths = files.iter().rev().map(|(path, _)| path);
        paths.find(|path| name(path).ends_with(end)).unwrap()
    };
    let (segment, metadata, snapshot) = (find(".log"), find("metadata-b"), find(".snap"));
    let renamed = |disk: &SimDisk, to: &str| {
        let to = layout().snapshot.join(to);
        disk.rename(snapshot, &to).unwrap();
        disk.sync_dir(&layout().snapshot).unwrap();
    };
    let without_group = &name(snapshot)[9..];
    let version = "format version is 1, and this build reads version 2 only";
    let group = "belongs to Raft group 3, and this build knows group 0 only";
    type Change<'a> = &'a dyn Fn(&SimDisk);
    let changes: [(&str, Change<'_>); 7] = [
        (version, &|disk| {
            rewrite(disk, segment, |bytes| reseal(bytes, 6, b'1', 512))
        }),
        (version, &|disk| {
            rewrite(disk, segment, |bytes| reseal_last_record(bytes, 3, b'1'))
        }),
        (group, &|disk| {
            rewrite(disk, segment, |bytes| reseal_last_record(bytes, 64, 3))
        }),
        (version, &|disk| {
            rewrite(disk, metadata, |bytes| reseal(bytes, 7, b'1', 256))
        }),
        (group, &|disk| {
            rewrite(disk, metadata, |bytes| reseal(bytes, 172, 3, 256))
        }),
        (version, &|disk| renamed(disk, without_group)),
        (group, &|disk| {
            renamed(disk, &format!("00000003-{without_group}"))
        }),
    ];
    for (at, (expected, change)) in changes.iter().enumerate() {
        let disk = disk.fork();
        change(&disk);
        let before = disk.files();
        let error = Node::open(Arc::new(disk.clone()), options()).err();
        let error = error.unwrap_or_else(|| panic!("change {at} was not noticed"));
        assert!(matches!(error, OpenError::Foreign { .. }), "{at}: {error}");
        assert!(error.to_string().contains(expected), "{at}: {error}");
        assert_eq!(disk.files(), before, "{at}");
    }
}

#[test]
fn recycled_segment_never_shows_its_old_records() {
    // Records of equal length at equal offsets: only generation and salt tell them apart.
    let disk = SimDisk::new(3);
    let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    let mut next = 0;
    for round in 0..8 {
        node.append(records(1, next..next + 180, 400)).unwrap();
        next += 180;
        node.snapshot(id(1, next - 2), 1).unwrap();
        node.opened.wal.purge_through(id(1, next - 2));
        node.settle();
        for seed in 0..10 {
            let disk = disk.fork().crash(seed);
            let node = Node::open(Arc::new(disk), options()).unwrap();
            assert_eq!(node.all(), [record(1, next - 1, 400)], "round {round}");
        }
    }
    let spares = disk
        .files()
        .iter()
        .filter(|(path, _)| name(path).starts_with("spare-"))
        .count();
    assert!(
        (1..=3).contains(&spares),
        "{spares} files wait to be recycled"
    );
}

/// Appends without an answer: the power goes during the sync.
fn cut_power_during(node: &mut Node, disk: &SimDisk, records: Vec<Record>, seed: u64) -> SimDisk {
    disk.crash_at_op(disk.op_count() + 2);
    assert!(node.append(records).is_err());
    assert!(!disk.is_powered());
    disk.crash(seed)
}

#[test]
fn records_behind_a_torn_record_never_come_back() {
    let mut torn = 0;
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
        node.append(records(1, 0..2, 600)).unwrap();
        let disk = cut_power_during(&mut node, &disk, records(1, 2..6, 600), seed);
        let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
        let found = node.all().len() as u64;
        torn += u64::from(node.opened.recovery.torn_tail.is_some());
        // The leader sends the same record again. Those behind it may still be on the disk, and
        // would continue it perfectly.
        if found < 6 {
            node.append(records(1, found..found + 1, 600)).unwrap();
            let node = Node::open(Arc::new(disk.crash(seed)), options()).unwrap();
            assert_eq!(node.all(), records(1, 0..found + 1, 600), "seed {seed}");
        }
    }
    assert!(torn > 50, "only {torn} torn tails");
}

#[test]
fn client_cannot_forge_a_record_inside_a_value() {
    // A header that claims a durable frontier far above the log, right but for the salt. If it
    // counted, a torn write would look like corruption, and the node would be lost.
    let mut header = [0; 72];
    header[..4].copy_from_slice(b"MKR2");
    header[8..16].copy_from_slice(&1u64.to_le_bytes());
    header[40..48].copy_from_slice(&1_000_000u64.to_le_bytes());
    let crc = crc32fast::hash(&header[..68]);
    header[68..].copy_from_slice(&crc.to_le_bytes());
    let hostile = Record {
        id: id(1, 2),
        payload: header.repeat(50).into(),
    };
    let mut torn = 0;
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
        node.append(records(1, 0..2, 10)).unwrap();
        let disk = cut_power_during(&mut node, &disk, vec![hostile.clone()], seed);
        let node = Node::open(Arc::new(disk), options()).unwrap();
        torn += u64::from(node.opened.recovery.torn_tail.is_some());
    }
    assert!(torn > 20, "only {torn} torn tails");
}
