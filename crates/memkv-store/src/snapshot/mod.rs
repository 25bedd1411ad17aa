//! Snapshots of one revision, taken while writes go on.
//!
//! The head, the sessions and the book are small and are copied when the snapshot begins. The
//! keyspace is walked shard by shard: an entry whose `mod_revision` is above the snapshot's is not
//! part of it, and a write to an entry of a shard that the walk has not reached first saves the
//! entry as it was. That the entry then carries a higher revision is the only mark needed, so it
//! is saved once, a key that is deleted and made again is not seen twice, and a new key is skipped.
//! Nothing here encodes under the caller's lock or clones a container of the store.

mod block;
mod load;

use std::collections::VecDeque;

pub(crate) use self::block::EntryView;
pub use self::load::{BlockPlace, LoadError, Loader};
use crate::book::Book;
use crate::keyspace::{Entry, Keyspace, SHARDS};
use crate::session::Sessions;
use crate::{Reply, Revision, SessionId, Store};

/// A snapshot is being taken already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a snapshot is being taken already; finish or abort it before beginning another")]
pub struct SnapshotBusy;

/// What a snapshot says about itself: where in the log it was taken, everything but keys and
/// cached replies, and how much of those must follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    pub(crate) revision: Revision,
    pub(crate) stamp_ms: u64,
    pub(crate) applied_index: u64,
    pub(crate) keys: u64,
    pub(crate) book: Book,
    pub(crate) sessions: Vec<SessionHead>,
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

    /// The index of the last log entry in the state.
    pub fn applied_index(&self) -> u64 {
        self.applied_index
    }

    /// The number of keys in the snapshot.
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The address book in the snapshot.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The head of the state as it is now.
    pub(crate) fn of(store: &Store) -> SnapshotHead {
        let sessions = store.sessions.iter().map(|(id, session)| SessionHead {
            id,
            node: session.node(),
            boot: session.boot(),
            last_seq: session.last_seq(),
            cached: session.replies().len() as u64,
        });
        SnapshotHead {
            revision: store.revision,
            stamp_ms: store.stamp_ms,
            applied_index: store.applied_index,
            keys: store.keys.len() as u64,
            book: store.book.clone(),
            sessions: sessions.collect(),
        }
    }

    pub(crate) fn begin(store: &mut Store) -> Result<SnapshotHead, SnapshotBusy> {
        if store.keys.walk.is_some() {
            return Err(SnapshotBusy);
        }
        store.keys.walk = Some(Walk::new(store.revision, &store.sessions));
        Ok(SnapshotHead::of(store))
    }
}

/// A snapshot in progress.
#[derive(Debug)]
pub(crate) struct Walk {
    revision: Revision,
    /// Cached replies as they were at the beginning; they come out before the first shard.
    replies: VecDeque<ShardImage>,
    /// The shard that comes out next; `SHARDS` when all are out.
    next: usize,
    /// For each shard not out yet, the entries that were changed since, as they were.
    saved: Vec<Vec<Entry>>,
    saved_bytes: u64,
}

impl Walk {
    fn new(revision: Revision, sessions: &Sessions) -> Walk {
        let with_replies = sessions
            .iter()
            .filter(|(_, session)| !session.replies().is_empty());
        let replies = with_replies.map(|(session, state)| {
            ShardImage(Image::Replies {
                session,
                replies: state.replies().clone(),
            })
        });
        let saved = std::iter::repeat_with(Vec::new).take(SHARDS).collect();
        Walk {
            revision,
            replies: replies.collect(),
            next: 0,
            saved,
            saved_bytes: 0,
        }
    }

    /// Called before `entry` of `shard` is changed or removed.
    pub(crate) fn save(&mut self, shard: usize, entry: &Entry) {
        if shard >= self.next && entry.mod_revision <= self.revision {
            self.saved_bytes += entry.cost();
            self.saved[shard].push(entry.clone());
        }
    }

    /// What the saved entries are taken to cost in memory, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.saved_bytes
    }
}

/// A piece of a snapshot: the entries of one shard, or the cached replies of one session. It
/// holds references only, so it can be encoded while the store goes on changing.
#[derive(Debug, Clone)]
pub struct ShardImage(Image);

#[derive(Debug, Clone)]
enum Image {
    Replies {
        session: SessionId,
        replies: VecDeque<Reply>,
    },
    Entries {
        shard: usize,
        entries: Vec<Entry>,
    },
}

impl ShardImage {
    pub(crate) fn next(keys: &mut Keyspace) -> Option<ShardImage> {
        let walk = keys.walk.as_mut()?;
        if let Some(replies) = walk.replies.pop_front() {
            return Some(replies);
        }
        if walk.next == SHARDS {
            keys.walk = None;
            return None;
        }
        let (shard, revision) = (walk.next, walk.revision);
        walk.next += 1;
        let mut entries = std::mem::take(&mut walk.saved[shard]);
        walk.saved_bytes -= entries.iter().map(Entry::cost).sum::<u64>();
        let untouched = keys
            .shard(shard)
            .filter(|entry| entry.mod_revision <= revision);
        entries.extend(untouched.cloned());
        Some(ShardImage(Image::Entries { shard, entries }))
    }
}
