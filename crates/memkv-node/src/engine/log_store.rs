//! The engine's log and vote on `memkv-disk`.
//!
//! Never waits for the disk where the engine does not need it: an append returns when its entries
//! are readable and reports durability through the callback; a purge returns after its logical mark
//! (the engine's core awaits purges, `raft_core.rs:2433` of alpha.37). A vote returns only when it
//! is durable. All of them share one FIFO, so no entry is durable before the vote it depends on.
//! Entries that are in memory are read at once; others are read on a thread that may wait, because the
//! engine reads on the consensus thread, and in large pieces while it starts (`read_ahead`).

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;

use crate::sync::lock::Mutex;
use futures_util::{Stream, StreamExt, stream};
use memkv_disk::{Found, HardState, LogReader, Record, WalHandle};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::oneshot;

use super::codec;
use super::read_ahead::ReadAhead;
use super::{EngineLogId, Entry, TypeConfig, Vote};
use crate::Env;
use crate::env::blocking;
use crate::leadership::leader::Leader;
use crate::read::published::Published;
use crate::report::counters::Counters;

/// Most bytes of entries that one read for replication returns (at least one entry always comes).
/// A frame of this size takes about 10 ms on a gigabit link: far less than a heartbeat interval.
const READ_BYTES: u64 = 1024 * 1024;
/// Most entries in one read.
const READ_RECORDS: usize = 1024;

/// The log as the engine sees it; clones share it, and are made for each read.
#[derive(Clone)]
pub(crate) struct LogStore(Arc<Parts>);

struct Parts {
    wal: WalHandle,
    reader: LogReader,
    volatile: Mutex<Volatile>,
    published: Arc<Published>,
    env: Env,
    ahead: Arc<ReadAhead>,
    counters: Arc<Counters>,
}

/// The state that the engine asks for and the disk holds already.
struct Volatile {
    vote: Option<Vote>,
    committed: Option<EngineLogId>,
}

impl LogStore {
    pub(crate) fn new(
        wal: WalHandle,
        reader: LogReader,
        hard_state: Option<HardState>,
        committed: Option<memkv_disk::LogId>,
        published: Arc<Published>,
        env: Env,
        counters: Arc<Counters>,
    ) -> Self {
        if let Some(vote) = hard_state {
            published.publish_vote(leader(vote));
        }
        let volatile = Volatile {
            vote: hard_state.map(codec::engine_vote),
            committed: committed.map(codec::engine_id),
        };
        Self(Arc::new(Parts {
            wal,
            reader,
            volatile: Mutex::new(volatile),
            published,
            env,
            ahead: Arc::default(),
            counters,
        }))
    }

    /// To be ended once the engine runs.
    pub(crate) fn read_ahead(&self) -> Arc<ReadAhead> {
        self.0.ahead.clone()
    }

    /// Whether the log never had an entry, and this node never voted.
    pub(crate) fn is_new(&self) -> bool {
        let ends = self.0.reader.last().or(self.0.reader.purged());
        ends.is_none() && self.0.volatile.lock().vote.is_none()
    }

    /// Begins the log of a founder. Durable when it returns.
    pub(crate) async fn begin(&self, voters: &BTreeSet<u64>) -> io::Result<()> {
        let (done, rx) = done();
        let first = codec::record(&codec::first_entry(voters));
        self.0.wal.append(vec![first], done);
        durable(rx).await
    }

    async fn read(
        &self,
        start: u64,
        end: u64,
        max_bytes: u64,
        max: usize,
    ) -> io::Result<Vec<Entry>> {
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::WaitForTheLog) {
            return to_entries(self.0.reader.read(start..end, max_bytes, max)?);
        }
        match self.0.reader.look(start..end, max_bytes, max) {
            Found::InMemory(records) => to_entries(records),
            Found::OnDisk(_) if self.0.ahead.is_for(&(start..end)) => to_entries(
                self.0
                    .ahead
                    .read(&self.0.reader, start..end, &self.0.env)
                    .await?,
            ),
            Found::OnDisk(cold) => blocking(&self.0.env, || to_entries(cold.read()?)).await?,
        }
    }

    /// Index after the last entry, 0 for an empty log.
    fn end(&self) -> u64 {
        self.0.reader.last().map_or(0, |id| id.index + 1)
    }

    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => self.0.reader.first().map_or(0, |id| id.index),
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.end(),
        };
        (start, end.min(self.end()))
    }
}

fn leader(vote: HardState) -> Leader {
    Leader {
        term: vote.term,
        id: vote.voted_for,
    }
}

fn to_entries(records: Vec<Record>) -> io::Result<Vec<Entry>> {
    records.into_iter().map(to_entry).collect()
}

fn to_entry(record: Record) -> io::Result<Entry> {
    let index = record.id.index;
    codec::entry(record).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("log entry {index}: {error}"),
        )
    })
}

/// A pair to wait for the WAL with.
fn done() -> (memkv_disk::Done, oneshot::Receiver<io::Result<()>>) {
    let (tx, rx) = oneshot::channel();
    // The waiter may be gone: the node is stopping.
    (Box::new(move |result| drop(tx.send(result))), rx)
}

async fn durable(rx: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    rx.await
        .unwrap_or_else(|_| Err(io::Error::other("the WAL stopped")))
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut start, end) = self.bounds(&range);
        let mut entries = Vec::new();
        while start < end {
            let read = self.read(start, end, READ_BYTES, READ_RECORDS).await?;
            // The range may begin before the first entry that is left.
            let Some(last) = read.last() else { break };
            start = last.log_id.index + 1;
            entries.extend(read);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end.min(self.end()), READ_BYTES, READ_RECORDS)
            .await
    }

    /// Reads ahead by bytes, not by the whole range, as the default would: the range may be the
    /// entire log.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.bounds(&range);
        stream::unfold((self.clone(), start), move |(store, next)| async move {
            if next >= end {
                return None;
            }
            match store.read(next, end, READ_BYTES, READ_RECORDS).await {
                Ok(entries) => {
                    let after = entries.last()?.log_id.index + 1;
                    let entries: Vec<_> = entries.into_iter().map(Ok).collect();
                    Some((entries, (store, after)))
                }
                Err(error) => Some((vec![Err(error)], (store, end))),
            }
        })
        .flat_map(stream::iter)
        .boxed()
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.0.volatile.lock().vote)
    }

    /// The last entry of each leader, as the default finds it (`log_id_list.rs:100` of alpha.37), which
    /// reads entries from all over the log.
    async fn get_key_log_ids(
        &mut self,
        range: RangeInclusive<EngineLogId>,
    ) -> Result<Vec<EngineLogId>, io::Error> {
        let last = self
            .0
            .reader
            .last_of_each_leader(range.start().index..=range.end().index);
        Ok(last.into_iter().map(codec::engine_id).collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let purged = self.0.reader.purged().map(codec::engine_id);
        let last = self.0.reader.last().map(codec::engine_id);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, rx) = done();
        let hard_state = codec::hard_state(vote);
        self.0.published.publish_vote(leader(hard_state));
        self.0.wal.save_hard_state(hard_state, done);
        durable(rx).await?;
        self.0.volatile.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<EngineLogId>) -> Result<(), io::Error> {
        if let Some(id) = &committed {
            self.0.wal.save_committed(codec::storage_id(id));
        }
        self.0.volatile.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<EngineLogId>, io::Error> {
        // The hint is written lazily; the log may have lost the entries that it points at, and the engine
        // would then wait for entries that are not there.
        let committed = self.0.volatile.lock().committed;
        Ok(committed.filter(|id| id.index < self.end()))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: IOFlushed<TypeConfig>,
    ) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Vec<Record> = entries
            .into_iter()
            .map(|entry| {
                if matches!(entry.payload, EntryPayload::Membership(_)) {
                    self.0.published.publish_membership(entry.log_id.index);
                }
                codec::record(&entry)
            })
            .collect();
        self.0.ahead.end();
        let end = records.last().map(|record| record.id);
        let last = end.map(|id| id.index);
        if let Some(last) = last {
            self.0.counters.waypoints.appended(last);
        }
        let counters = self.0.counters.clone();
        self.0.wal.append(
            records,
            Box::new(move |result| {
                if let (Some(last), Ok(())) = (last, &result) {
                    counters.waypoints.durable(last);
                }
                callback.io_completed(result);
            }),
        );
        // A WAL that has failed takes nothing. The engine must stop here, because it would next
        // apply entries that are not there, and reading them would end early without an error.
        if end.is_some() && self.0.reader.last() != end {
            return Err(io::Error::other("the WAL takes no more entries"));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<EngineLogId>) -> Result<(), io::Error> {
        self.0.ahead.end();
        self.0
            .published
            .publish_truncation(last.map_or(0, |id| id.index));
        // The core awaits this (`raft_core.rs:2450` of alpha.37). The FIFO already makes the
        // truncation durable before anything that is appended after it, and a failure reaches
        // every later completion.
        self.0
            .wal
            .truncate_after(last.map(|id| id.index), Box::new(drop));
        Ok(())
    }

    async fn purge(&mut self, id: EngineLogId) -> Result<(), io::Error> {
        self.0.ahead.end();
        self.0.wal.purge_through(codec::storage_id(&id));
        Ok(())
    }
}
