//! The write-ahead log's handle and worker: one FIFO for votes, appends, truncations and purges.
//! Never answers out of order, never acknowledges before the disk has confirmed, never continues after an
//! error. Writes in order, except that a vote is written before the records that were queued before it.
//!
//! A round takes everything that is queued, makes the newest vote and identity durable first (a
//! record must never be durable before the vote it depends on; a vote that is durable before an
//! older record is harmless, since neither was acknowledged), then writes all records and makes
//! them durable, with one call or with one and an fdatasync, and then answers all calls in the order
//! in which they were made. A round with metadata costs one more fdatasync per metadata copy; `metadata`
//! explains why there are two.
//!
//! Invariants: answers come in FIFO order; after the first error every answer is that error.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::disk::DirLock;
use crate::layout::SEGMENT_UNIT;
use crate::metadata::{MAX_IDENTITY, MetadataFiles};
use crate::record::{HardState, LogId, MAX_PAYLOAD, Record};
use crate::shared::{Inner, Shared};
use crate::writer::LogWriter;
use memkv_metrics::Counted;

/// Called once with the outcome of a call, from the worker's thread (or at once, from the
/// caller's, if the worker has ended).
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// An element of the queue.
pub(crate) struct Job {
    op: Op,
    done: Option<Done>,
}

enum Op {
    Append(Vec<Record>),
    HardState(HardState),
    Identity(Bytes, u64),
    Truncate(u64),
    Reset(Option<LogId>, u64),
    Purge(LogId),
    /// A call that cannot be executed; it is answered in its turn.
    Refused(io::Error),
}

/// Queues work for the worker. Cheap to clone; no call waits for the disk.
#[derive(Clone)]
pub struct WalHandle {
    pub(crate) shared: Arc<Shared>,
}

impl WalHandle {
    /// Appends records. They are readable when this returns; `done` is called once they are
    /// durable.
    ///
    /// The first record's index must be the one after the last record (an untouched log may begin
    /// anywhere), indexes must be contiguous and payloads at most [`MAX_PAYLOAD`] bytes; otherwise
    /// nothing changes and `done` gets [`io::ErrorKind::InvalidInput`].
    pub fn append(&self, records: Vec<Record>, done: Done) {
        self.enqueue(Some(done), |inner| {
            if let Err(error) = check(inner, &records) {
                return vec![Op::Refused(error)];
            }
            let Some(first) = records.first().map(|record| record.id.index) else {
                return vec![Op::Append(records)];
            };
            let mut ops = Vec::with_capacity(2);
            if first != inner.log.next {
                inner.log.reset(None, first);
                ops.push(Op::Reset(None, first));
            }
            inner.log.append(&records);
            ops.push(Op::Append(records));
            ops
        });
    }

    /// Saves term and vote.
    pub fn save_hard_state(&self, hard_state: HardState, done: Done) {
        self.enqueue(Some(done), |_| vec![Op::HardState(hard_state)]);
    }

    /// Keeps the records up to and including `index` and drops the rest; `None` drops all that are
    /// not purged. At once for readers; `done` is called once it is durable.
    pub fn truncate_after(&self, index: Option<u64>, done: Done) {
        self.enqueue(Some(done), |inner| {
            let from = index
                .map_or(0, |index| index.saturating_add(1))
                .max(inner.log.first);
            if from >= inner.log.next {
                return vec![Op::Append(Vec::new())];
            }
            inner.log.cut(from);
            vec![Op::Truncate(from)]
        });
    }

    /// Drops the records up to and including `id`, of which the caller holds a durable snapshot.
    /// Readers see it at once; the mark and then the files follow later. Beyond the last record
    /// it is [`Self::reset_to`]. Going back changes nothing.
    pub fn purge_through(&self, id: LogId) {
        self.enqueue(None, |inner| {
            if inner
                .log
                .purged
                .is_some_and(|purged| purged.index >= id.index)
            {
                return Vec::new();
            }
            if id.index >= inner.log.next {
                return reset(inner, id);
            }
            inner.log.purge(id);
            vec![Op::Purge(id)]
        });
    }

    /// Drops all records; the log continues after `id`, of which the caller holds a durable snapshot. `done` is called once that is durable.
    pub fn reset_to(&self, id: LogId, done: Done) {
        self.enqueue(Some(done), |inner| reset(inner, id));
    }

    /// Saves the identity (at most [`MAX_IDENTITY`] bytes) and the boot counter.
    pub fn save_identity(&self, blob: Bytes, boot: u64, done: Done) {
        self.enqueue(Some(done), |_| {
            if blob.len() > MAX_IDENTITY {
                let what = format!(
                    "identity has {} bytes; the metadata holds at most {MAX_IDENTITY}",
                    blob.len()
                );
                return vec![Op::Refused(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    what,
                ))];
            }
            vec![Op::Identity(blob, boot)]
        });
    }

    /// Remembers that the log is committed up to `id`. A hint: it travels with the next records
    /// and with the metadata, and is never synced by itself.
    pub fn save_committed(&self, id: LogId) {
        let mut inner = self.shared.inner.lock();
        if inner
            .log
            .committed
            .is_none_or(|committed| committed.index < id.index)
        {
            inner.log.committed = Some(id);
        }
    }

    /// Frees the memory of the written records up to `index`: a later reader reads them from disk.
    pub fn forget_through(&self, index: u64) {
        self.shared.inner.lock().log.forget(index);
    }

    /// Bytes of segments started from now on, rounded up to 64 KiB.
    pub fn set_segment_bytes(&self, bytes: u64) {
        let bytes = segment_bytes(bytes);
        self.shared.segment_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Calls `wakeup` after each call that queues work, from the caller's thread; for drivers that
    /// use [`WalWorker::poll`].
    pub fn set_wakeup(&self, wakeup: Arc<dyn Fn() + Send + Sync>) {
        self.shared.inner.lock().wakeup = Some(wakeup);
    }

    /// Durations of the log's fsyncs since it was opened.
    pub fn fsync_durations(&self) -> Counted {
        self.shared.fsync.counted()
    }

    /// The longest fsync of the log since the last call, in nanoseconds; 0 if there was none.
    pub fn take_longest_fsync(&self) -> u64 {
        self.shared.fsync.take_peak()
    }

    /// The last durable record that was not dropped since (with `sync: false`, the last written
    /// one).
    pub fn durable(&self) -> Option<LogId> {
        self.shared.inner.lock().log.durable()
    }

    /// Ends the worker after the queue is done. Later calls are answered with an error.
    pub fn shutdown(&self) {
        let wakeup = {
            let mut inner = self.shared.inner.lock();
            inner.shutdown = true;
            inner.wakeup.clone()
        };
        self.shared.work.notify_one();
        if let Some(wakeup) = wakeup {
            wakeup();
        }
    }

    /// Changes the logical log and queues the operations that follow from it, as one step. The
    /// last operation answers `done`.
    fn enqueue(&self, done: Option<Done>, change: impl FnOnce(&mut Inner) -> Vec<Op>) {
        let wakeup = {
            let mut inner = self.shared.inner.lock();
            if let Some(error) = inner.stopped_error() {
                drop(inner);
                if let Some(done) = done {
                    done(Err(error));
                }
                return;
            }
            let ops = change(&mut inner);
            let last = ops.len().saturating_sub(1);
            let mut done = done;
            for (at, op) in ops.into_iter().enumerate() {
                let done = if at == last { done.take() } else { None };
                inner.queue.push(Job { op, done });
            }
            inner.wakeup.clone()
        };
        self.shared.work.notify_one();
        if let Some(wakeup) = wakeup {
            wakeup();
        }
    }
}

fn reset(inner: &mut Inner, id: LogId) -> Vec<Op> {
    let first = id.index.saturating_add(1);
    inner.log.reset(Some(id), first);
    vec![Op::Reset(Some(id), first)]
}

fn check(inner: &Inner, records: &[Record]) -> io::Result<()> {
    let refuse = |what: String| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let Some(first) = records.first() else {
        return Ok(());
    };
    let next = inner.log.next;
    if first.id.index != next && !inner.log.is_untouched() {
        let index = first.id.index;
        return refuse(format!(
            "cannot append record {index}: the next index is {next}"
        ));
    }
    for (record, index) in records.iter().zip(first.id.index..) {
        let len = record.payload.len();
        if record.id.index != index {
            return refuse(format!(
                "record {} stands where {index} must",
                record.id.index
            ));
        }
        if len as u64 > MAX_PAYLOAD {
            return refuse(format!(
                "record {index} has {len} bytes; at most {MAX_PAYLOAD} fit"
            ));
        }
    }
    Ok(())
}

pub(crate) fn segment_bytes(bytes: u64) -> u64 {
    // Offsets of records are kept in 32 bits; a segment far below that keeps recovery smooth.
    bytes
        .clamp(SEGMENT_UNIT, 1 << 30)
        .next_multiple_of(SEGMENT_UNIT)
}

/// The answers of one round, in order.
#[must_use = "callers wait for these answers"]
pub struct Completions {
    answers: Vec<(Done, io::Result<()>)>,
}

impl Completions {
    /// Answers every call of the round.
    pub fn fire(self) {
        for (done, result) in self.answers {
            done(result);
        }
    }
}

/// The only writer of log and metadata. Either `run` on a thread of its own, or `poll`.
pub struct WalWorker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: LogWriter,
    pub(crate) metadata: MetadataFiles,
    pub(crate) purged: Option<LogId>,
    pub(crate) _locks: Arc<Vec<Box<dyn DirLock>>>,
}

impl WalWorker {
    /// Executes work until shutdown or the first error. Blocks; meant for a thread of its own.
    pub fn run(mut self) {
        let mut untidy = false;
        loop {
            let ending = {
                let mut inner = self.shared.inner.lock();
                while inner.queue.is_empty()
                    && !untidy
                    && !inner.shutdown
                    && inner.stopped.is_none()
                {
                    self.shared.work.wait(&mut inner);
                }
                inner.queue.is_empty() && (inner.shutdown || inner.stopped.is_some())
            };
            #[cfg(memkv_bugs)]
            crate::bugs::pass(crate::bugs::PanicPoint::Log);
            if ending {
                self.finish();
                return;
            }
            if let Some(completions) = self.round() {
                completions.fire();
            }
            untidy = self.tidy_step();
        }
    }

    /// Executes the queue, without blocking on anything but the disk. `None` if the queue was empty.
    /// The caller fires the answers at a time of its choice.
    pub fn poll(&mut self) -> Option<Completions> {
        let completions = self.round();
        if completions.is_some() {
            while self.tidy_step() {}
        } else if self.shared.inner.lock().shutdown {
            self.finish();
        }
        completions
    }

    fn round(&mut self) -> Option<Completions> {
        let (jobs, committed) = {
            let mut inner = self.shared.inner.lock();
            (std::mem::take(&mut inner.queue), inner.log.committed)
        };
        if jobs.is_empty() {
            return None;
        }
        let mut answers = Vec::with_capacity(jobs.len());
        let mut ops = Vec::with_capacity(jobs.len());
        for Job { op, done } in jobs {
            let (op, result) = match op {
                Op::Refused(error) => (None, Err(error)),
                op => (Some(op), Ok(())),
            };
            ops.extend(op);
            answers.extend(done.map(|done| (done, result)));
        }
        if let Err(error) = self.execute(ops, committed) {
            for (_, result) in &mut answers {
                if result.is_ok() {
                    *result = Err(copy(&error));
                }
            }
            answers.extend(self.stop(&error).answers);
        }
        Some(Completions { answers })
    }

    fn execute(&mut self, ops: Vec<Op>, committed: Option<LogId>) -> io::Result<()> {
        if let Some(error) = self.shared.inner.lock().stopped_error() {
            return Err(error);
        }
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::VoteAfterRecords) {
            let is_metadata = |op: &Op| matches!(op, Op::HardState(_) | Op::Identity(..));
            let (metadata, records): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(is_metadata);
            self.write(records, committed)?;
            return self.save_metadata(&metadata);
        }
        self.save_metadata(&ops)?;
        self.write(ops, committed)
    }

    /// Executes everything but the votes and identities, which `save_metadata` has, and makes it durable.
    fn write(&mut self, ops: Vec<Op>, committed: Option<LogId>) -> io::Result<()> {
        let committed_next = committed.map_or(0, |id| id.index + 1);
        for op in ops {
            match op {
                Op::Append(records) => self.log.append(records, committed_next)?,
                Op::Truncate(from) => {
                    self.log.truncate(from)?;
                    self.shared.inner.lock().log.cut_executed(from);
                }
                Op::Reset(previous, first) => {
                    self.log.reset(previous, first)?;
                    self.shared.inner.lock().log.cut_executed(first);
                    self.purged = previous.or(self.purged);
                }
                Op::Purge(id) => self.purged = Some(id),
                Op::HardState(_) | Op::Identity(..) | Op::Refused(_) => {}
            }
        }
        self.log.sync()?;
        self.shared.inner.lock().log.evict();
        Ok(())
    }

    /// Makes the newest vote and identity of a round durable, as one value.
    fn save_metadata(&mut self, ops: &[Op]) -> io::Result<()> {
        let mut hard_state = None;
        let mut identity = None;
        for op in ops {
            match op {
                Op::HardState(value) => hard_state = Some(*value),
                Op::Identity(blob, boot) => identity = Some((blob.clone(), *boot)),
                _ => {}
            }
        }
        if hard_state.is_none() && identity.is_none() {
            return Ok(());
        }
        let frontier = self.log.frontier();
        self.save(frontier, |value| {
            value.hard_state = hard_state.or(value.hard_state);
            if let Some((blob, boot)) = identity {
                (value.identity, value.boot) = (blob, boot);
            }
        })
    }

    fn save(
        &mut self,
        (generation, frontier): (u64, Option<LogId>),
        change: impl FnOnce(&mut crate::metadata::Metadata),
    ) -> io::Result<()> {
        let committed = self.shared.inner.lock().log.committed;
        let purged = self.purged;
        self.metadata.save(|stored| {
            change(&mut stored.value);
            stored.value.committed_hint = committed.or(stored.value.committed_hint);
            stored.value.frontier = frontier;
            stored.generation = generation;
            stored.purged = purged.or(stored.purged);
        })
    }

    /// After the answers of a round: makes a new purge mark durable, or takes a step of freeing
    /// the files. Returns whether more remains, for which the next round need not wait.
    fn tidy_step(&mut self) -> bool {
        if self.shared.inner.lock().stopped.is_some() {
            return false;
        }
        let step = if self.purged == self.metadata.stored().purged {
            self.log
                .recycle_step(self.purged.map_or(0, |id| id.index + 1))
        } else {
            let frontier = self.log.frontier();
            self.save(frontier, |_| {}).map(|()| true)
        };
        step.unwrap_or_else(|error| {
            self.stop(&error).fire();
            false
        })
    }

    /// The end of a clean run: everything durable, and the frontier recorded, so that even a
    /// flipped bit in the last batch is noticed at the next start.
    fn finish(&mut self) {
        let stopped = self.shared.inner.lock().stopped.is_some();
        if stopped {
            return;
        }
        let result = self
            .log
            .sync_always()
            .and_then(|frontier| self.save(frontier, |_| {}));
        let end = match result {
            Ok(()) => io::Error::other("the log is shut down"),
            Err(error) => error,
        };
        self.stop(&end).fire();
    }

    /// Stops accepting work; returns the answers to the calls that are still queued.
    fn stop(&mut self, error: &io::Error) -> Completions {
        let orphans = {
            let mut inner = self.shared.inner.lock();
            inner
                .stopped
                .get_or_insert((error.kind(), error.to_string()));
            std::mem::take(&mut inner.queue)
        };
        let orphans = orphans.into_iter().filter_map(|job| job.done);
        Completions {
            answers: orphans.map(|done| (done, Err(copy(error)))).collect(),
        }
    }
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}
