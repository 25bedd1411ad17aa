//! Collections: lists, hashes, sets and sorted sets as data.
//!
//! Each is one counted tree, a sorted set two, whatever its size; a small one is kept as its packed bytes (`packed`).
//! It knows no keys, no commands and no replies. Invariants: the order of items never depends on the order in which
//! they came, except in a list; what [`Collection::cost`] says depends on the content alone; a copy costs the same
//! for any size.

mod hash;
mod list;
mod packed;
mod set;
mod sorted_set;
mod stream;
#[cfg(test)]
mod tests;

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use self::hash::{Field, Fields, Hash};
pub use self::list::{Elements, List};
pub use self::packed::{MAX_PACKED_BYTES, MAX_PACKED_ITEMS, packed_sums};
pub use self::set::{Members, Set};
pub use self::sorted_set::{Bound, ByScore, Scored, SortedSet};
pub use self::stream::{Entries, Entry, NewId, Stream, StreamId};

/// What a collection is. The numbers are part of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A sequence of elements.
    List = 1,
    /// Values by field.
    Hash = 2,
    /// Members, each once.
    Set = 3,
    /// Members, each once, in the order of their scores.
    SortedSet = 4,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::List, Kind::Hash, Kind::Set, Kind::SortedSet];

    /// Its name in `TYPE`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::List => "list",
            Kind::Hash => "hash",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
        }
    }

    /// The kind with this number.
    pub fn of(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// What the items cost, by their number and the sum of their lengths in bytes; a part of the feature level.
    ///
    /// What comes in any order fills memory by two thirds, so it is charged half as much again. Per item are charged
    /// the end of the content and the length of a field (3), the hash of a field (4), a score (8, twice).
    pub fn cost(self, items: u64, bytes: u64) -> u64 {
        let half_more = |bytes: u64| bytes.saturating_add(bytes / 2);
        let each = |of_one: u64| items.saturating_mul(of_one);
        match self {
            Kind::List => bytes.saturating_add(each(3)),
            Kind::Hash => half_more(bytes).saturating_add(each(11)),
            Kind::Set => half_more(bytes).saturating_add(each(9)),
            Kind::SortedSet => half_more(bytes).saturating_add(each(33)),
        }
    }
}

/// A collection of any kind.
#[derive(Debug, Clone)]
pub enum Collection {
    /// See [`Kind::List`].
    List(List),
    /// See [`Kind::Hash`].
    Hash(Hash),
    /// See [`Kind::Set`].
    Set(Set),
    /// See [`Kind::SortedSet`].
    SortedSet(SortedSet),
}

impl Collection {
    /// An empty one. `seed` is the store's: by it items are hashed.
    pub fn new(kind: Kind, seed: u64) -> Collection {
        match kind {
            Kind::List => Collection::List(List::default()),
            Kind::Hash => Collection::Hash(Hash::new(seed)),
            Kind::Set => Collection::Set(Set::new(seed)),
            Kind::SortedSet => Collection::SortedSet(SortedSet::new(seed)),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Collection::List(_) => Kind::List,
            Collection::Hash(_) => Kind::Hash,
            Collection::Set(_) => Kind::Set,
            Collection::SortedSet(_) => Kind::SortedSet,
        }
    }

    /// The number of items: elements, fields or members.
    pub fn len(&self) -> u64 {
        match self {
            Collection::List(list) => list.len(),
            Collection::Hash(hash) => hash.len(),
            Collection::Set(set) => set.len(),
            Collection::SortedSet(set) => set.len(),
        }
    }

    /// Whether it has no item. A key never holds such a one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sum of the lengths of all elements, fields, values and members, in bytes.
    pub fn bytes(&self) -> u64 {
        match self {
            Collection::List(list) => list.bytes(),
            Collection::Hash(hash) => hash.bytes(),
            Collection::Set(set) => set.bytes(),
            Collection::SortedSet(set) => set.bytes(),
        }
    }

    /// What it costs besides its key; see [`Kind::cost`].
    pub fn cost(&self) -> u64 {
        self.kind().cost(self.len(), self.bytes())
    }

    /// What Redis 7.0 would call its encoding, with Redis's default limits, had it been built anew.
    pub fn encoding(&self) -> &'static str {
        /// `hash-max-listpack-entries`, `zset-max-listpack-entries`.
        const LISTPACK_ITEMS: u64 = 128;
        /// `set-max-intset-entries`.
        const INTSET_ITEMS: u64 = 512;
        match self {
            Collection::List(_) => "quicklist",
            Collection::Hash(hash) if hash.len() <= LISTPACK_ITEMS && !hash.has_long() => {
                "listpack"
            }
            Collection::Set(set) if set.len() <= INTSET_ITEMS && set.is_of_integers() => "intset",
            Collection::Hash(_) | Collection::Set(_) => "hashtable",
            Collection::SortedSet(set) if set.len() <= LISTPACK_ITEMS && !set.has_long() => {
                "listpack"
            }
            Collection::SortedSet(_) => "skiplist",
        }
    }
}

/// `hash-max-listpack-value`, `zset-max-listpack-value`: longer items make Redis leave its small encoding.
const LONG_FROM: usize = 65;

fn is_long(item: &[u8]) -> bool {
    item.len() >= LONG_FROM
}

/// The hash of a field or member, by which it is found and scanned. The seed is secret, so no client can choose names
/// of one hash.
fn tag(seed: u64, name: &[u8]) -> u32 {
    (xxh3_64_with_seed(name, seed) >> u32::BITS) as u32
}

/// Whether Redis would keep this in an integer set: the shortest text of a signed number of 64 bits.
fn is_integer(item: &[u8]) -> bool {
    /// Of the least number.
    const LONGEST: usize = 20;
    if item.is_empty() || item.len() > LONGEST {
        return false;
    }
    let number = std::str::from_utf8(item)
        .ok()
        .and_then(|it| it.parse::<i64>().ok());
    number.is_some_and(|number| number.to_string().as_bytes() == item)
}
