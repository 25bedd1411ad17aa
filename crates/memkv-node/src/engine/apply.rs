//! Applying committed entries in pieces, so that heartbeats and votes, which run on the same thread,
//! wait for a piece at most.
//!
//! A piece is the work under one hold of the machine's lock: commands up to [`PIECE`]. A command of many
//! keys is divided into pieces itself, and clients see nothing of it before its last piece. Any other
//! command of more than [`HEAVY`] is executed at once. A blocking thread executes: such a command, the rest
//! of a command of many keys, a piece of a [large](LARGE_ENTRY) entry, and a piece for which the lock is not
//! free at once, because clients read. A large entry is read there before the lock is taken.
//! Entries are applied in their order, and an entry counts as applied when all of it is. Invariants: no
//! snapshot begins within an entry; the published state covers everything that a reader can see; effects reach
//! the session in the order of the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memkv_store::{
    Applying, Checked, DecodeError, Garbage, KeyEvent, Progress, Rejected, Reply, ReplyError,
    ReplyValue, SessionId, Sink, SystemOutcome,
};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use openraft::storage::EntryResponder;

use super::{Applied, Entry, StoredMembership, TypeConfig, codec};
use crate::env::busy;
use crate::membership::levels;
use crate::pubsub::announce::Announcer;
use crate::replica::{Machine, Replica};
use crate::report::counters::Counters;
use crate::sync::yielding::yield_to_all_tasks;
use crate::time::log_clock::LogClock;
use crate::write::session;
use crate::{Env, FatalError};

/// Work under one hold of the lock, in the store's units of about 50 nanoseconds: a millisecond or two.
/// In the simulator, where commands are small, a few commands, so that entries come in pieces.
const PIECE: u64 = if cfg!(memkv_bugs) { 64 } else { 32 * 1024 };

/// The same within a command of many keys, which is executed away from the consensus thread: half a
/// millisecond, for which clients that read wait.
const PIECE_OF_MANY: u64 = if cfg!(memkv_bugs) { 64 } else { 8 * 1024 };

/// A command of more work than this, some five milliseconds, leaves the consensus thread. In the
/// simulator a command of some keys is one, such as most transactions.
const HEAVY: u64 = if cfg!(memkv_bugs) { 128 } else { 100_000 };

/// Bytes of an entry above which it is also read on a blocking thread: reading it takes milliseconds
/// before any of it is executed. Only an entry with a large command is longer than this.
const LARGE_ENTRY: usize = if cfg!(memkv_bugs) { 4096 } else { 2 << 20 };

/// How long the consensus thread waits for readers to let go of the machine: longer than most reads
/// take, and a tenth of what it may be away for.
const LOCK_WAIT: Duration = Duration::from_millis(1);

/// The context of a piece, on whatever thread it runs.
#[derive(Clone)]
pub(super) struct Applier {
    pub(super) replica: Arc<Replica>,
    pub(super) clock: Arc<LogClock>,
    pub(super) announcer: Arc<Announcer>,
    pub(super) counters: Arc<Counters>,
    pub(super) env: Env,
    /// The highest feature level that this build knows.
    pub(super) highest_level: u32,
}

/// Entries to apply, and the results of those that are applied.
pub(super) struct Entries {
    waiting: std::vec::IntoIter<EntryResponder<TypeConfig>>,
    /// The batch of the next large one, and its index, once it was read.
    read: Option<(u64, Checked)>,
    /// Large ones up to this index were read, or cannot be.
    read_through: u64,
    current: Option<Current>,
    outcomes: Outcomes,
    /// Proposers of entries that are applied, to be answered.
    answers: Vec<Answer>,
    /// The last entry that is applied.
    last: Option<u64>,
    key_events: Vec<KeyEvent>,
    garbage: Option<Garbage>,
}

impl Entries {
    /// Whether one of those that are left is large.
    fn has_large(&self) -> bool {
        let current = self.current.iter().map(|current| &current.entry);
        let mut left = current.chain(self.waiting.as_slice());
        left.any(|entry| large(entry).is_some())
    }

    /// Reads the first large entry that waits, if it was not read yet, which takes milliseconds. An entry
    /// that cannot be read fails in its turn.
    fn read_large(&mut self) {
        let mut waiting = self.waiting.as_slice().iter();
        let first = waiting.find_map(|entry| Some((entry.0.log_id().index, large(entry)?)));
        if let Some((index, batch)) = first
            && index > self.read_through
        {
            self.read = Checked::new(batch).ok().map(|checked| (index, checked));
            self.read_through = index;
        }
    }

    /// Whether the next one is to be read before its turn, without the lock.
    fn must_read(&self) -> bool {
        let next = self.waiting.as_slice().first();
        self.current.is_none()
            && next.is_some_and(|entry| {
                large(entry).is_some() && entry.0.log_id().index > self.read_through
            })
    }
}

/// The batch of an entry that is large.
fn large((entry, _): &EntryResponder<TypeConfig>) -> Option<&Bytes> {
    match &entry.payload {
        EntryPayload::Normal(batch) => Some(&batch.0).filter(|batch| batch.len() > LARGE_ENTRY),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

type Answer = (openraft::storage::ApplyResponder<TypeConfig>, Applied);

/// An entry of which a part is applied.
struct Current {
    entry: EntryResponder<TypeConfig>,
    applying: Applying,
}

/// Collects the results of applying, for this node's session and for proposers.
#[derive(Default)]
struct Outcomes {
    session: Option<SessionId>,
    events: Vec<session::Event>,
    system: Vec<SystemOutcome>,
    /// Commands of this session that were refused at the memory cap.
    growth_refused: u64,
    malformed: Option<DecodeError>,
}

impl Sink for Outcomes {
    fn reply(&mut self, session: SessionId, seq: u64, reply: &Reply) {
        if self.session == Some(session) {
            let is_refused = reply.value == ReplyValue::Error(ReplyError::OutOfMemory);
            self.growth_refused += u64::from(is_refused);
            self.events.push(session::Event::Executed {
                seq,
                reply: reply.clone(),
            });
        }
    }

    fn duplicate(&mut self, _session: SessionId, _seq: u64, _reply: Option<&Reply>) {
        // The first execution was applied here too and has answered already.
    }

    fn rejected(&mut self, session: SessionId, first_seq: u64, count: u64, why: Rejected) {
        if self.session == Some(session) {
            self.events.push(session::Event::Rejected {
                first_seq,
                count,
                why,
            });
        }
    }

    fn system(&mut self, _ordinal: usize, outcome: &SystemOutcome) {
        self.system.push(outcome.clone());
    }

    fn malformed(&mut self, why: &DecodeError) {
        self.malformed = Some(why.clone());
    }
}

impl Applier {
    /// Applies these entries, or those before the first that cannot be read, or those up to one that
    /// raises the feature level above what this build knows.
    pub(super) async fn apply(&self, chunk: Vec<EntryResponder<TypeConfig>>) -> io::Result<()> {
        self.check_running()?;
        if let Some((entry, _)) = chunk.last() {
            let waypoints = &self.counters.waypoints;
            waypoints.committed(entry.log_id().index);
        }
        let mut entries = Entries {
            waiting: chunk.into_iter(),
            read: None,
            read_through: 0,
            current: None,
            outcomes: Outcomes::default(),
            answers: Vec::new(),
            last: None,
            key_events: Vec::new(),
            garbage: None,
        };
        let _whole = self.replica.entries.lock().await;
        let mut next = None;
        loop {
            let progress;
            (entries, progress) = self.piece(entries, next).await?;
            if let Some(FatalError::Diverged(_)) = self.replica.halted() {
                // Its results are not to be trusted.
                return self.check_running();
            }
            self.pass_on(&mut entries);
            let before = next;
            match progress {
                Progress::Done => return self.check_running(),
                Progress::Paused { next: work } => next = Some(work),
            }
            // Heartbeats and votes run on the same thread: let them run in between.
            match (before, next) {
                // A command has begun: let clients run, too.
                (None | Some(1..), Some(0)) => yield_to_all_tasks().await,
                _ => tokio::task::yield_now().await,
            }
        }
    }

    fn check_running(&self) -> io::Result<()> {
        match self.replica.halted() {
            Some(why) => Err(io::Error::other(why.clone())),
            None => Ok(()),
        }
    }

    /// One piece, behind one that has paused before so much work: here if it and its entries are short
    /// and the lock is to be had, else on a blocking thread. So is the rest of a command.
    async fn piece(
        &self,
        mut entries: Entries,
        next: Option<u64>,
    ) -> io::Result<(Entries, Progress)> {
        let is_within_command = next == Some(0);
        let piece = if is_within_command {
            PIECE_OF_MANY
        } else {
            PIECE
        };
        let room = piece.max(next.unwrap_or(0));
        if !is_within_command
            && room <= HEAVY
            && !entries.has_large()
            && let Some(mut machine) = self.replica.machine.try_write_for(LOCK_WAIT)
        {
            let progress = self.run(&mut machine, &mut entries, room);
            machine.release();
            return Ok((entries, progress));
        }
        let applier = self.clone();
        busy(&self.env, move || {
            entries.read_large();
            let mut machine = applier.replica.machine.write();
            let progress = applier.run(&mut machine, &mut entries, room);
            machine.release();
            (entries, progress)
        })
        .await
    }

    /// Executes commands for which there is room, and publishes the visible state of the machine.
    fn run(&self, machine: &mut Machine, entries: &mut Entries, mut room: u64) -> Progress {
        let started = Instant::now();
        entries.outcomes.session = self.replica.session.id();
        let mut progress = Progress::Done;
        while progress == Progress::Done {
            if entries.must_read() {
                progress = Progress::Paused { next: 1 };
            } else if let Some(current) = self.next(machine, entries) {
                progress = self.resume(machine, entries, current, &mut room);
            } else {
                break;
            }
        }
        self.clock.applied(machine.store.stamp_ms());
        self.replica.publish(machine);
        entries.garbage = machine.store.take_garbage();
        entries.key_events = machine.store.take_key_events();
        self.counters.apply.count_duration(started.elapsed(), 1);
        if let Some(last) = entries.last {
            let revision = machine.store.revision();
            self.counters.waypoints.applied(last, revision);
        }
        progress
    }

    /// The next entry that has commands, begun.
    fn next(&self, machine: &mut Machine, entries: &mut Entries) -> Option<Current> {
        if let Some(current) = entries.current.take() {
            return Some(current);
        }
        loop {
            let entry = entries.waiting.next()?;
            let id = entry.0.log_id();
            #[cfg(memkv_bugs)]
            memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Apply);
            self.announcer.prepare(&mut machine.store, id.index);
            let read = entries.read.take_if(|(index, _)| *index == id.index);
            let read = read.map(|(_, read)| read);
            let begun = begin(machine, &entry.0, read, &mut entries.outcomes);
            if let Some(why) = &entries.outcomes.malformed {
                let unreadable = FatalError::Unreadable {
                    index: id.index,
                    term: id.committed_leader_id().term,
                    why: why.to_string(),
                };
                // Nothing is applied after the first reason.
                let _ = self.replica.halt(unreadable);
                entries.waiting = Vec::new().into_iter();
                return None;
            }
            // From now on a reader may see something of it.
            machine.last_applied = Some(codec::storage_id(&id));
            match begun {
                Some(applying) => return Some(Current { entry, applying }),
                None => self.ended(machine, entries, entry),
            }
        }
    }

    fn resume(
        &self,
        machine: &mut Machine,
        entries: &mut Entries,
        mut current: Current,
        room: &mut u64,
    ) -> Progress {
        let store = &mut machine.store;
        let progress = store.resume(&mut current.applying, room, &mut entries.outcomes);
        match progress {
            Progress::Done => self.ended(machine, entries, current.entry),
            Progress::Paused { .. } => entries.current = Some(current),
        }
        progress
    }

    /// Nothing is applied after this, so there is one reason only.
    fn halt(&self, entries: &mut Entries, why: FatalError) {
        let _ = self.replica.halt(why);
        entries.waiting = Vec::new().into_iter();
    }

    /// An entry is applied.
    fn ended(
        &self,
        machine: &mut Machine,
        entries: &mut Entries,
        (entry, responder): EntryResponder<TypeConfig>,
    ) {
        entries.last = Some(entry.log_id().index);
        self.replica.checkpoints.note(&machine.store);
        let system = std::mem::take(&mut entries.outcomes.system);
        if !system.is_empty() {
            machine.note_member_table();
            let events = &mut entries.outcomes.events;
            self.replica.session.on_system(&machine.store, events);
            let level = machine.store.member_table().level();
            if let Err(too_old) = levels::check(level, self.highest_level) {
                self.halt(entries, too_old.into());
            }
        }
        if let Some(responder) = responder {
            entries.answers.push((responder, Applied { system }));
        }
    }

    /// Passes on the results of a piece. Without the lock.
    fn pass_on(&self, entries: &mut Entries) {
        // Before any answer: a client that has one has missed nothing that came before it.
        self.announcer.tell(std::mem::take(&mut entries.key_events));
        if let Some(garbage) = entries.garbage.take() {
            // Freeing a million keys takes longer than a heartbeat may wait.
            tokio::spawn((self.env.busy)(Box::new(move || drop(garbage))));
        }
        if let Some(index) = entries.last.take() {
            self.replica.publish_applied(index);
        }
        let refused = std::mem::take(&mut entries.outcomes.growth_refused);
        if refused > 0 {
            let counter = &self.counters.growth_refused;
            counter.fetch_add(refused, Ordering::Relaxed);
        }
        let events = std::mem::take(&mut entries.outcomes.events);
        self.replica.session.on_applied(events);
        for (responder, applied) in entries.answers.drain(..) {
            responder.send(applied);
        }
    }
}

/// Begins an entry, whose batch may have been read; none if the entry has no commands.
fn begin(
    machine: &mut Machine,
    entry: &Entry,
    read: Option<Checked>,
    outcomes: &mut Outcomes,
) -> Option<Applying> {
    let id = entry.log_id();
    let store = &mut machine.store;
    match &entry.payload {
        EntryPayload::Blank => store.mark_applied(id.index),
        EntryPayload::Normal(batch) => {
            return match read {
                Some(read) => store.begin_checked(id.index, read, outcomes),
                None => store.begin_apply(id.index, &batch.0, outcomes),
            };
        }
        EntryPayload::Membership(membership) => {
            machine.store.mark_applied(id.index);
            let stored = StoredMembership::new(Some(id), membership.clone());
            machine.membership = Arc::new(codec::members(&stored));
        }
    }
    None
}
