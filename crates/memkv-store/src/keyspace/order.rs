//! The ordered index: the hashes of a database's keys in the order of the keys.
//!
//! It is a tree of two levels: the start key of each leaf, and the leaves ([`Leaf`]). It holds no other keys
//! and no positions of entries, so entries move without it; the hash tables have the positions
//! ([`Keys`]). Invariants: the first leaf begins at the empty key; every leaf has items; a leaf's keys
//! are at or above the key that it begins at, and below that of the next; between two calls the index
//! and the tables have the same keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use super::leaf::{Keys, Leaf};

/// The most items in a leaf. With more of them fewer keys are kept twice, and an insertion moves more:
/// half a kilobyte on average here.
const MAX_ITEMS: usize = 128;

/// A leaf with fewer items is merged with a neighbour.
const FEW_ITEMS: usize = MAX_ITEMS / 4;

/// Two leaves are merged if the result has at most this many items, so that it is not split again soon.
const MERGED_ITEMS: usize = MAX_ITEMS * 3 / 4;

/// A key's first bytes as a number, in the order of the keys but for equal numbers.
pub(crate) fn first_bytes(key: &[u8]) -> u128 {
    let mut first = [0; size_of::<u128>()];
    let len = key.len().min(first.len());
    first[..len].copy_from_slice(&key[..len]);
    u128::from_be_bytes(first)
}

/// The key that a leaf begins at, behind its first bytes as a number, by which nearly all
/// comparisons are decided without following the pointer. A number is the greater one if a byte
/// is, and equal numbers leave it to the bytes.
type Start<'a> = (u128, Cow<'a, [u8]>);

/// To look a key up with.
fn start(key: &[u8]) -> Start<'_> {
    (first_bytes(key), Cow::Borrowed(key))
}

/// To begin a leaf with.
fn kept_start(key: &[u8]) -> Start<'static> {
    (first_bytes(key), Cow::Owned(key.to_vec()))
}

#[derive(Debug, Default)]
pub(super) struct Order {
    /// Where in `leaves` the leaf is that begins at a key.
    starts: BTreeMap<Start<'static>, u32>,
    leaves: Vec<Leaf>,
    /// The unused positions in `leaves`.
    free: Vec<u32>,
    recent: Recent,
}

/// The leaf that the last key came to. Keys that come one after another often lie next to each other,
/// and the second one for a leaf saves the others the search.
#[derive(Debug, Default)]
struct Recent {
    leaf: u32,
    /// All keys whose first bytes are between these numbers belong there; none if they are equal.
    between: (u128, u128),
}

impl Order {
    /// Puts a key in that the tables do not have yet.
    pub(super) fn insert(&mut self, key: &[u8], hash: u32, keys: &impl Keys) {
        let Some(mut this) = self.leaf_for(key) else {
            self.add(Leaf::of(&[], [(key, hash)].into_iter()));
            return;
        };
        let mut at = self.leaves[this].lower_bound(key, keys);
        if self.leaves[this].len() == MAX_ITEMS {
            // Where keys come in ascending order, full leaves stay full.
            if at == MAX_ITEMS {
                self.add(Leaf::of(key, [(key, hash)].into_iter()));
                return;
            }
            let middle = self.leaves[this].middle();
            let right = self.leaves[this].split_off(middle, keys);
            let is_right = *key >= *right.start;
            let right = self.add(right);
            if is_right {
                (this, at) = (right, at - middle);
            }
        }
        self.leaves[this].insert(at, key, hash);
    }

    /// Takes out a key that the tables still have.
    pub(super) fn remove(&mut self, key: &[u8], hash: u32, keys: &impl Keys) {
        let Some(this) = self.leaf_of(key) else {
            return;
        };
        let leaf = &mut self.leaves[this];
        let Some(at) = leaf.position(key, hash, keys) else {
            return;
        };
        leaf.remove(at);
        if leaf.len() < FEW_ITEMS {
            self.join(this, key, keys);
        }
    }

    /// The leaf in which a key belongs; none if there is no leaf.
    fn leaf_of(&self, key: &[u8]) -> Option<usize> {
        // For the lookup the map's keys may live as short as this one.
        let starts: &BTreeMap<Start<'_>, u32> = &self.starts;
        let (_, leaf) = starts.range(..=start(key)).next_back()?;
        Some(*leaf as usize)
    }

    /// The same, for a key that is put in.
    fn leaf_for(&mut self, key: &[u8]) -> Option<usize> {
        let first = first_bytes(key);
        let (from, to) = self.recent.between;
        if from < first && first < to {
            return Some(self.recent.leaf as usize);
        }
        let leaf = self.leaf_of(key)? as u32;
        let mut between = (0, 0);
        if leaf == self.recent.leaf {
            let starts: &BTreeMap<Start<'_>, u32> = &self.starts;
            let after = (Bound::Excluded(start(key)), Bound::Unbounded);
            let next = starts.range(after).next();
            let to = next.map_or(u128::MAX, |((first, _), _)| *first);
            between = (first_bytes(&self.leaves[leaf as usize].start), to);
        }
        self.recent = Recent { leaf, between };
        Some(leaf as usize)
    }

    fn add(&mut self, leaf: Leaf) -> usize {
        self.recent = Recent::default();
        let start = kept_start(&leaf.start);
        let at = match self.free.pop() {
            Some(at) => {
                self.leaves[at as usize] = leaf;
                at
            }
            None => {
                self.leaves.push(leaf);
                (self.leaves.len() - 1) as u32
            }
        };
        self.starts.insert(start, at);
        at as usize
    }

    /// Makes a leaf with few items, that of `key`, one with a neighbour that is not too full. The
    /// item of `key` is out already, though the tables have it.
    fn join(&mut self, this: usize, key: &[u8], keys: &impl Keys) {
        let len = self.leaves[this].len();
        let fits = |(_, other): &(&Start<'_>, &u32)| {
            len == 0 || len + self.leaves[**other as usize].len() <= MERGED_ITEMS
        };
        let starts: &BTreeMap<Start<'_>, u32> = &self.starts;
        let after = (Bound::Excluded(start(key)), Bound::Unbounded);
        let next = starts.range(after).next().filter(fits);
        let before = starts.range(..=start(key)).rev().nth(1).filter(fits);
        let (left, right) = match (next, before) {
            (Some((_, next)), _) => (this, *next as usize),
            (None, Some((_, before))) => (*before as usize, this),
            (None, None) => {
                if len == 0 {
                    *self = Order::default();
                }
                return;
            }
        };
        self.recent = Recent::default();
        let right_leaf = std::mem::take(&mut self.leaves[right]);
        self.starts.remove(&kept_start(&right_leaf.start));
        self.free.push(right as u32);
        self.leaves[left].append(&right_leaf, key, keys);
    }

    /// The hashes of the keys from `key` on, in order.
    pub(super) fn from<'a, K: Keys>(
        &'a self,
        key: &[u8],
        keys: &'a K,
    ) -> impl Iterator<Item = K::Found> + use<'a, K> {
        let first = self.leaf_of(key).map(|leaf| &self.leaves[leaf]);
        let skipped = first.map_or(0, |leaf| leaf.lower_bound(key, keys));
        let after = (Bound::Excluded(kept_start(key)), Bound::Unbounded);
        let others = self.starts.range::<Start<'static>, _>(after);
        let others = others.map(|(_, leaf)| &self.leaves[*leaf as usize]);
        let leaves = first.into_iter().chain(others);
        let items = leaves.flat_map(|leaf| (0..leaf.len()).map(move |at| (leaf, at)));
        items
            .skip(skipped)
            .map(|(leaf, at)| leaf.find(at, None, keys).1)
    }

    /// Leaves of keys with their hashes, which are sorted. The first begins at its first key.
    pub(super) fn leaves<'a>(sorted: impl Iterator<Item = (&'a [u8], u32)>) -> Vec<Leaf> {
        let mut sorted = sorted.peekable();
        let mut leaves = Vec::new();
        let mut part = Vec::with_capacity(MERGED_ITEMS);
        while sorted.peek().is_some() {
            part.clear();
            part.extend(sorted.by_ref().take(MERGED_ITEMS));
            leaves.push(Leaf::of(part[0].0, part.iter().copied()));
        }
        leaves
    }

    /// The index that has these leaves, which are in order.
    pub(super) fn of(mut leaves: Vec<Leaf>) -> Order {
        if let Some(first) = leaves.first_mut() {
            first.start = Box::default();
        }
        let starts = leaves.iter().map(|leaf| kept_start(&leaf.start));
        Order {
            starts: starts.zip(0..).collect(),
            leaves,
            ..Order::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::keyspace::leaf::{STEP_ITEMS, mark};

    /// Tables that tell keys apart by so many bits of their hash, and count how often they are asked.
    #[derive(Default)]
    struct Weak {
        keys: BTreeSet<Vec<u8>>,
        bits: u32,
        asked: Cell<usize>,
    }

    impl Keys for Weak {
        type Found = ();

        fn with_hash(&self, hash: u32) -> impl Iterator<Item = (&[u8], ())> {
            self.asked.set(self.asked.get() + 1);
            // As from a table: in no order, and others among them.
            let keys = self.keys.iter().rev().map(|key| (&key[..], ()));
            keys.filter(move |(key, ())| self.hash(key) >> 1 == hash >> 1)
        }

        fn hash(&self, key: &[u8]) -> u32 {
            (xxh3_64(key) & ((1 << self.bits) - 1)) as u32
        }
    }

    /// Whether everything holds that is said at the top of this file.
    fn check(order: &Order, keys: &Weak) {
        let mut all = keys.keys.iter();
        let starts: Vec<&[u8]> = order.starts.keys().map(|(_, key)| &key[..]).collect();
        assert!(starts.first().is_none_or(|start| start.is_empty()));
        assert_eq!(starts.len() + order.free.len(), order.leaves.len());
        for (at, leaf) in order.starts.values().enumerate() {
            let leaf = &order.leaves[*leaf as usize];
            assert_eq!(&leaf.start[..], starts[at]);
            assert!((1..=MAX_ITEMS).contains(&leaf.marks.len()));
            assert!(leaf.hashes.capacity() <= leaf.hashes.len() + 3 * STEP_ITEMS);
            for (item, key) in leaf.keys(None, keys).enumerate() {
                assert_eq!(Some(key), all.next().map(|key| &key[..]));
                assert!(starts[at] <= key && starts.get(at + 1).is_none_or(|next| key < *next));
                let rest = key.strip_prefix(&leaf.prefix[..]);
                assert_eq!(rest.map(mark), Some(leaf.marks[item]));
            }
        }
        assert_eq!(all.next(), None, "a key is not in the index");
    }

    /// Keys of which many begin alike, or differ by zeros at the end alone.
    fn key(random: u64) -> Vec<u8> {
        let len = random % 23;
        (0..len).map(|at| (random >> (8 + at)) as u8 & 1).collect()
    }

    #[test]
    fn it_has_the_keys_in_order_however_they_come_and_go() {
        for bits in [0, 1, 4, 32] {
            let mut keys = Weak {
                bits,
                ..Weak::default()
            };
            let mut order = Order::default();
            // It grows for a while, then shrinks to nothing.
            for step in 0..6_000u64 {
                let random = xxh3_64(&step.to_le_bytes());
                let grows = (random >> 40) % 4 < if step < 2_000 { 3 } else { 1 };
                if grows && step < 5_000 {
                    let key = key(random);
                    if !keys.keys.contains(&key) {
                        order.insert(&key, keys.hash(&key), &keys);
                        keys.keys.insert(key);
                    }
                } else if let Some(key) = keys.keys.range(key(random)..).next().cloned() {
                    order.remove(&key, keys.hash(&key), &keys);
                    keys.keys.remove(&key);
                }
                if step % 97 == 0 {
                    check(&order, &keys);
                    let from = order.from(&key(random), &keys).count();
                    assert_eq!(from, keys.keys.range(key(random)..).count());
                }
            }
            while let Some(key) = keys.keys.first().cloned() {
                order.remove(&key, keys.hash(&key), &keys);
                keys.keys.remove(&key);
            }
            check(&order, &keys);
            assert!(order.leaves.is_empty());
        }
    }

    #[test]
    fn leaves_stay_full_where_keys_ascend_and_merge_where_they_go() {
        let mut keys = Weak {
            bits: 32,
            ..Weak::default()
        };
        let all: Vec<Vec<u8>> = (0..1_280u32).map(|n| n.to_be_bytes().to_vec()).collect();
        let mut order = Order::default();
        for key in &all {
            order.insert(key, keys.hash(key), &keys);
            keys.keys.insert(key.clone());
        }
        assert_eq!(order.starts.len(), 1_280 / MAX_ITEMS);
        for key in all.iter().enumerate().filter(|(n, _)| n % 8 > 0) {
            order.remove(key.1, keys.hash(key.1), &keys);
            keys.keys.remove(key.1);
        }
        check(&order, &keys);
        assert!(
            order.starts.len() <= 160 / FEW_ITEMS,
            "{}",
            order.starts.len()
        );
        let sorted = keys.keys.iter().map(|key| (&key[..], keys.hash(key)));
        check(&Order::of(Order::leaves(sorted)), &keys);
    }

    #[test]
    fn ascending_keys_rarely_read_the_tables_with_any_keys_behind_them() {
        let mut keys = Weak {
            bits: 32,
            ..Weak::default()
        };
        let mut order = Order::default();
        let ascending = (0..10_000).map(|n| format!("key:{n:012}").into_bytes());
        for key in [b"probe".to_vec()].into_iter().chain(ascending) {
            order.insert(&key, keys.hash(&key), &keys);
            keys.keys.insert(key);
        }
        assert!(keys.asked.get() < 1_000, "{}", keys.asked.get());
        check(&order, &keys);
    }
}
