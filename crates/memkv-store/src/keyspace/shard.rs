//! A shard of a database: the numbers of its entries, to be found by their keys' hashes.
//!
//! It is a hash table whose slots are sorted by sixteen bits of the hash, with gaps (ordered linear
//! probing: Amble and Knuth, *Ordered hash tables*, 1974). So a lookup reads one stretch of memory,
//! and to grow is to copy the slots in their order: no entry is looked at, and steps of a quarter
//! cost little, which keeps a shard four fifths full on average. It knows neither keys nor hash
//! functions. Invariants: tags never descend; between the slot where a tag's stretch begins and a
//! slot with that tag there is no gap.

use super::records::Number;

/// Bits of the hash that a slot keeps: with a million keys, one of sixty lookups meets another key
/// that has the same.
pub(super) const TAG_BITS: u32 = u16::BITS;

/// One of this many slots must stay a gap, or the shard grows: then a lookup reads five on average, 28
/// bytes.
const GAP_SHARE: usize = 8;

/// Where less than one of this many slots is used, the shard is made smaller: to four fifths full, so
/// that it need not grow again soon.
const SPARSE: usize = 2;

/// No tag's stretch begins in the last slots, since earlier stretches may need them. This many are nearly
/// always enough for a shard that is seven eighths full; where they are not, it gets more.
const SPARE_SLOTS: usize = 16;

/// Bytes that the first key allocates.
const MIN_BYTES: usize = 32;

/// A tag and a number, in six bytes.
#[derive(Debug, Clone, Copy)]
struct Slot {
    tag: u16,
    number: [u16; 2],
}

impl Slot {
    const GAP: Slot = Slot::of(0, Number::NONE);

    const fn of(tag: u16, number: Number) -> Slot {
        let bits = number.to_bits();
        Slot {
            tag,
            number: [bits as u16, (bits >> u16::BITS) as u16],
        }
    }

    fn number(self) -> Number {
        let [low, high] = self.number.map(u32::from);
        Number::from_bits(high << u16::BITS | low)
    }

    fn is_gap(self) -> bool {
        self.number() == Number::NONE
    }
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Shard {
    slots: Vec<Slot>,
    /// The first of the slots, where stretches may begin.
    beginnings: usize,
    len: usize,
}

impl Shard {
    /// All numbers, in no meaningful order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Number> {
        let used = self.slots.iter().filter(|slot| !slot.is_gap());
        used.map(|slot| slot.number())
    }

    /// The numbers that came with a tag.
    pub(super) fn with_tag(&self, tag: u16) -> impl Iterator<Item = Number> {
        self.slots_with(tag).map(|at| self.slots[at].number())
    }

    /// Inserts an absent number.
    pub(super) fn insert(&mut self, tag: u16, number: Number) {
        self.len += 1;
        if self.len > self.slots.len() - self.slots.len() / GAP_SHARE {
            self.resize(self.slots.len() + 1);
        }
        while !self.try_insert(tag, number) {
            lengthen(&mut self.slots);
        }
    }

    /// Removes a number that was inserted with this tag.
    pub(super) fn remove(&mut self, tag: u16, number: Number) {
        let Some(mut at) = self.slot_of(tag, number) else {
            return;
        };
        // Each slot that is not at the beginning of its stretch moves up.
        while let Some(next) = self.slots.get(at + 1)
            && !next.is_gap()
            && self.begin(next.tag) <= at
        {
            self.slots[at] = *next;
            at += 1;
        }
        self.slots[at] = Slot::GAP;
        self.len -= 1;
        let enough = self.len + self.len / 4;
        if self.len < self.slots.len() / SPARSE && room(enough) < self.slots.len() {
            self.resize(enough);
        }
    }

    /// Replaces a number that was inserted with this tag.
    pub(super) fn renumber(&mut self, tag: u16, from: Number, to: Number) {
        if let Some(at) = self.slot_of(tag, from) {
            self.slots[at] = Slot::of(tag, to);
        }
    }

    fn slot_of(&self, tag: u16, number: Number) -> Option<usize> {
        let mut alike = self.slots_with(tag);
        alike.find(|at| self.slots[*at].number() == number)
    }

    fn slots_with(&self, tag: u16) -> impl Iterator<Item = usize> {
        let alike = self.stretch(tag).filter(move |(_, slot)| slot.tag == tag);
        alike.map(|(at, _)| at)
    }

    /// The slots in use from where the stretch of a tag begins to behind the last one with it.
    fn stretch(&self, tag: u16) -> impl Iterator<Item = (usize, &Slot)> {
        let from = self.begin(tag);
        let slots = (from..).zip(&self.slots[from..]);
        slots.take_while(move |(_, slot)| !slot.is_gap() && slot.tag <= tag)
    }

    /// Where the stretch of a tag begins.
    fn begin(&self, tag: u16) -> usize {
        (usize::from(tag) * self.beginnings) >> TAG_BITS
    }

    /// False, and nothing done, if the last slots are in use.
    fn try_insert(&mut self, tag: u16, number: Number) -> bool {
        let at = self.begin(tag) + self.stretch(tag).count();
        let Some(to_gap) = self.slots[at..].iter().position(|slot| slot.is_gap()) else {
            return false;
        };
        self.slots.copy_within(at..at + to_gap, at + 1);
        self.slots[at] = Slot::of(tag, number);
        true
    }

    /// Memory of the slots, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    /// Makes room for `slots` or a few more.
    fn resize(&mut self, slots: usize) {
        let mut new = vec![Slot::GAP; room(slots)];
        self.beginnings = new.len() - SPARE_SLOTS.min(new.len() / GAP_SHARE);
        let mut next = 0;
        for slot in self.slots.iter().filter(|slot| !slot.is_gap()) {
            next = self.begin(slot.tag).max(next);
            while next >= new.len() {
                lengthen(&mut new);
            }
            new[next] = *slot;
            next += 1;
        }
        self.slots = new;
    }
}

/// Appends a quarter or so, where no stretch begins.
fn lengthen(slots: &mut Vec<Slot>) {
    let room = room(slots.len() + 1);
    slots.reserve_exact(room - slots.len());
    slots.resize(room, Slot::GAP);
}

/// How many slots fit into the smallest memory for `slots` that the allocator has: it has four sizes
/// for each doubling.
fn room(slots: usize) -> usize {
    let bytes = (slots * size_of::<Slot>()).max(MIN_BYTES);
    let step = (1 << (bytes - 1).ilog2()) / 4;
    bytes.next_multiple_of(step) / size_of::<Slot>()
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    /// Whether everything holds that is said at the top of this file, and it has just these.
    fn check(shard: &Shard, wanted: &[(u16, u32)]) {
        let used = shard.slots.iter().enumerate();
        let used: Vec<_> = used.filter(|(_, slot)| !slot.is_gap()).collect();
        assert!(used.is_sorted_by_key(|(_, slot)| slot.tag));
        for (at, slot) in &used {
            let stretch = &shard.slots[shard.begin(slot.tag)..=*at];
            assert!(stretch.iter().all(|slot| !slot.is_gap()));
        }
        let mut all: Vec<_> = used
            .iter()
            .map(|(_, slot)| (slot.tag, slot.number().to_bits()))
            .collect();
        all.sort_unstable();
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        assert_eq!(all, wanted);
        assert_eq!(shard.len, wanted.len());
    }

    #[test]
    fn it_holds_the_inserted_and_not_removed_numbers() {
        // Tags of few values collide, those near the greatest one fill the last slots.
        for spread in [1, 3, 64, 65_536] {
            let mut shard = Shard::default();
            let mut wanted: Vec<(u16, u32)> = Vec::new();
            for step in 0..6_000u32 {
                let random = xxh3_64(&step.to_le_bytes());
                let tag = u16::MAX - (random % spread) as u16;
                let grows = (random >> 40) % 4 < if step < 3_000 { 3 } else { 1 };
                if grows || wanted.is_empty() {
                    shard.insert(tag, Number::from_bits(step));
                    wanted.push((tag, step));
                } else {
                    let at = (random >> 20) as usize % wanted.len();
                    let (tag, number) = wanted[at];
                    let old = Number::from_bits(number);
                    if random >> 60 == 0 {
                        shard.renumber(tag, old, Number::from_bits(number + 10_000));
                        wanted[at].1 += 10_000;
                    } else {
                        shard.remove(tag, old);
                        wanted.swap_remove(at);
                    }
                }
                if step % 61 == 0 {
                    check(&shard, &wanted);
                    let with_tag = wanted.iter().filter(|(other, _)| *other == tag);
                    assert_eq!(shard.with_tag(tag).count(), with_tag.count());
                }
            }
            for (tag, number) in wanted.drain(..) {
                shard.remove(tag, Number::from_bits(number));
            }
            check(&shard, &[]);
            assert_eq!(shard.slots.len(), room(0));
        }
    }

    #[test]
    fn a_key_takes_seven_bytes_or_eight_while_keys_come_and_twelve_at_most_while_they_go() {
        let mut shard = Shard::default();
        let tag = |n: u32| xxh3_64(&n.to_le_bytes()) as u16;
        let mut sum = 0.0;
        for n in 0..4_000 {
            shard.insert(tag(n), Number::from_bits(n));
            if n >= 1_000 {
                let each = shard.bytes() as f64 / f64::from(n + 1);
                assert!((6.8..9.0).contains(&each), "{each} with {n} keys");
                sum += each / 3_000.0;
            }
        }
        assert!((7.0..7.8).contains(&sum), "{sum}");
        for n in 0..3_900 {
            shard.remove(tag(n), Number::from_bits(n));
            let each = shard.bytes() as f64 / f64::from(3_999 - n);
            assert!(each < 12.5, "{each} after {n} deletes");
        }
    }

    #[test]
    fn memory_is_asked_for_in_the_allocators_sizes() {
        let mut rooms: Vec<usize> = (0..=21).map(room).collect();
        assert!(rooms.iter().zip(0..).all(|(room, slots)| *room >= slots));
        rooms.dedup();
        let bytes = [32, 40, 48, 56, 64, 80, 96, 112, 128];
        assert_eq!(rooms, bytes.map(|bytes| bytes / size_of::<Slot>()));
        assert_eq!(room(5121 / 6 + 1), 6144 / 6);
    }
}
