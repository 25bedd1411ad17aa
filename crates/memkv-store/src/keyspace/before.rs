//! The keys as they were before a command that is executed piece by piece. Readers see them until all of the
//! command is done, so that they see a command of many keys as a whole or not at all.
//!
//! A write of the command saves the entry that it changes and finds it again by the hash of its key:
//! some tens of nanoseconds. Small ones are copied one behind the other; large ones are only kept from
//! being freed, which adds no more memory than the command's own data. A walk over keys in order sorts the
//! saved entries, once between two pieces. Invariant: until it is full it shows the state before the command;
//! once it is full, nothing is read before the command has ended.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::OnceLock;

use super::database::Location;
use super::entry::{Entry, Kept};
use super::large::Large;
use crate::{DATABASES, Revision};

/// The most bytes that may be saved: the entries that a command of the most keys overwrites where values
/// have some hundred bytes. The rest of a command that overwrites more is executed in one piece.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// Entries are saved in pieces of memory of this size, so that growing copies nothing.
const CHUNK_BYTES: usize = 256 * 1024;

/// No entry has this number.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Before {
    /// The revision that the command does not have yet.
    pub(super) revision: Revision,
    lens: [usize; DATABASES as usize],
    chunks: Vec<Vec<u8>>,
    saved: Vec<Saved>,
    /// The last one saved of those whose tags end alike; a power of two of them.
    last: Vec<u32>,
    bytes: usize,
    is_full: bool,
    in_order: OnceLock<Vec<u32>>,
    by_shard: OnceLock<Vec<u32>>,
}

#[derive(Debug)]
struct Saved {
    database: u8,
    shard: u16,
    tag: u32,
    /// The one before of those whose tags end alike, or [`NONE`].
    before: u32,
    lies: Lies,
}

#[derive(Debug)]
enum Lies {
    /// In a chunk, at a place, so long.
    Small(u32, u32, u32),
    Large(Large),
}

impl Before {
    /// The empty state before a command of this many keys, which is executed next.
    pub(super) fn new(
        revision: Revision,
        lens: [usize; DATABASES as usize],
        keys: usize,
    ) -> Before {
        Before {
            revision,
            lens,
            chunks: Vec::new(),
            saved: Vec::new(),
            last: vec![NONE; keys.next_power_of_two()],
            bytes: 0,
            is_full: false,
            in_order: OnceLock::new(),
            by_shard: OnceLock::new(),
        }
    }

    /// Called before `entry` is changed, or when it was removed.
    pub(super) fn save(&mut self, database: u8, location: Location, entry: &Entry<'_>) {
        // Entries that the command itself has written are no part of the state before.
        if self.is_full || entry.mod_revision > self.revision {
            return;
        }
        let number = self.saved.len() as u32;
        let lies = match entry.kept() {
            Kept::Large(large) => Lies::Large(large.clone()),
            Kept::Slot(bytes) => {
                if self.bytes + bytes.len() > MOST_BYTES {
                    self.is_full = true;
                    return;
                }
                self.copy(bytes)
            }
        };
        let bucket = self.bucket(location);
        let before = std::mem::replace(&mut self.last[bucket], number);
        self.saved.push(Saved {
            database,
            shard: location.shard as u16,
            tag: location.tag,
            before,
            lies,
        });
        self.in_order.take();
        self.by_shard.take();
    }

    fn copy(&mut self, bytes: &[u8]) -> Lies {
        self.bytes += bytes.len();
        let fits = |chunk: &Vec<u8>| chunk.capacity() - chunk.len() >= bytes.len();
        if !self.chunks.last().is_some_and(fits) {
            let chunk = Vec::with_capacity(CHUNK_BYTES.max(bytes.len()));
            self.chunks.push(chunk);
        }
        let number = self.chunks.len() - 1;
        let chunk = &mut self.chunks[number];
        let at = chunk.len();
        chunk.extend_from_slice(bytes);
        Lies::Small(number as u32, at as u32, bytes.len() as u32)
    }

    /// Whether it could not save everything, so that it shows nothing any more.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.bytes as u64
    }

    pub(super) fn len(&self, database: u8) -> usize {
        self.lens.get(usize::from(database)).copied().unwrap_or(0)
    }

    /// The entry of a key as it was, if the command has changed it.
    pub(super) fn saved(&self, database: u8, location: Location, key: &[u8]) -> Option<Entry<'_>> {
        let mut next = self.last[self.bucket(location)];
        loop {
            let saved = self.saved.get(next as usize)?;
            if saved.tag == location.tag && saved.database == database {
                let entry = self.entry(saved);
                if entry.key() == key {
                    return Some(entry);
                }
            }
            next = saved.before;
        }
    }

    fn bucket(&self, location: Location) -> usize {
        location.tag as usize & (self.last.len() - 1)
    }

    fn entry<'a>(&'a self, saved: &'a Saved) -> Entry<'a> {
        Entry::read(match &saved.lies {
            Lies::Small(chunk, at, len) => {
                let chunk = &self.chunks[*chunk as usize];
                Kept::Slot(&chunk[*at as usize..][..*len as usize])
            }
            Lies::Large(large) => Kept::Large(large),
        })
    }

    pub(super) fn saved_between<'a>(
        &'a self,
        database: u8,
        start: &[u8],
        end: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let order = |a: &Saved, b: &Saved| {
            let keys = || self.entry(a).key().cmp(self.entry(b).key());
            a.database.cmp(&b.database).then_with(keys)
        };
        let sorted = self.in_order.get_or_init(|| self.sorted(order));
        let from = sorted.partition_point(|number| {
            let saved = &self.saved[*number as usize];
            let keys = || self.entry(saved).key().cmp(start);
            saved.database.cmp(&database).then_with(keys) == Ordering::Less
        });
        self.those(&sorted[from..], move |saved| saved.database == database)
            .take_while(move |entry| match end {
                Bound::Excluded(end) => entry.key() < end,
                Bound::Included(end) => entry.key() <= end,
                Bound::Unbounded => true,
            })
    }

    pub(super) fn saved_of(
        &self,
        database: u8,
        shard: usize,
    ) -> impl Iterator<Item = Entry<'_>> + use<'_> {
        let location = |saved: &Saved| (saved.database, usize::from(saved.shard));
        let order = |a: &Saved, b: &Saved| location(a).cmp(&location(b));
        let sorted = self.by_shard.get_or_init(|| self.sorted(order));
        let from = sorted
            .partition_point(|number| location(&self.saved[*number as usize]) < (database, shard));
        self.those(&sorted[from..], move |saved| {
            location(saved) == (database, shard)
        })
    }

    fn sorted(&self, order: impl Fn(&Saved, &Saved) -> Ordering) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..self.saved.len() as u32).collect();
        numbers.sort_unstable_by(|a, b| order(&self.saved[*a as usize], &self.saved[*b as usize]));
        numbers
    }

    /// Those at the front for which `belongs` holds.
    fn those<'a>(
        &'a self,
        numbers: &'a [u32],
        belongs: impl Fn(&Saved) -> bool + 'a,
    ) -> impl Iterator<Item = Entry<'a>> {
        let saved = numbers.iter().map(|number| &self.saved[*number as usize]);
        saved
            .take_while(move |saved| belongs(saved))
            .map(|saved| self.entry(saved))
    }
}
