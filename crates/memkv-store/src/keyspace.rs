//! The keyspace: bytes to bytes, in hash shards, with the revisions of every key.
//!
//! It never iterates where an effect could show the order, and never copies or locks a container
//! for a snapshot: while one is being taken, a write saves the entry as it was (see
//! `snapshot::Walk`). Invariants: every change of an entry gives it a higher `mod_revision`; an
//! entry lies in the shard that its key's hash names; `bytes` and `len` are the sums over all
//! entries.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Revision;
use crate::snapshot::{EntryView, Walk};

/// Number of shards: a snapshot holds the store for one shard at a time, which at a million keys
/// is about a thousand entries and some tens of microseconds. Part of the snapshot format.
pub(crate) const SHARDS: usize = 1024;

/// Bits of the hash that name the shard: `log2(SHARDS)`.
const SHARD_BITS: u32 = SHARDS.trailing_zeros();

/// What an entry is taken to cost besides its key and value, in bytes: 40 in a table that is two
/// thirds full on average, 16 for the reference counts, and the allocator's rounding.
const ENTRY_OVERHEAD_BYTES: u64 = 88;

/// Values from this size on are handed out by reference; below it a copy costs less than the
/// allocation that sharing needs.
const SHARE_FROM_BYTES: usize = 4096;

/// One key and its value, with one allocation for both.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The key and, directly after it, the value.
    record: Arc<[u8]>,
    /// Invariant: at most the record's length.
    key_len: u32,
    /// The lower half of the key's hash, so that a growing table need not touch the keys.
    tag: u32,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
}

impl Entry {
    pub(crate) fn key(&self) -> &[u8] {
        &self.record[..self.key_len as usize]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.record[self.key_len as usize..]
    }

    /// The key and, directly after it, the value.
    pub(crate) fn record(&self) -> &[u8] {
        &self.record
    }

    /// What the entry is taken to cost in memory.
    pub(crate) fn cost(&self) -> u64 {
        self.record.len() as u64 + ENTRY_OVERHEAD_BYTES
    }

    /// Takes a new record for the same key, in place where the old one has the size and nobody
    /// else (a snapshot, a reader of a large value) still holds it.
    fn overwrite(&mut self, record: &[u8], revision: Revision) {
        match Arc::get_mut(&mut self.record) {
            Some(old) if old.len() == record.len() => old.copy_from_slice(record),
            _ => self.record = Arc::from(record),
        }
        self.mod_revision = revision;
    }
}

/// What a key holds, as a reader sees it.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    /// The value's bytes.
    pub value: &'a [u8],
    /// The revision that created the key, after which it was never deleted.
    pub create_revision: Revision,
    /// The revision that last wrote the key.
    pub mod_revision: Revision,
    /// When the key goes, in milliseconds since the epoch.
    pub deadline_ms: Option<u64>,
    entry: &'a Entry,
}

impl Value<'_> {
    /// The value, independent of the store: a small one is copied, a large one shared.
    pub fn to_bytes(&self) -> Bytes {
        struct Shared(Entry);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                self.0.value()
            }
        }
        if self.value.len() < SHARE_FROM_BYTES {
            Bytes::copy_from_slice(self.value)
        } else {
            Bytes::from_owner(Shared(self.entry.clone()))
        }
    }
}

/// What a flush has cut loose. Dropping it takes time in proportion to the keys that it held.
#[derive(Debug)]
pub struct Garbage(Vec<HashTable<Entry>>);

/// Where a key belongs.
#[derive(Debug, Clone, Copy)]
struct Place {
    shard: usize,
    tag: u32,
}

#[derive(Debug)]
pub(crate) struct Keyspace {
    shards: Vec<HashTable<Entry>>,
    /// Replicated, derived from the cluster's UUID: the same everywhere, unknown to who picks keys.
    seed: u64,
    len: usize,
    bytes: u64,
    /// The snapshot being taken, if any.
    pub(crate) walk: Option<Walk>,
}

impl Keyspace {
    pub(crate) fn new(seed: u64) -> Keyspace {
        let shards = std::iter::repeat_with(HashTable::new)
            .take(SHARDS)
            .collect();
        Keyspace {
            shards,
            seed,
            len: 0,
            bytes: 0,
            walk: None,
        }
    }

    /// Takes the cluster's seed. Only an empty keyspace does: what is in has been placed.
    pub(crate) fn reseed(&mut self, seed: u64) {
        if self.len == 0 {
            self.seed = seed;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Estimated memory of the entries, and of what a snapshot in progress holds back.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.bytes + self.walk.as_ref().map_or(0, Walk::memory_bytes)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Value<'_>> {
        let place = self.place(key);
        let entry =
            self.shards[place.shard].find(table_hash(place.tag), |entry| entry.key() == key)?;
        Some(Value {
            value: entry.value(),
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            deadline_ms: None,
            entry,
        })
    }

    /// Sets a key; `record` is the key of `key_len` bytes and, directly after it, the value.
    pub(crate) fn put(&mut self, record: &[u8], key_len: usize, revision: Revision) {
        let key = &record[..key_len];
        let place = self.place(key);
        match self.slot(place, key) {
            (Slot::Occupied(mut slot), walk) => {
                let entry = slot.get_mut();
                if let Some(walk) = walk {
                    walk.save(place.shard, entry);
                }
                let before = entry.cost();
                entry.overwrite(record, revision);
                let after = entry.cost();
                self.bytes = self.bytes - before + after;
            }
            (Slot::Vacant(slot), _) => {
                let view = EntryView {
                    record,
                    key_len,
                    create_revision: revision,
                    mod_revision: revision,
                };
                let entry = new_entry(&view, place.tag);
                let cost = entry.cost();
                slot.insert(entry);
                self.bytes += cost;
                self.len += 1;
            }
        }
    }

    /// Removes a key; tells whether it existed.
    pub(crate) fn remove(&mut self, key: &[u8]) -> bool {
        let place = self.place(key);
        let (Slot::Occupied(slot), walk) = self.slot(place, key) else {
            return false;
        };
        if let Some(walk) = walk {
            walk.save(place.shard, slot.get());
        }
        let (entry, _) = slot.remove();
        self.bytes -= entry.cost();
        self.len -= 1;
        true
    }

    /// Puts back an entry of a snapshot. False if the key is there already or belongs to another
    /// shard: then nothing changed.
    pub(crate) fn restore(&mut self, shard: usize, view: &EntryView<'_>) -> bool {
        let key = &view.record[..view.key_len];
        let place = self.place(key);
        if place.shard != shard {
            return false;
        }
        let (Slot::Vacant(slot), _) = self.slot(place, key) else {
            return false;
        };
        let entry = new_entry(view, place.tag);
        let cost = entry.cost();
        slot.insert(entry);
        self.bytes += cost;
        self.len += 1;
        true
    }

    /// All entries of one shard, in no meaningful order.
    pub(crate) fn shard(&self, shard: usize) -> impl Iterator<Item = &Entry> {
        self.shards[shard].iter()
    }

    fn place(&self, key: &[u8]) -> Place {
        let hash = xxh3_64_with_seed(key, self.seed);
        // The shard takes the upper bits and the tag the lower ones, so that the entries of one
        // shard still differ in all the bits that its table looks at.
        let shard = (hash >> (u64::BITS - SHARD_BITS)) as usize;
        Place {
            shard,
            tag: (hash & u64::from(u32::MAX)) as u32,
        }
    }

    fn slot(&mut self, place: Place, key: &[u8]) -> (Slot<'_, Entry>, Option<&mut Walk>) {
        let slot = self.shards[place.shard].entry(
            table_hash(place.tag),
            |entry| entry.key() == key,
            |entry| table_hash(entry.tag),
        );
        (slot, self.walk.as_mut())
    }
}

/// The hash that a shard's table sees: it takes a bucket from the lowest bits and a control byte
/// from the highest, and the tag must feed both.
fn table_hash(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}

fn new_entry(view: &EntryView<'_>, tag: u32) -> Entry {
    Entry {
        record: Arc::from(view.record),
        key_len: u32::try_from(view.key_len).expect("keys are bounded far below 4 GiB"),
        tag,
        create_revision: view.create_revision,
        mod_revision: view.mod_revision,
    }
}
