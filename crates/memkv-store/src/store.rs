//! The store: the whole replicated state. `apply` (in `applying`) is the only way to change it.
//!
//! `apply` never panics on any bytes, and its effects depend on the state, the index and the bytes alone. Invariants: the stamp and the revision never go back; a malformed batch
//! changes nothing and is never counted as applied.

use std::sync::Arc;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::keyspace::{Keyspace, SHARDS, Value};
use crate::member_table::{Advertised, AnnouncedMemory, MemberTable};
use crate::session::{Session, Sessions};
use crate::snapshot::{ShardImage, SnapshotBusy, SnapshotHead};
use crate::{
    DATABASES, EDGE_LEVEL, Garbage, KeyEvent, KeyEventClasses, Memory, Query, Refusal, ReplyValue,
    Revision, Seen, SessionId, SystemOp, SystemOutcome, UserSpec, UserTable, ViewId,
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

    /// The value of `key` in the first database.
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

    /// The value of `key` in `database`; nothing if there is no such database.
    pub fn get_in(&self, database: u8, key: &[u8]) -> Option<Value<'_>> {
        self.keys.seen().get(database, key)
    }

    /// The present state of a key, for a guard later: `WATCH`.
    pub fn seen(&self, database: u8, key: &[u8]) -> Seen {
        match self.get_in(database, key) {
            Some(value) => Seen::Present {
                mod_revision: value.mod_revision,
            },
            None => Seen::Absent { at: self.revision },
        }
    }

    /// Answers a query at log time. `now_ms` is the log clock's reading at this node, for answers
    /// about the time to live; the presence of a key depends on the applied entries alone.
    pub fn query(&self, query: &Query, now_ms: u64) -> ReplyValue {
        query.answer(self.keys.seen(), now_ms)
    }

    /// The number of keys of a database; those past their deadline and not yet removed count.
    pub fn database_len(&self, database: u8) -> usize {
        self.keys.seen().database_len(database)
    }

    /// The number of keys of a database that have a deadline.
    pub fn database_deadlines(&self, database: u8) -> usize {
        self.keys.database_deadlines(database)
    }

    /// The earliest deadline of any key, in milliseconds since the epoch: when a tick is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.keys.next_deadline()
    }

    /// The number of keys whose deadline this time has reached and that are still there. Looks at every key.
    pub fn keys_due(&self, now_ms: u64) -> u64 {
        let databases = (0..DATABASES).filter_map(|number| self.keys.database(number));
        let entries =
            databases.flat_map(|database| (0..SHARDS).flat_map(move |shard| database.shard(shard)));
        let due = entries.filter(|entry| entry.deadline_ms.is_some_and(|at| at <= now_ms));
        due.count() as u64
    }

    /// The number of keys that expired since the cluster was formed.
    pub fn expired_total(&self) -> u64 {
        self.keys.expired_total
    }

    /// The data that flushes have detached, to be dropped on a thread that may take long. To be called
    /// after `apply` and after a snapshot has ended; until then the memory is not free.
    pub fn take_garbage(&mut self) -> Option<Garbage> {
        self.keys.take_garbage()
    }

    /// The cluster's setting of announced events; `None` until one was made.
    pub fn announced(&self) -> Option<KeyEventClasses> {
        self.keys.key_events.setting()
    }

    /// From now on `apply` makes key events, if they are `wanted`: of the classes that the cluster's
    /// setting has, or of those `configured` here while there is none. No part of the state.
    pub fn listen(&mut self, wanted: bool, configured: KeyEventClasses) {
        self.keys.key_events.listen(wanted, configured);
    }

    /// The key events that `apply` has made since the last call, in order. To be called after `apply`
    /// while they are wanted: they are kept until then.
    ///
    /// There are none [within a command](Store::is_within_command): a subscriber that reads the key of an
    /// event would not find the change.
    pub fn take_key_events(&mut self) -> Vec<KeyEvent> {
        match self.is_within_command() {
            true => Vec::new(),
            false => self.keys.key_events.take(),
        }
    }

    /// The part of [`Store::memory_bytes`] that snapshots and views in progress, and a command in pieces, keep
    /// of earlier states, in bytes.
    pub fn saved_bytes(&self) -> u64 {
        self.keys.saved_bytes()
    }

    /// Estimated memory in bytes: keys, values and their bookkeeping, cached replies, and the entries that
    /// a snapshot in progress keeps. An account for this node, not part of the state.
    pub fn memory_bytes(&self) -> u64 {
        self.keys.memory_bytes() + self.sessions.memory_bytes()
    }

    /// What the keys cost, how much they may cost, and what happens at the cap.
    pub fn memory(&self) -> Memory {
        self.keys.memory.report(self.keys.cost())
    }

    /// The revision of the last executed write; 0 before the first.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Log time: the highest stamp applied, in milliseconds since the epoch.
    pub fn stamp_ms(&self) -> u64 {
        self.keys.now_ms
    }

    /// Whether only a part of the entry at [`applied_index`](Store::applied_index) is applied: the visible
    /// state then depends on how this node cuts entries.
    pub fn is_within_entry(&self) -> bool {
        self.is_within_entry
    }

    /// Whether a command of many keys is executed in part. Every method that reads keys answers from the
    /// state before it, and no view can begin.
    pub fn is_within_command(&self) -> bool {
        self.keys.is_within_command()
    }

    /// The index of the last log entry applied, be it in part, or marked as applied; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The rolling hash of all changes and answers of the entries so far: equal on all nodes that
    /// have applied up to the same index, and not to be compared
    /// [within an entry](Store::is_within_entry). Cheap, and no proof of equality, which
    /// [`Store::digest`] is. `None` where the state came from a snapshot that did not carry it.
    pub fn effects(&self) -> Option<u64> {
        self.keys.effects.hash()
    }

    /// Adds an entry that has been executed as a whole to the hash of effects.
    pub(crate) fn note_entry(&mut self) {
        let (stamp_ms, keys) = (self.keys.now_ms, self.keys.len());
        let expired = self.keys.expired_total;
        let effects = &mut self.keys.effects;
        effects.entry(stamp_ms, self.revision, keys, expired);
        if self.members.level() >= EDGE_LEVEL {
            let (cost, evicted) = (self.keys.cost(), self.keys.memory.evicted_total);
            self.keys.effects.cost(cost, evicted);
        }
    }

    /// Adds everything but the keys, which a system operation may have changed, to the hash of effects.
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

    /// The users; none until they are initialised. Cheap to keep: a change makes another table.
    pub fn users(&self) -> Option<&Arc<UserTable>> {
        self.keys.users.as_ref()
    }

    /// The revision of the table of users: 0 without one.
    #[inline]
    pub fn users_revision(&self) -> u64 {
        self.users().map_or(0, |users| users.revision())
    }

    /// The member table.
    pub fn member_table(&self) -> &MemberTable {
        &self.members
    }
}

/// Views: for a read in several steps, with writes in between, that must see one state.
impl Store {
    /// A view of the present state, for [`Reading`](crate::Reading). While it lasts, writes save the
    /// entries that they change, so it must end soon. None if there are [`MAX_VIEWS`](crate::MAX_VIEWS), and
    /// [within a command](Store::is_within_command).
    pub fn begin_view(&mut self) -> Option<ViewId> {
        match self.is_within_command() {
            true => None,
            false => self.keys.begin_view(self.revision),
        }
    }

    /// Ends a view, and returns the entries that it held, to be dropped where no request waits.
    pub fn end_view(&mut self, view: ViewId) -> Option<Garbage> {
        self.keys.end_view(view)
    }
}

/// The parts of applying besides executing commands, which is in `applying`.
impl Store {
    /// Marks an entry without a batch, such as the engine's own, as applied.
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
                users,
            } => self.form(cluster, durability_sync, level, members, &users),
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
                .remove(index, node)
                .map(|()| self.sessions.close_node(node)),
            SystemOp::GiveUpSeat { node } => self
                .members
                .give_up(node)
                .map(|()| self.sessions.close_node(node)),
            SystemOp::Members(change) => return outcome(self.members.change(index, change)),
            SystemOp::SetAddress { node, addr } => self.members.set_address(node, addr),
            SystemOp::RaiseLevel { to, ids } => self.members.raise(to, &ids),
            SystemOp::AnnounceMemory { node, boot, bytes } => {
                self.announce_memory(node, AnnouncedMemory { boot, bytes })
            }
            SystemOp::SetCap { bytes } => {
                // The cost of the keys may keep the cap from falling, and never raises it: a command that
                // was accepted below the cap may have gone beyond it.
                let (cost, derived) = (self.keys.cost(), self.keys.memory.derived());
                let floor = derived.map_or(cost, |cap| cap.min(cost));
                self.keys.memory.derive(bytes.max(floor));
                Ok(())
            }
        };
        outcome(result.map(|()| SystemOutcome::Done))
    }

    /// The hash seed comes from the UUID, which is random: every node has the same, and clients, which pick
    /// the keys, do not know it.
    fn form(
        &mut self,
        cluster: [u8; 16],
        durability_sync: bool,
        level: u32,
        members: Vec<crate::Member>,
        users: &[(Bytes, UserSpec)],
    ) -> Result<(), Refusal> {
        if !self.is_empty() || !self.sessions.is_empty() {
            return Err(Refusal::AlreadyFormed);
        }
        self.members
            .form(cluster, durability_sync, level, members)?;
        self.keys.reseed(seed_of(&cluster));
        self.keys.users = UserTable::first(users).map(Arc::new);
        Ok(())
    }

    /// Once there is a member table, only its nodes may have a session: a removed node gets none. The
    /// operation carries the level that the node advertises.
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

    /// A node announces for the boot that has its session open: an old announcement that arrives late
    /// changes nothing.
    fn announce_memory(&mut self, node: u64, announced: AnnouncedMemory) -> Result<(), Refusal> {
        let session = self.sessions.of_node(node).unwrap_or(0);
        let boot = self.sessions.get(session).map(|session| session.boot());
        if boot != Some(announced.boot) {
            return Err(Refusal::UnknownSession { session });
        }
        self.members.announce_memory(node, announced)
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
    /// Starts a snapshot of the present state. Until it ends, writes save the entries that they change.
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

    /// Aborts the snapshot and releases the entries saved for it. No effect if there is none.
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
