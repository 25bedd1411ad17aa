//! The ordered index: the hashes of a database's keys in the order of the keys.
//!
//! It holds no keys but one for each leaf, and looks at an entry only where four bytes of its key do
//! not decide. A leaf is sorted; the bytes that all of its keys begin with are in the leaf once, and
//! the four that follow them are each item's mark, so an item costs eight bytes. An item says nothing
//! of where the entry lies, so entries move without it; the hash tables say it ([`Keys`]).
//! Invariants: the first leaf begins at the empty key; every leaf has items; a leaf's keys are at or
//! above the key that it begins at, below that of the next, and begin with its prefix; between two
//! calls the index and the tables have the same keys.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The tables, as the index asks them.
pub(super) trait Keys {
    /// What is known of where an entry lies.
    type Found: Copy;

    /// The keys that have this hash, in any order; others may be among them.
    fn with_hash(&self, hash: u32) -> impl Iterator<Item = (&[u8], Self::Found)>;
    /// A key's hash.
    fn hash(&self, key: &[u8]) -> u32;
}

/// Items in a leaf, at most. With more of them fewer keys are kept twice, and putting one in moves
/// more: half a kilobyte on average here.
const MAX_ITEMS: usize = 128;

/// Below so many a leaf looks for a neighbour to become one with.
const FEW_ITEMS: usize = MAX_ITEMS / 4;

/// Two leaves become one if it has at most so many, so that it need not be split again soon.
const MERGED_ITEMS: usize = MAX_ITEMS * 3 / 4;

/// A leaf's memory grows and shrinks in steps of so many items: four are lost on average.
const STEP_ITEMS: usize = 8;

/// A leaf may have one mark in so many that is equal to the one before: each of them may cost a key
/// that comes a look at two entries, and to mark a leaf anew costs a look at all of its entries.
const EQUAL_SHARE: usize = 16;

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
pub(super) struct Leaf {
    /// What it begins at.
    start: Box<[u8]>,
    /// Not always the longest.
    prefix: Box<[u8]>,
    /// For each item the four bytes of its key behind the prefix, as a number; zeros stand for what
    /// is not there, so equal marks leave it to the keys.
    marks: Vec<u32>,
    hashes: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Order {
    /// Where in `leaves` the leaf is that begins at a key.
    starts: BTreeMap<Start<'static>, u32>,
    leaves: Vec<Leaf>,
    /// What of `leaves` is not in use.
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
        if self.leaves[this].hashes.len() == MAX_ITEMS {
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
        leaf.marks.remove(at);
        leaf.hashes.remove(at);
        leaf.fit();
        if leaf.hashes.len() < FEW_ITEMS {
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
        let len = self.leaves[this].hashes.len();
        let fits = |(_, other): &(&Start<'_>, &u32)| {
            len == 0 || len + self.leaves[**other as usize].hashes.len() <= MERGED_ITEMS
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

    /// What is known of the keys from `key` on, in order.
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
        let items = leaves.flat_map(|leaf| (0..leaf.hashes.len()).map(move |at| (leaf, at)));
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

impl Leaf {
    /// A leaf of these keys, which are sorted, with their hashes.
    fn of<'a>(start: &[u8], items: impl Iterator<Item = (&'a [u8], u32)> + Clone) -> Leaf {
        let mut leaf = Leaf {
            start: start.into(),
            hashes: items.clone().map(|(_, hash)| hash).collect(),
            ..Leaf::default()
        };
        leaf.mark(items.map(|(key, _)| key));
        leaf
    }

    /// The key of an item. `gone` is one that has none any more, though the tables have it.
    fn find<'a, K: Keys>(
        &self,
        at: usize,
        gone: Option<&[u8]>,
        keys: &'a K,
    ) -> (&'a [u8], K::Found) {
        let (mark, hash) = (self.marks[at], self.hashes[at]);
        let is_alike = |key: &[u8]| {
            let rest = key.strip_prefix(&self.prefix[..]);
            rest.map(self::mark) == Some(mark) && gone != Some(key)
        };
        let mut found = keys.with_hash(hash).filter(|(key, _)| is_alike(key));
        let first = found.next().expect("the tables have what the index has");
        let Some(second) = found.next() else {
            return first;
        };
        // Nothing in the items tells these apart but that they are in order; those before the leaf
        // are not its own, and those behind it come last.
        let mut alike: Vec<_> = [first, second].into_iter().chain(found).collect();
        alike.retain(|(key, _)| **key >= *self.start && keys.hash(key) == hash);
        alike.sort_unstable_by_key(|(key, _)| *key);
        let items = self.marks[..at].iter().zip(&self.hashes);
        let before = items.filter(|item| *item == (&mark, &hash)).count();
        alike[before]
    }

    fn key<'a>(&self, at: usize, keys: &'a impl Keys) -> &'a [u8] {
        self.find(at, None, keys).0
    }

    /// The first position whose key is not below `key`.
    fn lower_bound(&self, key: &[u8], keys: &impl Keys) -> usize {
        let Some(rest) = key.strip_prefix(&self.prefix[..]) else {
            return match *key < *self.prefix {
                true => 0,
                false => self.marks.len(),
            };
        };
        let mark = mark(rest);
        let mut low = self.below(mark);
        let same = self.marks[low..].iter().take_while(|m| **m == mark);
        let mut high = low + same.count();
        while low < high {
            let middle = low.midpoint(high);
            match self.key(middle, keys) < key {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    /// Where the item of a key is that belongs here.
    fn position(&self, key: &[u8], hash: u32, keys: &impl Keys) -> Option<usize> {
        let mark = mark(key.strip_prefix(&self.prefix[..])?);
        let from = self.below(mark);
        let same = self.marks[from..].iter().zip(&self.hashes[from..]);
        let same = same.take_while(|(m, _)| **m == mark).enumerate();
        let mut alike = same
            .filter(|(_, (_, h))| **h == hash)
            .map(|(at, _)| from + at);
        let first = alike.next()?;
        let others: Vec<usize> = alike.collect();
        if others.is_empty() {
            return Some(first);
        }
        let mut alike = [first].into_iter().chain(others);
        alike.find(|at| self.key(*at, keys) == key)
    }

    /// How many marks are below this one. They are sorted, but to count is faster than to search:
    /// no load waits for the one before.
    fn below(&self, mark: u32) -> usize {
        if self.marks.last().is_some_and(|last| *last < mark) {
            // Where keys come in ascending order.
            return self.marks.len();
        }
        self.marks.iter().filter(|m| **m < mark).count()
    }

    fn insert(&mut self, at: usize, key: &[u8], hash: u32) {
        if !key.starts_with(&self.prefix) {
            self.shorten_prefix(common(key, &self.prefix));
        }
        if self.hashes.len() == self.hashes.capacity() {
            self.hashes.reserve_exact(STEP_ITEMS);
            self.marks.reserve_exact(STEP_ITEMS);
        }
        self.marks.insert(at, mark(&key[self.prefix.len()..]));
        self.hashes.insert(at, hash);
    }

    /// Where a full leaf is best split: in the middle, unless the items there have one mark. Then one
    /// of the two has longer prefixes if these stay together. Where keys ascend up to one that
    /// begins otherwise, that one would else stay with the last of them, and make their marks equal.
    fn middle(&self) -> usize {
        let middle = self.marks.len() / 2;
        let mark = self.marks[middle];
        let (from, to) = (self.below(mark), self.marks.partition_point(|m| *m <= mark));
        match to - from <= self.marks.len() / EQUAL_SHARE {
            true => middle,
            false if to < self.marks.len() => to,
            false if from > 0 => from,
            false => middle,
        }
    }

    /// Leaves `len` bytes of the prefix. No key is looked at: behind a shorter prefix come the bytes
    /// that were cut off, and then those of the mark.
    fn shorten_prefix(&mut self, len: usize) {
        let (prefix, cut) = self.prefix.split_at(len);
        let (first, bits) = (mark(cut), u8::BITS * cut.len() as u32);
        for mark in &mut self.marks {
            *mark = first | mark.checked_shr(bits).unwrap_or(0);
        }
        self.prefix = prefix.into();
    }

    /// Takes the items from `at` on into a leaf of their own.
    fn split_off(&mut self, at: usize, keys: &impl Keys) -> Leaf {
        let mut right = Leaf {
            start: self.key(at, keys).into(),
            prefix: self.prefix.clone(),
            marks: self.marks.split_off(at),
            hashes: self.hashes.split_off(at),
        };
        for leaf in [self, &mut right] {
            leaf.tell_apart(keys);
            leaf.fit();
        }
        right
    }

    /// Marks all items anew, if too many marks are equal and others can do better.
    fn tell_apart(&mut self, keys: &impl Keys) {
        let equal = self.marks.windows(2).filter(|pair| pair[0] == pair[1]);
        if equal.count() <= self.marks.len() / EQUAL_SHARE {
            return;
        }
        let (first, last) = (self.key(0, keys), self.key(self.marks.len() - 1, keys));
        if common(first, last) > self.prefix.len() {
            let all: Vec<&[u8]> = self.keys(None, keys).collect();
            self.mark(all.into_iter());
        }
    }

    /// Takes over the items of the next leaf.
    fn append(&mut self, right: &Leaf, gone: &[u8], keys: &impl Keys) {
        let same = self.prefix == right.prefix;
        let mut all: Vec<&[u8]> = Vec::new();
        if !same {
            all.extend(self.keys(Some(gone), keys));
            all.extend(right.keys(Some(gone), keys));
        }
        self.hashes.extend(&right.hashes);
        self.marks.extend(&right.marks);
        if !same {
            self.mark(all.into_iter());
        }
        self.fit();
    }

    /// The keys of all items.
    fn keys<'a>(&self, gone: Option<&[u8]>, keys: &'a impl Keys) -> impl Iterator<Item = &'a [u8]> {
        (0..self.hashes.len()).map(move |at| self.find(at, gone, keys).0)
    }

    /// Marks all items anew behind the longest prefix; `all` are their keys.
    fn mark<'a>(&mut self, all: impl Iterator<Item = &'a [u8]> + Clone) {
        let mut ends = all.clone();
        if let Some(first) = ends.next() {
            let last = ends.last().unwrap_or(first);
            self.prefix = first[..common(first, last)].into();
            self.mark_all(all);
        }
    }

    /// Marks all items anew behind the prefix.
    fn mark_all<'a>(&mut self, all: impl Iterator<Item = &'a [u8]>) {
        self.marks.clear();
        self.marks
            .extend(all.map(|key| mark(&key[self.prefix.len()..])));
    }

    /// Gives memory back that is not needed soon.
    fn fit(&mut self) {
        let wanted = self.hashes.len().next_multiple_of(STEP_ITEMS);
        if self.hashes.capacity() >= wanted + 2 * STEP_ITEMS {
            self.hashes.shrink_to(wanted);
            self.marks.shrink_to(wanted);
        }
    }
}

/// The first four bytes as a number.
fn mark(bytes: &[u8]) -> u32 {
    let mut first = [0; size_of::<u32>()];
    let len = bytes.len().min(first.len());
    first[..len].copy_from_slice(&bytes[..len]);
    u32::from_be_bytes(first)
}

/// How many bytes both begin with.
pub(super) fn common(one: &[u8], other: &[u8]) -> usize {
    let pairs = one.iter().zip(other);
    pairs.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;

    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

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
    fn ascending_keys_ask_the_tables_for_little_whatever_comes_behind_them() {
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
