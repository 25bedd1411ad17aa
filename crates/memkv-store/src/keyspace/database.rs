//! One database: its entries, the hash shards and the ordered index that name them by number, and
//! its index of deadlines.
//!
//! It knows nothing of revisions or snapshots. Invariants: an entry's number lies in the shard that
//! its key's hash names; the ordered index holds exactly the keys in the shards; the index of
//! deadlines holds exactly the (deadline, shard, tag) of the entries that have one; `len`, `bytes`
//! and `with_deadline` are the sums over all entries.

use std::collections::BTreeSet;
use std::ops::Bound;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::build::{Runner, build};
use super::deletes::DELETE_SLOTS;
use super::entry::{Entry, Numbers, Record, Value, write_numbers};
use super::large::Large;
use super::leaf::Keys;
use super::order::Order;
use super::records::{Number, Records};
use super::shard::{self, Shard};
use crate::Revision;

/// Number of shards of a database: a snapshot holds the store for one shard at a time, which at a
/// million keys is about a thousand entries and some tens of microseconds. Part of the snapshot
/// format.
pub(crate) const SHARDS: usize = 1024;

/// Bits of the hash that name the shard: `log2(SHARDS)`.
const SHARD_BITS: u32 = SHARDS.trailing_zeros();

/// Slots of the table of deletes for each value of as many bits as name a shard.
const SLOTS_PER_SHARD: usize = DELETE_SLOTS / SHARDS;

/// Bits of the tag that the ordered index looks at, so that shard and tag make four bytes: enough
/// to tell four million keys of a shard apart.
const TAG_BITS: u32 = u32::BITS - SHARD_BITS;

/// On all processors that this is built for today.
const CACHE_LINE_BYTES: usize = 64;

/// The location of a key within its database.
#[derive(Debug, Clone, Copy)]
pub(super) struct Location {
    pub(super) shard: usize,
    pub(super) tag: u32,
    /// Its slot in the table of deletes.
    pub(super) slot: u16,
}

impl Location {
    /// The tag takes the lower bits and the shard upper ones, so that the entries of one shard
    /// still differ in all the bits that its table looks at.
    pub(super) fn of(seed: u64, key: &[u8]) -> Location {
        let hash = xxh3_64_with_seed(key, seed);
        let upper = (hash >> (u64::BITS - SHARD_BITS)) as usize;
        Location {
            shard: shard_of(hash),
            tag: (hash & u64::from(u32::MAX)) as u32,
            slot: (upper * SLOTS_PER_SHARD + hash as usize % SLOTS_PER_SHARD) as u16,
        }
    }

    /// Its hash in the ordered index.
    pub(super) fn hash(self) -> u32 {
        (self.shard as u32) << TAG_BITS | self.tag & ((1 << TAG_BITS) - 1)
    }

    /// Its tag in the shard: the upper bits of its hash in the ordered index.
    fn shard_tag(self) -> u16 {
        shard_tag(self.tag)
    }
}

/// The shard of a hash. They are unequal: shard `s` gets `(2/3 + 2/3 * s/SHARDS) / SHARDS` of the
/// keys, the last one twice as many as the first. Shards of one size would all grow at the same
/// number of keys; so some grow at any time, and the average fill is the same for any number.
pub(crate) fn shard_of(hash: u64) -> usize {
    /// Of 4096: a third.
    const TAKES_GREATER: u64 = 4096 / 3;
    let part = |from: u32, bits: u32| hash >> from & ((1 << bits) - 1);
    let (one, other) = (part(54, SHARD_BITS), part(44, SHARD_BITS));
    let shard = match part(32, 12) < TAKES_GREATER {
        true => one.max(other),
        false => one,
    };
    shard as usize
}

/// An element of the index of deadlines: a deadline in milliseconds since the epoch, and the shard and tag
/// of the keys that have it. Keys that share all three are one element.
pub(super) type Due = (u64, u16, u32);

/// The facts of an entry that are needed when it is overwritten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Old {
    number: Number,
    pub(super) cost: u64,
    deadline_ms: Option<u64>,
}

impl Old {
    pub(super) fn of(number: Number, entry: &Entry<'_>) -> Old {
        Old {
            number,
            cost: entry.cost(),
            deadline_ms: entry.deadline_ms,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Database {
    table: Table,
    order: Order,
    deadlines: BTreeSet<Due>,
    pub(super) with_deadline: usize,
    pub(super) len: usize,
    pub(super) bytes: u64,
}

/// The entries, and their numbers by hash.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The seed of locations.
    seed: u64,
    records: Records,
    /// None until the first key comes.
    shards: Vec<Shard>,
}

impl Table {
    pub(super) fn location(&self, key: &[u8]) -> Location {
        Location::of(self.seed, key)
    }

    pub(super) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    pub(super) fn key(&self, number: Number) -> &[u8] {
        self.records.key(number)
    }

    fn find(&self, shard: usize, tag: u32, is_it: impl Fn(Number) -> bool) -> Option<Number> {
        let found = self.shards.get(shard)?;
        found.with_tag(shard_tag(tag)).find(|number| is_it(*number))
    }

    /// Inserts an absent key.
    fn insert(&mut self, location: Location, record: &Record<'_>, numbers: &Numbers) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        let len = record.len(numbers);
        let number = self.keep(len, record, numbers);
        self.shards[location.shard].insert(location.shard_tag(), number);
    }

    fn keep(&mut self, len: usize, record: &Record<'_>, numbers: &Numbers) -> Number {
        match record.shared {
            None => self.records.insert(len, |out| record.write(numbers, out)),
            Some(value) => {
                let rest = record.without_value(numbers);
                self.records.insert_large(Large::split(rest, value.clone()))
            }
        }
    }

    /// Has the processor fetch the small entries of a shard, which are about to be read. They lie
    /// anywhere, so each is a miss or two; here no load waits for the one before.
    fn fetch(&self, shard: usize) {
        let numbers = self.shards.get(shard).into_iter().flat_map(Shard::iter);
        let slots = numbers.filter_map(|number| self.records.slot_of(number));
        let lines = slots.flat_map(|slot| slot.iter().step_by(CACHE_LINE_BYTES).chain(slot.last()));
        let sum = lines.fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        // Otherwise the loads would be left out.
        std::hint::black_box(sum);
    }

    /// Reads a byte of what may be the entry of a place.
    fn touch(&self, location: Location) -> u8 {
        let Some(shard) = self.shards.get(location.shard) else {
            return 0;
        };
        let numbers = shard.with_tag(location.shard_tag());
        let slots = numbers.filter_map(|number| self.records.slot_of(number));
        slots.fold(0, |sum, slot| sum ^ slot[0])
    }

    /// Gives the key of an entry another record.
    fn overwrite(
        &mut self,
        location: Location,
        old: Number,
        record: &Record<'_>,
        numbers: &Numbers,
    ) {
        let len = record.len(numbers);
        if record.shared.is_none()
            && let Some(bytes) = self.records.rewrite(old, len)
        {
            record.write(numbers, bytes);
            return;
        }
        let new = self.keep(len, record, numbers);
        self.shards[location.shard].renumber(location.shard_tag(), old, new);
        self.release(old);
    }

    fn remove(&mut self, location: Location, number: Number) {
        self.shards[location.shard].remove(location.shard_tag(), number);
        self.release(number);
    }

    /// Frees an entry that no shard names any more, which may move others.
    fn release(&mut self, number: Number) {
        let Table {
            seed,
            records,
            shards,
        } = self;
        records.remove(number, |key, from, to| {
            let location = Location::of(*seed, key);
            shards[location.shard].renumber(location.shard_tag(), from, to);
        });
    }
}

/// The part of a tag that a shard keeps.
fn shard_tag(tag: u32) -> u16 {
    (tag >> (TAG_BITS - shard::TAG_BITS)) as u16
}

impl Keys for Table {
    type Found = Number;

    fn with_hash(&self, hash: u32) -> impl Iterator<Item = (&[u8], Number)> {
        let shard = self.shards.get((hash >> TAG_BITS) as usize);
        let found = shard.map(|shard| shard.with_tag(shard_tag(hash)));
        found
            .into_iter()
            .flatten()
            .map(|number| (self.records.key(number), number))
    }

    fn hash(&self, key: &[u8]) -> u32 {
        self.location(key).hash()
    }
}

/// Reading.
impl Database {
    pub(super) fn new(seed: u64) -> Database {
        let table = Table {
            seed,
            ..Table::default()
        };
        Database {
            table,
            ..Database::default()
        }
    }

    pub(super) fn find(&self, location: Location, key: &[u8]) -> Option<Number> {
        let is_it = |number| self.table.records.key(number) == key;
        self.table.find(location.shard, location.tag, is_it)
    }

    pub(super) fn location(&self, key: &[u8]) -> Location {
        self.table.location(key)
    }

    pub(super) fn entry(&self, number: Number) -> Entry<'_> {
        self.table.records.get(number)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries of one shard, in no meaningful order.
    pub(crate) fn shard(&self, shard: usize) -> impl Iterator<Item = Entry<'_>> {
        let numbers = self
            .table
            .shards
            .get(shard)
            .into_iter()
            .flat_map(Shard::iter);
        numbers.map(|number| self.entry(number))
    }

    /// See [`Table::fetch`].
    pub(crate) fn fetch(&self, shard: usize) {
        self.table.fetch(shard);
    }

    /// Has the processor fetch the memory that the next commands read for these keys. The positions of keys
    /// are random, so each is a cache miss or two; here no load waits for the one before.
    pub(super) fn fetch_keys<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        let locations = keys.map(|key| self.location(key));
        let sum = locations.fold(0, |sum: u8, location| {
            sum.wrapping_add(self.table.touch(location))
        });
        std::hint::black_box(sum);
    }

    /// The part of the hash that distinguishes two keys of a shard when chance picks one.
    pub(crate) fn tag(&self, entry: &Entry<'_>) -> u32 {
        self.location(entry.key()).tag
    }

    /// The entries of the keys from `start` on in byte order, also those past their deadline.
    pub(crate) fn between<'a>(
        &'a self,
        start: &[u8],
        end: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let numbers = self.order.from(start, &self.table);
        let entries = numbers.map(|number| self.entry(number));
        entries.take_while(move |entry| match end {
            Bound::Excluded(end) => entry.key() < end,
            Bound::Included(end) => entry.key() <= end,
            Bound::Unbounded => true,
        })
    }

    /// The earliest deadline.
    pub(super) fn first_due(&self) -> Option<Due> {
        self.deadlines.first().copied()
    }

    /// An entry that is due.
    pub(super) fn find_due(&self, (deadline, shard, tag): Due) -> Option<Number> {
        self.table.find(usize::from(shard), tag, |number| {
            let entry = self.entry(number);
            entry.deadline_ms == Some(deadline) && self.tag(&entry) == tag
        })
    }
}

/// Writing.
impl Database {
    /// Inserts an absent key.
    pub(super) fn insert(&mut self, location: Location, record: &Record<'_>, revision: Revision) {
        self.order
            .insert(record.key(), location.hash(), &self.table);
        self.insert_unordered(location, record, &record.numbers(revision, revision));
    }

    /// Leaves the ordered index to [`Database::build_order`].
    pub(super) fn insert_unordered(
        &mut self,
        location: Location,
        record: &Record<'_>,
        numbers: &Numbers,
    ) {
        self.table.insert(location, record, numbers);
        self.bytes += record.cost();
        self.len += 1;
        self.deadline_changed(location, None, numbers.deadline_ms);
    }

    /// Gives the key of an entry another value and deadline.
    pub(super) fn overwrite(
        &mut self,
        location: Location,
        old: &Old,
        record: &Record<'_>,
        numbers: &Numbers,
    ) {
        self.table.overwrite(location, old.number, record, numbers);
        self.bytes = self.bytes - old.cost + record.cost();
        self.deadline_changed(location, old.deadline_ms, numbers.deadline_ms);
    }

    /// Changes nothing but the deadline.
    pub(super) fn set_deadline(
        &mut self,
        location: Location,
        number: Number,
        deadline_ms: Option<u64>,
        revision: Revision,
    ) {
        let entry = self.entry(number);
        let old = Old::of(number, &entry);
        let numbers = Numbers {
            create_revision: entry.create_revision,
            mod_revision: revision,
            deadline_ms,
        };
        if old.deadline_ms.is_some() == deadline_ms.is_some() {
            let (at, len) = (entry.numbers_at(), entry.len_with(&numbers));
            if let Some(bytes) = self.table.records.rewrite(number, len) {
                write_numbers(bytes, at, &numbers);
                self.deadline_changed(location, old.deadline_ms, deadline_ms);
                return;
            }
        }
        let entry = self.entry(number);
        let found = Value::of(&entry);
        let (key, shared) = (entry.key().to_vec(), found.share());
        let value = shared.clone().unwrap_or_else(|| found.to_bytes());
        let record = Record {
            parts: &[&key, &value],
            key_len: key.len(),
            deadline_ms,
            shared: shared.as_ref(),
        };
        self.overwrite(location, &old, &record, &numbers);
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, location: Location, number: Number) {
        let entry = self.table.records.get(number);
        let deadline = entry.deadline_ms;
        self.bytes -= entry.cost();
        self.len -= 1;
        self.order.remove(entry.key(), location.hash(), &self.table);
        self.table.remove(location, number);
        self.deadline_changed(location, deadline, None);
    }

    /// See [`Records::take_loose`].
    pub(super) fn take_loose(&mut self) -> Vec<Large> {
        self.table.records.take_loose()
    }

    /// Updates the index of deadlines after an entry's deadline has changed.
    fn deadline_changed(&mut self, location: Location, from: Option<u64>, to: Option<u64>) {
        if from == to {
            return;
        }
        let Location { shard, tag, .. } = location;
        if let Some(from) = from {
            self.with_deadline -= 1;
            let due = (from, shard as u16, tag);
            if self.find_due(due).is_none() {
                self.deadlines.remove(&due);
            }
        }
        if let Some(to) = to {
            self.with_deadline += 1;
            self.deadlines.insert((to, shard as u16, tag));
        }
    }

    /// Builds the ordered index anew, after entries were put in without it.
    pub(super) fn build_order(&mut self, run: Runner<'_>) {
        self.order = build(&self.table, self.len, run);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::keyspace::build::in_turn;

    /// The expected state of a key: its value, its revisions and its deadline.
    type Wanted = BTreeMap<Vec<u8>, (Vec<u8>, u64, u64, Option<u64>)>;

    /// Whether table, ordered index, index of deadlines and sums agree.
    fn check(database: &Database, wanted: &Wanted) {
        let seen = |entry: Entry<'_>| {
            let numbers = (entry.create_revision, entry.mod_revision, entry.deadline_ms);
            let value = entry.value().to_vec();
            (
                entry.key().to_vec(),
                (value, numbers.0, numbers.1, numbers.2),
            )
        };
        let ordered: Vec<_> = database.between(&[], Bound::Unbounded).map(seen).collect();
        assert!(ordered.iter().map(|(key, _)| key).is_sorted());
        assert_eq!(ordered.into_iter().collect::<Wanted>(), *wanted);
        let entries = || (0..SHARDS).flat_map(|shard| database.shard(shard));
        assert_eq!(entries().map(seen).collect::<Wanted>(), *wanted);
        assert_eq!(
            (entries().count(), wanted.len()),
            (database.len, database.len)
        );
        assert_eq!(
            entries().map(|entry| entry.cost()).sum::<u64>(),
            database.bytes
        );
        let due = entries().filter_map(|entry| {
            let Location { shard, tag, .. } = database.location(entry.key());
            Some((entry.deadline_ms?, shard as u16, tag))
        });
        let due: Vec<Due> = due.collect();
        assert_eq!(due.len(), database.with_deadline);
        assert_eq!(due.into_iter().collect::<BTreeSet<_>>(), database.deadlines);
    }

    /// Equal shards need 7.9 bytes for a key just behind where all of them grow.
    #[test]
    fn shards_do_not_grow_all_at_once() {
        let mut counts = vec![0usize; SHARDS];
        let mut shards: Vec<Shard> = Vec::new();
        shards.resize_with(SHARDS, Shard::default);
        for n in 1..=1_200_000u64 {
            let location = Location::of(0, &n.to_le_bytes());
            counts[location.shard] += 1;
            shards[location.shard].insert(location.shard_tag(), Number::from_bits(n as u32));
            if n >= 600_000 && n % 60_000 == 0 {
                let bytes = shards.iter().map(Shard::bytes).sum::<usize>();
                let for_a_key = bytes as f64 / n as f64;
                assert!((7.2..7.8).contains(&for_a_key), "{for_a_key} at {n} keys");
            }
        }
        let share = |shards: &[usize]| shards.iter().sum::<usize>() as f64;
        let (first, last) = (share(&counts[..32]), share(&counts[SHARDS - 32..]));
        assert!((1.8..2.1).contains(&(last / first)), "{}", last / first);
    }

    #[test]
    fn table_and_indexes_agree_after_random_work() {
        let mut database = Database::new(7);
        let mut wanted = Wanted::new();
        for revision in 1..=20_000u64 {
            let random = xxh3_64(&revision.to_le_bytes());
            let key = format!("k{:03}", random % 700).into_bytes();
            let location = database.location(&key);
            // Sometimes a large value; lengths differ, so entries move.
            let len = if random >> 20 & 63 == 0 {
                700
            } else {
                random >> 30 & 127
            };
            let value = vec![random as u8; len as usize];
            let deadline_ms = (random >> 40 & 3 == 0).then_some(random >> 42 & 7);
            let record = Record {
                parts: &[&key, &value],
                key_len: key.len(),
                deadline_ms,
                shared: None,
            };
            let found = database.find(location, &key);
            match (found, random >> 50 & 7) {
                (None, _) => {
                    database.insert(location, &record, revision);
                    wanted.insert(key, (value, revision, revision, deadline_ms));
                }
                (Some(number), 0..3) => {
                    database.remove(location, number);
                    wanted.remove(&key);
                }
                (Some(number), 3) => {
                    database.set_deadline(location, number, deadline_ms, revision);
                    let known = wanted.get_mut(&key).unwrap();
                    (known.2, known.3) = (revision, deadline_ms);
                }
                (Some(number), _) => {
                    let entry = database.entry(number);
                    let (old, created) = (Old::of(number, &entry), entry.create_revision);
                    let numbers = record.numbers(created, revision);
                    database.overwrite(location, &old, &record, &numbers);
                    wanted.insert(key, (value, created, revision, deadline_ms));
                }
            }
            if revision % 500 == 0 {
                check(&database, &wanted);
            }
        }
        database.build_order(&in_turn);
        check(&database, &wanted);
        for (key, _) in std::mem::take(&mut wanted) {
            let location = database.location(&key);
            let number = database.find(location, &key).unwrap();
            database.remove(location, number);
        }
        check(&database, &wanted);
    }
}
