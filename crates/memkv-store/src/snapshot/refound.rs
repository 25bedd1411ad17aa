//! How a snapshot of one cluster becomes the first state of another: a restore.
//!
//! Keys, their values, the users and the settings come along. Members and sessions do not: no node and no
//! command of the old cluster means anything to the new one. A restore is like one write of all keys: each
//! was created and changed at the new revision, and each database was flushed at it. So nothing that a client
//! has seen of the old cluster holds in the new one, neither a revision of a key nor the absence of one.
//!
//! The seed of the hash tables stays, and with it the places of the keys.

use std::sync::Arc;

use bytes::Bytes;

use super::{EntryView, LoadError};
use crate::keyspace::Deletes;
use crate::member_table::{MemberRecord, MemberTable};
use crate::session::Sessions;
use crate::{DATABASES, EDGE_LEVEL, Member, Revision, Store, UserSpec, UserTable};

/// The cluster that a restored state founds. It has one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refounding {
    /// The new cluster's UUID.
    pub cluster: [u8; 16],
    /// Whether an acknowledged write of it is on disks.
    pub durability_sync: bool,
    /// Its one member, not pending.
    pub member: Member,
    /// The log index that the state stands for: the log goes on behind it.
    pub index: u64,
    /// The revision of the restore, above all that the old cluster has given out.
    pub revision: Revision,
    /// By how much each deadline moves, in milliseconds.
    pub later_ms: u64,
    /// The users in the place of those of the snapshot, `default` among them; none keeps those. An empty
    /// list makes a cluster without users.
    pub users: Option<Vec<(Bytes, UserSpec)>>,
}

impl Refounding {
    /// Changes an entry as it is loaded.
    pub(super) fn change(&self, entry: &mut EntryView<'_>) {
        entry.create_revision = self.revision;
        entry.mod_revision = self.revision;
        let later = |deadline: u64| deadline.saturating_add(self.later_ms);
        entry.deadline_ms = entry.deadline_ms.map(later);
    }

    /// Changes everything but the entries, once all are loaded.
    pub(super) fn found(self, store: &mut Store) -> Result<(), LoadError> {
        if self.revision <= store.revision {
            let why = "its revision must be above the snapshot's";
            return Err(LoadError::Refounding { why });
        }
        let level = store.members.level();
        let seat = MemberRecord::new(self.member);
        let seats = std::iter::once(seat);
        store.members = MemberTable::with_seats(self.cluster, self.durability_sync, level, seats)
            .map_err(|why| LoadError::Refounding { why })?;
        store.sessions = Sessions::default();
        store.revision = self.revision;
        store.applied_index = self.index;
        store.keys.deletes = Deletes::default();
        store.keys.deletes.flushed = [self.revision; DATABASES as usize];
        // It follows from announcements of nodes that are none any more.
        store.keys.memory.forget_derived();
        if let Some(users) = self.users.filter(|_| level >= EDGE_LEVEL) {
            store.keys.users = UserTable::first(&users).map(Arc::new);
        }
        Ok(())
    }
}
