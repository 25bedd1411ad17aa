//! The store: the whole replicated state. `apply` (in `applying`) is the only way to change it.
//!
//! `apply` never panics, whatever the bytes, and what it does depends on nothing but the state, the
//! index and the bytes. Invariants: the stamp and the revision never go back; a malformed batch
//! changes nothing and is never counted as applied.

use xxhash_rust::xxh3::xxh3_64;

use crate::keyspace::{Keyspace, Value};
use crate::member_table::{Advertised, MemberTable};
use crate::session::{Session, Sessions};
use crate::snapshot::{ShardImage, SnapshotBusy, SnapshotHead};
use crate::{
    Garbage, KeyEvent, KeyEventClasses, Query, Refusal, ReplyValue, Revision, Seen, SessionId,
    SystemOp, SystemOutcome, ViewId,
};

/// The replicated state machine. See the crate's documentation for how it is used.
#[derive(Debug)]
pub struct Store {
    pub(crate) keys: Keyspace,
    pub(crate) sessions: Sessions,
    pub(crate) members: MemberTable,
    pub(crate) revision: Revision,
    pub(crate) applied_index: u64,
    /// Whether a part of the entry at `applied_index` is still to be executed.
    pub(crate) is_within_entry: bool,
    #[cfg(memkv_bugs)]
    pub(crate) deviation: crate::bugs::Deviation,
}

impl Default for Store {
    fn default() -> Store {
        Store::new()
    }
}

/// Reading.
impl Store {
    /// An empty store that belongs to no cluster yet.
    pub fn new() -> Store {
        Store {
            keys: Keyspace::new(0),
            sessions: Sessions::default(),
            members: MemberTable::default(),
            revision: 0,
            applied_index: 0,
            is_within_entry: false,
            #[cfg(memkv_bugs)]
            deviation: Default::default(),
        }
    }

    /// What `key` of the first database holds.
    pub fn get(&self, key: &[u8]) -> Option<Value<'_>> {
        self.get_in(0, key)
    }

    /// Whether `key` is in the first database.
    pub fn exists(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    /// The number of keys of all databases; those past their deadline and not yet removed count.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is no key in any database.
    pub fn is_empty(&self) -> bool {
        self.keys.len() == 0
    }

    /// What `key` of `database` holds; nothing if there is no such database.
    pub fn get_in(&self, database: u8, key: &[u8]) -> Option<Value<'_>> {
        self.keys.seen().get(database, key)
    }

    /// What `WATCH` must remember of a key now, for a guard later.
    pub fn seen(&self, database: u8, key: &[u8]) -> Seen {
        match self.get_in(database, key) {
            Some(value) => Seen::Present {
                mod_revision: value.mod_revision,
            },
            None => Seen::Absent { at: self.revision },
        }
    }

    /// Answers a query at log time. `now_ms` is the log clock's reading at this node, for answers
    /// about the time to live; whether a key is there depends on what was applied alone.
    pub fn query(&self, query: &Query, now_ms: u64) -> ReplyValue {
        query.answer(self.keys.seen(), now_ms)
    }

    /// The number of keys of a database; those past their deadline and not yet removed count.
    pub fn database_len(&self, database: u8) -> usize {
        self.keys.seen().database_len(database)
    }

    /// How many keys of a database have a deadline.
    pub fn database_deadlines(&self, database: u8) -> usize {
        self.keys.database_deadlines(database)
    }

    /// The earliest deadline of any key, in milliseconds since the epoch: when a tick is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.keys.next_deadline()
    }

    /// How many keys their deadlines have removed since the cluster was formed.
    pub fn expired_total(&self) -> u64 {
        self.keys.expired_total
    }

    /// What flushes have cut loose, for a thread that may take its time to drop it. To be called
    /// after `apply` and after a snapshot has ended; until then the memory is not free.
    pub fn take_garbage(&mut self) -> Option<Garbage> {
        self.keys.take_garbage()
    }

    /// Which events the cluster was told to announce; `None` until it was.
    pub fn announced(&self) -> Option<KeyEventClasses> {
        self.keys.key_events.setting()
    }

    /// From now on `apply` makes notices, if somebody wants them: of the classes that the cluster
    /// was told, or of those `configured` here until it was. No part of the state.
    pub fn listen(&mut self, wanted: bool, configured: KeyEventClasses) {
        self.keys.key_events.listen(wanted, configured);
    }

    /// The notices that `apply` has made since the last call, in order. To be called after `apply`
    /// while they are wanted: they are kept until then.
    ///
    /// There are none [within a command](Store::is_within_command): a listener that reads what it hears
    /// of would not find it.
    pub fn take_key_events(&mut self) -> Vec<KeyEvent> {
        match self.is_within_command() {
            true => Vec::new(),
            false => self.keys.key_events.take(),
        }
    }

    /// Estimated memory in bytes: keys, values and their bookkeeping, cached replies, and what a
    /// snapshot in progress holds back. An account for this node, not part of the state.
    pub fn memory_bytes(&self) -> u64 {
        self.keys.memory_bytes() + self.sessions.memory_bytes()
    }

    /// The revision of the last executed write; 0 before the first.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Log time: the highest stamp applied, in milliseconds since the epoch.
    pub fn stamp_ms(&self) -> u64 {
        self.keys.now_ms
    }

    /// Whether only a part of the entry at [`applied_index`](Store::applied_index) is applied: what is
    /// to be seen now depends on how this node cuts entries.
    pub fn is_within_entry(&self) -> bool {
        self.is_within_entry
    }

    /// Whether a command of many keys is executed in part. Every method that reads keys answers as if
    /// nothing of it were, and no view can begin.
    pub fn is_within_command(&self) -> bool {
        self.keys.is_within_command()
    }

    /// The index of the last log entry applied, be it in part, or marked as applied; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The rolling hash of what all entries so far have changed and answered: equal on all nodes that
    /// have applied up to the same index, and not to be compared
    /// [within an entry](Store::is_within_entry). Cheap, and no proof of equality, which
    /// [`Store::digest`] is. `None` where the state came from a snapshot that did not carry it.
    pub fn effects(&self) -> Option<u64> {
        self.keys.effects.hash()
    }

    /// Takes note of an entry that has been executed as a whole.
    pub(crate) fn note_entry(&mut self) {
        let (stamp_ms, keys) = (self.keys.now_ms, self.keys.len());
        let expired = self.keys.expired_total;
        let effects = &mut self.keys.effects;
        effects.entry(stamp_ms, self.revision, keys, expired);
    }

    /// Takes note of everything but the keys, which a system operation may have changed.
    pub(crate) fn note_records(&mut self) {
        let head = SnapshotHead::of(self).encode();
        self.keys.effects.records(&head);
    }

    /// Makes one effect of the next command another than on other nodes, or takes that back.
    #[cfg(memkv_bugs)]
    pub fn deviate(&self, how: Option<crate::bugs::Deviate>) {
        self.deviation.order(how);
    }

    /// Whether that has happened.
    #[cfg(memkv_bugs)]
    pub fn has_deviated(&self) -> bool {
        self.deviation.has_happened()
    }

    /// An open session.
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    /// The id of the session that `node` has open.
    pub fn session_of_node(&self, node: u64) -> Option<SessionId> {
        self.sessions.of_node(node)
    }

    /// The member table.
    pub fn member_table(&self) -> &MemberTable {
        &self.members
    }
}

/// Views: for a read that looks several times, with writes in between, and is to see one state.
impl Store {
    /// A view of the state as it is, for [`Reading`](crate::Reading). While it lasts, writes save what
    /// they change, so it must end soon. None if there are [`MAX_VIEWS`](crate::MAX_VIEWS), and
    /// [within a command](Store::is_within_command).
    pub fn begin_view(&mut self) -> Option<ViewId> {
        match self.is_within_command() {
            true => None,
            false => self.keys.begin_view(self.revision),
        }
    }

    /// Ends a view, and gives back what it held: to be dropped where nobody waits.
    pub fn end_view(&mut self, view: ViewId) -> Option<Garbage> {
        self.keys.end_view(view)
    }
}

/// What applying does besides executing commands, which is in `applying`.
impl Store {
    /// Takes note of an entry that carries no batch, such as the engine's own.
    pub fn mark_applied(&mut self, index: u64) {
        self.applied_index = self.applied_index.max(index);
    }

    pub(crate) fn apply_system(&mut self, index: u64, op: SystemOp) -> SystemOutcome {
        let result = match op {
            SystemOp::Form {
                cluster,
                durability_sync,
                level,
                members,
            } => self.form(cluster, durability_sync, level, members),
            SystemOp::OpenSession {
                node,
                boot,
                highest,
            } => return self.open_session(index, node, Advertised { boot, highest }),
            SystemOp::CloseSession { session } => self.sessions.close(session),
            SystemOp::AdmitNode {
                name,
                addr,
                nonce,
                highest,
            } => return self.admit(index, name, addr, nonce, highest),
            SystemOp::ReplaceNode { old, new } => self
                .members
                .replace(old, new)
                .map(|()| self.sessions.close_node(old)),
            SystemOp::RemoveNode { node } => self
                .members
                .remove(node)
                .map(|()| self.sessions.close_node(node)),
            SystemOp::GiveUpSeat { node } => self
                .members
                .give_up(node)
                .map(|()| self.sessions.close_node(node)),
            SystemOp::SetAddress { node, addr } => self.members.set_address(node, addr),
            SystemOp::RaiseLevel { to, ids } => self.members.raise(to, &ids),
        };
        outcome(result.map(|()| SystemOutcome::Done))
    }

    /// The hash seed comes from the UUID, which is random: every node has the same, and who picks
    /// the keys does not know it.
    fn form(
        &mut self,
        cluster: [u8; 16],
        durability_sync: bool,
        level: u32,
        members: Vec<crate::Member>,
    ) -> Result<(), Refusal> {
        if !self.is_empty() || !self.sessions.is_empty() {
            return Err(Refusal::AlreadyFormed);
        }
        self.members
            .form(cluster, durability_sync, level, members)?;
        self.keys.reseed(seed_of(&cluster));
        Ok(())
    }

    /// Once there is a table, only who is in it may have a session: a removed node gets none. With it
    /// comes what the node announces.
    fn open_session(&mut self, index: u64, node: u64, announced: Advertised) -> SystemOutcome {
        if self.members.cluster().is_some() && self.members.member(node).is_none() {
            return SystemOutcome::Refused {
                why: Refusal::UnknownNode { node },
            };
        }
        let allowed = self.members.check_not_too_old(announced.highest);
        let result = allowed.and_then(|()| self.sessions.open(index, node, announced.boot));
        outcome(result.map(|()| {
            self.members.advertise(node, announced);
            SystemOutcome::SessionOpened { id: index }
        }))
    }

    fn admit(
        &mut self,
        index: u64,
        name: String,
        addr: String,
        nonce: u64,
        highest: u32,
    ) -> SystemOutcome {
        let result = self.members.admit(index, name, addr, nonce, highest);
        outcome(result.map(|(id, replaced)| {
            replaced
                .into_iter()
                .for_each(|node| self.sessions.close_node(node));
            SystemOutcome::NodeAdmitted { id }
        }))
    }
}

/// Snapshots. Call order: `begin_snapshot`, then `next_shard` until it returns `None`; batches may
/// be applied in between.
impl Store {
    /// Starts a snapshot of the state as it is now. Until it ends, writes save what they change.
    ///
    /// # Errors
    ///
    /// [`SnapshotBusy`] if one has been started and neither finished nor aborted, or within an entry.
    pub fn begin_snapshot(&mut self) -> Result<SnapshotHead, SnapshotBusy> {
        SnapshotHead::begin(self)
    }

    /// The next piece of the snapshot: references only, to be encoded outside of any lock. `None`
    /// when all pieces are out, or no snapshot is being taken.
    pub fn next_shard(&mut self) -> Option<ShardImage> {
        ShardImage::next(&mut self.keys)
    }

    /// Gives the snapshot up and releases what was saved for it. No effect if there is none.
    pub fn abort_snapshot(&mut self) {
        self.keys.end_walk();
    }
}

/// The hash seed of a new cluster's keyspace.
pub(crate) fn seed_of(cluster: &[u8; 16]) -> u64 {
    xxh3_64(cluster)
}

fn outcome(result: Result<SystemOutcome, Refusal>) -> SystemOutcome {
    result.unwrap_or_else(|why| SystemOutcome::Refused { why })
}
