//! The loader: puts a store together from the blocks of a snapshot.
//!
//! It trusts nothing: blocks must come whole, once and in order, every key must belong to its
//! shard, and the counts of the head must be met. It never returns an incomplete store.
//! `expects` always names the only block that may come next.

use std::collections::VecDeque;

use super::block::{
    BlockHead, DELETES, ENTRIES, EntryView, HEAD, REPLIES, UNEQUAL_SHARDS, read_deletes,
    read_replies,
};
use super::{Refounding, SessionHead, SnapshotHead, filled_shards};
use crate::effects::Effects;
use crate::encoding::{DecodeError, Reader};
use crate::keyspace::{SHARDS, Work, in_turn};
use crate::session::Session;
use crate::{SessionId, Store};

/// Why a snapshot cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A block cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A block is missing, repeated or out of order.
    #[error("{found} came where {expected} belongs: a block is missing or repeated; fetch again")]
    OutOfOrder {
        /// The expected block.
        expected: BlockLocation,
        /// The received block.
        found: BlockLocation,
    },
    /// A key is in the wrong shard, or twice in the snapshot.
    #[error("shard {shard} holds a key that is not its own or was there before; fetch again")]
    Misplaced {
        /// The shard.
        shard: u64,
    },
    /// Two sessions have the same id or node.
    #[error("session {session} is there twice or belongs to a node that has another")]
    RepeatedSession {
        /// The session.
        session: SessionId,
    },
    /// The head announced another number.
    #[error("the snapshot's head announces {announced} {what}, {found} came; fetch it again")]
    Count {
        /// The counted items.
        what: &'static str,
        /// The number in the head.
        announced: u64,
        /// The number that was received.
        found: u64,
    },
    /// The state cannot found another cluster in this way.
    #[error("the state cannot be restored so: {why}")]
    Refounding {
        /// What does not fit.
        why: &'static str,
    },
    /// An entry was changed after the snapshot.
    #[error("shard {shard} holds an entry of revision {found}, above the snapshot's {revision}")]
    FromTheFuture {
        /// The shard.
        shard: u64,
        /// The entry's revision.
        found: u64,
        /// The snapshot's revision.
        revision: u64,
    },
}

/// A place in the order of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockLocation {
    /// The head.
    Head,
    /// Part `part` of a session's replies.
    Replies {
        /// The session.
        session: SessionId,
        /// The part, from 0.
        part: u64,
    },
    /// Part `part` of the table of deletes.
    Deletes {
        /// The part, from 0.
        part: u64,
    },
    /// Part `part` of a shard.
    Shard {
        /// The shard, counted over all databases.
        shard: u64,
        /// The part, from 0.
        part: u64,
    },
    /// The end.
    End,
}

impl std::fmt::Display for BlockLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BlockLocation::Head => write!(f, "the head"),
            BlockLocation::Replies { session, part } => {
                write!(f, "part {part} of session {session}")
            }
            BlockLocation::Deletes { part } => write!(f, "part {part} of the table of deletes"),
            BlockLocation::Shard { shard, part } => write!(f, "part {part} of shard {shard}"),
            BlockLocation::End => write!(f, "the end"),
        }
    }
}

/// Loads a snapshot. Call order: `block` for every block, the head first; then `finish`.
#[derive(Debug)]
pub struct Loader {
    store: Store,
    /// The version of the snapshot.
    version: u8,
    announced_keys: u64,
    /// How many slots of the table of deletes were announced.
    announced_deletes: u64,
    /// The sessions whose replies have not all come, in order.
    waiting: VecDeque<SessionHead>,
    /// Whether the table of deletes is still to come.
    waiting_for_deletes: bool,
    /// The shards that have not all come, in order.
    shards: VecDeque<usize>,
    /// The only block that may come next.
    expects: BlockLocation,
    /// The cluster that the state is to found, if it is another one.
    refounding: Option<Refounding>,
}

impl Default for Loader {
    fn default() -> Loader {
        Loader::new()
    }
}

impl Loader {
    /// A loader that waits for the head.
    pub fn new() -> Loader {
        Loader {
            store: Store::new(),
            version: 0,
            announced_keys: 0,
            announced_deletes: 0,
            waiting: VecDeque::new(),
            waiting_for_deletes: false,
            shards: VecDeque::new(),
            expects: BlockLocation::Head,
            refounding: None,
        }
    }

    /// A loader that makes of the snapshot the first state of another cluster.
    pub fn refounding(refounding: Refounding) -> Loader {
        Loader {
            refounding: Some(refounding),
            ..Loader::new()
        }
    }

    /// Takes the next block, exactly as the snapshot produced it.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if it is not the block that belongs here; the load must then be given up.
    pub fn block(&mut self, block: &[u8]) -> Result<(), LoadError> {
        let mut reader = Reader::new(block);
        let kind = reader.u8("block kind")?;
        if kind == HEAD {
            self.check_location(BlockLocation::Head)?;
            let (version, head) = SnapshotHead::read(block)?;
            self.version = version;
            return self.head(head);
        }
        let head = BlockHead::read(&mut reader)?;
        let BlockHead { of, part, last } = head;
        match kind {
            REPLIES => {
                self.check_location(BlockLocation::Replies { session: of, part })?;
                self.replies(&mut reader, last)?;
            }
            DELETES => {
                self.check_location(BlockLocation::Deletes { part })?;
                self.deletes(&mut reader, last)?;
            }
            ENTRIES => {
                self.check_location(BlockLocation::Shard { shard: of, part })?;
                self.entries(&mut reader, of)?;
                if last {
                    self.shards.pop_front();
                }
            }
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "block of a snapshot",
                    tag,
                }
                .into());
            }
        }
        reader.finish("block of a snapshot")?;
        self.expects = self.after(head);
        Ok(())
    }

    /// The loaded store.
    ///
    /// # Errors
    ///
    /// [`LoadError`] if blocks are missing or the number of keys is not the announced one.
    pub fn finish(self) -> Result<Store, LoadError> {
        self.finish_with(&in_turn)
    }

    /// The loaded store, as [`finish`](Loader::finish) makes it; `run` runs pieces of the work, in
    /// any order or at the same time, and returns when all are done.
    ///
    /// # Errors
    ///
    /// As of [`finish`](Loader::finish).
    pub fn finish_with(mut self, run: &dyn for<'a> Fn(Vec<Work<'a>>)) -> Result<Store, LoadError> {
        self.check_location(BlockLocation::End)?;
        let found = self.store.len() as u64;
        if found != self.announced_keys {
            return Err(LoadError::Count {
                what: "keys",
                announced: self.announced_keys,
                found,
            });
        }
        if let Some(refounding) = self.refounding {
            refounding.found(&mut self.store)?;
        }
        self.store.keys.build_order(run);
        Ok(self.store)
    }

    fn check_location(&self, found: BlockLocation) -> Result<(), LoadError> {
        if found == self.expects {
            Ok(())
        } else {
            Err(LoadError::OutOfOrder {
                expected: self.expects,
                found,
            })
        }
    }

    fn head(&mut self, head: SnapshotHead) -> Result<(), LoadError> {
        for session in head.sessions {
            let state = Session::new(session.node, session.boot, session.last_seq);
            if !self.store.sessions.restore(session.id, state) {
                return Err(LoadError::RepeatedSession {
                    session: session.id,
                });
            }
            if session.cached > 0 {
                self.waiting.push_back(session);
            }
        }
        self.store.keys.reseed(head.seed);
        self.store.members = head.members;
        self.store.revision = head.revision;
        self.store.applied_index = head.applied_index;
        self.store.keys.now_ms = head.stamp_ms;
        self.store.keys.expired_total = head.expired_total;
        self.store.keys.effects = Effects::resume(head.effects);
        self.store.keys.key_events.set(head.announced);
        self.store.keys.users = head.users;
        self.store.keys.deletes.flushed = head.flushed;
        self.store.keys.memory = head.memory;
        self.announced_keys = head.keys;
        self.announced_deletes = head.deletes;
        self.waiting_for_deletes = head.deletes > 0;
        self.shards = filled_shards(head.databases);
        self.expects = self.next_owner();
        Ok(())
    }

    /// Takes cached replies of the first waiting session.
    fn replies(&mut self, reader: &mut Reader<'_>, last: bool) -> Result<(), LoadError> {
        let Some(SessionHead { id, cached, .. }) = self.waiting.front().cloned() else {
            return Ok(());
        };
        let Some(session) = self.store.sessions.get_mut(id) else {
            return Ok(());
        };
        read_replies(reader, |reply| session.cache(reply))?;
        let found = session.replies().len() as u64;
        if found > cached || (last && found < cached) {
            return Err(LoadError::Count {
                what: "cached replies",
                announced: cached,
                found,
            });
        }
        if last {
            self.waiting.pop_front();
        }
        Ok(())
    }

    fn deletes(&mut self, reader: &mut Reader<'_>, last: bool) -> Result<(), LoadError> {
        let deletes = &mut self.store.keys.deletes;
        read_deletes(reader, |slot, at| deletes.note(slot, at))?;
        if last {
            self.waiting_for_deletes = false;
            let found = deletes.noted();
            if found != self.announced_deletes {
                return Err(LoadError::Count {
                    what: "slots of the table of deletes",
                    announced: self.announced_deletes,
                    found,
                });
            }
        }
        Ok(())
    }

    fn entries(&mut self, reader: &mut Reader<'_>, shard: u64) -> Result<(), LoadError> {
        // The place was checked, so the shard is one of a database.
        let (database, within) = (shard as usize / SHARDS, shard as usize % SHARDS);
        let within = (self.version >= UNEQUAL_SHARDS).then_some(within);
        let count = reader.length("number of entries")?;
        for _ in 0..count {
            let mut entry = EntryView::read(reader, self.version)?;
            let revision = self.store.revision;
            if entry.mod_revision > revision {
                return Err(LoadError::FromTheFuture {
                    shard,
                    found: entry.mod_revision,
                    revision,
                });
            }
            if let Some(refounding) = &self.refounding {
                refounding.change(&mut entry);
            }
            if !self.store.keys.restore(database as u8, within, &entry) {
                return Err(LoadError::Misplaced { shard });
            }
        }
        Ok(())
    }

    /// The block that must follow.
    fn after(&self, head: BlockHead) -> BlockLocation {
        match self.expects {
            BlockLocation::Replies { session, part } if !head.last => BlockLocation::Replies {
                session,
                part: part + 1,
            },
            BlockLocation::Deletes { part } if !head.last => {
                BlockLocation::Deletes { part: part + 1 }
            }
            BlockLocation::Shard { shard, part } if !head.last => BlockLocation::Shard {
                shard,
                part: part + 1,
            },
            _ => self.next_owner(),
        }
    }

    /// The first part of the next waiting session, of the deletes, of the next shard, or the end.
    fn next_owner(&self) -> BlockLocation {
        match (self.waiting.front(), self.shards.front()) {
            (Some(session), _) => BlockLocation::Replies {
                session: session.id,
                part: 0,
            },
            _ if self.waiting_for_deletes => BlockLocation::Deletes { part: 0 },
            (None, Some(shard)) => BlockLocation::Shard {
                shard: *shard as u64,
                part: 0,
            },
            (None, None) => BlockLocation::End,
        }
    }
}
