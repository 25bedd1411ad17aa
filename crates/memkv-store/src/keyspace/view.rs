//! Views: the keys as they were at one revision, for a read in several steps with writes in between.
//!
//! Nothing is copied when a view begins. While it lasts, a write first saves the entry as it was, if
//! that is part of the view; the higher revision of the written entry is the only mark needed. A view has
//! a bound of memory: when more would have to be saved, it is lost, and its reader must start again. Invariant: a view that is not lost shows the state between two commands.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use super::before::Before;
use super::database::{Database, Location};
use super::entry::{Entry, Kept, Value};
use super::large::Large;
use super::{Garbage, Keyspace};
#[cfg(test)]
use crate::rights::recording;
use crate::{DATABASES, Revision};

/// The most views at the same time: each may make a write save an entry.
pub const MAX_VIEWS: usize = 4;

/// The most bytes that a view may save, counted as entries are: some hundred thousand small ones.
const VIEW_BYTES: u64 = 32 * 1024 * 1024;

/// Some hundred entries, which take some microseconds to free.
const MUCH_BYTES: u64 = 64 * 1024;

/// Names a view of a store until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewId(u64);

#[derive(Debug)]
pub(crate) struct View {
    id: ViewId,
    pub(crate) revision: Revision,
    /// Log time when it began.
    pub(crate) now_ms: u64,
    lens: [usize; DATABASES as usize],
    /// Entries that were changed since, as they were, by database and key.
    saved: BTreeMap<u8, BTreeMap<Box<[u8]>, Saved>>,
    /// The keys of those, by database and shard.
    shards: BTreeMap<(u8, usize), Vec<Box<[u8]>>>,
    saved_bytes: u64,
    /// Databases that were flushed since.
    flushed: Vec<(u8, Arc<Database>)>,
    is_lost: bool,
}

#[derive(Debug)]
enum Saved {
    Small(Box<[u8]>),
    Large(Large),
}

impl Saved {
    fn of(entry: &Entry<'_>) -> Saved {
        match entry.kept() {
            Kept::Slot(bytes) => Saved::Small(bytes.into()),
            Kept::Large(large) => Saved::Large(large.clone()),
        }
    }

    fn entry(&self) -> Entry<'_> {
        Entry::read(match self {
            Saved::Small(bytes) => Kept::Slot(bytes),
            Saved::Large(large) => Kept::Large(large),
        })
    }
}

impl View {
    /// Called before `entry` of a database's shard is changed, or when it was removed.
    pub(super) fn save(&mut self, database: u8, shard: usize, entry: &Entry<'_>) {
        if self.is_lost || entry.mod_revision > self.revision {
            return;
        }
        self.saved_bytes += entry.cost();
        if self.saved_bytes > VIEW_BYTES {
            self.is_lost = true;
            return;
        }
        let key: Box<[u8]> = entry.key().into();
        let shards = self.shards.entry((database, shard)).or_default();
        shards.push(key.clone());
        let saved = self.saved.entry(database).or_default();
        saved.insert(key, Saved::of(entry));
    }

    /// Called when a database was flushed. The first flush counts.
    pub(super) fn save_database(&mut self, database: u8, old: &Arc<Database>) {
        if !self.flushed.iter().any(|(known, _)| *known == database) {
            self.flushed.push((database, Arc::clone(old)));
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.saved_bytes
    }

    pub(super) fn holds_much(&self) -> bool {
        self.saved_bytes > MUCH_BYTES || !self.flushed.is_empty()
    }

    fn saved(&self, database: u8, key: &[u8]) -> Option<Entry<'_>> {
        Some(self.saved.get(&database)?.get(key)?.entry())
    }

    fn saved_between<'a>(
        &'a self,
        database: u8,
        start: &[u8],
        end: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        // An end before the start would be a range that cannot be.
        let is_empty = matches!(end, Bound::Excluded(end) | Bound::Included(end) if end < start);
        let of = self.saved.get(&database).filter(|_| !is_empty);
        let from =
            of.map(|saved| saved.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)));
        let entries = from.into_iter().flatten().map(|(_, saved)| saved.entry());
        entries.take_while(move |entry| match end {
            Bound::Excluded(end) => entry.key() < end,
            Bound::Included(end) => entry.key() <= end,
            Bound::Unbounded => true,
        })
    }

    fn saved_of(&self, database: u8, shard: usize) -> impl Iterator<Item = Entry<'_>> {
        let keys = self.shards.get(&(database, shard));
        let keys = keys.into_iter().flatten();
        keys.filter_map(move |key| self.saved(database, key))
    }
}

/// Beginning and ending.
impl Keyspace {
    /// A view of the keys as they are; nothing if there are as many as there may be.
    pub(crate) fn begin_view(&mut self, revision: Revision) -> Option<ViewId> {
        if self.past.views.len() >= MAX_VIEWS {
            return None;
        }
        self.past.last_view += 1;
        let id = ViewId(self.past.last_view);
        let mut lens = [0; DATABASES as usize];
        for (len, database) in lens.iter_mut().zip(0..) {
            *len = self.database_len(database);
        }
        self.past.begin_view(View {
            id,
            revision,
            now_ms: self.now_ms,
            lens,
            saved: BTreeMap::new(),
            shards: BTreeMap::new(),
            saved_bytes: 0,
            flushed: Vec::new(),
            is_lost: false,
        });
        Some(id)
    }

    /// Ends a view, and returns the entries that it held, to be dropped elsewhere.
    pub(crate) fn end_view(&mut self, id: ViewId) -> Option<Garbage> {
        let index = self.past.views.iter().position(|view| view.id == id)?;
        let view = self.past.end_view(index);
        Some(Garbage::of_view(view))
    }

    /// The keys as readers see them, or as a view shows them; nothing if that is lost or has ended.
    pub(crate) fn lens(&self, view: Option<ViewId>) -> Option<Lens<'_>> {
        let Some(id) = view else {
            return Some(self.seen());
        };
        let view = self.past.views.iter().find(|view| view.id == id)?;
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::ReadWithoutView) {
            return Some(self.into());
        }
        (!view.is_lost).then_some(Lens {
            keys: self,
            shown: Shown::View(view),
        })
    }

    /// The keys as readers see them: as they are, or as they were before a command that is not done.
    #[inline]
    pub(crate) fn seen(&self) -> Lens<'_> {
        let shown = match self.past.before() {
            None => Shown::Now,
            #[cfg(memkv_bugs)]
            Some(_) if crate::bugs::active(crate::bugs::Bug::ReadWithinCommand) => Shown::Now,
            Some(before) => Shown::Before(before),
        };
        Lens { keys: self, shown }
    }
}

/// The keys as a query sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lens<'a> {
    keys: &'a Keyspace,
    shown: Shown<'a>,
}

/// Which state.
#[derive(Debug, Clone, Copy)]
enum Shown<'a> {
    Now,
    View(&'a View),
    Before(&'a Before),
}

impl<'a> Shown<'a> {
    fn view(self) -> Option<&'a View> {
        match self {
            Shown::View(view) => Some(view),
            Shown::Now | Shown::Before(_) => None,
        }
    }

    fn before(self) -> Option<&'a Before> {
        match self {
            Shown::Before(before) => Some(before),
            Shown::Now | Shown::View(_) => None,
        }
    }

    /// The last revision of its state.
    fn revision(self) -> Revision {
        match self {
            Shown::Now => Revision::MAX,
            Shown::View(view) => view.revision,
            Shown::Before(before) => before.revision,
        }
    }

    /// An entry that has changed since, as it was.
    fn saved(self, database: u8, location: Location, key: &[u8]) -> Option<Entry<'a>> {
        match self {
            Shown::Now => None,
            Shown::View(view) => view.saved(database, key),
            Shown::Before(before) => before.saved(database, location, key),
        }
    }
}

impl<'a> From<&'a Keyspace> for Lens<'a> {
    /// The keys as they are, which is for commands.
    fn from(keys: &'a Keyspace) -> Lens<'a> {
        Lens {
            keys,
            shown: Shown::Now,
        }
    }
}

impl<'a> Lens<'a> {
    /// Log time: a key with a deadline at or before it is absent.
    pub(crate) fn now_ms(&self) -> u64 {
        self.shown
            .view()
            .map_or(self.keys.now_ms, |view| view.now_ms)
    }

    #[inline]
    pub(crate) fn get(&self, database: u8, key: &[u8]) -> Option<Value<'a>> {
        match self.shown {
            Shown::Now => self.keys.get(database, key),
            _ => self.get_of_past(database, key),
        }
    }

    fn get_of_past(&self, database: u8, key: &[u8]) -> Option<Value<'a>> {
        let location = Location::of(self.keys.seed, key);
        let source = self.database(database)?;
        let here = source
            .find(location, key)
            .map(|number| source.entry(number));
        let here = here.filter(|entry| self.shows(entry));
        let entry = here.or_else(|| self.shown.saved(database, location, key))?;
        entry.is_alive(self.now_ms()).then(|| Value::of(&entry))
    }

    /// See [`Keyspace::fetch`].
    pub(crate) fn fetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        self.keys.fetch(keys);
    }

    /// The number of keys, also of those past their deadline.
    pub(crate) fn database_len(&self, database: u8) -> usize {
        match self.shown {
            Shown::Now => self.keys.database_len(database),
            Shown::View(view) => view.lens.get(usize::from(database)).copied().unwrap_or(0),
            Shown::Before(before) => before.len(database),
        }
    }

    /// Where the entries are that did not change.
    fn database(&self, database: u8) -> Option<&'a Database> {
        let flushed = self.shown.view().map_or(&[][..], |view| &view.flushed);
        match flushed.iter().find(|(of, _)| *of == database) {
            Some((_, old)) => Some(old),
            None => self.keys.database(database),
        }
    }

    /// The part of the hash that distinguishes two keys of a shard when chance picks one.
    pub(crate) fn tag(&self, entry: &Entry<'_>) -> u32 {
        Location::of(self.keys.seed, entry.key()).tag
    }

    fn shows(&self, entry: &Entry<'_>) -> bool {
        entry.mod_revision <= self.shown.revision()
    }

    /// The present keys of a shard, in no meaningful order.
    pub(crate) fn alive_of(
        self,
        database: u8,
        shard: usize,
    ) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        #[cfg(test)]
        recording::walked(database);
        let source = self.database(database).into_iter();
        let here = source.flat_map(move |source| source.shard(shard));
        let here = here.filter(move |entry| self.shows(entry));
        let view = self.shown.view().into_iter();
        let of_view = view.flat_map(move |view| view.saved_of(database, shard));
        let before = self.shown.before().into_iter();
        let of_before = before.flat_map(move |before| before.saved_of(database, shard));
        let now_ms = self.now_ms();
        here.chain(of_view)
            .chain(of_before)
            .filter(move |entry| entry.is_alive(now_ms))
    }

    /// The present keys from `start` on in byte order.
    pub(crate) fn alive_between(
        self,
        database: u8,
        start: &[u8],
        end: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        #[cfg(test)]
        recording::ranged(database, start, end);
        let here = self.database(database).map(|d| d.between(start, end));
        let here = here.into_iter().flatten();
        let view = self.shown.view();
        let of_view = view.map(|view| view.saved_between(database, start, end));
        let before = self.shown.before();
        let of_before = before.map(|before| before.saved_between(database, start, end));
        let saved = of_view.into_iter().flatten();
        let saved = saved.chain(of_before.into_iter().flatten());
        let both = Merged {
            here: here.filter(move |entry| self.shows(entry)).peekable(),
            saved: saved.peekable(),
        };
        let now_ms = self.now_ms();
        both.filter(move |entry| entry.is_alive(now_ms))
    }
}

/// Two sequences in byte order as one. No key is in both.
struct Merged<H: Iterator, S: Iterator> {
    here: Peekable<H>,
    saved: Peekable<S>,
}

impl<'a, H, S> Iterator for Merged<H, S>
where
    H: Iterator<Item = Entry<'a>>,
    S: Iterator<Item = Entry<'a>>,
{
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        match (self.here.peek(), self.saved.peek()) {
            (Some(here), Some(saved)) if saved.key() < here.key() => self.saved.next(),
            (None, Some(_)) => self.saved.next(),
            _ => self.here.next(),
        }
    }
}
