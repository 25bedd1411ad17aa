//! Helpers of the black-box tests: records by number, and a data directory driven by `poll`.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use memkv_disk::disk::Disk;
use memkv_disk::{Done, HardState, Layout, LogId, OpenError, Opened, Options, Record, open};

pub fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        leader: 1,
        index,
    }
}

/// A payload that says which record it belongs to, of a length that varies around sectors.
pub fn payload(term: u64, index: u64, len: usize) -> Bytes {
    let mut bytes = format!("{term}/{index}:").into_bytes();
    let seed = (term * 31 + index) as u8;
    bytes.extend((0..len).map(|at| seed.wrapping_add(at as u8)));
    bytes.into()
}

pub fn record(term: u64, index: u64, len: usize) -> Record {
    Record {
        id: id(term, index),
        payload: payload(term, index, len),
    }
}

pub fn records(term: u64, range: std::ops::Range<u64>, len: usize) -> Vec<Record> {
    range.map(|index| record(term, index, len)).collect()
}

pub fn vote(term: u64) -> HardState {
    HardState {
        term,
        voted_for: term % 3,
        committed: term.is_multiple_of(2),
    }
}

pub fn layout() -> Layout {
    Layout::under(Path::new("/data"))
}

/// Small segments and a small cache, so that rotation and disk reads happen.
pub fn options() -> Options {
    Options {
        max_log_size: 1,
        sync: true,
        cache_bytes: 4096,
    }
}

/// Counts answers.
#[derive(Clone, Default)]
pub struct Answers(Arc<(AtomicUsize, Mutex<Vec<io::ErrorKind>>)>);

impl Answers {
    pub fn done(&self) -> Done {
        let answers = self.clone();
        Box::new(move |result| {
            if let Err(error) = result {
                answers.0.1.lock().unwrap().push(error.kind());
            }
            answers.0.0.fetch_add(1, Ordering::SeqCst);
        })
    }

    pub fn count(&self) -> usize {
        self.0.0.load(Ordering::SeqCst)
    }

    pub fn errors(&self) -> Vec<io::ErrorKind> {
        self.0.1.lock().unwrap().clone()
    }
}

/// An opened directory whose worker runs on the test's thread.
pub struct Node {
    pub opened: Opened,
}

impl Node {
    pub fn open(disk: Arc<dyn Disk>, options: Options) -> Result<Self, OpenError> {
        Ok(Self {
            opened: open(disk, &layout(), options)?,
        })
    }

    /// Executes everything queued.
    pub fn settle(&mut self) {
        while let Some(completions) = self.opened.worker.poll() {
            completions.fire();
        }
    }

    /// Makes a call, executes it and returns its outcome.
    pub fn call(&mut self, call: impl FnOnce(&memkv_disk::WalHandle, Done)) -> io::Result<()> {
        let answers = Answers::default();
        call(&self.opened.wal, answers.done());
        self.settle();
        assert_eq!(answers.count(), 1, "every call is answered once");
        answers
            .errors()
            .first()
            .map_or(Ok(()), |kind| Err((*kind).into()))
    }

    pub fn append(&mut self, records: Vec<Record>) -> io::Result<()> {
        self.call(|wal, done| wal.append(records, done))
    }

    pub fn all(&self) -> Vec<Record> {
        self.opened
            .log
            .read(0..u64::MAX, u64::MAX, usize::MAX)
            .unwrap()
    }

    /// Ends cleanly.
    pub fn close(mut self) {
        self.opened.wal.shutdown();
        self.settle();
    }

    /// Builds a snapshot up to `last` with a few blocks.
    pub fn snapshot(&mut self, last: LogId, blocks: usize) -> io::Result<()> {
        let extra = Bytes::from(format!("members at {last}"));
        let store = &self.opened.snapshots;
        let mut writer = store.create(memkv_disk::SnapshotMeta { last, extra });
        for at in 0..blocks {
            writer.block(&vec![at as u8; 700 + at])?;
        }
        writer.finish()
    }
}
