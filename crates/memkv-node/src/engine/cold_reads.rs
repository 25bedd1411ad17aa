//! Tests: the engine's thread never waits for entries that are on the disk only, and reads entries that
//! are in memory itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt, StreamExt};
use memkv_disk::disk::guard;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{Layout, LogId, Options, Record};
use openraft::entry::RaftEntry;
use openraft::storage::{RaftLogReader, RaftLogStorage};

use super::log_store::LogStore;
use super::{Entry, codec};
use crate::Env;
use crate::env::BlockingWork;
use crate::sync::lock::Mutex;

/// Entries in the log.
const ENTRIES: u64 = 2_000;

/// A log of which the last entries alone are in memory, and the work that waits for a disk.
struct Log {
    disk: SimDisk,
    store: LogStore,
    cached_from: u64,
    waiting: Arc<Mutex<Vec<BlockingWork>>>,
    handed_over: Arc<AtomicUsize>,
    _opened: memkv_disk::Opened,
}

fn entry(index: u64) -> Entry {
    let id = LogId {
        term: 1,
        leader: 1,
        index,
    };
    let payload = openraft::EntryPayload::Normal(super::Batch(vec![7; 900].into()));
    Entry::new(codec::engine_id(id), payload)
}

fn log() -> Log {
    let disk = SimDisk::new(1);
    let layout = Layout::under(Path::new("/node"));
    let options = Options {
        cache_bytes: 64 << 10,
        ..Options::default()
    };
    let mut opened = memkv_disk::open(Arc::new(disk.clone()), &layout, options).unwrap();
    let records: Vec<Record> = (0..ENTRIES)
        .map(|index| codec::record(&entry(index)))
        .collect();
    opened
        .wal
        .append(records, Box::new(|result| result.unwrap()));
    while let Some(answers) = opened.worker.poll() {
        answers.fire();
    }
    let in_memory = |index: &u64| {
        let found = opened.log.look(*index..*index + 1, u64::MAX, 1);
        matches!(found, memkv_disk::Found::InMemory(_))
    };
    let cached_from = (0..ENTRIES).find(in_memory).unwrap();
    assert!(
        (1_000..ENTRIES - 10).contains(&cached_from),
        "{cached_from}"
    );
    let waiting = Arc::<Mutex<Vec<BlockingWork>>>::default();
    let handed_over = Arc::<AtomicUsize>::default();
    let (works, count) = (waiting.clone(), handed_over.clone());
    let env = Env {
        // A slow disk: the reads that wait for it go on when the test says so.
        blocking: Arc::new(move |work| {
            let (done, is_done) = tokio::sync::oneshot::channel();
            count.fetch_add(1, Ordering::SeqCst);
            works.lock().push(Box::new(move || {
                work();
                // The reader may have lost interest.
                let _ = done.send(());
            }));
            Box::pin(async move { drop(is_done.await) })
        }),
        ..Env::real()
    };
    let store = LogStore::new(
        opened.wal.clone(),
        opened.log.clone(),
        None,
        None,
        Arc::default(),
        env,
        Arc::default(),
    );
    Log {
        disk,
        store,
        cached_from,
        waiting,
        handed_over,
        _opened: opened,
    }
}

impl Log {
    /// As it is once the engine runs.
    fn running() -> Self {
        let log = log();
        log.store.read_ahead().end();
        log
    }

    /// Lets the disk finish everything that waits for it.
    fn finish(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.into_iter().for_each(guard::allow);
    }
}

#[tokio::test]
async fn replication_to_a_follower_far_behind_does_not_hold_up_the_others() {
    let log = Log::running();
    let _scope = guard::forbid();
    let (mut behind, mut up_to_date) = (log.store.clone(), log.store.clone());
    let mut cold = Box::pin(behind.limited_get_log_entries(3, ENTRIES));
    assert!(
        cold.as_mut().now_or_never().is_none(),
        "it waits for a disk"
    );
    for start in log.cached_from..ENTRIES {
        let read = up_to_date.limited_get_log_entries(start, ENTRIES);
        let read = read.now_or_never().expect("what is in memory is there");
        assert_eq!(read.unwrap().len() as u64, ENTRIES - start);
    }
    assert_eq!(
        log.handed_over.load(Ordering::SeqCst),
        1,
        "one of them is cold"
    );
    log.finish();
    let read = cold.as_mut().now_or_never().expect("the disk is done");
    let read = read.unwrap();
    assert_eq!(read[..10], (3..13).map(entry).collect::<Vec<_>>());
    assert_eq!(log.disk.stats().forbidden, 0);
}

#[tokio::test]
async fn a_replay_of_the_log_waits_for_the_disk_elsewhere() {
    let log = Log::running();
    let _scope = guard::forbid();
    let mut reader = log.store.clone();
    let mut entries = reader.entries_stream(0..ENTRIES).await;
    let mut index = 0;
    while index < ENTRIES {
        match entries.next().now_or_never() {
            Some(read) => {
                assert_eq!(read.unwrap().unwrap(), entry(index));
                index += 1;
            }
            None => log.finish(),
        }
    }
    let handed_over = log.handed_over.load(Ordering::SeqCst);
    assert!((1..=3).contains(&handed_over), "{handed_over} pieces");
    let mut reader = log.store.clone();
    let mut range = Box::pin(reader.try_get_log_entries(1..=log.cached_from));
    let read = loop {
        match range.as_mut().now_or_never() {
            Some(read) => break read.unwrap(),
            None => log.finish(),
        }
    };
    assert_eq!(read.len() as u64, log.cached_from);
    assert_eq!(log.disk.stats().forbidden, 0);
}

/// As the engine does it: it replays in ranges of 64 entries, then looks for what else it must know.
#[tokio::test]
async fn an_engine_that_starts_reads_the_log_once_and_in_large_pieces() {
    let mut log = log();
    let _scope = guard::forbid();
    let mut reader = log.store.clone();
    for start in (0..ENTRIES).step_by(64) {
        let end = (start + 64).min(ENTRIES);
        let mut range = Box::pin(reader.try_get_log_entries(start..end));
        let read = loop {
            match range.as_mut().now_or_never() {
                Some(read) => break read.unwrap(),
                None => log.finish(),
            }
        };
        assert_eq!(read, (start..end).map(entry).collect::<Vec<_>>());
    }
    let handed_over = log.handed_over.load(Ordering::SeqCst);
    assert!((1..=3).contains(&handed_over), "{handed_over} pieces");
    let ids = |index| entry(index).log_id;
    let found = reader.get_key_log_ids(ids(0)..=ids(ENTRIES - 1));
    let found = found.now_or_never().expect("identities are in memory");
    assert_eq!(found.unwrap(), [ids(ENTRIES - 1)]);

    // Records that the engine changes are read anew.
    log.store.truncate_after(Some(ids(99))).await.unwrap();
    let gone = reader.try_get_log_entries(98..102).now_or_never();
    assert!(gone.is_none(), "it is on the disk");
    assert_eq!(log.disk.stats().forbidden, 0);
}
