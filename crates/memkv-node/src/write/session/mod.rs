//! This node's forwarding session: its clients' commands on their way into the log, exactly once.
//!
//! Every command gets the next sequence number when it is first sent to a leader, and stays in the
//! window until its effect is known. Replies come from this node's own apply, which sees every
//! entry, so the leader only ever answers "not appended", and a command can be sent again after any
//! doubt: `memkv-store` executes a sequence number once.
//!
//! Invariants: numbers in the window are contiguous; a command is answered "not executed" only if
//! it was sent to no leader, or if every leader has answered that it appended nothing; a number once sent
//! is always filled, if need be by a `Noop`, because the numbers behind it can only execute after it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memkv_store::{Command, Principal, Rejected, Reply, SessionId, Store};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use crate::RequestError;
use crate::sync::lock_order::Leaf;

/// From here on a command is a large one. Of the bytes that wait, large commands may take three quarters: the
/// rest is kept for small ones, so that clients of large values never keep the others out.
const LARGE_COMMAND: usize = 64 * 1024;
/// Memory of a queued command besides its bytes, about: its slot in the queue, the header of its bytes,
/// and both ends of the channel of its answer.
const COMMAND_OVERHEAD: usize = 256;
/// Most bytes of commands in the window: sent and not yet applied here.
const WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Most commands in the window.
const WINDOW_COMMANDS: usize = 65_536;
/// Most bytes of commands in one group on its way to the leader, unless one command is larger.
const GROUP_BYTES: usize = 512 * 1024;
/// Most bytes of a group that are copied while the window is locked; a larger group is shared.
const COPIED_IN_WINDOW_BYTES: usize = 64 * 1024;
/// Most commands in one group.
const GROUP_COMMANDS: usize = 4_096;
/// From so many queued bytes on, a group is sent beside the groups in flight; fewer bytes wait until those
/// are applied, and then a moment longer as `group_commit` says. On three nodes, an entry costs as much
/// CPU time by itself as fifty commands, so many small entries side by side help no client.
pub(crate) const EAGER_BYTES: usize = 64 * 1024;
/// A window whose head made no progress for this long is sent again: a request or its effect was lost
/// silently. Twice the time that a slow disk may take, so that its work is not doubled.
const RESEND_AFTER: Duration = Duration::from_secs(1);

/// After a leader refused growth because nodes are near the limit of their memory, this node refuses it by
/// itself for so long: large values would travel to the leader for nothing, and need memory there. What comes
/// then asks the leader again.
const GROWTH_REFUSED_FOR: Duration = Duration::from_millis(500);

/// How much longer a client waits if its command was sent to a leader when its time is over: the answer
/// "not appended" is worth more than "unknown".
const OUTCOME_GRACE: Duration = Duration::from_millis(500);

mod group_commit;
pub(crate) mod judging;
mod window;

use judging::Judging;
use window::{Closed, Pending, Window};

type Answer = oneshot::Sender<Result<Reply, RequestError>>;

/// A report of apply about this session.
pub(crate) enum Event {
    /// The command was executed, now.
    Executed {
        /// Its sequence number.
        seq: u64,
        /// Its reply.
        reply: Reply,
    },
    /// Commands were not executed.
    Rejected {
        /// The number of the first one.
        first_seq: u64,
        /// How many.
        count: u64,
        /// Why.
        why: Rejected,
    },
    /// The session was opened.
    Opened(SessionId),
}

/// A piece of the window for the leader.
pub(crate) struct Group {
    pub(crate) session: SessionId,
    pub(crate) first_seq: u64,
    pub(crate) count: u64,
    /// As `memkv-store` encodes it.
    pub(crate) encoded: Bytes,
}

/// The outcome of a group that was sent to a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupOutcome {
    /// It was appended, and applied there.
    Applied,
    /// Certainly not appended.
    NotAppended,
    /// Perhaps appended.
    Unknown,
    /// Certainly not appended: a majority is low on disk space, and it may add to the data.
    DiskLow,
    /// Certainly not appended: a majority has no disk space left.
    DiskExhausted,
    /// Certainly not appended: nodes are near the limit of their memory, and it may grow the keys.
    MemoryLow,
}

impl GroupOutcome {
    fn is_refusal(self) -> bool {
        match self {
            Self::NotAppended | Self::DiskLow | Self::DiskExhausted | Self::MemoryLow => true,
            Self::Applied | Self::Unknown => false,
        }
    }
}

/// The session of this process.
pub(crate) struct Session {
    /// This node's id once it has one, and the boot that tells this process from earlier ones.
    boot: u64,
    node_id: std::sync::atomic::AtomicU64,
    /// Most bytes of commands that wait for a sequence number, unless one alone is larger. Beyond it
    /// commands are refused.
    most_pending: usize,
    window: Leaf<Window>,
    judging: Judging,
    /// Commands that waited for an answer and got it out of a snapshot, or learned that it is lost.
    answered_by_snapshot: std::sync::atomic::AtomicU64,
    /// Whether the log has ever opened this boot's session.
    was_opened: watch::Sender<bool>,
    /// Wakes the task that sends.
    pub(crate) wakeup: Notify,
}

/// Wakes the sender when dropped: a command must not wait for a caller that does not.
struct WakeOnDrop(Arc<Session>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake_sender();
    }
}

/// A command that is in line.
pub(crate) struct Submitted {
    receiver: oneshot::Receiver<Result<Reply, RequestError>>,
    wake: Option<WakeOnDrop>,
}

impl Submitted {
    /// Waits for the reply, or for the reason why there is none.
    pub(crate) async fn reply(mut self) -> Result<Reply, RequestError> {
        if let Some(wake) = self.wake {
            if let Ok(reply) = self.receiver.try_recv() {
                return reply;
            }
            // Commands that are ready on this thread join the same group: each group costs a wake-up
            // and an entry.
            tokio::task::yield_now().await;
            drop(wake);
        }
        self.receiver.await.unwrap_or_else(|_| {
            Err(RequestError::Unknown {
                detail: "the node stopped".to_owned(),
            })
        })
    }
}

fn may_grow(command: &Bytes) -> bool {
    Command::decode(command).map_or(true, |command| command.may_grow())
}

impl Session {
    pub(crate) fn new(boot: u64, most_pending: usize) -> Self {
        let window = Window {
            first_seq: 1,
            ..Window::default()
        };
        Self {
            boot,
            node_id: std::sync::atomic::AtomicU64::new(0),
            most_pending,
            window: Leaf::new(window),
            judging: Judging::default(),
            answered_by_snapshot: std::sync::atomic::AtomicU64::new(0),
            was_opened: watch::Sender::new(false),
            wakeup: Notify::new(),
        }
    }

    /// Tells the session the id of this node. Happens once, before anything is applied.
    pub(crate) fn identify(&self, node_id: u64) {
        self.node_id
            .store(node_id, std::sync::atomic::Ordering::Release);
    }

    pub(crate) fn node_id(&self) -> u64 {
        self.node_id.load(std::sync::atomic::Ordering::Acquire)
    }

    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// How many commands had to be answered out of a snapshot.
    pub(crate) fn answered_by_snapshot(&self) -> u64 {
        self.answered_by_snapshot
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The session's id, once the log has opened it.
    pub(crate) fn id(&self) -> Option<SessionId> {
        self.window.lock().id
    }

    /// Resolves once the log has opened this boot's session. The entry was written after this process
    /// started, so from then on the state here is not older than the start.
    pub(crate) fn opened(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut opened = self.was_opened.subscribe();
        async move {
            // An error: the node has ended.
            if opened.wait_for(|opened| *opened).await.is_err() {
                std::future::pending().await
            }
        }
    }

    // For clients, from any thread.

    /// Queues a command, without a user where its node knows no table of users. If it is to leave at once,
    /// [`Session::wake_sender`] must be called soon, which [`Submitted`] sees to; else the effect of what is on its way takes it along, or another one.
    pub(crate) fn submit_as(
        self: &Arc<Self>,
        command: Bytes,
        principal: Option<Principal>,
        hold: Duration,
    ) -> Result<Submitted, RequestError> {
        let (answer, receiver) = oneshot::channel();
        let mut window = self.window.lock();
        #[cfg(memkv_bugs)]
        memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Writing);
        if window.finishing || window.closed {
            return Err(RequestError::Stopping);
        }
        if window.leaving {
            return Err(RequestError::NoLeader {
                detail: "this node leaves the cluster; use another one".to_owned(),
            });
        }
        let now = Instant::now();
        if window.refuses_growth(now) && may_grow(&command) {
            return Err(RequestError::OutOfMemory);
        }
        // An empty queue takes any command: the largest value alone may be as large as the bound.
        let queued = window.pending_cost();
        let most = match command.len() < LARGE_COMMAND {
            true => self.most_pending,
            false => self.most_pending / 4 * 3,
        };
        let full = queued + command.len() + COMMAND_OVERHEAD > most;
        if full && !window.pending.is_empty() {
            return Err(RequestError::Overloaded { queued });
        }
        let was_eager = window.pending_bytes >= EAGER_BYTES;
        window.pending_bytes += command.len();
        let is_eager = window.pending_bytes >= EAGER_BYTES && !was_eager;
        window.pending.push_back(Pending {
            command,
            principal: principal.or(Some(judging::WITHOUT_TABLE)),
            answer,
            deadline: now + hold,
        });
        let must_wake = window.is_due(now);
        drop(window);
        if is_eager {
            self.wakeup.notify_one();
        }
        Ok(Submitted {
            receiver,
            wake: must_wake.then(|| WakeOnDrop(self.clone())),
        })
    }

    /// Whether this node leaves the cluster, as far as it has applied: then it finishes what it has taken, and takes
    /// no more.
    pub(crate) fn leave(&self, leaves: bool) {
        self.window.lock().leaving = leaves;
    }

    /// Wakes the task that sends, unless nothing waits or something is on its way.
    fn wake_sender(&self) {
        let due = {
            let window = self.window.lock();
            window.is_due(Instant::now()) && window.unsent() > 0
        };
        if due {
            self.wakeup.notify_one();
        }
    }

    // For the task that sends, see `sender`.

    /// The next group for the leader, if there is one, the window has room, and either nothing is on
    /// its way and enough commands are queued, or it is worth an entry beside that.
    pub(crate) fn next_group(&self) -> Option<Group> {
        let mut window = self.window.lock();
        if window.closed {
            // The clients of the queued commands were told that those were not executed.
            return None;
        }
        let id = window.id?;
        let now = Instant::now();
        window.admit();
        let unsent = window.slots.len() - window.sent;
        if unsent == 0 || !(window.is_due(now) || window.is_eager()) {
            return None;
        }
        #[cfg(memkv_bugs)]
        self.judging.stamp_at_sending(&mut window);
        let start = window.sent;
        let (count, bytes, rights) = window.fitting(unsent.min(GROUP_COMMANDS));
        let first_seq = window.first_seq + start as u64;
        let acked_through = window.first_seq - 1;
        #[cfg(memkv_bugs)]
        let acked_through = acked_through + acknowledges_too_much(start + count);
        let commands: Vec<&Bytes> = window
            .slots
            .range(start..start + count)
            .map(|slot| &slot.command)
            .collect();
        let encode = |commands: Vec<&Bytes>| {
            let commands = commands.into_iter();
            memkv_store::encode_group_of(id, first_seq, acked_through, &rights, commands)
        };
        // A long copy would keep clients waiting for the lock of the window.
        let (encoded, unencoded) = if bytes > COPIED_IN_WINDOW_BYTES {
            (None, commands.into_iter().cloned().collect())
        } else {
            (Some(encode(commands)), Vec::new())
        };
        for slot in window.slots.range_mut(start..start + count) {
            slot.in_flight += 1;
        }
        #[cfg(memkv_bugs)]
        window.acknowledge_early(start..start + count);
        window.sent += count;
        window.progress_at = Some(now);
        window.group_commit.sent(count, now);
        drop(window);
        let encoded = encoded.unwrap_or_else(|| encode(unencoded.iter().collect()));
        Some(Group {
            session: id,
            first_seq,
            count: count as u64,
            encoded,
        })
    }

    /// Takes the outcome of a group. A group that is not known to be applied must be sent again; where
    /// disks are low at log time `now_ms`, without the commands that may add to the data.
    pub(crate) fn settle(
        &self,
        session: SessionId,
        first_seq: u64,
        count: u64,
        outcome: GroupOutcome,
        now_ms: u64,
    ) {
        let mut window = self.window.lock();
        if window.id != Some(session) {
            return;
        }
        for seq in first_seq..first_seq + count {
            let Some(position) = window.position(seq) else {
                continue;
            };
            let slot = &mut window.slots[position];
            slot.in_flight = slot.in_flight.saturating_sub(1);
            slot.exposed |= !outcome.is_refusal();
        }
        match outcome {
            GroupOutcome::DiskLow => {
                let may_add = |command: &Bytes| {
                    !Command::decode(command).is_ok_and(|command| command.only_removes(now_ms))
                };
                window.refuse_unexposed(&RequestError::DiskFull, may_add);
            }
            GroupOutcome::DiskExhausted => {
                window.refuse_unexposed(&RequestError::DiskExhausted, |_| true);
            }
            GroupOutcome::MemoryLow => {
                window.growth_refused_until = Some(Instant::now() + GROWTH_REFUSED_FOR);
                window.refuse_unexposed(&RequestError::OutOfMemory, may_grow);
            }
            GroupOutcome::Applied | GroupOutcome::NotAppended | GroupOutcome::Unknown => {}
        }
        if outcome != GroupOutcome::Applied {
            window.rewind_to(first_seq);
            window.trim();
        }
    }

    /// After a change of leader or term: sends everything in doubt again.
    pub(crate) fn rewind(&self) {
        let mut window = self.window.lock();
        let first = window.first_seq;
        window.rewind_to(first);
    }

    /// Answers the commands that waited too long, and rewinds a window that makes no progress. `no_leader` may look
    /// at the machine, so it is not called under the window's lock.
    pub(crate) fn expire(&self, no_leader: impl FnOnce() -> String) {
        let now = Instant::now();
        {
            let mut window = self.window.lock();
            if window.resend_at().is_some_and(|at| at <= now) {
                let first = window.first_seq;
                window.rewind_to(first);
            }
            if !window.is_overdue(now) {
                return;
            }
        }
        let why = no_leader();
        let mut window = self.window.lock();
        window.expire_pending(now, &why);
        window.expire_slots(now, &why);
    }

    /// When to call [`Session::expire`] next.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        let window = self.window.lock();
        let waiting = window.slots.iter().find(|slot| slot.answer.is_some());
        let now = Instant::now();
        let next = waiting.map(|slot| {
            if slot.deadline > now {
                slot.deadline
            } else {
                slot.deadline + OUTCOME_GRACE
            }
        });
        [
            next,
            window.pending.front().map(|pending| pending.deadline),
            window.resend_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When [`Session::next_group`] must be called again, even if nothing has come by then.
    pub(crate) fn waits_for_more_until(&self) -> Option<Instant> {
        self.window.lock().group_commit.until(Instant::now())
    }

    /// Takes no more commands; those that it has taken go on.
    pub(crate) fn finish(&self) {
        self.window.lock().finishing = true;
    }

    /// Refuses everything from now on and answers everything that waits.
    pub(crate) fn close(&self) {
        let mut window = self.window.lock();
        window.closed = true;
        window.pending_bytes = 0;
        for pending in std::mem::take(&mut window.pending) {
            let _ = pending.answer.send(Err(RequestError::Stopping));
        }
        for slot in &mut window.slots {
            let exposed = slot.exposed || slot.in_flight > 0;
            if let Some(answer) = slot.answer.take() {
                let _ = answer.send(Err(if exposed {
                    RequestError::Unknown {
                        detail: "the node stopped".to_owned(),
                    }
                } else {
                    RequestError::Stopping
                }));
            }
        }
    }

    /// Whether any client waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        let window = self.window.lock();
        window.pending.is_empty() && window.slots.iter().all(|slot| slot.answer.is_none())
    }

    // For apply.

    /// Called after a system operation was applied, with the store's lock held: notes whether the
    /// log has just opened this process's session.
    pub(crate) fn on_system(&self, store: &Store, events: &mut Vec<Event>) {
        let node = self.node_id();
        let Some(id) = store.session_of_node(node) else {
            return;
        };
        let ours = store
            .session(id)
            .is_some_and(|session| session.boot() == self.boot);
        if ours && self.id() != Some(id) {
            events.push(Event::Opened(id));
        }
    }

    /// Takes the effects of a chunk of entries, in log order.
    pub(crate) fn on_applied(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut window = self.window.lock();
        for event in events {
            match event {
                Event::Executed { seq, reply } => window.executed(seq, Ok(reply)),
                Event::Rejected {
                    first_seq,
                    count,
                    why,
                } => match why {
                    Rejected::Gap { expected } => window.rewind_to(expected),
                    Rejected::UnknownSession => window.fenced(Closed::InLog),
                    Rejected::Rights { .. } => {
                        drop(window);
                        self.judge_again(first_seq, count);
                        window = self.window.lock();
                    }
                },
                Event::Opened(id) => {
                    window.opened(id);
                    self.was_opened.send_replace(true);
                }
            }
        }
        if window.sent == 0 {
            let waiting = window.unsent();
            window.group_commit.took_effect(waiting, Instant::now());
        }
        drop(window);
        self.wakeup.notify_one();
    }

    /// After a snapshot replaced the store: its cached replies tell which commands it had executed.
    pub(crate) fn on_snapshot(&self, store: &Store) {
        let id = store.session_of_node(self.node_id());
        let session = id
            .and_then(|id| Some((id, store.session(id)?)))
            .filter(|(_, session)| session.boot() == self.boot);
        let mut window = self.window.lock();
        if window
            .id
            .is_some_and(|own| session.is_none_or(|(id, _)| id != own))
        {
            window.fenced(Closed::BehindSnapshot);
        }
        if let Some((id, session)) = session {
            if window.id.is_none() {
                window.opened(id);
                self.was_opened.send_replace(true);
            }
            while window.first_seq <= session.last_seq() && !window.slots.is_empty() {
                let seq = window.first_seq;
                let answer = session.reply(seq).cloned().ok_or_else(lost_reply);
                let waits = window
                    .slots
                    .front()
                    .is_some_and(|slot| slot.answer.is_some());
                self.answered_by_snapshot
                    .fetch_add(u64::from(waits), std::sync::atomic::Ordering::Relaxed);
                window.executed(seq, answer);
            }
        }
        drop(window);
        self.wakeup.notify_one();
    }
}

#[cfg(memkv_bugs)]
fn acknowledges_too_much(sent: usize) -> u64 {
    match crate::bugs::active(crate::bugs::Bug::AcknowledgeTooMuch) {
        true => sent as u64,
        false => 0,
    }
}

fn lost_reply() -> RequestError {
    RequestError::Unknown {
        detail: "it was executed, but this node was too far behind to keep its reply".to_owned(),
    }
}

#[cfg(test)]
mod tests;
