//! The deliberate bugs lose data that the other tests would miss if they proved nothing.

#![cfg(memkv_bugs)]
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;
mod script;

use std::panic::catch_unwind;
use std::sync::Arc;

use common::*;
use memkv_disk::bugs::{Bug, set};
use memkv_disk::disk::sim::SimDisk;
use script::enumerate;

/// Scripts among which each bug must be found.
const SCRIPTS: u64 = 6;

/// One test, since the switch is global.
#[test]
fn deliberate_bugs_lose_acknowledged_records() {
    for bug in [None, Some(Bug::SkipFsync)] {
        set(bug);
        let mut lost = 0;
        for seed in 0..50 {
            let disk = SimDisk::new(seed);
            let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
            node.append(records(1, 0..20, 700)).unwrap();
            let node = Node::open(Arc::new(disk.crash(seed)), options()).unwrap();
            lost += usize::from(node.all().len() < 20);
        }
        assert_eq!(lost > 0, bug.is_some(), "{bug:?}: {lost}");
    }
    for bug in [None, Some(Bug::TruncateAtBadChecksum)] {
        set(bug);
        let disk = SimDisk::new(1);
        let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
        node.append(records(1, 0..5, 700)).unwrap();
        node.append(records(1, 5..6, 700)).unwrap();
        let disk = disk.kill();
        let files = disk.files();
        let segment = files
            .iter()
            .find(|(path, _)| path.extension().is_some_and(|e| e == "log"));
        assert!(disk.flip_bit(&segment.unwrap().0, 2000, 1));
        match Node::open(Arc::new(disk), options()) {
            Ok(node) => assert!(bug.is_some() && node.all().len() < 6, "{bug:?}"),
            Err(error) => assert!(bug.is_none(), "{bug:?}: {error}"),
        }
    }
    for bug in [
        Bug::VoteAfterRecords,
        Bug::MetadataAtOnce,
        Bug::OlderOfTwoSegments,
    ] {
        set(Some(bug));
        let found = (0..SCRIPTS).position(|seed| catch_unwind(|| enumerate(seed, 70, 6)).is_err());
        assert!(found.is_some(), "{bug:?} is not found by {SCRIPTS} scripts");
        println!("{bug:?}: found by script {}", found.unwrap());
    }
    set(None);
    enumerate(0, 70, 6);
}
