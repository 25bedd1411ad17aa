//! The write-ahead log on the real file system: a round of the worker from queued records to the
//! answered call. Timed, most of it is the disk's `fdatasync`; counted, it is all ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memkv_disk::disk::real::RealDisk;
use memkv_disk::{Layout, LogId, Opened, Options, Record, open};

use crate::{Piece, Run};

/// Bytes of an entry of one command, and of one of 64.
const SMALL_ENTRY_BYTES: usize = 300;
const LARGE_ENTRY_BYTES: usize = 64 * SMALL_ENTRY_BYTES;

/// Records that are kept: older ones are purged, so that a long measurement does not fill the disk.
const KEPT: u64 = 1_000;

pub(crate) const PIECES: &[Piece] = &[
    Piece {
        name: "log_append_small",
        operations: 1,
        prepare: || append(1, SMALL_ENTRY_BYTES),
    },
    Piece {
        name: "log_append_large",
        operations: 1,
        prepare: || append(1, LARGE_ENTRY_BYTES),
    },
    Piece {
        name: "log_append_sixteen",
        operations: 16,
        prepare: || append(16, SMALL_ENTRY_BYTES),
    },
];

/// Appends this many records of this size in one round.
#[allow(clippy::expect_used, reason = "a directory of its own, made just now")]
fn append(records: u64, bytes: usize) -> Run {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let layout = Layout::under(directory.path());
    let options = Options {
        max_log_size: 64 << 20,
        ..Options::default()
    };
    let Opened {
        wal, mut worker, ..
    } = open(Arc::new(RealDisk), &layout, options).expect("an empty directory opens");
    let payload = Bytes::from(vec![b'p'; bytes]);
    let durable = Arc::new(AtomicU64::new(0));
    let id = |index| LogId {
        term: 1,
        leader: 1,
        index,
    };
    let mut next = 0;
    Box::new(move || {
        // The directory lives as long as the closure.
        let _ = &directory;
        let batch = (next..next + records).map(|index| Record {
            id: id(index),
            payload: payload.clone(),
        });
        next += records;
        let (through, done) = (next, Arc::clone(&durable));
        let done = Box::new(move |outcome: std::io::Result<()>| {
            if outcome.is_ok() {
                done.store(through, Ordering::Relaxed);
            }
        });
        wal.append(batch.collect(), done);
        if let Some(completions) = worker.poll() {
            completions.fire();
        }
        assert_eq!(durable.load(Ordering::Relaxed), next);
        if next % KEPT == 0 {
            wal.purge_through(id(next - KEPT / 2));
        }
    })
}
