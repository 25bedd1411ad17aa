//! A leaf of the ordered index: some keys' hashes, sorted by the keys.
//!
//! The bytes that all of its keys begin with are in the leaf once, and the four that follow them are
//! each item's mark, so an item costs eight bytes. It looks at an entry only where the marks do not
//! decide, and never decides which keys are its own. Invariants: items are in the order of their
//! keys; all keys begin with the prefix.

/// The index's view of the tables.
pub(super) trait Keys {
    /// The location of an entry.
    type Found: Copy;

    /// The keys that have this hash, in any order; others may be among them.
    fn with_hash(&self, hash: u32) -> impl Iterator<Item = (&[u8], Self::Found)>;
    /// A key's hash.
    fn hash(&self, key: &[u8]) -> u32;
}

/// A leaf's memory grows and shrinks in steps of this many items: four are lost on average.
pub(super) const STEP_ITEMS: usize = 8;

/// One mark of a leaf in this many may equal the one before: each of them may make an insertion read two
/// entries, and marking a leaf anew reads all of its entries.
const EQUAL_SHARE: usize = 16;

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Leaf {
    /// Its start key.
    pub(super) start: Box<[u8]>,
    /// Not always the longest.
    pub(super) prefix: Box<[u8]>,
    /// For each item the four bytes of its key behind the prefix, as a number; zeros stand for missing
    /// bytes, so where marks are equal the keys decide.
    pub(super) marks: Vec<u32>,
    pub(super) hashes: Vec<u32>,
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// A leaf of these keys, which are sorted, with their hashes.
    pub(super) fn of<'a>(
        start: &[u8],
        items: impl Iterator<Item = (&'a [u8], u32)> + Clone,
    ) -> Leaf {
        let mut leaf = Leaf {
            start: start.into(),
            hashes: items.clone().map(|(_, hash)| hash).collect(),
            ..Leaf::default()
        };
        leaf.mark(items.map(|(key, _)| key));
        leaf
    }

    /// The key of an item. `gone` is one that has none any more, though the tables have it.
    pub(super) fn find<'a, K: Keys>(
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

    pub(super) fn key<'a>(&self, at: usize, keys: &'a impl Keys) -> &'a [u8] {
        self.find(at, None, keys).0
    }

    /// The first position whose key is not below `key`.
    pub(super) fn lower_bound(&self, key: &[u8], keys: &impl Keys) -> usize {
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
    pub(super) fn position(&self, key: &[u8], hash: u32, keys: &impl Keys) -> Option<usize> {
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

    pub(super) fn insert(&mut self, at: usize, key: &[u8], hash: u32) {
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
    pub(super) fn middle(&self) -> usize {
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

    /// Removes an item.
    pub(super) fn remove(&mut self, at: usize) {
        self.marks.remove(at);
        self.hashes.remove(at);
        self.fit();
    }

    /// Takes the items from `at` on into a leaf of their own.
    pub(super) fn split_off(&mut self, at: usize, keys: &impl Keys) -> Leaf {
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
    pub(super) fn append(&mut self, right: &Leaf, gone: &[u8], keys: &impl Keys) {
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
    pub(super) fn keys<'a>(
        &self,
        gone: Option<&[u8]>,
        keys: &'a impl Keys,
    ) -> impl Iterator<Item = &'a [u8]> {
        (0..self.hashes.len()).map(move |at| self.find(at, gone, keys).0)
    }

    /// Marks all items anew behind the longest prefix; `all` are their keys.
    fn mark<'a>(&mut self, all: impl Iterator<Item = &'a [u8]> + Clone) {
        let mut ends = all.clone();
        if let Some(first) = ends.next() {
            let last = ends.last().unwrap_or(first);
            self.prefix = first[..common(first, last)].into();
            self.marks.clear();
            self.marks
                .extend(all.map(|key| mark(&key[self.prefix.len()..])));
        }
    }

    /// Frees memory that is not needed soon.
    fn fit(&mut self) {
        let wanted = self.hashes.len().next_multiple_of(STEP_ITEMS);
        if self.hashes.capacity() >= wanted + 2 * STEP_ITEMS {
            self.hashes.shrink_to(wanted);
            self.marks.shrink_to(wanted);
        }
    }
}

/// The first four bytes as a number.
pub(super) fn mark(bytes: &[u8]) -> u32 {
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
