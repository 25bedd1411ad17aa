//! A leaf: some items one behind the other, packed.
//!
//! The sort keys lie in `keys` and the contents in `bytes`; a content above [`APART_FROM`] has memory of its own,
//! which readers may share. A leaf never decides whether it is too large or too small, the node above does.
//! Invariants: there are as many ends as keys, or none in a shape without contents; ends ascend and are below
//! [`APART`]; `big` holds the contents whose ends are marked [`APART`], in their order.

use std::cmp::Ordering;

use bytes::Bytes;

use super::{Item, Shape};

/// The most that a leaf weighs. To change one moves half of it on average, which at this size costs about as much
/// as the cache misses on the way to it.
pub(super) const MAX_WEIGHT: usize = 2048;

/// Contents above this length lie apart, so a leaf holds at least seven of the others.
pub(super) const APART_FROM: usize = 256;

/// Marks the end of a content that lies apart. Ends are below twice [`MAX_WEIGHT`].
const APART: u16 = 1 << 15;

/// Memory grows in steps, half of one is lost on average.
const STEP_ITEMS: usize = 16;
/// The same for contents.
const STEP_BYTES: usize = 128;

pub(super) struct Leaf<S: Shape> {
    keys: Vec<S::Key>,
    /// Where each content ends in `bytes`, or would.
    ends: Vec<u16>,
    bytes: Vec<u8>,
    big: Vec<Bytes>,
}

impl<S: Shape> Clone for Leaf<S> {
    fn clone(&self) -> Leaf<S> {
        Leaf {
            keys: self.keys.clone(),
            ends: self.ends.clone(),
            bytes: self.bytes.clone(),
            big: self.big.clone(),
        }
    }
}

impl<S: Shape> Default for Leaf<S> {
    fn default() -> Leaf<S> {
        Leaf {
            keys: Vec::new(),
            ends: Vec::new(),
            bytes: Vec::new(),
            big: Vec::new(),
        }
    }
}

/// Reading.
impl<S: Shape> Leaf<S> {
    /// What an item weighs besides its content.
    const EACH: usize = size_of::<S::Key>() + if S::HAS_CONTENT { size_of::<u16>() } else { 0 };

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes of memory that the items take here. A content that lies apart counts as its reference.
    pub(super) fn weight(&self) -> usize {
        self.bytes.len() + self.len() * Leaf::<S>::EACH + self.big.len() * size_of::<Bytes>()
    }

    /// Bytes of all that it holds in memory, but for contents that lie apart.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Leaf<S>>()
            + self.bytes.capacity()
            + self.ends.capacity() * size_of::<u16>()
            + self.keys.capacity().min(self.len() * 2) * size_of::<S::Key>()
            + self.big.capacity() * size_of::<Bytes>()
    }

    /// The sum of the contents' lengths.
    pub(super) fn content_bytes(&self) -> u64 {
        let apart: usize = self.big.iter().map(Bytes::len).sum();
        (self.bytes.len() + apart) as u64
    }

    /// The item at this position, which must be below [`Leaf::len`].
    #[inline]
    pub(super) fn item(&self, at: usize) -> Item<'_, S> {
        let key = self.keys[at];
        if !S::HAS_CONTENT {
            return Item::packed(key, &[]);
        }
        let end = self.ends[at];
        if end & APART != 0 {
            return Item::apart(key, &self.big[self.big_before(at)]);
        }
        Item::packed(key, &self.bytes[self.start(at)..usize::from(end)])
    }

    /// The position of the item with this sort key and name; else the position that it would have.
    pub(super) fn find(&self, key: S::Key, name: &[u8]) -> Result<usize, usize> {
        let mut low = self.keys.partition_point(|it| *it < key);
        let alike = self.keys[low..].iter().take_while(|it| **it == key);
        let mut high = low + alike.count();
        while low < high {
            let middle = low.midpoint(high);
            match S::name(self.item(middle).content()).cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// The position at which the leaf is halved, by weight. One item at least stays on each side of two or more.
    pub(super) fn middle(&self) -> usize {
        let (mut before, half) = (0, self.weight() / 2);
        let weight = |at: usize| match self.ends.get(at) {
            None => Leaf::<S>::EACH,
            Some(end) if end & APART != 0 => Leaf::<S>::EACH + size_of::<Bytes>(),
            Some(end) => Leaf::<S>::EACH + usize::from(*end) - self.start(at),
        };
        let is_left = |at: &usize| {
            before += weight(*at);
            before <= half
        };
        let left = (0..self.len()).take_while(is_left).count();
        left.clamp(1, self.len().saturating_sub(1).max(1))
    }

    /// Where the content at this position begins in `bytes`, or would.
    fn start(&self, at: usize) -> usize {
        let before = at.checked_sub(1).map(|before| self.ends[before]);
        before.map_or(0, |end| usize::from(end & !APART))
    }

    fn big_before(&self, at: usize) -> usize {
        if self.big.is_empty() {
            return 0;
        }
        let before = self.ends[..at].iter();
        before.filter(|end| **end & APART != 0).count()
    }
}

/// Writing.
impl<S: Shape> Leaf<S> {
    /// Inserts an item at a position up to [`Leaf::len`].
    pub(super) fn insert(&mut self, at: usize, key: S::Key, content: &[u8]) {
        reserve(&mut self.keys, 1, STEP_ITEMS);
        self.keys.insert(at, key);
        if S::HAS_CONTENT {
            let start = self.start(at) as u16;
            reserve(&mut self.ends, 1, STEP_ITEMS);
            self.ends.insert(at, start);
            self.fill(at, content);
        }
    }

    /// Gives the item at a position another sort key and content.
    pub(super) fn replace(&mut self, at: usize, key: S::Key, content: &[u8]) {
        self.keys[at] = key;
        if S::HAS_CONTENT {
            self.empty(at);
            self.fill(at, content);
            fit(&mut self.bytes, STEP_BYTES);
        }
    }

    /// Removes the item at a position.
    pub(super) fn remove(&mut self, at: usize) {
        self.keys.remove(at);
        fit(&mut self.keys, STEP_ITEMS);
        if S::HAS_CONTENT {
            self.empty(at);
            self.ends.remove(at);
            fit(&mut self.ends, STEP_ITEMS);
            fit(&mut self.bytes, STEP_BYTES);
        }
    }

    /// Takes the items from a position on into a leaf of their own.
    pub(super) fn split_off(&mut self, at: usize) -> Leaf<S> {
        let mut right = Leaf {
            keys: self.keys.split_off(at),
            ..Leaf::default()
        };
        if S::HAS_CONTENT {
            let (start, apart) = (self.start(at), self.big_before(at));
            right.bytes = self.bytes.split_off(start);
            right.big = self.big.split_off(apart);
            right.ends = self.ends.split_off(at);
            for end in &mut right.ends {
                *end -= start as u16;
            }
        }
        self.shrink();
        right
    }

    /// Takes over the items of the next leaf.
    pub(super) fn append(&mut self, right: &Leaf<S>) {
        reserve(&mut self.keys, right.keys.len(), STEP_ITEMS);
        self.keys.extend_from_slice(&right.keys);
        let start = self.bytes.len() as u16;
        reserve(&mut self.ends, right.ends.len(), STEP_ITEMS);
        self.ends.extend(right.ends.iter().map(|end| end + start));
        reserve(&mut self.bytes, right.bytes.len(), STEP_BYTES);
        self.bytes.extend_from_slice(&right.bytes);
        self.big.extend_from_slice(&right.big);
    }

    /// Gives back the memory that is not in use.
    pub(super) fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.bytes.shrink_to_fit();
        self.big.shrink_to_fit();
    }

    /// Puts a content where an empty one is.
    fn fill(&mut self, at: usize, content: &[u8]) {
        if content.len() > APART_FROM {
            let apart = self.big_before(at);
            self.big.reserve_exact(1);
            self.big.insert(apart, Bytes::copy_from_slice(content));
            self.ends[at] |= APART;
            return;
        }
        if content.is_empty() {
            return;
        }
        let (start, len) = (self.start(at), content.len());
        reserve(&mut self.bytes, len, STEP_BYTES);
        let old = self.bytes.len();
        self.bytes.resize(old + len, 0);
        self.bytes.copy_within(start..old, start + len);
        self.bytes[start..start + len].copy_from_slice(content);
        for end in &mut self.ends[at..] {
            *end += len as u16;
        }
    }

    /// Takes the content of an item out, and leaves an empty one.
    fn empty(&mut self, at: usize) {
        if self.ends[at] & APART != 0 {
            let apart = self.big_before(at);
            self.big.remove(apart);
            self.ends[at] &= !APART;
            return;
        }
        let (start, end) = (self.start(at), usize::from(self.ends[at]));
        self.bytes.drain(start..end);
        for it in &mut self.ends[at..] {
            *it -= (end - start) as u16;
        }
    }
}

/// Makes room for `more`, in steps.
fn reserve<T>(items: &mut Vec<T>, more: usize, step: usize) {
    if items.capacity() - items.len() < more {
        items.reserve_exact(more.next_multiple_of(step));
    }
}

/// Gives back memory that is not needed soon.
fn fit<T>(items: &mut Vec<T>, step: usize) {
    if items.capacity() - items.len() >= 3 * step {
        items.shrink_to(items.len() + step);
    }
}
