//! One database: its hash shards, its ordered index and its index of deadlines.
//!
//! It knows nothing of revisions or snapshots. Invariants: an entry lies in the shard that its
//! key's hash names; the ordered index holds exactly the keys in the shards; the index of deadlines
//! holds exactly the (deadline, shard, tag) of the entries that have one; `len`, `bytes` and
//! `with_deadline` are the sums over all entries.

use std::collections::BTreeSet;
use std::ops::Bound;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry as Slot;

use super::entry::Entry;

/// Number of shards of a database: a snapshot holds the store for one shard at a time, which at a
/// million keys is about a thousand entries and some tens of microseconds. Part of the snapshot
/// format.
pub(crate) const SHARDS: usize = 1024;

/// Where a key belongs within its database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) shard: usize,
    pub(super) tag: u32,
}

/// What is due when: a deadline in milliseconds since the epoch, and where the keys are that have
/// it. Keys that share all three are one element.
pub(super) type Due = (u64, u16, u32);

/// A key in the ordered index, behind its first bytes as a number, by which nearly all comparisons
/// are decided without following the pointer: that makes a new key several times cheaper.
type Ordered = (u128, Box<[u8]>);

/// In the order of keys: a number is the greater one if a byte is, and equal numbers leave it to
/// the bytes.
fn ordered(key: &[u8]) -> Ordered {
    let mut first = [0; size_of::<u128>()];
    let len = key.len().min(first.len());
    first[..len].copy_from_slice(&key[..len]);
    (u128::from_be_bytes(first), key.into())
}

#[derive(Debug, Default)]
pub(crate) struct Database {
    /// None until the first key comes.
    shards: Vec<HashTable<Entry>>,
    ordered: BTreeSet<Ordered>,
    deadlines: BTreeSet<Due>,
    pub(super) with_deadline: usize,
    pub(super) len: usize,
    pub(super) bytes: u64,
}

impl Database {
    pub(super) fn find(&self, place: Place, key: &[u8]) -> Option<&Entry> {
        let shard = self.shards.get(place.shard)?;
        shard.find(table_hash(place.tag), |entry| entry.key() == key)
    }

    /// The key's slot, for writing it; the caller keeps the books.
    pub(super) fn slot(&mut self, place: Place, key: &[u8]) -> Slot<'_, Entry> {
        if self.shards.is_empty() {
            self.shards = std::iter::repeat_with(HashTable::new)
                .take(SHARDS)
                .collect();
        }
        self.shards[place.shard].entry(
            table_hash(place.tag),
            |entry| entry.key() == key,
            |entry| table_hash(entry.tag()),
        )
    }

    /// Takes an entry out; the ordered index and the books follow.
    pub(super) fn remove(
        &mut self,
        shard: usize,
        tag: u32,
        is_it: impl Fn(&Entry) -> bool,
    ) -> Option<Entry> {
        let table = self.shards.get_mut(shard)?;
        let slot = table.find_entry(table_hash(tag), is_it).ok()?;
        let (entry, _) = slot.remove();
        self.bytes -= entry.cost();
        self.len -= 1;
        self.ordered.remove(&ordered(entry.key()));
        let place = Place { shard, tag };
        self.deadline_changed(place, entry.deadline_ms(), None);
        Some(entry)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tells the ordered index of a key that was put in.
    pub(super) fn order(&mut self, key: &[u8]) {
        self.ordered.insert(ordered(key));
    }

    /// All entries of one shard, in no meaningful order.
    pub(crate) fn shard(&self, shard: usize) -> impl Iterator<Item = &Entry> {
        self.shards.get(shard).into_iter().flatten()
    }

    /// The keys from `start` on in byte order, also those past their deadline.
    pub(crate) fn keys_between<'a>(
        &'a self,
        start: &[u8],
        end: Bound<&[u8]>,
    ) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        // An inverted range panics.
        let end = match end {
            Bound::Excluded(end) => Bound::Excluded(ordered(end.max(start))),
            Bound::Included(end) => Bound::Included(ordered(end.max(start))),
            Bound::Unbounded => Bound::Unbounded,
        };
        let keys = self.ordered.range((Bound::Included(ordered(start)), end));
        keys.map(|(_, key)| &key[..])
    }

    /// Keeps the index of deadlines after an entry's deadline has changed.
    pub(super) fn deadline_changed(&mut self, place: Place, from: Option<u64>, to: Option<u64>) {
        if from == to {
            return;
        }
        let shard = place.shard as u16;
        if let Some(from) = from {
            self.with_deadline -= 1;
            let same =
                |entry: &&Entry| entry.tag() == place.tag && entry.deadline_ms() == Some(from);
            let mut twins = self.shards[place.shard].iter_hash(table_hash(place.tag));
            if !twins.any(|entry| same(&entry)) {
                self.deadlines.remove(&(from, shard, place.tag));
            }
        }
        if let Some(to) = to {
            self.with_deadline += 1;
            self.deadlines.insert((to, shard, place.tag));
        }
    }

    /// What is due first.
    pub(super) fn first_due(&self) -> Option<Due> {
        self.deadlines.first().copied()
    }

    /// Builds the ordered index anew, after entries were put in without it.
    pub(super) fn build_order(&mut self) {
        let keys = self.shards.iter().flatten().map(Entry::key);
        self.ordered = keys.map(ordered).collect();
    }
}

/// The hash that a shard's table sees: it takes a bucket from the lowest bits and a control byte
/// from the highest, and the tag must feed both.
fn table_hash(tag: u32) -> u64 {
    u64::from(tag) << 32 | u64::from(tag)
}
