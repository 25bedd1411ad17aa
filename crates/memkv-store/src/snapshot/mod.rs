//! Snapshots of one revision, taken while writes go on.
//!
//! The head, the sessions and the member table are small and are copied when the snapshot begins; the table
//! of deletes is shared. The databases that hold keys are then walked shard by shard. An entry whose
//! `mod_revision` is above the snapshot's is not part of it, and a write to an entry of a shard that the
//! walk has not reached first saves the entry as it was. The higher revision of the written entry is the
//! only mark needed: an entry is saved once, a key that is deleted and made again is not seen twice, and a
//! new key is skipped.
//! A database that is flushed meanwhile is kept as a whole and walked in place of the new one.
//! Nothing here encodes under the caller's lock or clones a container of the store.

mod block;
mod load;
mod refound;

use std::collections::VecDeque;
use std::sync::Arc;

pub(crate) use self::block::EntryView;
pub use self::load::{BlockLocation, LoadError, Loader};
pub use self::refound::Refounding;
use crate::keyspace::{Database, Entries, Entry, Keyspace, SHARDS, noted};
use crate::member_table::MemberTable;
use crate::memory::MemoryCap;
use crate::session::Sessions;
use crate::{DATABASES, KeyEventClasses, Reply, Revision, SessionId, Store, UserTable};

/// A snapshot is being taken already, or an entry is applied in part only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a snapshot is being taken already, or an entry is being applied; finish or abort the one and \
     resume the other before beginning a snapshot"
)]
pub struct SnapshotBusy;

/// The head of a snapshot: its position in the log, everything but keys and cached replies, and the number
/// of those that must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The seed of the hash tables, which every loaded store takes over. It is not derived from the
    /// cluster's UUID anew, so that a restore under another UUID can keep the shards.
    pub(crate) seed: u64,
    pub(crate) revision: Revision,
    pub(crate) stamp_ms: u64,
    pub(crate) applied_index: u64,
    pub(crate) keys: u64,
    /// The databases that hold keys, a bit for each: only their shards follow.
    pub(crate) databases: u16,
    /// The number of slots of the table of deletes that follow.
    pub(crate) deletes: u64,
    pub(crate) flushed: [Revision; DATABASES as usize],
    pub(crate) expired_total: u64,
    /// The hash of effects, unless its beginning is not known.
    pub(crate) effects: Option<u64>,
    /// The events that are announced, if the cluster has the setting.
    pub(crate) announced: Option<KeyEventClasses>,
    pub(crate) members: MemberTable,
    pub(crate) sessions: Vec<SessionHead>,
    /// The memory cap; only from the level on that has one.
    pub(crate) memory: MemoryCap,
    /// Only where the level has users.
    pub(crate) users: Option<Arc<UserTable>>,
}

/// A session without its cached replies, which follow in pieces of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionHead {
    pub(crate) id: SessionId,
    pub(crate) node: u64,
    pub(crate) boot: u64,
    pub(crate) last_seq: u64,
    pub(crate) cached: u64,
}

impl SnapshotHead {
    /// The revision of the state in the snapshot.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Log time of the state, in milliseconds since the epoch.
    pub fn stamp_ms(&self) -> u64 {
        self.stamp_ms
    }

    /// The seed of the hash tables, by which keys lie in shards.
    pub fn hash_seed(&self) -> u64 {
        self.seed
    }

    /// The index of the last log entry in the state.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The number of keys in the snapshot.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The member table in the snapshot.
    pub fn member_table(&self) -> &MemberTable {
        &self.members
    }

    /// The head of the present state.
    pub(crate) fn of(store: &Store) -> SnapshotHead {
        let sessions = store.sessions.iter().map(|(id, session)| SessionHead {
            id,
            node: session.node(),
            boot: session.boot(),
            last_seq: session.last_seq(),
            cached: session.replies().len() as u64,
        });
        SnapshotHead {
            seed: store.keys.seed(),
            revision: store.revision,
            stamp_ms: store.keys.now_ms,
            applied_index: store.applied_index,
            keys: store.keys.len() as u64,
            databases: store.keys.filled_databases(),
            deletes: store.keys.deletes.noted(),
            flushed: store.keys.deletes.flushed,
            expired_total: store.keys.expired_total,
            effects: store.effects(),
            announced: store.announced(),
            members: store.members.clone(),
            sessions: sessions.collect(),
            memory: store.keys.memory,
            users: store.users().cloned(),
        }
    }

    pub(crate) fn begin(store: &mut Store) -> Result<SnapshotHead, SnapshotBusy> {
        if store.keys.walk().is_some() || store.is_within_entry {
            return Err(SnapshotBusy);
        }
        let walk = Walk::new(store.revision, &store.sessions, &store.keys);
        store.keys.begin_walk(walk);
        Ok(SnapshotHead::of(store))
    }
}

/// A snapshot in progress.
#[derive(Debug)]
pub(crate) struct Walk {
    revision: Revision,
    /// The pieces before the first shard, as they were at the beginning: cached replies and the table of
    /// deletes.
    pieces: VecDeque<ShardImage>,
    /// The shards that follow, counted over the databases that held keys.
    shards: VecDeque<usize>,
    /// For each shard, counted over all databases, the old state of entries that were changed since; empty
    /// beyond the last shard of the snapshot.
    saved: Vec<Entries>,
    saved_bytes: u64,
    /// The databases that were flushed since, and are walked instead of the new ones.
    flushed: Vec<(u8, Arc<Database>)>,
}

impl Walk {
    fn new(revision: Revision, sessions: &Sessions, keys: &Keyspace) -> Walk {
        let with_replies = sessions
            .iter()
            .filter(|(_, session)| !session.replies().is_empty());
        let replies = with_replies.map(|(session, state)| {
            ShardImage(Image::Replies {
                session,
                replies: state.replies().clone(),
            })
        });
        let mut pieces: VecDeque<ShardImage> = replies.collect();
        let slots = keys.deletes.slots();
        if noted(slots).next().is_some() {
            pieces.push_back(ShardImage(Image::Deletes(Arc::clone(slots))));
        }
        let shards = filled_shards(keys.filled_databases());
        let end = shards.back().map_or(0, |last| last + 1);
        let saved = std::iter::repeat_with(Entries::default).take(end).collect();
        Walk {
            revision,
            pieces,
            shards,
            saved,
            saved_bytes: 0,
            flushed: Vec::new(),
        }
    }

    /// Called before `entry` of a database's shard is changed, or when it was removed.
    pub(crate) fn save(&mut self, database: u8, shard: usize, entry: &Entry<'_>) {
        let shard = usize::from(database) * SHARDS + shard;
        let is_to_come = self.shards.front().is_some_and(|next| shard >= *next);
        if is_to_come && entry.mod_revision <= self.revision {
            self.saved_bytes += entry.cost();
            self.saved[shard].push(entry);
        }
    }

    /// Called when a database was flushed that cost so many bytes. The first flush counts: what
    /// comes later is not part of the snapshot.
    pub(crate) fn save_database(&mut self, database: u8, old: &Arc<Database>, bytes: u64) {
        if !self.flushed.iter().any(|(known, _)| *known == database) {
            self.saved_bytes += bytes;
            self.flushed.push((database, Arc::clone(old)));
        }
    }

    pub(crate) fn into_flushed(self) -> impl Iterator<Item = Arc<Database>> {
        self.flushed.into_iter().map(|(_, database)| database)
    }

    /// The assumed cost of the saved entries in memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.saved_bytes
    }

    /// The next shard with the entries that belong to the snapshot.
    fn next_shard(&mut self, databases: &[Database]) -> Option<ShardImage> {
        let number = self.shards.pop_front()?;
        let (database, shard) = (number / SHARDS, number % SHARDS);
        let mut entries = std::mem::take(&mut self.saved[number]);
        self.saved_bytes -= entries.iter().map(|entry| entry.cost()).sum::<u64>();
        let flushed = self
            .flushed
            .iter()
            .find(|(of, _)| usize::from(*of) == database);
        let source = flushed.map_or(&databases[database], |(_, old)| old);
        source.fetch(shard);
        let untouched = source
            .shard(shard)
            .filter(|entry| entry.mod_revision <= self.revision);
        untouched.for_each(|entry| entries.push(&entry));
        Some(ShardImage(Image::Entries {
            shard: number,
            entries,
        }))
    }
}

/// The shards of these databases, counted over all databases, in ascending order.
pub(crate) fn filled_shards(databases: u16) -> VecDeque<usize> {
    let filled = (0..usize::from(DATABASES)).filter(|database| databases & 1 << database != 0);
    filled
        .flat_map(|database| database * SHARDS..(database + 1) * SHARDS)
        .collect()
}

/// A piece of a snapshot: the cached replies of one session, the table of deletes, or a shard. It
/// holds references, and copies of small entries, so it can be encoded while the store goes on
/// changing.
#[derive(Debug, Clone)]
pub struct ShardImage(Image);

#[derive(Debug, Clone)]
enum Image {
    Replies {
        session: SessionId,
        replies: VecDeque<Reply>,
    },
    /// Every slot, also those that note nothing.
    Deletes(Arc<[Revision]>),
    Entries {
        /// Counted over all databases.
        shard: usize,
        entries: Entries,
    },
}

impl ShardImage {
    pub(crate) fn next(keys: &mut Keyspace) -> Option<ShardImage> {
        let (walk, databases) = keys.walk_mut();
        let walk = walk?;
        let piece = walk.pieces.pop_front();
        let piece = piece.or_else(|| walk.next_shard(databases));
        if piece.is_none() {
            keys.end_walk();
        }
        piece
    }
}
