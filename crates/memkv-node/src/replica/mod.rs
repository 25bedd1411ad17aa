//! This node's copy of the replicated state: the store, and how far the log has been applied to it.
//!
//! Applied means applied in memory; nothing here is ever taken from a number on disk, because the
//! engine would skip the replay. One lock guards the store together with its position in the log, so
//! a snapshot knows exactly what it covers. Clients' reads, and large commands that do not come in pieces,
//! hold that lock for as long as they take; so what consensus needs of the machine is published beside it. Invariant: what
//! is published is never behind what a reader may have seen under the lock.

pub(crate) mod checkpoints;
pub(crate) mod divergence;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::sync::lock::Mutex;
use memkv_disk::LogId;
use memkv_store::{MAX_VIEWS, MemberState, MemberTable, Memory, Store, UserTable};
use tokio::sync::{Semaphore, watch};

use crate::membership::members::Members;
use crate::replica::checkpoints::Checkpoints;
use crate::report::membership;
use crate::report::timeline::Timeline;
use crate::sync::lock_order::Root;
use crate::write::session::Session;
use crate::{FatalError, RequestError};

/// The store and its position in the log.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) store: Store,
    /// The last entry of which anything is in the store.
    pub(crate) last_applied: Option<LogId>,
    pub(crate) membership: Arc<Members>,
    /// The store's member table, to be shared.
    table: Arc<MemberTable>,
    /// How often a leader's snapshot has replaced the store: a snapshot that was being built from
    /// the store before must not go on with the one after.
    pub(crate) installs: u64,
}

impl Machine {
    /// The member table may have changed.
    pub(crate) fn note_member_table(&mut self) {
        if *self.table != *self.store.member_table() {
            self.table = Arc::new(self.store.member_table().clone());
        }
    }

    /// The store is another one; gives back the one before, to be dropped without the lock.
    #[must_use]
    pub(crate) fn replace(
        &mut self,
        store: Store,
        last_applied: Option<LogId>,
        membership: Members,
    ) -> Store {
        let old = std::mem::replace(&mut self.store, store);
        self.last_applied = last_applied;
        self.membership = Arc::new(membership);
        self.note_member_table();
        old
    }
}

/// The state of the machine that is readable without its lock.
#[derive(Clone, Default)]
pub(crate) struct AppliedState {
    /// The last entry of which anything is in the store.
    pub(crate) last_applied: Option<LogId>,
    pub(crate) membership: Arc<Members>,
    pub(crate) table: Arc<MemberTable>,
    pub(crate) next_deadline: Option<u64>,
    pub(crate) revision: u64,
    pub(crate) keys: usize,
    pub(crate) memory: Memory,
    pub(crate) installs: u64,
    /// The revision of the users that are published beside it.
    users_revision: u64,
}

/// Shared by apply, snapshots, reads and the session.
pub(crate) struct Replica {
    pub(crate) machine: Root<Machine>,
    /// Held while an entry is applied, from its first command to its last, and while a snapshot or a view
    /// is begun, so that none begins within an entry. Taken before the machine.
    pub(crate) entries: tokio::sync::Mutex<()>,
    /// Permits for views of the store.
    pub(crate) views: Semaphore,
    /// Held to copy it or to replace it, never while anything else is done.
    applied_state: Mutex<AppliedState>,
    /// The users, after each change of the table.
    users: watch::Sender<Option<Arc<UserTable>>>,
    /// Whether the store refuses what may grow the keys, for a look that takes no lock.
    refuses_growth: AtomicBool,
    /// Number of log entries applied: one more than the last applied index, 0 for none.
    applied: watch::Sender<u64>,
    /// Why nothing is applied or read here any more: a committed entry that cannot be read, a level that
    /// this build does not know, or a store that is known to be wrong.
    halted: OnceLock<FatalError>,
    pub(crate) checkpoints: Checkpoints,
    /// What has happened here, for operators.
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) session: Arc<Session>,
}

impl Replica {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        let users = watch::Sender::new(None);
        session.follow_users(users.subscribe());
        Self {
            machine: Root::new(Machine::default()),
            entries: tokio::sync::Mutex::new(()),
            views: Semaphore::new(MAX_VIEWS),
            applied_state: Mutex::new(AppliedState::default()),
            users,
            refuses_growth: AtomicBool::new(false),
            applied: watch::Sender::new(0),
            halted: OnceLock::new(),
            checkpoints: Checkpoints::default(),
            timeline: Arc::default(),
            session,
        }
    }

    /// From now on nothing is applied or read. Tells whether this was the first reason.
    pub(crate) fn halt(&self, why: FatalError) -> bool {
        self.halted.set(why).is_ok()
    }

    /// Refuses a client's read if nothing is read here any more. Asked under the machine's lock.
    pub(crate) fn check_reads(&self) -> Result<(), RequestError> {
        match self.halted() {
            None => Ok(()),
            Some(_) => Err(RequestError::Stopping),
        }
    }

    /// Why nothing is applied or read here any more, if so.
    pub(crate) fn halted(&self) -> Option<&FatalError> {
        self.halted.get()
    }

    /// The reason to give after the engine has ended with `error`, which may only repeat what halted the
    /// replica. Nothing where the stores differ: the task that finds that out marks the directory first and
    /// reports it itself.
    pub(crate) fn why_ended(&self, error: FatalError) -> Option<FatalError> {
        match self.halted() {
            Some(FatalError::Diverged(_)) => None,
            Some(halted) => Some(halted.clone()),
            None => Some(error),
        }
    }

    /// Publishes what has changed. Called before the machine's lock is released: a reader that has seen
    /// something under it finds it counted here.
    pub(crate) fn publish(&self, machine: &Machine) {
        let mut published = self.applied_state.lock();
        let now = &mut *published;
        now.last_applied = machine.last_applied;
        now.next_deadline = machine.store.next_deadline();
        now.revision = machine.store.revision();
        now.keys = machine.store.len();
        now.memory = machine.store.memory();
        let refuses_growth = now.memory.refuses_growth();
        self.refuses_growth.store(refuses_growth, Ordering::Relaxed);
        now.installs = machine.installs;
        if !Arc::ptr_eq(&now.membership, &machine.membership)
            || !Arc::ptr_eq(&now.table, &machine.table)
        {
            self.tell_members(now, machine);
            now.membership = machine.membership.clone();
        }
        if !Arc::ptr_eq(&now.table, &machine.table) {
            now.table = machine.table.clone();
            let row = now.table.row(self.session.node_id());
            let leaves = row.is_some_and(|row| row.state == MemberState::Leaving);
            self.session.leave(leaves);
        }
        let users_revision = machine.store.users_revision();
        if now.users_revision != users_revision {
            now.users_revision = users_revision;
            self.users.send_replace(machine.store.users().cloned());
        }
    }

    /// Notes how the members have changed, unless that is replayed.
    fn tell_members(&self, before: &AppliedState, machine: &Machine) {
        let index = machine.last_applied.map_or(0, |last| last.index);
        if !self.timeline.is_news(index) {
            return;
        }
        let (was, is) = (&before.membership.configs, &machine.membership.configs);
        let changes = membership::between(&before.table, &machine.table);
        let voters = membership::voters(was, is, &machine.table);
        let is_late = self.timeline.is_late(machine.store.stamp_ms());
        for event in &changes {
            match is_late {
                true => self.timeline.note_late(event),
                false => self.timeline.note(event),
            }
        }
        // The engine's entry has no time of its own.
        if let Some(event) = voters {
            self.timeline.note(&event);
        }
    }

    /// The users, as published last.
    pub(crate) fn users(&self) -> Option<Arc<UserTable>> {
        self.users.borrow().clone()
    }

    /// Tells of every change of the users.
    pub(crate) fn watch_users(&self) -> watch::Receiver<Option<Arc<UserTable>>> {
        self.users.subscribe()
    }

    /// The state that was published last.
    pub(crate) fn applied_state(&self) -> AppliedState {
        self.applied_state.lock().clone()
    }

    /// Whether the cluster's first entry is applied here.
    pub(crate) fn is_formed(&self) -> bool {
        self.member_table().cluster().is_some()
    }

    /// The member table, as published last.
    pub(crate) fn member_table(&self) -> Arc<MemberTable> {
        self.applied_state.lock().table.clone()
    }

    /// What the keys cost and may cost, as published last.
    pub(crate) fn memory(&self) -> Memory {
        self.applied_state.lock().memory
    }

    /// Whether the store refuses what may grow the keys, as published last.
    pub(crate) fn refuses_growth(&self) -> bool {
        self.refuses_growth.load(Ordering::Relaxed)
    }

    /// Publishes that everything up to `index` has been applied.
    pub(crate) fn publish_applied(&self, index: u64) {
        self.applied.send_replace(index + 1);
    }

    /// Tells of every change of the number of applied entries.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Whether the entry at `index` has been applied here.
    pub(crate) fn has_applied(&self, index: u64) -> bool {
        *self.applied.borrow() > index
    }

    /// Waits until the entry at `index` has been applied here.
    pub(crate) async fn wait_applied(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = applied.wait_for(|count| *count > index).await;
    }

    /// Highest applied index; 0 when nothing was.
    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.borrow().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use memkv_store::{BatchBuilder, DEFAULT_USER, EDGE_LEVEL, SystemOp, UserSpec};

    use super::*;
    use crate::peer::fake::form;

    fn formed() -> Bytes {
        let mut batch = BatchBuilder::new(5);
        batch.system(&form(1));
        batch.finish()
    }

    #[test]
    fn users_are_published_when_they_change_and_taken_back_with_their_store() {
        let replica = Replica::new(Arc::new(Session::new(1, 64 << 20)));
        let mut watch = replica.watch_users();
        let mut machine = replica.machine.write();
        let mut batch = BatchBuilder::new(5);
        let SystemOp::Form {
            cluster,
            durability_sync,
            members,
            ..
        } = form(1)
        else {
            panic!("it forms");
        };
        batch.system(&SystemOp::Form {
            cluster,
            durability_sync,
            level: EDGE_LEVEL,
            members,
            users: vec![(Bytes::from_static(DEFAULT_USER), UserSpec::default())],
        });
        machine.store.apply(3, &batch.finish(), &mut ());
        replica.publish(&machine);
        let users = replica.users().expect("a table");
        assert!(users.revision() == 1 && watch.has_changed().unwrap());
        assert!(watch.borrow_and_update().is_some());
        replica.publish(&machine);
        assert!(!watch.has_changed().unwrap(), "nothing has changed");
        drop(machine.replace(Store::new(), None, Members::default()));
        replica.publish(&machine);
        assert!(watch.borrow_and_update().is_none() && replica.users().is_none());
    }

    #[test]
    fn what_consensus_needs_is_there_while_the_machine_is_held() {
        let replica = Replica::new(Arc::new(Session::new(1, 64 << 20)));
        let mut machine = replica.machine.write();
        machine.store.apply(3, &formed(), &mut ());
        machine.note_member_table();
        assert_eq!(replica.member_table().cluster(), None, "not published yet");
        replica.publish(&machine);
        // The lock is still held, as by a large command: taking it here would be for ever.
        let table = replica.member_table();
        let addr = table.member(1).map(|member| &*member.addr);
        assert_eq!((table.cluster(), addr), (Some([7; 16]), Some("h:1")));
        drop(machine.replace(Store::new(), None, Members::default()));
        machine.installs += 1;
        replica.publish(&machine);
        let published = replica.applied_state();
        assert_eq!((published.table.cluster(), published.installs), (None, 1));
    }
}
