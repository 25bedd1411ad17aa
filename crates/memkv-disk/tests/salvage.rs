//! What is left of a stopped directory, however much of it is damaged: the beginning of its log, everything else
//! named, and nothing changed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::*;
use memkv_disk::disk::Disk;
use memkv_disk::disk::real::RealDisk;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{Layout, LogId, OpenError, Record, Restoring, Salvage, quarantine};

/// What a directory gave out.
struct Given {
    snapshot: Option<LogId>,
    records: Vec<Record>,
    salvage: Salvage,
}

impl Given {
    /// The index behind the last entry.
    fn next(&self) -> u64 {
        let snapshot = self.snapshot.map_or(0, |last| last.index + 1);
        self.records
            .last()
            .map_or(snapshot, |last| last.id.index + 1)
    }

    fn flaws(&self) -> Vec<String> {
        let passed_over = self.salvage.passed_over.iter();
        let stopped = self.salvage.stopped.iter();
        stopped
            .chain(passed_over)
            .map(ToString::to_string)
            .collect()
    }
}

fn salvage_at(disk: &dyn Disk, layout: &Layout) -> Result<Given, OpenError> {
    let mut salvage = Salvage::open(disk, layout)?;
    let snapshot = salvage.snapshot().unwrap();
    let snapshot = snapshot.map(|mut reader| {
        while reader.next_block().unwrap().is_some() {}
        reader.meta().last
    });
    let mut records = Vec::new();
    loop {
        let more = salvage.next_records().unwrap();
        if more.is_empty() {
            break;
        }
        records.extend(more);
    }
    Ok(Given {
        snapshot,
        records,
        salvage,
    })
}

/// Salvages, and holds that the disk stays as it is.
fn salvage(disk: &SimDisk) -> Result<Given, OpenError> {
    let before = (disk.op_count(), disk.files());
    let given = salvage_at(disk, &layout());
    assert_eq!((disk.op_count(), disk.files()), before, "nothing changes");
    given
}

/// A directory with two segments, the second after a truncation, and two snapshots; and its records behind the newer.
fn directory() -> (SimDisk, Vec<Record>) {
    let disk = SimDisk::new(7);
    let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    node.append(records(1, 0..40, 60)).unwrap();
    node.call(|wal, done| wal.save_hard_state(vote(5), done))
        .unwrap();
    node.snapshot(id(1, 5), 3).unwrap();
    node.snapshot(id(1, 29), 3).unwrap();
    node.call(|wal, done| wal.truncate_after(Some(37), done))
        .unwrap();
    for index in 38..46 {
        node.append(vec![record(5, index, 30)]).unwrap();
    }
    node.close();
    let mut all = records(1, 30..38, 60);
    all.extend(records(5, 38..46, 30));
    (disk.kill(), all)
}

fn file(disk: &SimDisk, ends: &str, at: usize) -> PathBuf {
    let files = disk.files().into_iter().map(|(path, _)| path);
    let mut found = files.filter(|path| path.to_str().unwrap().ends_with(ends));
    found.nth(at).unwrap()
}

#[test]
fn a_whole_directory_is_given_out_as_it_is() {
    let (disk, all) = directory();
    let given = salvage(&disk).unwrap();
    assert_eq!(given.snapshot, Some(id(1, 29)));
    assert_eq!(given.records, all);
    assert_eq!(given.flaws(), Vec::<String>::new());
    assert_eq!(given.salvage.condemned, None);
    assert!(given.salvage.locked && given.salvage.metadata.is_some());
    assert!(
        (29..46).contains(&given.salvage.committed),
        "what is in a snapshot is committed"
    );
}

#[test]
fn no_flipped_bit_gives_out_another_record_and_what_is_missing_is_named() {
    let (disk, all) = directory();
    let whole = all.last().unwrap().id.index + 1;
    let older = records(1, 6..38, 60);
    let (mut flips, mut less, mut fallen_back) = (0, 0, 0);
    for (path, len) in disk.files() {
        let dense = (0..len.min(2_000)).step_by(3);
        for at in dense.chain((2_000..len).step_by(997)) {
            let disk = disk.fork();
            disk.flip_bit(&path, at, (at % 8) as u32);
            let what = format!("{}, byte {at}", path.display());
            let given = salvage(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            flips += 1;
            let expected = match given.snapshot {
                Some(last) if last == id(1, 29) => all.clone(),
                Some(last) if last == id(1, 5) => {
                    fallen_back += 1;
                    older
                        .iter()
                        .cloned()
                        .chain(all[8..].iter().cloned())
                        .collect()
                }
                other => panic!("{what}: snapshot {other:?}"),
            };
            assert!(expected.starts_with(&given.records), "{what}");
            if given.next() < whole {
                less += 1;
                let flaws = given.flaws().join("; ");
                assert!(flaws.contains("offset"), "{what}: {flaws}");
                let named = [&path, path.parent().unwrap()]
                    .iter()
                    .any(|path| flaws.contains(path.to_str().unwrap()));
                assert!(named, "{what}: {flaws}");
            }
        }
    }
    assert!(
        flips > 1_000 && less > 300 && fallen_back > 30,
        "{flips} {less} {fallen_back}"
    );
}

#[test]
fn the_records_end_where_a_segment_is_missing_and_a_record_behind_it_is_never_given_out() {
    let disk = SimDisk::new(1);
    let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    for index in 0..60 {
        node.append(vec![record(2, index, 6_000)]).unwrap();
    }
    node.close();
    let disk = disk.kill();
    let segments = disk.files();
    let segments: Vec<&PathBuf> = segments
        .iter()
        .map(|(path, _)| path)
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        .collect();
    assert!(segments.len() >= 4, "{segments:?}");
    for (at, segment) in segments.iter().enumerate() {
        let disk = disk.fork();
        disk.remove_file(segment).unwrap();
        let given = salvage(&disk).unwrap();
        assert!(records(2, 0..60, 6_000).starts_with(&given.records));
        assert!(given.next() < 60);
        let flaw = given.salvage.stopped.as_ref().unwrap();
        assert!(at > 0 || given.records.is_empty(), "{flaw}");
    }
}

#[test]
fn a_log_whose_snapshot_is_gone_gives_out_nothing_and_knows_that_it_was_committed() {
    let (disk, _) = directory();
    let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    node.opened.wal.purge_through(id(1, 29));
    node.settle();
    node.close();
    let disk = disk.kill();
    disk.remove_file(&file(&disk, ".snap", 1)).unwrap();
    let given = salvage(&disk).unwrap();
    assert_eq!((given.snapshot, given.records.len()), (Some(id(1, 5)), 0));
    let flaw = given.salvage.stopped.as_ref().unwrap().to_string();
    assert!(
        flaw.contains("begins at index 30") && flaw.contains("index 5"),
        "{flaw}"
    );
    assert!(given.salvage.committed >= 29, "it is known to be lost here");
}

#[test]
fn without_a_snapshot_the_log_is_given_out_from_its_beginning() {
    let (disk, _) = directory();
    for _ in 0..2 {
        disk.remove_file(&file(&disk, ".snap", 0)).unwrap();
    }
    let given = salvage(&disk).unwrap();
    assert_eq!((given.snapshot, given.next()), (None, 46));
}

#[test]
fn lost_metadata_cost_the_identity_and_no_record() {
    let (disk, all) = directory();
    for copy in ["metadata-a", "metadata-b"] {
        disk.remove_file(&file(&disk, copy, 0)).unwrap();
    }
    let given = salvage(&disk).unwrap();
    assert!(given.salvage.metadata.is_none());
    assert_eq!(given.records, all);
    assert!(given.flaws()[0].contains("there are no metadata"));
    drop(given);
    // A header that is lost as well may be the one that dropped everything before it.
    disk.flip_bit(&file(&disk, ".log", 1), 100, 1);
    let given = salvage(&disk).unwrap();
    assert_eq!((given.snapshot, given.records.len()), (Some(id(1, 29)), 0));
}

#[test]
fn a_snapshot_of_another_history_is_not_continued_by_the_log() {
    let disk = SimDisk::new(3);
    let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    node.append(records(1, 0..40, 60)).unwrap();
    // A leader's snapshot has arrived, and the machine died before the log was dropped.
    node.snapshot(id(4, 20), 2).unwrap();
    node.close();
    let given = salvage(&disk.kill()).unwrap();
    assert_eq!((given.snapshot, given.records.len()), (Some(id(4, 20)), 0));
    let flaw = given.salvage.stopped.unwrap().to_string();
    assert!(flaw.contains("two histories"), "{flaw}");
}

#[test]
fn a_torn_tail_is_no_damage() {
    let disk = SimDisk::new(5);
    let mut node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    node.append(records(1, 0..5, 700)).unwrap();
    let last = disk.op_count();
    disk.crash_at_op(last + 1);
    let _ = node.append(records(1, 5..9, 700));
    let given = salvage(&disk.crash(2)).unwrap();
    assert!(records(1, 0..9, 700).starts_with(&given.records) && given.records.len() >= 5);
    assert_eq!(given.salvage.stopped, None);
}

#[test]
fn a_running_node_and_a_restore_that_was_cut_short_are_refused_and_a_mark_is_told() {
    let disk = SimDisk::new(1);
    let node = Node::open(Arc::new(disk.clone()), options()).unwrap();
    assert!(matches!(salvage(&disk), Err(OpenError::Locked { .. })));
    node.close();
    memkv_disk::condemn(&disk, &layout(), "its disk went back in time").unwrap();
    let given = salvage(&disk).unwrap();
    let why = given.salvage.condemned.as_deref();
    assert_eq!(why, Some("its disk went back in time"));
    drop(given);
    let other = SimDisk::new(2);
    drop(Restoring::begin(Arc::new(other.clone()), &layout(), options()).unwrap());
    assert!(matches!(salvage(&other), Err(OpenError::Restoring { .. })));
}

#[test]
fn a_directory_that_was_set_aside_is_read_where_it_lies() {
    let (disk, all) = directory();
    disk.flip_bit(&file(&disk, ".log", 0), 600, 1);
    quarantine(Arc::new(disk.clone()), &layout()).unwrap();
    let given = salvage_at(&disk, &layout().set_aside(1)).unwrap();
    assert!(all.starts_with(&given.records));
    let empty = salvage(&disk).unwrap();
    assert!(empty.salvage.is_empty());
}

#[test]
fn a_directory_that_does_not_exist_is_empty() {
    let given = salvage_at(&SimDisk::new(1), &Layout::under(Path::new("/none"))).unwrap();
    assert!(given.salvage.is_empty() && given.salvage.metadata.is_none());
    assert!(!given.flaws().is_empty());
}

/// The content, the length and the times of every file.
fn state(dir: &Path) -> Vec<(PathBuf, Bytes, std::time::SystemTime)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let modified = path.metadata().unwrap().modified().unwrap();
        if path.is_dir() {
            files.extend(state(&path));
            files.push((path, Bytes::new(), modified));
        } else {
            let content = std::fs::read(&path).unwrap();
            files.push((path, content.into(), modified));
        }
    }
    files.sort();
    files
}

#[test]
fn real_files_stay_as_they_are_and_need_no_right_to_write() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::under(root.path());
    let opened = memkv_disk::open(Arc::new(RealDisk), &layout, options()).unwrap();
    let mut node = Node { opened };
    node.append(records(1, 0..9, 60)).unwrap();
    assert!(matches!(
        Salvage::open(&RealDisk, &layout),
        Err(OpenError::Locked { .. })
    ));
    node.close();
    let before = state(root.path());
    let files = before.iter().map(|(path, _, _)| path);
    for path in files {
        let mode = if path.is_dir() { 0o500 } else { 0o400 };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let given = salvage_at(&RealDisk, &layout).unwrap();
    assert_eq!(given.records, records(1, 0..9, 60));
    // While it is read, no node begins to work on it.
    let starts = memkv_disk::open(Arc::new(RealDisk), &layout, options());
    assert!(starts.is_err());
    assert_eq!(state(root.path()), before);
    drop(given);
    for (path, _, _) in before.iter().filter(|(path, _, _)| path.is_dir()) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o700)).unwrap();
    }
    std::fs::remove_file(layout.log.join("memkv.lock")).unwrap();
    assert!(!salvage_at(&RealDisk, &layout).unwrap().salvage.locked);
}
