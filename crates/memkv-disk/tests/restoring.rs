//! A restore into a directory: all of it or nothing, whenever the machine dies.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::*;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{OpenError, Restoring, SnapshotMeta};

const IDENTITY: &[u8] = b"who it is";

/// Restores a snapshot of a few blocks.
fn restore(disk: &SimDisk) -> Result<(), OpenError> {
    let restoring = Restoring::begin(Arc::new(disk.clone()), &layout(), options())?;
    let mut writer = restoring.snapshot(SnapshotMeta {
        last: id(0, 1),
        extra: Bytes::from_static(b"members"),
    });
    let write = move || {
        for at in 0..5u8 {
            writer.block(&[at; 900])?;
        }
        writer.finish()
    };
    write().map_err(|source| OpenError::Io {
        action: "write the snapshot in",
        path: layout().snapshot,
        source,
    })?;
    restoring.finish(id(0, 1), Bytes::from_static(IDENTITY))
}

fn reopen(disk: &SimDisk) -> Result<Node, OpenError> {
    Node::open(Arc::new(disk.clone()), options())
}

/// Whether the directory holds all of the restore.
fn is_whole(node: &Node) -> bool {
    let opened = &node.opened;
    let Some(mut reader) = opened.snapshots.open_latest().unwrap() else {
        return false;
    };
    let mut blocks = 0;
    while let Some(block) = reader.next_block().unwrap() {
        assert_eq!(block, [blocks; 900]);
        blocks += 1;
    }
    blocks == 5
        && opened.metadata.identity == IDENTITY
        && opened.metadata.boot == 0
        && opened.log.purged() == Some(id(0, 1))
}

#[test]
fn a_restored_directory_holds_all_and_its_log_goes_on_behind() {
    let disk = SimDisk::new(1);
    restore(&disk).unwrap();
    let mut node = reopen(&disk.crash(1)).unwrap();
    assert!(is_whole(&node));
    node.append(records(1, 2..5, 40)).unwrap();
    assert_eq!(node.all(), records(1, 2..5, 40));
}

#[test]
fn a_directory_with_data_is_refused_and_stays_as_it_is() {
    let disk = SimDisk::new(1);
    reopen(&disk).unwrap().append(records(1, 0..3, 40)).unwrap();
    let before = disk.files();
    let refused = restore(&disk).unwrap_err();
    assert!(matches!(refused, OpenError::NotEmpty { .. }), "{refused}");
    assert_eq!(disk.files(), before);
    assert_eq!(reopen(&disk).unwrap().all(), records(1, 0..3, 40));
}

#[test]
fn a_restored_directory_is_one_with_data() {
    let disk = SimDisk::new(1);
    restore(&disk).unwrap();
    assert!(matches!(restore(&disk), Err(OpenError::NotEmpty { .. })));
}

#[test]
fn a_directory_in_use_is_refused() {
    let disk = SimDisk::new(1);
    let _node = reopen(&disk).unwrap();
    assert!(matches!(restore(&disk), Err(OpenError::Locked { .. })));
}

#[test]
fn a_restore_that_was_given_up_leaves_a_directory_that_does_not_open() {
    let disk = SimDisk::new(1);
    let begin = || Restoring::begin(Arc::new(disk.clone()), &layout(), options());
    drop(begin().unwrap());
    let refused = reopen(&disk).err().unwrap();
    assert!(matches!(refused, OpenError::Restoring { .. }), "{refused}");
    restore(&disk).unwrap();
    assert!(is_whole(&reopen(&disk).unwrap()));
}

#[test]
fn a_machine_that_dies_at_any_moment_leaves_all_or_nothing() {
    let disk = SimDisk::new(1);
    restore(&disk).unwrap();
    let operations = disk.op_count();
    assert!(operations > 20, "{operations}");
    let (mut whole, mut cut, mut nothing) = (0, 0, 0);
    for (at, seed) in (1..=operations).flat_map(|at| (0..4).map(move |seed| (at, seed))) {
        let disk = SimDisk::new(1);
        disk.crash_at_op(at);
        // The last operations may follow its end.
        let _ = restore(&disk);
        let disk = disk.crash(seed);
        match reopen(&disk.fork()) {
            Ok(node) if is_whole(&node) => whole += 1,
            Ok(node) => {
                assert!(
                    node.opened.recovery.fresh,
                    "{at}: a part of a restore opens"
                );
                assert!(node.opened.metadata.identity.is_empty(), "{at}");
                assert!(node.opened.snapshots.latest().is_none(), "{at}");
                nothing += 1;
                restore(&disk).unwrap();
            }
            Err(OpenError::Restoring { .. }) => {
                cut += 1;
                restore(&disk).unwrap();
                assert!(is_whole(&reopen(&disk).unwrap()), "{at}");
            }
            Err(error) => panic!("{at}: {error}"),
        }
    }
    assert!(
        whole > 0 && cut > 10 && nothing > 0,
        "{whole} {cut} {nothing}"
    );
}
