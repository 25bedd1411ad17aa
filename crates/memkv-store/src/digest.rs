//! The digest: one number for the whole logical state, to compare nodes with.
//!
//! It covers the state that `apply` made: keys, the hash seed, values, revisions, deadlines, the table of deletes, log
//! time, sessions with their cached replies, the member table, the memory cap with the cost of the keys, and the users. It leaves out differences
//! between equal nodes: the applied index (an entry without a batch changes nothing), table layouts, and a
//! snapshot in progress; and the hash of effects, which depends on the history of the state.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use crate::keyspace::{Database, Entry, SHARDS};
use crate::snapshot::SnapshotHead;
use crate::{DATABASES, EDGE_LEVEL, Store};

impl Store {
    /// A 64-bit hash of the whole logical state: equal for stores that applied the same log.
    /// Reads every key and value, so it is for tests and checks, not for a hot path.
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        let head = SnapshotHead {
            applied_index: 0,
            effects: None,
            ..SnapshotHead::of(self)
        };
        hash.update(&head.encode());
        let mut replies = Vec::new();
        for (_, session) in self.sessions.iter() {
            replies.clear();
            session
                .replies()
                .iter()
                .for_each(|reply| reply.write(&mut replies));
            hash.update(&replies);
        }
        if self.members.level() >= EDGE_LEVEL {
            hash.update(&self.keys.cost().to_le_bytes());
        }
        hash.update(&self.keys.deletes.digest().to_le_bytes());
        for number in 0..DATABASES {
            let filled = self
                .keys
                .database(number)
                .filter(|database| !database.is_empty());
            let keys = filled.map_or(0, database_digest);
            hash.update(&keys.to_le_bytes());
        }
        hash.digest()
    }
}

/// A sum, because the order of a hash table means nothing.
fn database_digest(database: &Database) -> u64 {
    let entries = (0..SHARDS).flat_map(|shard| database.shard(shard));
    entries
        .map(|entry| entry_digest(&entry))
        .fold(0u64, u64::wrapping_add)
}

fn entry_digest(entry: &Entry<'_>) -> u64 {
    let numbers = [
        entry.key().len() as u64,
        entry.create_revision,
        entry.mod_revision,
        entry.deadline_ms.unwrap_or(0),
    ];
    let mut fields = [0; 32];
    for (field, number) in fields.chunks_exact_mut(8).zip(numbers) {
        field.copy_from_slice(&number.to_le_bytes());
    }
    let key = xxh3_64_with_seed(entry.key(), xxh3_64(&fields));
    xxh3_64_with_seed(entry.value(), key)
}
