//! A directory that is filled anew with what was salvaged of it: the old one or the new one, whenever the machine
//! dies, and no old file is lost.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use memkv_disk::disk::Disk;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{ClockFile, OpenError, Recovery, Restoring, Salvage, SnapshotMeta};

const IDENTITY: &[u8] = b"the new one";

/// A directory with a log and a snapshot, as a node has left it.
fn old() -> SimDisk {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk).unwrap();
    node.append(records(3, 0..30, 90)).unwrap();
    node.snapshot(id(3, 9), 3).unwrap();
    drop(ClockFile::open(&disk, &layout()).unwrap());
    disk.sync_dir(&layout().metadata).unwrap();
    node.close();
    disk.kill()
}

fn reopen(disk: &SimDisk) -> Result<Node, OpenError> {
    Node::open(Arc::new(disk.clone()), options())
}

fn io(source: std::io::Error) -> OpenError {
    OpenError::Io {
        action: "write in",
        path: layout().metadata,
        source,
    }
}

/// All of a recovery, or the rest of one that was cut short.
fn recover(disk: &SimDisk) -> Result<Recovery, OpenError> {
    let found = Recovery::find(disk, &layout())?;
    let (recovery, boot) = match found {
        Some(recovery) => (recovery, None),
        None => {
            let salvage = Salvage::open(disk, &layout())?;
            let boot = salvage.metadata.as_ref().map(|metadata| metadata.boot);
            drop(salvage);
            let recovery = Recovery::begin(disk, &layout())?;
            let path = recovery.backup(&layout());
            let write = || {
                let file = disk.create(&path)?;
                file.write_at(0, &[IoSlice::new(b"the backup")])?;
                file.sync_data()?;
                disk.sync_dir(path.parent().unwrap())
            };
            write().map_err(io)?;
            (recovery, boot)
        }
    };
    recovery.set_aside(disk, &layout(), boot)?;
    let mut text = [0; 10];
    let file = disk.open_to_read(&recovery.backup(&layout())).map_err(io)?;
    file.read_at(0, &mut text).map_err(io)?;
    assert_eq!(&text, b"the backup");
    let restoring = Restoring::begin(Arc::new(disk.clone()), &layout(), options())?;
    let mut writer = restoring.snapshot(SnapshotMeta {
        last: id(0, 1),
        extra: Bytes::from_static(b"members"),
    });
    let mut write = || writer.block(&[7; 900]);
    write().map_err(io)?;
    writer.finish().map_err(io)?;
    restoring.finish(id(0, 1), Bytes::from_static(IDENTITY))?;
    Ok(recovery)
}

/// The old directory, where it lies now, still gives out all that it held.
fn check_aside(disk: &SimDisk, number: u64) {
    let mut salvage = Salvage::open(disk, &layout().set_aside(number)).unwrap();
    let snapshot = salvage.snapshot().unwrap().unwrap();
    assert_eq!(snapshot.meta().last, id(3, 9));
    assert_eq!(salvage.next_records().unwrap(), records(3, 10..30, 90));
    assert!(salvage.stopped.is_none() && salvage.passed_over.is_empty());
    let clock = layout().set_aside(number).metadata.join("clock");
    assert!(disk.open_to_read(&clock).is_ok(), "nothing is deleted");
}

#[test]
fn a_recovered_directory_is_a_new_one_and_the_old_one_lies_beside_it() {
    let disk = old();
    let recovery = recover(&disk).unwrap();
    let disk = disk.crash(1);
    let node = reopen(&disk).unwrap();
    assert_eq!(node.opened.metadata.identity, IDENTITY);
    check_aside(&disk, recovery.number);
    assert_eq!(Recovery::find(&disk, &layout()).unwrap(), None);
    drop(node);
    // A second time it is what was recovered that is set aside, under another number.
    let again = recover(&disk).unwrap();
    assert_eq!(again.number, recovery.number + 1);
    check_aside(&disk, recovery.number);
}

#[test]
fn a_machine_that_dies_at_any_moment_leaves_the_old_one_the_new_one_or_one_that_says_what_to_do() {
    let disk = old();
    let begin = disk.op_count();
    recover(&disk).unwrap();
    let operations = disk.op_count();
    assert!(operations - begin > 40, "{operations}");
    let (mut before, mut between, mut after) = (0, 0, 0);
    for (at, seed) in (begin + 1..=operations).flat_map(|at| (0..3).map(move |seed| (at, seed))) {
        let disk = old();
        disk.crash_at_op(at);
        // The last operations may follow its end.
        let _ = recover(&disk);
        let disk = disk.crash(seed);
        let mut is_done = false;
        match reopen(&disk.fork()) {
            Ok(node) if node.opened.metadata.identity == IDENTITY => {
                is_done = true;
                after += 1;
            }
            Ok(node) => {
                assert_eq!(
                    node.all(),
                    records(3, 0..30, 90),
                    "{at}: not all of the old one"
                );
                before += 1;
            }
            Err(OpenError::Recovering { .. }) => between += 1,
            Err(error) => panic!("{at}: {error}"),
        }
        let recovery = recover(&disk).unwrap_or_else(|error| panic!("{at}: {error}"));
        let disk = disk.crash(seed);
        let node = reopen(&disk).unwrap();
        assert_eq!(node.opened.metadata.identity, IDENTITY, "{at}");
        let number = if is_done { 1 } else { recovery.number };
        check_aside(&disk, number);
    }
    assert!(
        before > 5 && between > 40 && after > 0,
        "{before} {between} {after}"
    );
}

#[test]
fn another_restore_does_not_go_in_between_and_a_node_that_ran_since_is_noticed() {
    let disk = old();
    let recovery = Recovery::begin(&disk, &layout()).unwrap();
    let refused = recovery.set_aside(&disk, &layout(), Some(77)).unwrap_err();
    assert!(
        refused.to_string().contains("a node has run here since"),
        "{refused}"
    );
    assert!(reopen(&disk).is_ok(), "it is as it was");
    // It dies with the mark, and with nothing moved.
    let marked = old();
    let recovery = Recovery::begin(&marked, &layout()).unwrap();
    let ops = marked.op_count();
    marked.crash_at_op(ops + 6);
    let _ = recovery.set_aside(&marked, &layout(), Some(0));
    let marked = marked.crash(1);
    assert!(Recovery::find(&marked, &layout()).unwrap().is_some());
    let refused = Restoring::begin(Arc::new(marked.clone()), &layout(), options()).err();
    assert!(
        matches!(refused, Some(OpenError::Recovering { .. })),
        "{refused:?}"
    );
    assert!(matches!(
        reopen(&marked).err(),
        Some(OpenError::Recovering { .. })
    ));
}
