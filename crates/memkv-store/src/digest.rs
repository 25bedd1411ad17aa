//! The digest: one number for the whole logical state, to compare nodes with.
//!
//! It covers what `apply` has made: keys, values, revisions, log time, sessions with their cached
//! replies, and the book. It leaves out what differs between equal nodes: the applied index (an
//! entry without a batch changes nothing), table layouts, and a snapshot in progress.

use xxhash_rust::xxh3::{Xxh3, xxh3_64, xxh3_64_with_seed};

use crate::Store;
use crate::keyspace::{Entry, SHARDS};
use crate::snapshot::SnapshotHead;

impl Store {
    /// A 64-bit hash of the whole logical state: equal for stores that applied the same log.
    /// Reads every key and value, so it is for tests and checks, not for a hot path.
    pub fn digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        let head = SnapshotHead {
            applied_index: 0,
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
        // A sum, because the order of a hash table means nothing.
        let entries = (0..SHARDS).flat_map(|shard| self.keys.shard(shard));
        let keys = entries.map(entry_digest).fold(0u64, u64::wrapping_add);
        hash.update(&keys.to_le_bytes());
        hash.digest()
    }
}

fn entry_digest(entry: &Entry) -> u64 {
    let mut fields = [0; 24];
    fields[..8].copy_from_slice(&(entry.key().len() as u64).to_le_bytes());
    fields[8..16].copy_from_slice(&entry.create_revision.to_le_bytes());
    fields[16..].copy_from_slice(&entry.mod_revision.to_le_bytes());
    xxh3_64_with_seed(entry.record(), xxh3_64(&fields))
}
