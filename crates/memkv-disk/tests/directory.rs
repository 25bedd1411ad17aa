//! The directory as a whole: snapshots, the reserve, missing parts, quarantine.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::disk::{Disk, guard};
use memkv_disk::{OpenError, SnapshotMeta, quarantine};

fn reopen(disk: &SimDisk) -> Node {
    Node::open(Arc::new(disk.clone()), options()).unwrap()
}

#[test]
fn a_condemned_directory_is_set_aside_as_a_whole() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(vec![record(1, 0, 10)]).unwrap();
    memkv_disk::condemn(&disk, &layout(), "its disk went back in time").unwrap();
    let disk = disk.crash(1);
    let refused = Node::open(Arc::new(disk.clone()), options()).err().unwrap();
    let why = refused.to_string();
    assert!(
        why.contains("condemned") && why.contains("went back in time"),
        "{why}"
    );
    assert!(matches!(refused, OpenError::Corrupt { .. }));
    let aside = quarantine(Arc::new(disk.clone()), &layout()).unwrap();
    assert!(disk.open(&aside.join("condemned")).is_ok());
    let node = reopen(&disk);
    assert!(node.opened.recovery.fresh, "the node begins anew");
}

#[test]
fn full_disk_takes_the_reserve_and_reports_it() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(40 << 20));
    let mut node = reopen(&disk);
    let store = node.opened.snapshots.clone();
    let space = store.space().unwrap();
    assert!(!space.low && space.reserve > 0, "{space:?}");
    let mut index = 0;
    while !store.space().unwrap().low {
        node.append(vec![record(1, index, 1 << 20)]).unwrap();
        index += 1;
    }
    let space = store.space().unwrap();
    assert!(space.reserve > 0, "low before the reserve is touched");
    assert!(!space.exhausted, "{space:?}");
    // Other programs fill the disk: entries in flight still fit.
    let free = store.space().unwrap().free;
    let other = disk.create(&layout().log.join("other")).unwrap();
    other.allocate(free).unwrap();
    for _ in 0..8 {
        node.append(vec![record(1, index, 1 << 20)]).unwrap();
        index += 1;
    }
    node.call(|wal, done| wal.save_hard_state(vote(9), done))
        .unwrap();
    assert!(disk.stats().full > 0, "the disk was never full");
    let space = store.space().unwrap();
    assert!(space.low && space.reserve == 0, "{space:?}");
    assert!(space.exhausted, "{space:?}");
    // Compaction frees the log, the other file goes, and the reserve comes back.
    node.snapshot(id(1, index - 1), 2).unwrap();
    node.opened.wal.purge_through(id(1, index - 1));
    node.settle();
    disk.remove_file(&layout().log.join("other")).unwrap();
    drop(other);
    node.append(vec![record(1, index, 1)]).unwrap();
    assert!(!store.space().unwrap().low, "{:?}", store.space());
    assert_eq!(reopen(&disk.crash(1)).all(), [record(1, index, 1)]);
}

#[test]
fn quarantine_sets_everything_aside_and_the_node_starts_empty() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..200, 1000)).unwrap();
    node.snapshot(id(1, 9), 1).unwrap();
    node.close();
    let data: u64 = disk.files().iter().map(|(_, len)| len).sum();
    let segment = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with("00000000000000000000-0000000000000001.log"));
    assert!(disk.flip_bit(&segment.unwrap().0, 600, 0));
    assert!(matches!(
        Node::open(Arc::new(disk.clone()), options()),
        Err(OpenError::Corrupt { .. })
    ));
    let aside = quarantine(Arc::new(disk.clone()), &layout()).unwrap();
    assert_eq!(aside, layout().metadata.join("quarantine-1"));
    let disk = disk.crash(1);
    let kept: u64 = disk.files().iter().map(|(_, len)| len).sum();
    assert_eq!(data, kept, "nothing is deleted");
    let mut node = reopen(&disk);
    assert!(node.opened.recovery.fresh);
    node.append(records(5, 0..2, 10)).unwrap();
    node.close();
    let aside = quarantine(Arc::new(disk.clone()), &layout()).unwrap();
    assert_eq!(aside, layout().metadata.join("quarantine-2"));
}

#[test]
fn snapshots_travel_verified_and_two_are_kept() {
    let (from, to) = (SimDisk::new(1), SimDisk::new(2));
    let mut node = reopen(&from);
    for last in [3, 5, 7] {
        node.snapshot(id(1, last), 40).unwrap();
    }
    let store = &node.opened.snapshots;
    assert_eq!(
        from.files()
            .iter()
            .filter(|(path, _)| path.ends_with("snap"))
            .count(),
        0
    );
    let count = |disk: &SimDisk| {
        let files = disk.files();
        files
            .iter()
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "snap"))
            .count()
    };
    assert_eq!(count(&from), 2);
    assert_eq!(store.latest().unwrap().last, id(1, 7));
    assert!(store.file_len() > 40 * 700);
    let reader = store.open_latest().unwrap().unwrap();
    let receiving = reopen(&to);
    let mut receiver = receiving.opened.snapshots.receive();
    let mut buffer = vec![0; 4096];
    let mut offset = 0;
    while offset < reader.raw_len() {
        let got = reader.read_raw(offset, &mut buffer).unwrap();
        receiver.write_raw(offset, &buffer[..got]).unwrap();
        assert_eq!(
            receiver
                .write_raw(offset, &buffer[..got])
                .unwrap_err()
                .kind(),
            ErrorKind::InvalidInput
        );
        offset += got as u64;
    }
    let meta = receiver.finish().unwrap();
    assert_eq!(Some(meta), store.latest());
    drop(receiving);
    let receiving = reopen(&to.crash(1));
    let mut reader = receiving.opened.snapshots.open_latest().unwrap().unwrap();
    assert_eq!(reader.meta().extra, "members at 1-1-7");
    let mut blocks = 0;
    while let Some(block) = reader.next_block().unwrap() {
        assert_eq!(block, vec![blocks as u8; 700 + blocks]);
        blocks += 1;
    }
    assert_eq!(blocks, 40);
    // Cut short, it is refused, and nothing is left.
    let mut receiver = receiving.opened.snapshots.receive();
    receiver.write_raw(0, &buffer[..100]).unwrap();
    assert!(receiver.finish().is_err());
    let receiver = receiving.opened.snapshots.receive();
    assert!(receiver.finish().is_err());
    let meta = SnapshotMeta {
        last: id(9, 9),
        extra: "".into(),
    };
    drop(receiving.opened.snapshots.create(meta));
    assert!(
        to.files()
            .iter()
            .all(|(path, _)| path.extension().is_none_or(|e| e != "part"))
    );
}

/// Names of the unfinished and spare files, with their lengths.
fn parts(disk: &SimDisk) -> Vec<(String, u64)> {
    let files = disk.files().into_iter();
    files
        .filter(|(path, _)| path.extension().is_some_and(|e| e == "part"))
        .map(|(path, len)| (path.file_name().unwrap().to_str().unwrap().to_owned(), len))
        .collect()
}

fn blocks(mut reader: memkv_disk::SnapshotReader) -> usize {
    std::iter::from_fn(|| reader.next_block().unwrap()).count()
}

#[test]
fn a_superseded_snapshot_is_overwritten_by_the_next_unless_it_is_read() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.snapshot(id(1, 1), 40).unwrap();
    let read = node.opened.snapshots.open_latest().unwrap().unwrap();
    for last in [2, 3, 4] {
        node.snapshot(id(1, last), 40).unwrap();
    }
    // The first is being read: it went away by name only, and the second became the spare.
    let long = node.opened.snapshots.file_len();
    assert_eq!(parts(&disk), [("spare.part".to_owned(), long)]);
    assert_eq!(blocks(read), 40);
    // A shorter one on the longer spare, and the power goes: only its own bytes are there.
    node.snapshot(id(1, 5), 3).unwrap();
    let short = node.opened.snapshots.file_len();
    assert!(short < long);
    assert_eq!(parts(&disk), [("spare.part".to_owned(), long)]);
    drop(node);
    let disk = disk.crash(1);
    let node = reopen(&disk);
    assert_eq!(parts(&disk), [], "a start removes the spare");
    let reader = node.opened.snapshots.open_latest().unwrap().unwrap();
    assert_eq!((reader.meta().last, reader.raw_len()), (id(1, 5), short));
    assert_eq!(blocks(reader), 3);
}

#[test]
fn damaged_snapshot_is_passed_over_only_if_the_log_covers_the_gap() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..20, 10)).unwrap();
    node.snapshot(id(1, 4), 3).unwrap();
    node.snapshot(id(1, 9), 3).unwrap();
    node.opened.wal.purge_through(id(1, 4));
    node.settle();
    let newest = |disk: &SimDisk| {
        let files = disk.files().into_iter();
        files
            .map(|(path, _)| path)
            .rfind(|path| path.extension().is_some_and(|e| e == "snap"))
    };
    let path = newest(&disk).unwrap();
    let covered = disk.fork();
    assert!(covered.flip_bit(&path, 1000, 3));
    let node = reopen(&covered);
    assert_eq!(node.opened.snapshots.latest().unwrap().last, id(1, 4));
    assert_eq!(
        node.opened.recovery.bad_snapshots,
        std::slice::from_ref(&path)
    );
    drop(node);
    assert_eq!(reopen(&covered).opened.recovery.bad_snapshots.len(), 0);

    let mut node = reopen(&disk.kill());
    node.opened.wal.purge_through(id(1, 9));
    node.settle();
    let disk = disk.kill();
    assert!(disk.flip_bit(&path, 1000, 3));
    let error = Node::open(Arc::new(disk), options()).err().unwrap();
    assert!(
        matches!(&error, OpenError::Corrupt { path: at, .. } if *at == path),
        "{error}"
    );
}

#[test]
fn missing_parts_are_refused() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..300, 600)).unwrap();
    node.snapshot(id(1, 20), 1).unwrap();
    node.opened.wal.purge_through(id(1, 20));
    node.settle();
    node.close();
    let parts = disk.files();
    let mut refused = 0;
    for (path, _) in &parts {
        let disk = disk.fork();
        disk.remove_file(path).unwrap();
        let harmless = ["reserve", "spare-", "metadata-"];
        let name = path.file_name().unwrap().to_str().unwrap();
        match Node::open(Arc::new(disk.clone()), options()) {
            Ok(node) => {
                assert!(
                    harmless.iter().any(|start| name.starts_with(start)),
                    "{name}"
                );
                assert_eq!(node.all(), records(1, 21..300, 600), "{name}");
            }
            Err(OpenError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert!(refused >= 4, "{parts:?}");
    let both = disk.fork();
    for name in ["metadata-a", "metadata-b"] {
        both.remove_file(&layout().metadata.join(name)).unwrap();
    }
    assert!(matches!(
        Node::open(Arc::new(both), options()),
        Err(OpenError::Metadata { .. })
    ));
}

#[test]
fn an_unfinished_snapshot_is_removed_without_waiting_where_that_is_forbidden() {
    let disk = SimDisk::new(1);
    let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    let unfinished = |disk: &SimDisk| {
        let files = disk.files().into_iter();
        files
            .filter(|(path, _)| path.extension().is_some_and(|end| end == "part"))
            .count()
    };
    let meta = SnapshotMeta {
        last: id(1, 7),
        extra: Bytes::new(),
    };
    let begin = |node: &Node| {
        let mut writer = node.opened.snapshots.create(meta.clone());
        writer.block(b"some of it").unwrap();
        writer
    };
    drop(begin(&node));
    assert_eq!(unfinished(&disk), 0, "at once where that is allowed");

    let writer = begin(&node);
    let mut receiver = node.opened.snapshots.receive();
    receiver.write_raw(0, b"a piece").unwrap();
    let scope = guard::forbid();
    drop((writer, receiver));
    assert_eq!(disk.stats().forbidden, 0, "it has waited for the disk");
    drop(scope);
    assert_eq!(unfinished(&disk), 2);
    node.opened.snapshots.space().unwrap();
    assert_eq!(unfinished(&disk), 0);

    // The last reader of a snapshot that is gone does not free it either.
    node.snapshot(id(1, 1), 3).unwrap();
    let reader = node.opened.snapshots.open_latest().unwrap();
    for index in 2..6 {
        node.snapshot(id(1, index), 3).unwrap();
    }
    let used = |disk: &SimDisk| u64::MAX - disk.free_space(&layout().log).unwrap();
    let before = used(&disk);
    drop(reader);
    assert_eq!(used(&disk), before);
    node.opened.snapshots.space().unwrap();
    assert!(used(&disk) < before);
}
