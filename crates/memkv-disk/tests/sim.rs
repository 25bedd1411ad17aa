//! The API on the simulated disk, and the promises of the simulated disk itself.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::io::{ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use memkv_disk::disk::sim::{Op, SimDisk};
use memkv_disk::disk::{Disk, DiskFile};
use memkv_disk::record::MAX_PAYLOAD;
use memkv_disk::{LogId, OpenError, Options, quarantine};

fn reopen(disk: &SimDisk) -> Node {
    Node::open(Arc::new(disk.clone()), options()).unwrap()
}

#[test]
fn records_are_readable_at_once_and_durable_when_answered() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    let answers = Answers::default();
    node.opened.wal.append(records(1, 0..5, 40), answers.done());
    assert_eq!(node.all(), records(1, 0..5, 40));
    assert_eq!(node.opened.log.last(), Some(id(1, 4)));
    assert_eq!(node.opened.wal.durable(), None);
    assert_eq!(answers.count(), 0);
    node.settle();
    assert_eq!(answers.count(), 1);
    assert_eq!(node.opened.wal.durable(), Some(id(1, 4)));
    for seed in 0..20 {
        let node = reopen(&disk.fork().crash(seed));
        assert_eq!(node.all(), records(1, 0..5, 40));
    }
}

#[test]
fn rounds_cost_one_write_and_one_sync_of_the_log() {
    // What takes direct writes, refuses them, and offers none: see `SimDisk::new`.
    for (seed, direct) in [(1, true), (2, false), (3, false)] {
        let disk = SimDisk::new(seed);
        let mut node = reopen(&disk);
        node.append(records(1, 0..1, 10)).unwrap();
        let before = disk.stats();
        for index in 1..100 {
            node.opened
                .wal
                .append(records(1, index..index + 1, 10), Box::new(|_| {}));
        }
        node.settle();
        let after = disk.stats();
        assert_eq!(after.operations - before.operations, 2);
        assert_eq!(after.syncs - before.syncs, 1);
        assert_eq!(after.direct - before.direct, u64::from(direct));
    }
}

#[test]
fn a_disk_that_refuses_direct_writes_loses_nothing() {
    let disk = SimDisk::new(2);
    let mut node = reopen(&disk);
    for next in 0..200 {
        node.append(records(1, next..next + 1, 900)).unwrap();
    }
    assert!(node.opened.log.segment_count() > 2);
    assert_eq!(disk.stats().direct, 0);
    assert_eq!(reopen(&disk.crash(3)).all(), records(1, 0..200, 900));
}

#[test]
fn answers_come_in_the_order_of_the_calls() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let done = |name: &'static str| {
        let order = order.clone();
        Box::new(move |result: std::io::Result<()>| {
            order.lock().unwrap().push((name, result.is_ok()));
        })
    };
    let wal = &node.opened.wal;
    wal.append(records(1, 0..3, 10), done("append"));
    wal.save_hard_state(vote(2), done("vote"));
    wal.append(records(1, 7..8, 10), done("gap"));
    wal.truncate_after(Some(1), done("truncate"));
    wal.append(records(2, 2..3, 10), done("append again"));
    wal.save_identity(vec![0; 1 << 20].into(), 1, done("identity"));
    node.settle();
    assert_eq!(
        *order.lock().unwrap(),
        [
            ("append", true),
            ("vote", true),
            ("gap", false),
            ("truncate", true),
            ("append again", true),
            ("identity", false)
        ]
    );
    let mut expected = records(1, 0..2, 10);
    expected.extend(records(2, 2..3, 10));
    assert_eq!(node.all(), expected);
}

#[test]
fn reads_are_bounded_and_the_same_from_memory_and_from_disk() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    for index in 0..300 {
        node.append(vec![record(1, index, 500)]).unwrap();
    }
    let log = &node.opened.log;
    assert!(log.segment_count() >= 2, "the log must span segments");
    let size = record(1, 100, 500).encoded_len();
    assert_eq!(
        log.read(0..300, u64::MAX, usize::MAX).unwrap(),
        records(1, 0..300, 500)
    );
    // From disk, from memory (the last 4 KiB), and across the border.
    for start in [0, 110, 290, 299] {
        let end = (start + 5).min(300);
        assert_eq!(
            log.read(start..300, u64::MAX, 5).unwrap(),
            records(1, start..end, 500)
        );
        assert_eq!(
            log.read(start..end, u64::MAX, 9).unwrap(),
            records(1, start..end, 500)
        );
        assert_eq!(
            log.read(start..300, 0, 0).unwrap(),
            records(1, start..start + 1, 500)
        );
        let two = (start + 2).min(300);
        assert_eq!(
            log.read(start..300, size * 2 + 1, 9).unwrap(),
            records(1, start..two, 500)
        );
    }
    assert_eq!(log.read(300..400, u64::MAX, 9).unwrap(), []);
    assert_eq!(log.id_at(42), Some(id(1, 42)));
    assert_eq!(log.id_at(300), None);
    assert!(log.size_bytes() > 300 * 500);
}

#[test]
fn the_last_of_each_leader_is_known_without_a_read() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    // Leaders of one record and of many, over several segments.
    let terms = [1, 1, 1, 2, 3, 3, 5, 5, 5];
    let of = |index: u64| id(terms[index as usize / 7] + u64::from(index == 41), index);
    let end = 7 * terms.len() as u64;
    for index in 0..end {
        let record = record(of(index).term, index, 3_000);
        node.append(vec![record]).unwrap();
    }
    assert!(node.opened.log.segment_count() > 2);
    let check = |node: &Node, first: u64| {
        for start in 0..=end {
            for stop in start..=end {
                let mut expected: Vec<LogId> = Vec::new();
                for index in start.max(first)..(stop + 1).min(end) {
                    expected.pop_if(|last| last.term == of(index).term);
                    expected.push(of(index));
                }
                let found = node.opened.log.last_of_each_leader(start..=stop);
                assert_eq!(found, expected, "{start}..={stop}");
            }
        }
    };
    check(&node, 0);
    node.snapshot(of(25), 1).unwrap();
    node.opened.wal.purge_through(of(25));
    check(&node, 26);
    node.settle();
    node.close();
    let node = reopen(&disk);
    disk.fail_next(Op::Read, ErrorKind::Other);
    check(&node, 26);
}

#[test]
fn truncation_survives_and_does_not_come_back() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..50, 100)).unwrap();
    node.call(|wal, done| wal.truncate_after(Some(29), done))
        .unwrap();
    assert_eq!(node.opened.log.last(), Some(id(1, 29)));
    assert_eq!(reopen(&disk.fork().crash(3)).all(), records(1, 0..30, 100));
    node.append(records(2, 30..40, 100)).unwrap();
    node.call(|wal, done| wal.truncate_after(Some(34), done))
        .unwrap();
    node.call(|wal, done| wal.truncate_after(Some(99), done))
        .unwrap();
    node.call(|wal, done| wal.truncate_after(Some(9), done))
        .unwrap();
    node.append(records(3, 10..12, 100)).unwrap();
    let mut expected = records(1, 0..10, 100);
    expected.extend(records(3, 10..12, 100));
    for seed in 0..10 {
        assert_eq!(reopen(&disk.fork().crash(seed)).all(), expected);
    }
    node.call(|wal, done| wal.truncate_after(None, done))
        .unwrap();
    assert_eq!(node.opened.log.last(), None);
    assert_eq!(reopen(&disk.fork().crash(5)).all(), []);
    node.append(records(4, 0..2, 10)).unwrap();
    assert_eq!(reopen(&disk.crash(6)).all(), records(4, 0..2, 10));
}

#[test]
fn purge_is_seen_at_once_survives_and_frees_files() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..600, 500)).unwrap();
    let segments = node.opened.log.segment_count();
    assert!(segments >= 4);
    node.snapshot(id(1, 449), 3).unwrap();
    node.opened.wal.purge_through(id(1, 449));
    assert_eq!(node.opened.log.purged(), Some(id(1, 449)));
    assert_eq!(node.opened.log.first(), Some(id(1, 450)));
    assert_eq!(node.opened.log.id_at(449), Some(id(1, 449)));
    assert_eq!(node.opened.log.id_at(448), None);
    node.opened.wal.purge_through(id(1, 10));
    assert_eq!(node.opened.log.purged(), Some(id(1, 449)), "never back");
    node.settle();
    assert!(node.opened.log.segment_count() < segments);
    let node = reopen(&disk.crash(2));
    assert_eq!(node.opened.log.purged(), Some(id(1, 449)));
    assert_eq!(node.all(), records(1, 450..600, 500));
}

#[test]
fn everything_may_be_purged_and_the_log_goes_on() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..20, 10)).unwrap();
    node.snapshot(id(1, 19), 1).unwrap();
    node.opened.wal.purge_through(id(1, 19));
    node.settle();
    let mut node = reopen(&disk.crash(2));
    assert_eq!(
        (node.opened.log.first(), node.opened.log.last()),
        (None, Some(id(1, 19)))
    );
    node.append(records(2, 20..22, 10)).unwrap();
    assert_eq!(reopen(&disk.crash(1)).all(), records(2, 20..22, 10));
}

#[test]
fn installed_snapshot_replaces_the_log() {
    let disk = SimDisk::new(1);
    for (case, through_purge) in [(0, true), (1, false)] {
        let disk = disk.fork();
        let mut node = reopen(&disk);
        node.append(records(1, 0..20, 10)).unwrap();
        node.snapshot(id(3, 500), 1).unwrap();
        if through_purge {
            node.opened.wal.purge_through(id(3, 500));
            node.settle();
        } else {
            node.call(|wal, done| wal.reset_to(id(3, 500), done))
                .unwrap();
        }
        assert_eq!(node.opened.log.last(), Some(id(3, 500)));
        let disk = disk.crash(case);
        let mut node = reopen(&disk);
        assert_eq!(node.opened.log.purged(), Some(id(3, 500)));
        assert_eq!(node.opened.log.first(), None);
        node.append(records(3, 501..510, 10)).unwrap();
        let node = reopen(&disk.crash(case));
        assert_eq!(node.all(), records(3, 501..510, 10));
        assert_eq!(node.opened.log.segment_count(), 1);
    }
}

#[test]
fn untouched_log_may_begin_anywhere() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 2..6, 10)).unwrap();
    assert_eq!(
        node.append(records(1, 7..8, 10)).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
    let node = reopen(&disk.crash(1));
    assert_eq!(node.all(), records(1, 2..6, 10));
    assert_eq!(node.opened.log.first(), Some(id(1, 2)));
}

#[test]
fn committed_hint_travels_with_records_and_stays_within_the_log() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..10, 10)).unwrap();
    node.opened.wal.save_committed(id(1, 7));
    node.append(records(1, 10..12, 10)).unwrap();
    let node = reopen(&disk.crash(1));
    assert_eq!(node.opened.metadata.committed_hint, Some(id(1, 7)));
    assert_eq!(node.opened.metadata.frontier, Some(id(1, 11)));
}

#[test]
fn record_larger_than_a_segment_gets_its_own() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    let mut expected = records(1, 0..3, 10);
    expected.push(record(1, 3, 300_000));
    expected.extend(records(1, 4..6, 10));
    node.append(expected.clone()).unwrap();
    // The next ones fit into the rest of its last 64 KiB.
    assert_eq!(node.opened.log.segment_count(), 2);
    assert_eq!(reopen(&disk.crash(1)).all(), expected);
}

#[test]
fn segments_grow_with_the_log_and_on_request() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    for index in 0..240 {
        node.append(vec![record(1, index, 60_000)]).unwrap();
    }
    let count = node.opened.log.segment_count();
    assert!((64..160).contains(&count), "{count} segments of 14 MiB");
    node.opened.wal.set_segment_bytes(16 << 20);
    node.append(records(1, 240..420, 60_000)).unwrap();
    assert!(node.opened.log.segment_count() <= count + 2);
    assert_eq!(reopen(&disk.crash(1)).all(), records(1, 0..420, 60_000));
}

#[test]
fn unsynced_durability_survives_a_kill_and_cuts_after_a_power_cut() {
    let options = Options {
        sync: false,
        ..options()
    };
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let mut node = Node::open(Arc::new(disk.clone()), options.clone()).unwrap();
        for index in 0..300 {
            node.append(vec![record(1, index, 700)]).unwrap();
        }
        node.call(|wal, done| wal.save_hard_state(vote(4), done))
            .unwrap();
        let killed = disk.fork();
        let survivor = Node::open(Arc::new(killed), options.clone()).unwrap();
        assert_eq!(survivor.all(), records(1, 0..300, 700));
        let disk = disk.crash(seed);
        let mut node = Node::open(Arc::new(disk.clone()), options.clone()).unwrap();
        let left = node.all();
        assert_eq!(
            left,
            records(1, 0..left.len() as u64, 700),
            "a prefix is left"
        );
        assert_eq!(
            node.opened.metadata.hard_state,
            Some(vote(4)),
            "votes are always synced"
        );
        let next = left.len() as u64;
        node.append(records(2, next..next + 3, 700)).unwrap();
        node.close();
        // A clean end syncs, and from then on nothing may be missing.
        let node = Node::open(Arc::new(disk.crash(seed)), common::options()).unwrap();
        assert_eq!(node.all().len() as u64, next + 3);
    }
}

#[test]
fn failed_sync_stops_everything_and_later_success_is_not_trusted() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..5, 10)).unwrap();
    disk.fail_next(Op::Sync, ErrorKind::Other);
    let answers = Answers::default();
    node.opened.wal.append(records(1, 5..8, 10), answers.done());
    node.opened.wal.save_committed(id(1, 4));
    let completions = node.opened.worker.poll().unwrap();
    node.opened.wal.append(records(1, 8..9, 10), answers.done());
    completions.fire();
    node.settle();
    node.opened.wal.save_hard_state(vote(3), answers.done());
    node.settle();
    assert_eq!(answers.errors(), [ErrorKind::Other; 3]);
    assert_eq!(node.opened.wal.durable(), Some(id(1, 4)));
    // The process ends; the page cache still shows records that the disk does not have.
    let disk = disk.kill();
    let node = reopen(&disk);
    assert_eq!(node.all(), records(1, 0..5, 10));
    assert_eq!(reopen(&disk.crash(1)).all(), records(1, 0..5, 10));
}

#[test]
fn failing_reads_are_errors_not_ends() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..300, 500)).unwrap();
    disk.fail_next(Op::Read, ErrorKind::Other);
    assert!(node.opened.log.read(0..300, u64::MAX, usize::MAX).is_err());
    assert_eq!(node.all(), records(1, 0..300, 500));
    node.close();
    let mut failures = 0;
    for step in 1..40 {
        let disk = disk.fork();
        disk.fail_rate(Op::Read, 20_000 * step);
        match Node::open(Arc::new(disk.clone()), options()) {
            Ok(node) => {
                disk.fail_rate(Op::Read, 0);
                assert_eq!(node.all(), records(1, 0..300, 500));
            }
            Err(OpenError::Io { .. }) => failures += 1,
            Err(other) => panic!("a read error was taken for {other}"),
        }
    }
    assert!(failures > 5, "too few reads failed: {failures}");
}

#[test]
fn second_open_is_refused_until_the_first_has_ended() {
    let disk = SimDisk::new(1);
    let node = reopen(&disk);
    let second = Node::open(Arc::new(disk.clone()), options()).err().unwrap();
    assert!(matches!(second, OpenError::Locked { .. }));
    assert!(matches!(
        quarantine(Arc::new(disk.clone()), &layout()),
        Err(OpenError::Locked { .. })
    ));
    drop(node);
    reopen(&disk);
}

#[test]
fn shutdown_answers_later_calls_with_an_error() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = woken.clone();
    node.opened.wal.set_wakeup(Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    let answers = Answers::default();
    node.opened.wal.append(records(1, 0..2, 10), answers.done());
    node.opened.wal.shutdown();
    assert_eq!(woken.load(Ordering::SeqCst), 2);
    node.settle();
    assert_eq!((answers.count(), answers.errors().len()), (1, 0));
    node.opened.wal.append(records(1, 2..3, 10), answers.done());
    assert_eq!((answers.count(), answers.errors().len()), (2, 1));
}

#[test]
fn wrong_calls_change_nothing() {
    let disk = SimDisk::new(1);
    let mut node = reopen(&disk);
    node.append(records(1, 0..3, 10)).unwrap();
    let mut gap = records(1, 3..6, 10);
    gap.remove(1);
    for wrong in [records(1, 4..5, 10), records(1, 2..3, 10), gap] {
        assert_eq!(
            node.append(wrong).unwrap_err().kind(),
            ErrorKind::InvalidInput
        );
    }
    assert_eq!(node.all(), records(1, 0..3, 10));
    assert!(MAX_PAYLOAD < u64::from(u32::MAX));
    node.append(Vec::new()).unwrap();
    node.append(records(1, 3..4, 10)).unwrap();
}

#[test]
fn simulated_disk_keeps_what_was_synced_and_tears_the_rest() {
    let (mut kept, mut torn, mut lost) = (0, 0, 0);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        let file = disk.create(&dir.join("a")).unwrap();
        write(&*file, 0, &[1; 2048]);
        file.sync_data().unwrap();
        disk.sync_dir(dir).unwrap();
        write(&*file, 1024, &[2; 2048]);
        let unnamed = disk.create(&dir.join("b")).unwrap();
        write(&*unnamed, 0, &[3; 10]);
        unnamed.sync_data().unwrap();
        let after = disk.crash(seed);
        assert!(file.len().is_err(), "handles of the old process are dead");
        let mut bytes = vec![0; 4096];
        let len = after
            .open(&dir.join("a"))
            .unwrap()
            .read_at(0, &mut bytes)
            .unwrap();
        assert_eq!(bytes[..1024], [1; 1024]);
        match bytes[1024..len].iter().filter(|byte| **byte == 2).count() {
            2048 => kept += 1,
            0 => lost += 1,
            count => {
                assert_eq!(count % 512, 0);
                torn += 1;
            }
        }
        let named = after.open(&dir.join("b")).is_ok();
        lost += usize::from(!named);
    }
    assert!(kept > 10 && torn > 10 && lost > 10, "{kept} {torn} {lost}");
}

#[test]
fn files_that_a_power_cut_brings_back_never_exceed_a_full_disk() {
    let (directory, names) = (Path::new("/full"), ["/full/old", "/full/new"]);
    let [old, new] = names.map(Path::new);
    let mut brought_back = 0;
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(directory).unwrap();
        write(&*disk.create(old).unwrap(), 0, &[1; 4096]);
        disk.open(old).unwrap().sync_data().unwrap();
        disk.sync_dir(directory).unwrap();
        // Of half of the disks another program takes what the removed file had, of the others a file. Some
        // files are cut instead, and some of the removed ones had no durable name.
        disk.set_capacity(Some(6144));
        match seed / 4 % 3 {
            0 => disk.remove_file(old).unwrap(),
            1 => disk.open(old).unwrap().set_len(0).unwrap(),
            _ => {
                disk.remove_file(old).unwrap();
                disk.sync_dir(directory).unwrap();
                let unnamed = disk.create(old).unwrap();
                write(&*unnamed, 0, &[1; 4096]);
                unnamed.sync_data().unwrap();
                drop(unnamed);
                disk.remove_file(old).unwrap();
            }
        }
        let room = if seed % 2 == 0 { 1024 } else { 4096 };
        let file = disk.create(new).unwrap();
        write(&*file, 0, &vec![2; room]);
        file.sync_data().unwrap();
        drop(file);
        if seed % 4 == 0 {
            disk.set_capacity(Some(1024));
        }
        let files = disk.crash(seed).files();
        let taken: u64 = files.iter().map(|(_, len)| len).sum();
        brought_back += u32::from(files.iter().any(|(path, _)| path == old));
        let capacity = if seed % 4 == 0 { 1024 } else { 6144 };
        assert!(taken <= capacity, "seed {seed}: {files:?}");
    }
    assert!(
        brought_back > 0,
        "a removal that nothing has used is undone"
    );
}

fn write(file: &dyn DiskFile, offset: u64, bytes: &[u8]) {
    file.write_at(offset, &[IoSlice::new(bytes)]).unwrap();
}

#[test]
fn a_file_system_that_refuses_direct_writes_at_any_moment_loses_nothing() {
    let kinds = [
        std::io::ErrorKind::InvalidInput,
        std::io::ErrorKind::Unsupported,
        std::io::ErrorKind::PermissionDenied,
    ];
    for kind in kinds {
        let mut taken_before = 0;
        for after in 0..60 {
            // A disk that takes direct writes: see `SimDisk::new`.
            let disk = SimDisk::new(1);
            let mut node = reopen(&disk);
            disk.refuse_direct(kind, after);
            for next in 0..60 {
                node.append(records(1, next..next + 1, 3000)).unwrap();
            }
            taken_before = disk.stats().direct;
            assert!(node.opened.log.segment_count() > 2);
            assert_eq!(
                reopen(&disk.crash(after)).all(),
                records(1, 0..60, 3000),
                "{kind:?} after {after}"
            );
        }
        assert!(
            taken_before >= 50,
            "only {taken_before} were taken at first"
        );
    }
}
