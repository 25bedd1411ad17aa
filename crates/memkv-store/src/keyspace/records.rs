//! The memory of a database's entries: small ones side by side in pages of one size of slot, large ones in
//! an allocation each.
//!
//! A number of four bytes names an entry. The content of entries has no meaning here. Slots that become
//! empty are used again; where too many of a size are empty, the last entries of the size move into them
//! at each removal, so deleted entries free their memory step by step, and nothing is ever compacted at
//! once. The owner of the numbers is told which entries move. Invariants: of the pages
//! of a size all but the last are full, if empty slots are counted in; a size's `empty` names each of
//! its empty slots once, and an empty slot says where in `empty` its number is.

use super::entry::{Entry, Kept};
use super::large::Large;

/// Sizes of slots are multiples of this: four bytes are lost on average. The build with the deliberate bugs has
/// other sizes, which shows that they decide nothing (`tests/slots.rs` of this crate).
const STEP_BYTES: usize = if cfg!(memkv_bugs) { 24 } else { 8 };

/// The smallest slot. With it the number of a slot within its page takes [`SLOT_BITS`] bits.
const MIN_SLOT_BYTES: usize = 16;

/// Entries above this size get an allocation of their own, whose price (some 48 bytes) is then below
/// a tenth; it is also the most that a snapshot copies of an entry while it holds the store.
const MAX_SLOT_BYTES: usize = if cfg!(memkv_bugs) { 264 } else { 512 };

/// Size of a page: with up to 64 sizes in use, the last pages of which are half full, two megabytes
/// are lost at most, and a size that is not in use costs nothing.
const PAGE_BYTES: usize = 64 * 1024;

/// Bits of an entry's number that name the slot of the page.
const SLOT_BITS: u32 = (PAGE_BYTES / MIN_SLOT_BYTES).trailing_zeros();

/// The share of slots of a size that may be empty, as its divisor; the pages are counted as full.
const EMPTY_SHARE: usize = 8;

/// Slots that are cut off at the end while one entry goes, at most. Two would do to keep up.
const CUT_AT_ONCE: usize = 3;

/// The first bytes of an empty slot. No entry has them: its first number is below 2^18.
const EMPTY: [u8; 4] = [u8::MAX; 4];

/// In an entry's number: a large one.
const LARGE: u32 = 1 << 31;

/// Pages that numbers can name, which makes 32 GiB of small entries in one database. Further entries are
/// kept like large ones.
const MAX_PAGES: usize = 1 << (31 - SLOT_BITS);

/// Large entries that share an allocation of references: growing never moves more.
const LARGE_PER_CHUNK: usize = 1024;

/// Names an entry until it is removed or moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number(u32);

impl Number {
    /// Names nothing: memory ends before that many large entries.
    pub(super) const NONE: Number = Number(u32::MAX);

    pub(super) const fn to_bits(self) -> u32 {
        self.0
    }

    pub(super) const fn from_bits(bits: u32) -> Number {
        Number(bits)
    }
}

#[derive(Debug, Default)]
struct Page {
    /// As long as its slots in use.
    bytes: Vec<u8>,
    slot_bytes: u16,
}

/// The slots of one size.
#[derive(Debug, Default, Clone)]
struct Size {
    pages: Vec<u32>,
    empty: Vec<Number>,
}

#[derive(Debug, Default)]
pub(super) struct Records {
    pages: Vec<Page>,
    free_pages: Vec<u32>,
    /// For each size of slot. None until the first small entry comes.
    sizes: Vec<Size>,
    large: Vec<Vec<Large>>,
    /// Removed large entries that take long to free.
    loose: Vec<Large>,
}

impl Records {
    pub(super) fn get(&self, number: Number) -> Entry<'_> {
        Entry::read(self.kept(number))
    }

    pub(super) fn key(&self, number: Number) -> &[u8] {
        self.kept(number).key()
    }

    /// The slot of a small entry.
    pub(super) fn slot_of(&self, number: Number) -> Option<&[u8]> {
        match self.kept(number) {
            Kept::Slot(bytes) => Some(bytes),
            Kept::Large(_) => None,
        }
    }

    fn kept(&self, number: Number) -> Kept<'_> {
        match address(number) {
            Address::Slot { page, slot } => {
                let page = &self.pages[page];
                let slot_bytes = usize::from(page.slot_bytes);
                Kept::Slot(&page.bytes[slot * slot_bytes..][..slot_bytes])
            }
            Address::Large { chunk, at } => Kept::Large(&self.large[chunk][at]),
        }
    }

    /// Inserts an entry of `len` bytes, which `write` writes to the front of its buffer.
    pub(super) fn insert(&mut self, len: usize, write: impl FnOnce(&mut [u8])) -> Number {
        if len <= MAX_SLOT_BYTES && (self.pages.len() < MAX_PAGES || !self.free_pages.is_empty()) {
            self.insert_small(slot_bytes(len), write)
        } else {
            self.insert_large(Large::whole(len, write))
        }
    }

    fn insert_small(&mut self, slot_bytes: usize, write: impl FnOnce(&mut [u8])) -> Number {
        if self.sizes.is_empty() {
            self.sizes = vec![Size::default(); MAX_SLOT_BYTES / STEP_BYTES + 1];
        }
        let size = &mut self.sizes[slot_bytes / STEP_BYTES];
        let number = match size.empty.pop() {
            Some(number) => {
                give_back(&mut size.empty);
                number
            }
            None => self.append(slot_bytes),
        };
        write(self.slot(number));
        number
    }

    /// Adds a slot to a size.
    fn append(&mut self, slot_bytes: usize) -> Number {
        let of_size = &mut self.sizes[slot_bytes / STEP_BYTES].pages;
        let has_room = |number: &u32| {
            let page = &self.pages[*number as usize];
            page.bytes.len() + slot_bytes <= PAGE_BYTES
        };
        let number = match of_size.last().copied().filter(has_room) {
            Some(number) => number,
            None => {
                let number = self.free_pages.pop().unwrap_or_else(|| {
                    self.pages.push(Page::default());
                    (self.pages.len() - 1) as u32
                });
                let page = &mut self.pages[number as usize];
                page.slot_bytes = slot_bytes as u16;
                // Only the first one of a size grows step by step: a size may be rare.
                if !of_size.is_empty() {
                    page.bytes.reserve_exact(PAGE_BYTES);
                }
                of_size.push(number);
                number
            }
        };
        let bytes = &mut self.pages[number as usize].bytes;
        let start = bytes.len();
        if bytes.capacity() < start + slot_bytes {
            let more = start.max(4 * slot_bytes).min(PAGE_BYTES - start);
            bytes.reserve_exact(more);
        }
        bytes.resize(start + slot_bytes, 0);
        Number(number << SLOT_BITS | (start / slot_bytes) as u32)
    }

    /// The bytes of a slot.
    fn slot(&mut self, Number(number): Number) -> &mut [u8] {
        let page = &mut self.pages[(number >> SLOT_BITS) as usize];
        let slot_bytes = usize::from(page.slot_bytes);
        let slot = (number & ((1 << SLOT_BITS) - 1)) as usize;
        &mut page.bytes[slot * slot_bytes..][..slot_bytes]
    }

    pub(super) fn insert_large(&mut self, large: Large) -> Number {
        if self.large.last().is_none_or(|c| c.len() == LARGE_PER_CHUNK) {
            self.large.push(Vec::new());
        }
        let chunk = self.large.len() - 1;
        let at = self.large[chunk].len();
        self.large[chunk].push(large);
        let number = u32::try_from(chunk * LARGE_PER_CHUNK + at)
            .ok()
            .filter(|number| *number < LARGE);
        Number(LARGE | number.expect("memory ends before two thousand million large entries"))
    }

    /// The bytes of an entry, to be written anew as one of `len` bytes; none if it does not fit
    /// there or something else (a snapshot, a reader, another entry) holds them.
    pub(super) fn rewrite(&mut self, number: Number, len: usize) -> Option<&mut [u8]> {
        match address(number) {
            Address::Slot { .. } => {
                let bytes = self.slot(number);
                (bytes.len() == slot_bytes(len)).then_some(bytes)
            }
            Address::Large { chunk, at } => self.large[chunk][at].rewrite(len),
        }
    }

    /// Removes an entry. Calls `moved` for each key whose entry has got another number, with the old and
    /// the new one.
    pub(super) fn remove(&mut self, number: Number, mut moved: impl FnMut(&[u8], Number, Number)) {
        match address(number) {
            Address::Slot { page, .. } => {
                let slot_bytes = usize::from(self.pages[page].slot_bytes);
                let at = self.sizes[slot_bytes / STEP_BYTES].empty.len();
                mark_empty(self.slot(number), at);
                self.sizes[slot_bytes / STEP_BYTES].empty.push(number);
                for _ in 0..CUT_AT_ONCE {
                    if !self.cut_last(slot_bytes, &mut moved) {
                        break;
                    }
                }
            }
            Address::Large { chunk, at } => {
                if let Some(from) = self.remove_large(chunk, at) {
                    moved(self.key(number), from, number);
                }
            }
        }
    }

    /// Makes a size one slot shorter, if too many are empty.
    fn cut_last(
        &mut self,
        slot_bytes: usize,
        moved: &mut impl FnMut(&[u8], Number, Number),
    ) -> bool {
        let size = &mut self.sizes[slot_bytes / STEP_BYTES];
        let slots = size.pages.len() * (PAGE_BYTES / slot_bytes);
        if size.empty.len() <= slots / EMPTY_SHARE {
            return false;
        }
        let last = self.last(slot_bytes);
        let bytes = self.slot(last);
        if bytes[..EMPTY.len()] == EMPTY {
            let at = index_in_empty(bytes);
            let empty = &mut self.sizes[slot_bytes / STEP_BYTES].empty;
            empty.swap_remove(at);
            if let Some(other) = empty.get(at).copied() {
                mark_empty(self.slot(other), at);
            }
        } else {
            let mut entry = [0; MAX_SLOT_BYTES];
            let entry = &mut entry[..slot_bytes];
            entry.copy_from_slice(bytes);
            let Some(to) = self.sizes[slot_bytes / STEP_BYTES].empty.pop() else {
                return false;
            };
            self.slot(to).copy_from_slice(entry);
            moved(self.key(to), last, to);
        }
        give_back(&mut self.sizes[slot_bytes / STEP_BYTES].empty);
        self.cut(slot_bytes);
        true
    }

    /// The last slot of a size, which has one.
    fn last(&self, slot_bytes: usize) -> Number {
        let pages = &self.sizes[slot_bytes / STEP_BYTES].pages;
        let last = *pages.last().expect("a size with an entry has a page");
        let slots = self.pages[last as usize].bytes.len() / slot_bytes;
        Number(last << SLOT_BITS | (slots - 1) as u32)
    }

    /// Cuts the last slot of a size off.
    fn cut(&mut self, slot_bytes: usize) {
        let of_size = &mut self.sizes[slot_bytes / STEP_BYTES].pages;
        let last = *of_size.last().expect("a size with an entry has a page");
        let bytes = &mut self.pages[last as usize].bytes;
        bytes.truncate(bytes.len() - slot_bytes);
        if bytes.is_empty() {
            *bytes = Vec::new();
            of_size.pop();
            self.free_pages.push(last);
        }
    }

    fn remove_large(&mut self, chunk: usize, at: usize) -> Option<Number> {
        let last = self.large.len() - 1;
        let moved = self.large[last].pop().expect("no chunk is empty");
        let from = last * LARGE_PER_CHUNK + self.large[last].len();
        if self.large[last].is_empty() {
            self.large.pop();
        }
        if from == chunk * LARGE_PER_CHUNK + at {
            self.let_go(moved);
            return None;
        }
        let gone = std::mem::replace(&mut self.large[chunk][at], moved);
        self.let_go(gone);
        Some(Number(LARGE | from as u32))
    }

    fn let_go(&mut self, gone: Large) {
        if gone.is_long_to_free() {
            self.loose.push(gone);
        }
    }

    /// The removed entries that take long to free.
    pub(super) fn take_loose(&mut self) -> Vec<Large> {
        std::mem::take(&mut self.loose)
    }
}

fn mark_empty(slot: &mut [u8], index: usize) {
    slot[..EMPTY.len()].copy_from_slice(&EMPTY);
    slot[EMPTY.len()..2 * EMPTY.len()].copy_from_slice(&(index as u32).to_le_bytes());
}

/// Where in `empty` an empty slot's number is.
fn index_in_empty(slot: &[u8]) -> usize {
    let index = slot[EMPTY.len()..].first_chunk();
    index.copied().map_or(0, u32::from_le_bytes) as usize
}

/// Frees memory of a vector that has become much shorter.
fn give_back(empty: &mut Vec<Number>) {
    if empty.len() < empty.capacity() / 4 {
        empty.shrink_to(2 * empty.len());
    }
}

/// The size of the slot that an entry of `len` bytes gets; for a large one about the size of its allocation.
pub(super) fn slot_bytes(len: usize) -> usize {
    len.next_multiple_of(STEP_BYTES).max(MIN_SLOT_BYTES)
}

enum Address {
    Slot { page: usize, slot: usize },
    Large { chunk: usize, at: usize },
}

fn address(Number(number): Number) -> Address {
    if number & LARGE == 0 {
        return Address::Slot {
            page: (number >> SLOT_BITS) as usize,
            slot: (number & ((1 << SLOT_BITS) - 1)) as usize,
        };
    }
    let number = (number & !LARGE) as usize;
    Address::Large {
        chunk: number / LARGE_PER_CHUNK,
        at: number % LARGE_PER_CHUNK,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::keyspace::entry::{Numbers, Record};

    const NUMBERS: Numbers = Numbers {
        create_revision: 1,
        mod_revision: 2,
        deadline_ms: None,
    };

    /// Records, and under which number they say that each key is.
    #[derive(Default)]
    struct Kept {
        records: Records,
        numbers: BTreeMap<u64, (Number, usize)>,
    }

    impl Kept {
        fn insert(&mut self, key: u64, value_len: usize) {
            let (key_bytes, value) = (key.to_le_bytes(), vec![key as u8; value_len]);
            let record = Record {
                parts: &[&key_bytes, &value],
                key_len: key_bytes.len(),
                deadline_ms: None,
                shared: None,
            };
            let write = |out: &mut [u8]| record.write(&NUMBERS, out);
            let number = self.records.insert(record.len(&NUMBERS), write);
            self.numbers.insert(key, (number, value_len));
        }

        fn remove(&mut self, key: u64) {
            let Some((number, _)) = self.numbers.remove(&key) else {
                return;
            };
            let numbers = &mut self.numbers;
            self.records.remove(number, |key, from, to| {
                let key = key.try_into().map(u64::from_le_bytes);
                let known = numbers.get_mut(&key.unwrap()).unwrap();
                assert_eq!(known.0, from, "the one that moved had another number");
                known.0 = to;
            });
        }

        fn check(&self) {
            for (key, (number, value_len)) in &self.numbers {
                let entry = self.records.get(*number);
                assert_eq!(entry.key(), key.to_le_bytes());
                assert_eq!(entry.value(), vec![*key as u8; *value_len]);
            }
        }

        /// The memory of pages, and the references of large entries.
        fn bytes(&self) -> usize {
            let pages = self.records.pages.iter();
            let large: usize = self.records.large.iter().map(Vec::len).sum();
            pages.map(|page| page.bytes.capacity()).sum::<usize>() + large
        }
    }

    #[test]
    fn entries_are_found_by_their_numbers_after_any_changes() {
        let mut kept = Kept::default();
        for step in 0..30_000u64 {
            let random = xxh3_64(&step.to_le_bytes());
            let key = random % 3_000;
            kept.remove(key);
            if random >> 32 & 3 > 0 {
                // Small ones of few sizes, and some large ones.
                let len = if random >> 40 & 7 == 0 {
                    600
                } else {
                    random >> 50 & 31
                };
                kept.insert(key, len as usize);
            }
            if step % 1_000 == 0 {
                kept.check();
            }
        }
        kept.check();
        (0..3_000).for_each(|key| kept.remove(key));
        // A size may keep an eighth of a page empty.
        assert!(kept.records.large.is_empty());
        assert!(kept.bytes() <= 8 * PAGE_BYTES, "{} bytes", kept.bytes());
    }

    #[test]
    fn memory_is_freed_as_entries_are_removed() {
        let mut kept = Kept::default();
        let slot = slot_bytes(64 + 12);
        (0..50_000).for_each(|key| kept.insert(key, 64));
        let full = kept.bytes();
        assert!(full < 50_000 * slot + 2 * PAGE_BYTES, "{full}");
        // Scattered ones go, one in two.
        (0..50_000).step_by(2).for_each(|key| kept.remove(key));
        kept.check();
        let half = kept.bytes();
        let wanted = 25_000 * slot;
        assert!(
            half < wanted + wanted / 6 + 2 * PAGE_BYTES,
            "{half} for {wanted}"
        );
        // Empty slots are used before new ones.
        (0..2_000).step_by(2).for_each(|key| kept.insert(key, 64));
        assert_eq!(kept.bytes(), half);
        (0..50_000).for_each(|key| kept.remove(key));
        assert!(kept.bytes() <= PAGE_BYTES, "{}", kept.bytes());
    }
}
