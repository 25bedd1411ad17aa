//! Judging commands again, in place, once a right was taken away: a command of the window that apply has
//! refused for its principal is executed under a newer judgement, or never.
//!
//! What is allowed keeps its number; the rest becomes a `Noop`, which fills its number, and is answered
//! "no permission". Nothing is queued anew, so commands of one client stay in order. The judge runs
//! without the window's lock. Invariant: a command is answered "no permission" only if its principal does
//! not stand any more, so that no copy of it, which some leader may still append, is ever executed
//! (`UserTable::standing` in memkv-store).

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use memkv_store::{DEFAULT_USER, NO_CREDENTIAL, NO_TABLE, Principal, Standing, UserTable};
use tokio::sync::watch;

use super::Session;
use crate::RequestError;

/// Decides what a user may do: the edge, which knows the meaning of the rules.
pub trait Judge: Send + Sync + 'static {
    /// Whether the principal may have an encoded command executed, under exactly this table. Its user exists
    /// there, is enabled and has the credential.
    fn judge(&self, users: &Arc<UserTable>, principal: &Principal, command: &Bytes) -> bool;
}

/// The principal of a command without a user: its node knows no table of users.
pub(super) const WITHOUT_TABLE: Principal = Principal {
    user: NO_TABLE,
    credential: NO_CREDENTIAL,
    revision: 0,
};

/// What commands are judged by.
#[derive(Default)]
pub(super) struct Judging {
    users: OnceLock<watch::Receiver<Option<Arc<UserTable>>>>,
    judge: OnceLock<Box<dyn Judge>>,
}

impl Judging {
    /// The users, as published last.
    fn published(&self) -> Option<Arc<UserTable>> {
        let users = self.users.get();
        users.and_then(|users| users.borrow().clone())
    }

    /// The principal under which a command may be executed now; none if it may not. A command that was judged
    /// without a table is one of the user `default`, if the table's first one is that of the node's configuration.
    fn renewed(
        &self,
        users: &Arc<UserTable>,
        mut principal: Principal,
        command: &Bytes,
    ) -> Option<Principal> {
        if principal.user == NO_TABLE {
            principal.user = users.get(DEFAULT_USER)?.id;
        }
        let is_allowed = match users.standing(principal) {
            Standing::Stands => true,
            Standing::Gone => false,
            Standing::Narrowed => {
                let judge = self.judge.get();
                judge.is_some_and(|judge| judge.judge(users, &principal, command))
            }
        };
        let revision = users.revision();
        is_allowed.then_some(Principal {
            revision,
            ..principal
        })
    }
}

impl Session {
    /// Sets where the users are published. Happens once, before anything is applied.
    pub(crate) fn follow_users(&self, users: watch::Receiver<Option<Arc<UserTable>>>) {
        let _ = self.judging.users.set(users);
    }

    /// Sets the judge. Without a judge nothing is allowed to a user who lost a right. A second call has no
    /// effect.
    pub(crate) fn judge_by(&self, judge: Box<dyn Judge>) {
        let _ = self.judging.judge.set(judge);
    }

    /// Judges the commands of these numbers again, which apply has refused, and sends from there on. The table is
    /// the published one: it is not older than the one that refused them.
    pub(super) fn judge_again(&self, first_seq: u64, count: u64) {
        let users = self.judging.published();
        let seqs = first_seq..first_seq.saturating_add(count);
        let asked: Vec<(u64, Principal, Bytes)> = {
            let window = self.window.lock();
            let slot = |seq| window.slots.get(window.position(seq)?);
            let asked = seqs.filter_map(|seq| {
                let slot = slot(seq)?;
                Some((seq, slot.principal?, slot.command.clone()))
            });
            asked.collect()
        };
        let judged = asked.into_iter().map(|(seq, principal, command)| {
            let users = users.as_ref();
            let renewed = users.and_then(|users| self.judging.renewed(users, principal, &command));
            (seq, principal, renewed)
        });
        let judged: Vec<_> = judged.collect();
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::QueueAnew) {
            let revision = users.map_or(0, |users| users.revision());
            let mut window = self.window.lock();
            (first_seq..first_seq.saturating_add(count))
                .for_each(|seq| window.queue_anew(seq, revision));
            return window.rewind_to(first_seq);
        }
        let mut window = self.window.lock();
        for (seq, principal, renewed) in judged {
            window.judged(seq, principal, renewed);
        }
        window.rewind_to(first_seq);
    }
}

impl super::Window {
    /// Takes a verdict: the principal under which a command is allowed, or none. Of a slot that has
    /// meanwhile become another, nothing changes.
    fn judged(&mut self, seq: u64, principal: Principal, renewed: Option<Principal>) {
        let position = self.position(seq);
        let slot = position.and_then(|position| self.slots.get_mut(position));
        let Some(slot) = slot.filter(|slot| slot.principal == Some(principal)) else {
            return;
        };
        if renewed.is_some() {
            slot.principal = renewed;
            return;
        }
        if let Some(answer) = slot.answer.take() {
            // A client that has gone needs no answer.
            let _ = answer.send(Err(RequestError::NoPermission));
        }
        self.slot_bytes -= slot.become_noop();
    }
}

/// The operator in place of a user, if that bug is on.
#[cfg(memkv_bugs)]
pub(super) fn as_operator(principal: Principal) -> Principal {
    match crate::bugs::active(crate::bugs::Bug::SendAsOperator) && principal.user != NO_TABLE {
        true => Principal::OPERATOR,
        false => principal,
    }
}

#[cfg(memkv_bugs)]
impl Judging {
    /// Stamps the commands that were not sent with the revision that is published now, if that bug is on.
    pub(super) fn stamp_at_sending(&self, window: &mut super::Window) {
        let is_on = crate::bugs::active(crate::bugs::Bug::StampAtSending);
        let Some(users) = self.published().filter(|_| is_on) else {
            return;
        };
        let unsent = window.sent..;
        let principals = window.slots.range_mut(unsent);
        for principal in principals.filter_map(|slot| slot.principal.as_mut()) {
            principal.revision = users.revision();
        }
    }
}

#[cfg(memkv_bugs)]
impl super::Window {
    /// Gives a command's number away and queues it as if it had been judged under this revision.
    fn queue_anew(&mut self, seq: u64, revision: u64) {
        let position = self.position(seq);
        let slot = position.and_then(|position| self.slots.get_mut(position));
        let Some(slot) = slot.filter(|slot| slot.principal.is_some()) else {
            return;
        };
        let (command, principal) = (slot.command.clone(), slot.principal);
        let (answer, deadline) = (slot.answer.take(), slot.deadline);
        self.slot_bytes -= slot.become_noop();
        if let Some(answer) = answer {
            self.pending_bytes += command.len();
            self.pending.push_back(super::Pending {
                command,
                principal: principal.map(|principal| Principal {
                    revision,
                    ..principal
                }),
                answer,
                deadline,
            });
        }
    }
}

#[cfg(test)]
mod tests;
