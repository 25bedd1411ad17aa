//! The data directory on the real file system, with the worker on a thread of its own.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use common::*;
use memkv_disk::disk::real::RealDisk;
use memkv_disk::{
    Done, Layout, LogReader, Metadata, OpenError, Opened, Options, RecoveryReport, SnapshotMeta,
    WalHandle, open, quarantine,
};

/// The rest of an opened directory when its worker runs on a thread.
struct Session {
    wal: WalHandle,
    log: LogReader,
    metadata: Metadata,
    recovery: RecoveryReport,
}

fn call(session: &Session, call: impl FnOnce(&WalHandle, Done)) {
    let (sender, receiver) = mpsc::channel();
    call(
        &session.wal,
        Box::new(move |result| sender.send(result).unwrap()),
    );
    receiver.recv().unwrap().unwrap();
}

/// Runs `work` on an opened directory and ends cleanly.
fn session(layout: &Layout, options: &Options, work: impl FnOnce(&Session)) {
    let opened = open(Arc::new(RealDisk), layout, options.clone()).unwrap();
    let Opened {
        wal,
        worker,
        log,
        metadata,
        recovery,
        ..
    } = opened;
    let thread = std::thread::spawn(move || worker.run());
    let session = Session {
        wal,
        log,
        metadata,
        recovery,
    };
    work(&session);
    session.wal.shutdown();
    thread.join().unwrap();
}

#[test]
fn everything_is_found_again_after_a_clean_end() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::under(&root.path().join("a/b"));
    for sync in [true, false] {
        let options = Options { sync, ..options() };
        let from = if sync { 0 } else { 400 };
        session(&layout, &options, |opened| {
            assert_eq!(opened.recovery.fresh, sync);
            call(opened, |wal, done| {
                wal.save_hard_state(vote(from + 1), done)
            });
            call(opened, |wal, done| {
                wal.append(records(1, from..from + 400, 900), done)
            });
            call(opened, |wal, done| wal.save_identity("me".into(), 3, done));
            assert!(opened.log.segment_count() > 2);
        });
    }
    session(&layout, &options(), |opened| {
        assert_eq!(opened.metadata.hard_state, Some(vote(401)));
        assert_eq!(opened.metadata.identity, "me");
        assert_eq!(opened.metadata.boot, 3);
        assert_eq!(opened.metadata.frontier, Some(id(1, 799)));
        assert_eq!(opened.recovery.records, 800);
        let all = opened.log.read(0..u64::MAX, u64::MAX, usize::MAX).unwrap();
        assert_eq!(all, records(1, 0..800, 900));
    });
}

#[test]
fn directories_and_files_are_private() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::under(&root.path().join("data"));
    session(&layout, &options(), |opened| {
        call(opened, |wal, done| wal.append(records(1, 0..3, 10), done));
        for dir in [&layout.log, &layout.metadata, &layout.snapshot] {
            let mode = std::fs::metadata(dir).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", dir.display());
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_file() {
                    assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{entry:?}");
                }
            }
        }
    });
}

#[test]
fn second_open_is_refused_and_names_the_holder() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::under(root.path());
    session(&layout, &options(), |_| {
        let error = open(Arc::new(RealDisk), &layout, options()).err().unwrap();
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        assert!(matches!(
            quarantine(Arc::new(RealDisk), &layout),
            Err(OpenError::Locked { .. })
        ));
    });
    session(&layout, &options(), |opened| {
        assert!(!opened.recovery.fresh)
    });
}

#[test]
fn big_batches_are_written_in_several_calls() {
    // More buffers than one pwritev takes (1,024), in one batch.
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::under(root.path());
    let options = Options {
        max_log_size: 8 << 20,
        ..options()
    };
    session(&layout, &options, |opened| {
        call(opened, |wal, done| {
            wal.append(records(1, 0..3000, 20), done)
        });
    });
    session(&layout, &options, |opened| {
        let all = opened.log.read(0..u64::MAX, u64::MAX, usize::MAX).unwrap();
        assert_eq!(all, records(1, 0..3000, 20));
    });
}

#[test]
fn readers_see_right_records_while_segments_are_recycled_under_them() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::under(root.path());
    let opened = open(Arc::new(RealDisk), &layout, options()).unwrap();
    let Opened {
        wal,
        worker,
        log,
        snapshots,
        ..
    } = opened;
    let worker = std::thread::spawn(move || worker.run());
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (log, stop) = (log.clone(), stop.clone());
            std::thread::spawn(move || {
                let mut reads = 0;
                while !stop.load(Ordering::SeqCst) || reads == 0 {
                    for record in log.read(0..u64::MAX, 200_000, usize::MAX).unwrap() {
                        assert_eq!(record, common::record(1, record.id.index, 900));
                        reads += 1;
                    }
                }
            })
        })
        .collect();
    let session = Session {
        wal,
        log,
        metadata: Metadata::default(),
        recovery: RecoveryReport::default(),
    };
    for round in 0..40 {
        let first = round * 100;
        call(&session, |wal, done| {
            wal.append(records(1, first..first + 100, 900), done)
        });
        let last = id(1, first + 40);
        let writer = snapshots.create(SnapshotMeta {
            last,
            extra: "".into(),
        });
        writer.finish().unwrap();
        session.wal.purge_through(last);
    }
    stop.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.join().unwrap();
    }
    session.wal.shutdown();
    worker.join().unwrap();
}

#[test]
fn the_log_works_in_memory_file_systems_with_and_without_direct_writes() {
    let shared_memory = Path::new("/dev/shm");
    let Ok(root) = tempfile::tempdir_in(shared_memory) else {
        return println!("skipped: {} takes no directory", shared_memory.display());
    };
    let layout = Layout::under(root.path());
    session(&layout, &options(), |opened| {
        for next in 0..200 {
            call(opened, |wal, done| {
                wal.append(records(1, next..next + 1, 1500), done)
            });
        }
    });
    session(&layout, &options(), |opened| {
        let all = opened.log.read(0..u64::MAX, u64::MAX, usize::MAX).unwrap();
        assert_eq!(all, records(1, 0..200, 1500));
    });
}
