//! The window: commands with sequence numbers, and the queue of those that wait for one.
//! Never sends anything; [`Session`](super::Session) locks it and calls it.

use std::collections::VecDeque;

use bytes::Bytes;
#[cfg(memkv_bugs)]
use memkv_store::ReplyValue;
use memkv_store::{Command, GroupRights, NO_TABLE, Principal, Reply, SessionId, changes_users};
use tokio::time::Instant;

use super::group_commit::GroupCommit;
use super::{
    Answer, COMMAND_OVERHEAD, EAGER_BYTES, GROUP_BYTES, OUTCOME_GRACE, RESEND_AFTER, WINDOW_BYTES,
    WINDOW_COMMANDS,
};
use crate::RequestError;

/// A command that has not been sent to any leader.
pub(super) struct Pending {
    pub(super) command: Bytes,
    /// None of a `Noop` that fills a number.
    pub(super) principal: Option<Principal>,
    pub(super) answer: Answer,
    pub(super) deadline: Instant,
}

/// A command that has a sequence number.
pub(super) struct Slot {
    pub(super) command: Bytes,
    /// The user of the command, and the revision of the table under which it was judged.
    pub(super) principal: Option<Principal>,
    /// `None` once the client has its answer.
    pub(super) answer: Option<Answer>,
    pub(super) deadline: Instant,
    /// Requests that carry it and have no outcome yet.
    pub(super) in_flight: u32,
    /// Some leader may have appended it.
    pub(super) exposed: bool,
}

/// How this node learned that its session was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// By an entry: everything that the session executed was applied here before, so the commands that are
    /// left in the window were not executed.
    InLog,
    /// By a snapshot of a later time: the commands that the session executed in between were not seen here.
    BehindSnapshot,
}

#[derive(Default)]
pub(super) struct Window {
    pub(super) id: Option<SessionId>,
    /// Sequence number of `slots[0]`.
    pub(super) first_seq: u64,
    pub(super) slots: VecDeque<Slot>,
    pub(super) slot_bytes: usize,
    /// Slots before this one were sent to the current leader.
    pub(super) sent: usize,
    /// When the head of the window last changed or was last sent.
    pub(super) progress_at: Option<Instant>,
    /// When the next group is sent.
    pub(super) group_commit: GroupCommit,
    pub(super) pending: VecDeque<Pending>,
    /// This node leaves the cluster: it takes no more commands.
    pub(super) leaving: bool,
    pub(super) pending_bytes: usize,
    /// Nothing more is accepted: the node stops. What was accepted goes on.
    pub(super) finishing: bool,
    /// The same, and nothing goes on.
    pub(super) closed: bool,
    /// Until then nothing that may grow the keys is accepted.
    pub(super) growth_refused_until: Option<Instant>,
    /// The highest revision that any answer named.
    #[cfg(memkv_bugs)]
    pub(super) claimed: u64,
}

impl Slot {
    /// Takes the command out and leaves its number filled. Returns the bytes that this saves.
    pub(super) fn become_noop(&mut self) -> usize {
        let noop = Command::Noop.encode();
        let saved = self.command.len().saturating_sub(noop.len());
        self.command = noop;
        self.principal = None;
        saved
    }
}

#[cfg(memkv_bugs)]
impl Window {
    /// Answers writes of values before anything was committed, if that bug is on: with the revision that
    /// they would have if no other node wrote.
    pub(super) fn acknowledge_early(&mut self, slots: std::ops::Range<usize>) {
        if !crate::bugs::active(crate::bugs::Bug::AcknowledgeBeforeCommit) {
            return;
        }
        let sets = self.slots.range_mut(slots).filter(|slot| {
            matches!(Command::decode(&slot.command), Ok(Command::Set { .. }))
                && slot.answer.is_some()
        });
        for slot in sets {
            self.claimed += 1;
            let reply = Reply {
                revision: self.claimed,
                value: ReplyValue::Ok,
            };
            let _ = slot.answer.take().map(|answer| answer.send(Ok(reply)));
        }
    }
}

impl Window {
    pub(super) fn position(&self, seq: u64) -> Option<usize> {
        let position = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        (position < self.slots.len()).then_some(position)
    }

    /// Gives sequence numbers to commands that wait, while there is room.
    pub(super) fn admit(&mut self) {
        while self.slots.len() < WINDOW_COMMANDS
            && (self.slot_bytes < WINDOW_BYTES || self.slots.is_empty())
        {
            let Some(pending) = self.pending.pop_front() else {
                return;
            };
            self.pending_bytes -= pending.command.len();
            self.slot_bytes += pending.command.len();
            self.slots.push_back(Slot {
                command: pending.command,
                principal: pending.principal,
                answer: Some(pending.answer),
                deadline: pending.deadline,
                in_flight: 0,
                exposed: false,
            });
        }
    }

    /// How many unsent commands, at most so many, fit into one group, their bytes and their principals. A
    /// group has commands that were judged by a table or commands that were judged by none, so that apply can
    /// tell them apart.
    pub(super) fn fitting(&self, most: usize) -> (usize, usize, GroupRights) {
        let mut rights = GroupRights::default();
        let (mut count, mut bytes) = (0, 0);
        let mut by_table = None;
        for slot in self.slots.range(self.sent..).take(most) {
            let len = slot.command.len();
            if count > 0 && bytes + len > GROUP_BYTES {
                break;
            }
            if let Some(principal) = slot.principal {
                let has_table = principal.user != NO_TABLE;
                #[cfg(memkv_bugs)]
                let principal = super::judging::as_operator(principal);
                if *by_table.get_or_insert(has_table) != has_table {
                    break;
                }
                if has_table && !rights.add(principal) {
                    break;
                }
            }
            bytes += len;
            count += 1;
            if changes_users(&slot.command) {
                break;
            }
        }
        (count, bytes, rights)
    }

    /// Memory of the commands that wait for a number, in bytes.
    pub(super) fn pending_cost(&self) -> usize {
        self.pending_bytes + self.pending.len() * COMMAND_OVERHEAD
    }

    /// Commands that no leader has, with and without a number.
    pub(super) fn unsent(&self) -> usize {
        self.slots.len() - self.sent + self.pending.len()
    }

    /// Whether no group is in flight and enough commands are queued.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.sent == 0 && self.group_commit.is_enough(self.unsent(), now)
    }

    /// Whether the queued commands are worth an entry beside the one in flight.
    pub(super) fn is_eager(&self) -> bool {
        let mut bytes = self.pending_bytes;
        let unsent = self.slots.range(self.sent..);
        unsent.map(|slot| slot.command.len()).any(|len| {
            bytes += len;
            bytes >= EAGER_BYTES
        })
    }

    /// When the groups in flight are sent again, should nothing happen until then.
    pub(super) fn resend_at(&self) -> Option<Instant> {
        let progress_at = self.progress_at.filter(|_| self.sent > 0);
        progress_at.map(|at| at + RESEND_AFTER)
    }

    pub(super) fn rewind_to(&mut self, seq: u64) {
        let position = seq.saturating_sub(self.first_seq);
        self.sent = self
            .sent
            .min(usize::try_from(position).unwrap_or(usize::MAX));
    }

    /// Whether anything has waited too long.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let pending = self.pending.front().map(|pending| pending.deadline);
        // Deadlines are in order but for slots that are answered.
        let slots = self.slots.iter().take_while(|slot| slot.deadline <= now);
        pending.is_some_and(|deadline| deadline <= now)
            || slots.into_iter().any(|slot| slot.answer.is_some())
    }

    /// Answers the commands without a number that waited too long.
    pub(super) fn expire_pending(&mut self, now: Instant, no_leader: &str) {
        while let Some(pending) = self.pending.pop_front_if(|first| first.deadline <= now) {
            self.pending_bytes -= pending.command.len();
            let error = RequestError::NoLeader {
                detail: no_leader.to_owned(),
            };
            // A client that has gone needs no answer; the same holds wherever one is sent below.
            let _ = pending.answer.send(Err(error));
        }
    }

    /// Answers the slots that waited too long. They stay in the window, as a `Noop`: the original
    /// and the `Noop` share a number, so at most one of them takes effect.
    pub(super) fn expire_slots(&mut self, now: Instant, no_leader: &str) {
        for slot in &mut self.slots {
            // Deadlines are in order but for slots that are answered.
            if slot.deadline > now {
                break;
            }
            let in_doubt = slot.in_flight > 0 && !slot.exposed;
            if in_doubt && slot.deadline + OUTCOME_GRACE > now {
                continue;
            }
            let Some(answer) = slot.answer.take() else {
                continue;
            };
            let error = if slot.exposed || slot.in_flight > 0 {
                RequestError::Unknown {
                    detail: format!("no majority confirmed it in time ({no_leader})"),
                }
            } else {
                RequestError::NoLeader {
                    detail: no_leader.to_owned(),
                }
            };
            let _ = answer.send(Err(error));
            self.slot_bytes -= slot.become_noop();
        }
        self.trim();
    }

    pub(super) fn refuses_growth(&self, now: Instant) -> bool {
        self.growth_refused_until.is_some_and(|until| now < until)
    }

    /// Answers with `error` every command that `concerns` selects and that no leader can have appended.
    pub(super) fn refuse_unexposed(
        &mut self,
        error: &RequestError,
        concerns: impl Fn(&Bytes) -> bool,
    ) {
        for slot in &mut self.slots {
            if slot.exposed || slot.in_flight > 0 || !concerns(&slot.command) {
                continue;
            }
            let Some(answer) = slot.answer.take() else {
                continue;
            };
            let _ = answer.send(Err(error.clone()));
            self.slot_bytes -= slot.become_noop();
        }
    }

    /// Gives back the numbers at the window's end that no client waits for and no leader ever took, so
    /// that a cluster which refuses everything does not fill the window.
    pub(super) fn trim(&mut self) {
        while self
            .slots
            .back()
            .is_some_and(|slot| slot.answer.is_none() && slot.in_flight == 0 && !slot.exposed)
        {
            let Some(slot) = self.slots.pop_back() else {
                break;
            };
            self.slot_bytes -= slot.command.len();
        }
        self.sent = self.sent.min(self.slots.len());
    }

    pub(super) fn executed(&mut self, seq: u64, answer: Result<Reply, RequestError>) {
        debug_assert!(
            seq <= self.first_seq,
            "the log executes a session's numbers in order"
        );
        if seq != self.first_seq {
            return;
        }
        let Some(slot) = self.slots.pop_front() else {
            return;
        };
        self.slot_bytes -= slot.command.len();
        self.first_seq += 1;
        self.sent = self.sent.saturating_sub(1);
        self.progress_at = Some(Instant::now());
        #[cfg(memkv_bugs)]
        if let Ok(reply) = &answer {
            self.claimed = self.claimed.max(reply.revision);
        }
        if let Some(client) = slot.answer {
            let _ = client.send(answer);
        }
    }

    /// The log opened a session. If there was another one, the log has closed that before.
    pub(super) fn opened(&mut self, id: SessionId) {
        if self.id.is_some_and(|own| own != id) {
            self.fenced(Closed::InLog);
        }
        tracing::debug!(session = id, "session open");
        self.id = Some(id);
        self.sent = 0;
    }

    /// The session was closed; its window can never be executed any more.
    pub(super) fn fenced(&mut self, closed: Closed) {
        self.id = None;
        self.sent = 0;
        self.first_seq = 1;
        self.slot_bytes = 0;
        for slot in std::mem::take(&mut self.slots) {
            let Some(answer) = slot.answer else { continue };
            let is_exposed = slot.exposed || slot.in_flight > 0;
            let error = if is_exposed && closed == Closed::BehindSnapshot {
                RequestError::Unknown {
                    detail: "this node was too far behind to see whether it was executed before \
                             the cluster closed its session"
                        .to_owned(),
                }
            } else {
                RequestError::NoLeader {
                    detail: "the cluster closed this node's session".to_owned(),
                }
            };
            let _ = answer.send(Err(error));
        }
    }
}
