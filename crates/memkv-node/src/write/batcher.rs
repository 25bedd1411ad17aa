//! The leader's batcher: all queued groups go into the next entry.
//!
//! An entry is proposed as soon as the one before is applied, or before that if there is much to
//! propose; nothing waits on a timer here (group commit has waited before, see `session`), so a single
//! command is proposed at once and a thousand share an entry and an fsync. A group that is refused here
//! was never appended.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::sync::lock::Mutex;
use bytes::Bytes;
use memkv_store::{BatchBuilder, DecodeError, EDGE_LEVEL, SystemOp, SystemOutcome};
use tokio::sync::{Notify, oneshot};

use crate::Env;
use crate::capacity::watch::CapacityWatch;
use crate::disk::space::{Shortage, SpaceWatch};
use crate::engine::handle::{Engine, Proposed};
use crate::env::blocking;
use crate::leadership::leader::Leader;
use crate::membership::levels::Levels;
use crate::time::log_clock::LogClock;
use crate::write::session::{EAGER_BYTES, GroupOutcome};

/// Entries proposed and not yet applied, while at least [`EAGER_BYTES`] wait for the next. Enough to
/// keep the disk busy while the last entry is on its way through the followers.
const ENTRIES_IN_FLIGHT: usize = 4;
/// Bytes of entries in flight from which the next entry waits for them: more than four entries of many small
/// groups have, so that this bounds large values only. Each entry is held once by the log, and as
/// long as the slowest follower needs for it; four of the largest values would be most of a small node's
/// memory.
const BYTES_IN_FLIGHT: usize = 8 * 1024 * 1024;
/// Bytes after which an entry takes no further group; a single larger group still goes whole.
const ENTRY_BYTES: usize = 1024 * 1024;
/// Bytes of groups from which they are put together on a blocking thread: to copy that many takes as
/// long as hundreds of commands.
const LARGE_BYTES: usize = 2 << 20;
/// Memory of a queued group besides its bytes, about.
const WORK_OVERHEAD: usize = 256;

/// Why a system operation has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// Certainly not appended.
    #[error("not appended: {0}")]
    NotAppended(String),
    /// Perhaps appended.
    #[error("outcome unknown")]
    Unknown,
}

type SystemAnswer = oneshot::Sender<Result<SystemOutcome, ProposeError>>;

enum Work {
    Group {
        encoded: Bytes,
        answer: oneshot::Sender<GroupOutcome>,
    },
    System {
        op: SystemOp,
        answer: SystemAnswer,
    },
    /// Nothing but the entry's stamp.
    Tick,
}

impl Work {
    /// Whether it may go on while space is low, at log time `now_ms`.
    fn is_for_low_space(&self, now_ms: u64) -> bool {
        match self {
            Work::Group { encoded, .. } => memkv_store::only_removes(encoded, now_ms),
            // Few and small: without a session no command that removes could come.
            Work::System { .. } | Work::Tick => true,
        }
    }

    /// Whether it may raise what the keys cost.
    fn may_grow(&self) -> bool {
        match self {
            Work::Group { encoded, .. } => memkv_store::may_grow(encoded),
            Work::System { .. } | Work::Tick => false,
        }
    }

    fn len(&self) -> usize {
        match self {
            Work::Group { encoded, .. } => encoded.len(),
            Work::System { .. } | Work::Tick => 0,
        }
    }

    fn refuse(self, outcome: GroupOutcome) {
        match self {
            // The caller may be gone, and needs no answer then. The same below.
            Work::Group { answer, .. } => drop(answer.send(outcome)),
            Work::System { answer, .. } => {
                let why = match outcome {
                    GroupOutcome::DiskLow | GroupOutcome::DiskExhausted => {
                        "a majority of the nodes has no disk space left"
                    }
                    GroupOutcome::NotAppended
                    | GroupOutcome::Applied
                    | GroupOutcome::Unknown
                    | GroupOutcome::MemoryLow => "this node does not lead",
                };
                drop(answer.send(Err(ProposeError::NotAppended(why.to_owned()))));
            }
            // The caller looks again.
            Work::Tick => {}
        }
    }
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    bytes: usize,
    in_flight: usize,
    bytes_in_flight: usize,
}

impl Queue {
    /// Whether the next entry may be proposed beside those in flight.
    fn has_slot(&self) -> bool {
        let most = if self.bytes < EAGER_BYTES {
            1
        } else {
            ENTRIES_IN_FLIGHT
        };
        self.in_flight < most && self.bytes_in_flight < BYTES_IN_FLIGHT
    }

    /// Refuses the groups that a shortage does not let pass.
    fn refuse(&mut self, outcome: GroupOutcome, may_pass: impl Fn(&Work) -> bool) {
        let (kept, refused): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.work)
            .into_iter()
            .partition(|work| may_pass(work));
        self.work = kept;
        self.bytes = self.work.iter().map(Work::len).sum();
        refused.into_iter().for_each(|work| work.refuse(outcome));
    }
}

/// Which nodes are short of what, as far as this node knows.
#[derive(Clone, Default)]
pub(crate) struct Shortages {
    pub(crate) space: Arc<SpaceWatch>,
    pub(crate) capacity: Arc<CapacityWatch>,
}

/// Collects the leader's proposals.
pub(crate) struct Batcher {
    queue: Mutex<Queue>,
    wakeup: Notify,
    clock: Arc<LogClock>,
    space: Arc<SpaceWatch>,
    capacity: Arc<CapacityWatch>,
    env: Env,
    levels: Arc<Levels>,
    /// Most bytes of groups that wait for a slot, from all nodes together.
    most_queued: usize,
}

impl Batcher {
    pub(crate) fn new(
        clock: Arc<LogClock>,
        shortages: Shortages,
        env: Env,
        levels: Arc<Levels>,
        most_queued: usize,
    ) -> Self {
        Self {
            queue: Mutex::default(),
            wakeup: Notify::new(),
            clock,
            space: shortages.space,
            capacity: shortages.capacity,
            env,
            levels,
            most_queued,
        }
    }

    /// The number of groups and operations that wait for the next entry.
    pub(crate) fn pending(&self) -> usize {
        self.queue.lock().work.len()
    }

    pub(crate) fn shortage(&self, engine: &Engine) -> Shortage {
        let voters = engine.voters().into_iter();
        self.space.of_majority(engine.id(), voters)
    }

    /// Whether nothing at all is proposed.
    pub(crate) fn refuses_for_space(&self, engine: &Engine) -> bool {
        let exhausted = [self.shortage(engine), self.space.own()];
        exhausted.contains(&Shortage::Exhausted) || !self.space.has_room()
    }

    /// Queues a group of a session's commands, in order of the calls.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if this node could not apply it: it was not queued, because every node would
    /// stop at such an entry.
    ///
    /// A group with something above the feature level in use here is answered as not appended: its
    /// origin uses a level that this node is about to use.
    pub(crate) fn propose(
        &self,
        encoded: Bytes,
    ) -> Result<oneshot::Receiver<GroupOutcome>, DecodeError> {
        let info = memkv_store::check_group(&encoded)?;
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        let taken = queue.bytes + queue.work.len() * WORK_OVERHEAD;
        let is_full = taken + encoded.len() > self.most_queued && !queue.work.is_empty();
        if is_full || info.level > self.levels.in_use() {
            drop(queue);
            let _ = answer.send(GroupOutcome::NotAppended);
            return Ok(receiver);
        }
        queue.bytes += encoded.len();
        queue.work.push_back(Work::Group { encoded, answer });
        drop(queue);
        self.wakeup.notify_one();
        Ok(receiver)
    }

    /// Queues a system operation, unless this node could not apply it.
    pub(crate) fn propose_system(
        &self,
        op: SystemOp,
    ) -> oneshot::Receiver<Result<SystemOutcome, ProposeError>> {
        let (answer, receiver) = oneshot::channel();
        let (needs, level) = (op.level(), self.levels.in_use());
        let checked = match SystemOp::decode(&op.encode()) {
            Ok(_) if needs > level => Err(DecodeError::AboveLevel { needs, level }),
            decoded => decoded.map(drop),
        };
        if let Err(error) = checked {
            // The caller may be gone.
            let _ = answer.send(Err(ProposeError::NotAppended(error.to_string())));
            return receiver;
        }
        self.queue
            .lock()
            .work
            .push_back(Work::System { op, answer });
        self.wakeup.notify_one();
        receiver
    }

    /// Makes sure that an entry with a stamp of now is proposed soon. Queued groups make one anyway.
    pub(crate) fn tick(&self) {
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::DropTicks) {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.work.is_empty() {
            queue.work.push_back(Work::Tick);
            drop(queue);
            self.wakeup.notify_one();
        }
    }

    /// Proposes until the engine stops.
    pub(crate) async fn run(self: Arc<Self>, engine: Engine) {
        loop {
            self.wakeup.notified().await;
            #[cfg(memkv_bugs)]
            memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Consensus);
            while let Some((work, stamp)) = self.next_entry(&engine) {
                // Of the term of the stamp: it may end while the clock is written down.
                let vote = engine.vote();
                self.clock.persisted().await;
                if self
                    .clone()
                    .propose_entry(&engine, work, stamp, vote)
                    .await
                    .is_err()
                {
                    self.refuse_all(GroupOutcome::NotAppended);
                    return;
                }
            }
        }
    }

    fn refuse_all(&self, outcome: GroupOutcome) {
        let work = std::mem::take(&mut self.queue.lock().work);
        self.queue.lock().bytes = 0;
        work.into_iter().for_each(|work| work.refuse(outcome));
    }

    /// The contents of the next entry, if there is a free slot and this node leads.
    fn next_entry(&self, engine: &Engine) -> Option<(Vec<Work>, u64)> {
        {
            let queue = self.queue.lock();
            if queue.work.is_empty() || !queue.has_slot() {
                return None;
            }
        }
        if !engine.is_leader() {
            self.refuse_all(GroupOutcome::NotAppended);
            return None;
        }
        let shortage = self.shortage(engine);
        if shortage == Shortage::Exhausted {
            self.refuse_all(GroupOutcome::DiskExhausted);
            return None;
        }
        if self.space.own() == Shortage::Exhausted {
            // Others have room: one of them leads soon.
            self.refuse_all(GroupOutcome::NotAppended);
            return None;
        }
        let stamp = self.clock.stamp();
        let mut queue = self.queue.lock();
        if shortage == Shortage::Low {
            queue.refuse(GroupOutcome::DiskLow, |work| work.is_for_low_space(stamp));
        }
        if self.levels.in_use() >= EDGE_LEVEL && self.capacity.refuses_growth(&engine.voters()) {
            queue.refuse(GroupOutcome::MemoryLow, |work| !work.may_grow());
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some(work) = queue.work.front() {
            let len = work.len();
            if !taken.is_empty() && bytes + len > ENTRY_BYTES {
                break;
            }
            if !self.space.take(1, len) {
                let rest = std::mem::take(&mut queue.work);
                queue.bytes = bytes;
                rest.into_iter()
                    .for_each(|work| work.refuse(GroupOutcome::NotAppended));
                break;
            }
            bytes += len;
            taken.extend(queue.work.pop_front());
        }
        if taken.is_empty() {
            return None;
        }
        queue.bytes -= bytes;
        queue.in_flight += 1;
        queue.bytes_in_flight += bytes;
        Some((taken, stamp))
    }

    async fn propose_entry(
        self: Arc<Self>,
        engine: &Engine,
        work: Vec<Work>,
        stamp: u64,
        vote: Leader,
    ) -> Result<(), ()> {
        let bytes = work.iter().map(Work::len).sum::<usize>();
        let (waiting, batch) = match bytes > LARGE_BYTES {
            false => put_together(work, stamp),
            true => blocking(&self.env, move || put_together(work, stamp))
                .await
                .map_err(drop)?,
        };
        let batcher = self.clone();
        let settled = move |proposed| {
            {
                let mut queue = batcher.queue.lock();
                queue.in_flight -= 1;
                queue.bytes_in_flight -= bytes;
            }
            batcher.wakeup.notify_one();
            settle(waiting, proposed);
        };
        engine.propose(batch, vote, settled).await.map_err(drop)
    }
}

/// The receiver of an outcome.
enum Waiting {
    Group(oneshot::Sender<GroupOutcome>),
    System(SystemAnswer),
}

/// The batch of an entry, and what waits for its outcome. The groups' own bytes are released here.
fn put_together(work: Vec<Work>, stamp: u64) -> (Vec<Waiting>, Bytes) {
    let mut builder = BatchBuilder::new(stamp);
    let mut waiting = Vec::with_capacity(work.len());
    for item in work {
        match item {
            Work::Group { encoded, answer } => {
                builder.raw_group(&encoded);
                waiting.push(Waiting::Group(answer));
            }
            Work::System { op, answer } => {
                builder.system(&op);
                waiting.push(Waiting::System(answer));
            }
            Work::Tick => {}
        }
    }
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::ProposeUnreadable) && stamp % 64 == 7
        || memkv_disk::bugs::take(memkv_disk::bugs::PanicPoint::Unreadable)
    {
        let unknown = Bytes::from_static(b"\xee");
        builder.raw_group(&memkv_store::encode_group(0, 1, 0, [&unknown].into_iter()));
    }
    (waiting, builder.finish())
}

/// Tells each group and operation of an entry its outcome.
fn settle(waiting: Vec<Waiting>, proposed: Proposed) {
    let (outcome, system) = match proposed {
        Proposed::Applied(system) => (GroupOutcome::Applied, system),
        Proposed::NotAppended => (GroupOutcome::NotAppended, Vec::new()),
        Proposed::Unknown => (GroupOutcome::Unknown, Vec::new()),
    };
    let mut outcomes = system.into_iter();
    for item in waiting {
        match item {
            Waiting::Group(answer) => drop(answer.send(outcome)),
            Waiting::System(answer) => {
                let result = match outcome {
                    GroupOutcome::Applied => outcomes.next().ok_or(ProposeError::Unknown),
                    GroupOutcome::NotAppended
                    | GroupOutcome::DiskLow
                    | GroupOutcome::DiskExhausted
                    | GroupOutcome::MemoryLow => Err(ProposeError::NotAppended(
                        "this node does not lead".to_owned(),
                    )),
                    GroupOutcome::Unknown => Err(ProposeError::Unknown),
                };
                let _ = answer.send(result);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use memkv_store::{Command, ExpireIf, Expiry};

    use super::*;

    #[tokio::test]
    async fn what_this_build_cannot_read_is_never_queued() {
        let env = Env::real();
        let clock = LogClock::resume(env.clone(), None, None);
        let shortages = Shortages::default();
        let batcher = Batcher::new(Arc::new(clock), shortages, env, Arc::default(), 1 << 20);
        let unknown = Bytes::from_static(b"\xee");
        let group = memkv_store::encode_group(1, 1, 0, [unknown].iter());
        assert!(batcher.propose(group).is_err());
        let mut outcome = batcher.propose_system(SystemOp::SetAddress {
            node: 1,
            addr: "x".repeat(memkv_store::MAX_ADDR_BYTES + 1),
        });
        let refused = outcome.try_recv();
        assert!(
            matches!(&refused, Ok(Err(ProposeError::NotAppended(why))) if why.contains("address")),
            "{refused:?}"
        );
        assert_eq!(batcher.pending(), 0);
    }

    #[test]
    fn low_space_refuses_what_may_add_and_nothing_else() {
        let key = Bytes::from_static(b"k");
        let set = Command::Set {
            key: key.clone(),
            value: Bytes::new(),
        };
        let expire = Command::Expire {
            key,
            expiry: Expiry::At { ms: 100 },
            condition: ExpireIf::Always,
        };
        let mut queue = Queue::default();
        let mut answers = Vec::new();
        for command in [&expire, &set] {
            let (answer, receiver) = oneshot::channel();
            let encoded = memkv_store::encode_group(1, 1, 0, [command.encode()].iter());
            queue.bytes += encoded.len();
            queue.work.push_back(Work::Group { encoded, answer });
            answers.push(receiver);
        }
        let (answer, _opened) = oneshot::channel();
        let op = SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: 1,
        };
        queue.work.push_back(Work::System { op, answer });
        queue.work.push_back(Work::Tick);
        queue.refuse(GroupOutcome::DiskLow, |work| work.is_for_low_space(100));
        assert!(answers[0].try_recv().is_err(), "it waits on");
        assert_eq!(answers[1].try_recv(), Ok(GroupOutcome::DiskLow));
        assert_eq!(queue.work.len(), 3);
        assert_eq!(queue.bytes, queue.work[0].len());
        queue.refuse(GroupOutcome::DiskLow, |work| work.is_for_low_space(99));
        let refused = answers[0].try_recv();
        assert_eq!(
            refused,
            Ok(GroupOutcome::DiskLow),
            "its deadline is to come"
        );
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn short_memory_refuses_what_may_grow_the_keys_and_nothing_else() {
        let key = Bytes::from_static(b"k");
        let set = Command::Set {
            key: key.clone(),
            value: Bytes::new(),
        };
        let del = Command::Del { keys: vec![key] };
        let mut queue = Queue::default();
        let mut answers = [vec![&del], vec![&del, &set]].map(|commands| {
            let (answer, receiver) = oneshot::channel();
            let commands: Vec<Bytes> = commands.into_iter().map(Command::encode).collect();
            let encoded = memkv_store::encode_group(1, 1, 0, commands.iter());
            queue.work.push_back(Work::Group { encoded, answer });
            receiver
        });
        queue.work.push_back(Work::Tick);
        queue.refuse(GroupOutcome::MemoryLow, |work| !work.may_grow());
        assert!(answers[0].try_recv().is_err(), "it waits on");
        assert_eq!(answers[1].try_recv(), Ok(GroupOutcome::MemoryLow));
        assert_eq!(queue.work.len(), 2);
    }

    #[test]
    fn small_entries_go_side_by_side_and_large_ones_one_at_a_time() {
        let mut queue = Queue {
            bytes: EAGER_BYTES,
            ..Queue::default()
        };
        let mut proposed = |bytes| {
            let has_slot = queue.has_slot();
            if has_slot {
                queue.in_flight += 1;
                queue.bytes_in_flight += bytes;
            }
            has_slot
        };
        assert_eq!(
            [ENTRY_BYTES; 5].map(&mut proposed),
            [true, true, true, true, false]
        );
        let mut queue = Queue {
            bytes: EAGER_BYTES,
            ..Queue::default()
        };
        assert!(queue.has_slot());
        queue.bytes_in_flight = 64 << 20;
        assert!(!queue.has_slot(), "whatever is in flight is large");
        queue.bytes_in_flight = 0;
        assert!(queue.has_slot());
    }

    #[test]
    fn the_bytes_of_a_group_are_released_once_its_entry_is_built() {
        let (answer, _outcome) = oneshot::channel();
        let noop = [Command::Noop.encode()];
        let encoded = memkv_store::encode_group(1, 1, 0, noop.iter());
        let owner = Arc::new(encoded.clone());
        let work = Work::Group {
            encoded: Bytes::from_owner(Shared(owner.clone())),
            answer,
        };
        let (waiting, batch) = put_together(vec![work], 5);
        assert_eq!((waiting.len(), Arc::strong_count(&owner)), (1, 1));
        assert!(batch.len() > encoded.len());
    }

    /// Bytes whose last reference can be told.
    struct Shared(Arc<Bytes>);

    impl AsRef<[u8]> for Shared {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
}
