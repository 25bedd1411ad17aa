//! The keyspace: sixteen databases of bytes to bytes, with the revisions and deadlines of every key.
//!
//! It never iterates where an effect could show the order of a hash table, and never copies or
//! locks a container for a snapshot: while one is being taken, or a view lasts, a write saves the entry
//! as it was (see `snapshot::Walk`, `view`). A key whose deadline log time has reached is absent to every access,
//! whether or not [`Keyspace::expire`] has come to remove it. Invariants: every change of an entry
//! gives it a higher `mod_revision`; every delete of a key is noted in the table of deletes.

mod before;
mod build;
mod database;
mod deletes;
mod entry;
mod evict;
mod large;
mod leaf;
mod order;
mod past;
mod records;
mod shard;
mod view;

use std::sync::Arc;

use self::before::Before;
pub use self::build::Work;
pub(crate) use self::build::{Runner, in_turn};
pub(crate) use self::database::{Database, SHARDS, shard_of};
use self::database::{Location, Old};
pub(crate) use self::deletes::{DELETE_SLOTS, Deletes, noted};
pub use self::entry::Value;
pub(crate) use self::entry::{Entries, Entry, Record};
use self::large::Large;
pub(crate) use self::large::SHARED_BYTES;
pub(crate) use self::order::first_bytes;
use self::past::Past;
use self::records::Number;
pub(crate) use self::view::Lens;
use self::view::View;
pub use self::view::{MAX_VIEWS, ViewId};
use crate::effects::Effects;
use crate::key_event::{KeyEventClasses, KeyEvents};
use crate::memory::MemoryCap;
#[cfg(test)]
use crate::rights::recording;
use crate::snapshot::{EntryView, Walk};
use crate::{DATABASES, Revision, UserTable};

/// Detached data: flushed databases, removed large values, and entries saved for views or for readers
/// during a command. Dropping it takes time in proportion to its keys and bytes.
#[derive(Debug)]
pub struct Garbage {
    databases: Vec<Arc<Database>>,
    values: Vec<Large>,
    view: Option<View>,
    before: Option<Before>,
}

impl Garbage {
    /// Whether dropping it takes longer than a few commands do.
    pub fn is_much(&self) -> bool {
        let view = self.view.as_ref().is_some_and(View::holds_much);
        view || !self.databases.is_empty() || !self.values.is_empty() || self.before.is_some()
    }

    fn of_view(view: View) -> Garbage {
        Garbage {
            databases: Vec::new(),
            values: Vec::new(),
            view: Some(view),
            before: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Keyspace {
    /// One for each number below `DATABASES`.
    databases: Vec<Database>,
    /// Replicated, derived from the cluster's UUID when it is formed, and kept in snapshots: the same on
    /// every node, unknown to clients, which pick the keys.
    seed: u64,
    /// Log time: the highest stamp applied, in milliseconds since the epoch.
    pub(crate) now_ms: u64,
    pub(crate) deletes: Deletes,
    /// The number of expired keys.
    pub(crate) expired_total: u64,
    past: Past,
    garbage: Vec<Arc<Database>>,
    /// The state saved for readers during the last command in pieces.
    ended: Option<Before>,
    pub(crate) key_events: KeyEvents,
    pub(crate) effects: Effects,
    /// The cost of all entries, past their deadlines or not.
    cost: u64,
    pub(crate) memory: MemoryCap,
    /// How many keys the present entry may still evict.
    evictable: usize,
    /// The users of the cluster, which commands change as they change keys. None until they are initialised.
    pub(crate) users: Option<Arc<UserTable>>,
}

/// Reading.
impl Keyspace {
    pub(crate) fn new(seed: u64) -> Keyspace {
        let databases = std::iter::repeat_with(|| Database::new(seed));
        Keyspace {
            databases: databases.take(usize::from(DATABASES)).collect(),
            seed,
            now_ms: 0,
            deletes: Deletes::default(),
            expired_total: 0,
            past: Past::default(),
            garbage: Vec::new(),
            ended: None,
            key_events: KeyEvents::default(),
            effects: Effects::default(),
            cost: 0,
            memory: MemoryCap::default(),
            evictable: 0,
            users: None,
        }
    }

    /// The seed of the hash tables.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The number of keys of all databases.
    pub(crate) fn len(&self) -> usize {
        self.databases.iter().map(|database| database.len).sum()
    }

    pub(crate) fn database_len(&self, database: u8) -> usize {
        self.database(database).map_or(0, |database| database.len)
    }

    pub(crate) fn database_deadlines(&self, database: u8) -> usize {
        self.database(database)
            .map_or(0, |database| database.with_deadline)
    }

    /// What is kept of earlier states.
    pub(crate) fn saved_bytes(&self) -> u64 {
        self.past.memory_bytes()
    }

    /// Estimated memory of the entries, and of those saved for a snapshot in progress and for views.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.cost + self.saved_bytes()
    }

    /// The cost of all entries: a function of the keys and values alone.
    pub(crate) fn cost(&self) -> u64 {
        self.cost
    }

    pub(crate) fn get(&self, database: u8, key: &[u8]) -> Option<Value<'_>> {
        #[cfg(test)]
        recording::looked(database, key);
        let database = self.database(database)?;
        let entry = database.entry(database.find(self.location(key), key)?);
        entry.is_alive(self.now_ms).then(|| Value::of(&entry))
    }

    /// Whether nothing has happened to a key that was absent at revision `at`: it is absent, and
    /// was all the time.
    pub(crate) fn absent_since(&self, database: u8, key: &[u8], at: Revision) -> bool {
        #[cfg(test)]
        recording::looked(database, key);
        let location = self.location(key);
        let found = self
            .database(database)
            .and_then(|database| Some(database.entry(database.find(location, key)?)));
        // One that is over its deadline may have come and gone without having been removed.
        let absent = found.is_none_or(|e| !e.is_alive(self.now_ms) && e.mod_revision <= at);
        absent && self.deletes.last(database, delete_slot(database, location)) <= at
    }

    /// See [`Database::fetch_keys`]; for the first database.
    pub(crate) fn fetch<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        self.databases[0].fetch_keys(keys);
    }

    /// The earliest deadline of all, in milliseconds since the epoch.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        let first = self.databases.iter().filter_map(Database::first_due);
        first.map(|(deadline, ..)| deadline).min()
    }

    /// None for a number that is no database.
    pub(crate) fn database(&self, database: u8) -> Option<&Database> {
        self.databases.get(usize::from(database))
    }

    /// The databases that hold keys, a bit for each.
    pub(crate) fn filled_databases(&self) -> u16 {
        let filled = (0..DATABASES).filter(|database| self.database_len(*database) > 0);
        filled.map(|database| 1 << database).sum()
    }

    fn location(&self, key: &[u8]) -> Location {
        Location::of(self.seed, key)
    }
}

/// Writing. `database` is below [`DATABASES`]: decoding refuses any other.
impl Keyspace {
    /// Takes a seed: a new cluster's, or a snapshot's. Only an empty keyspace does, since keys have their
    /// locations. Noted deletes would have other slots now, so all databases count as flushed.
    pub(crate) fn reseed(&mut self, seed: u64) {
        if self.len() == 0 {
            self.seed = seed;
            self.databases.fill_with(|| Database::new(seed));
            let noted = noted(self.deletes.slots()).map(|(_, at)| at);
            let flushed = noted.chain(self.deletes.flushed).max().unwrap_or(0);
            self.deletes = Deletes::default();
            self.deletes.flushed.fill(flushed);
        }
    }

    /// Sets a key, with exactly the deadline that the record has.
    pub(crate) fn put(&mut self, database: u8, record: &Record<'_>, revision: Revision) {
        let key = record.key();
        #[cfg(test)]
        recording::wrote(database, key);
        let short = record.in_short();
        let location = self.location(key);
        self.effects.put(database, location.tag, short);
        let target = &mut self.databases[usize::from(database)];
        let Some(number) = target.find(location, key) else {
            target.insert(location, record, revision);
            self.cost += record.cost();
            self.key_events
                .note(KeyEventClasses::NEW, "new", database, key);
            return;
        };
        let entry = target.entry(number);
        self.past.save(database, location, &entry);
        let mut created = entry.create_revision;
        if !entry.is_alive(self.now_ms) {
            created = revision;
            self.expired_total += 1;
            self.deletes.note(delete_slot(database, location), revision);
            let expired = KeyEventClasses::EXPIRED;
            self.key_events.note(expired, "expired", database, key);
            self.key_events
                .note(KeyEventClasses::NEW, "new", database, key);
        }
        let old = Old::of(number, &entry);
        target.overwrite(location, &old, record, &record.numbers(created, revision));
        self.cost = self.cost - old.cost + record.cost();
    }

    /// Gives a key another deadline; returns whether the key exists.
    pub(crate) fn set_deadline(
        &mut self,
        database: u8,
        key: &[u8],
        deadline_ms: Option<u64>,
        revision: Revision,
    ) -> bool {
        #[cfg(test)]
        recording::wrote(database, key);
        let location = self.location(key);
        let target = &mut self.databases[usize::from(database)];
        let Some(number) = target.find(location, key) else {
            return false;
        };
        let entry = target.entry(number);
        if !entry.is_alive(self.now_ms) {
            return false;
        }
        self.past.save(database, location, &entry);
        target.set_deadline(location, number, deadline_ms, revision);
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::CostByHistory) {
            self.cost += 8;
        }
        self.effects.deadline(database, location.tag, deadline_ms);
        true
    }

    /// Removes a key; returns whether it existed. A key past its deadline is left to `expire`.
    pub(crate) fn remove(&mut self, database: u8, key: &[u8], revision: Revision) -> bool {
        #[cfg(test)]
        recording::wrote(database, key);
        let location = self.location(key);
        let target = &self.databases[usize::from(database)];
        let found = target.find(location, key);
        let alive = found.filter(|number| target.entry(*number).is_alive(self.now_ms));
        if let Some(number) = alive {
            self.take_out(database, location, number, revision);
        }
        alive.is_some()
    }

    /// Removes keys that are due, in the order of their deadlines within each database, at most
    /// `limit` of them; returns their number.
    pub(crate) fn expire(&mut self, limit: usize, revision: Revision) -> usize {
        let mut removed = 0;
        for database in 0..DATABASES {
            while let Some(due) = self.databases[usize::from(database)]
                .first_due()
                .filter(|(deadline, ..)| *deadline <= self.now_ms && removed < limit)
            {
                while let Some(number) = self.databases[usize::from(database)].find_due(due) {
                    let entry = self.databases[usize::from(database)].entry(number);
                    let location = self.location(entry.key());
                    let expired = KeyEventClasses::EXPIRED;
                    self.key_events
                        .note(expired, "expired", database, entry.key());
                    self.take_out(database, location, number, revision);
                    removed += 1;
                }
            }
        }
        self.expired_total += removed as u64;
        removed
    }

    /// The one way out for a single key.
    fn take_out(&mut self, database: u8, location: Location, number: Number, revision: Revision) {
        let target = &mut self.databases[usize::from(database)];
        let entry = target.entry(number);
        self.cost -= entry.cost();
        self.past.save(database, location, &entry);
        target.remove(location, number);
        self.deletes.note(delete_slot(database, location), revision);
        self.effects.removed(database, location.tag);
    }

    /// Removes all keys of a database at once, in a time that does not depend on their number; returns
    /// whether there were any.
    pub(crate) fn flush(&mut self, database: u8, revision: Revision) -> bool {
        #[cfg(test)]
        recording::flushed(database);
        let target = &mut self.databases[usize::from(database)];
        if target.len == 0 {
            return false;
        }
        let old = Arc::new(std::mem::replace(target, Database::new(self.seed)));
        self.cost -= old.bytes;
        self.past.save_database(database, &old, old.bytes);
        self.garbage.push(old);
        self.effects.flushed(database);
        self.deletes.flushed[usize::from(database)] = revision;
        true
    }

    pub(crate) fn take_garbage(&mut self) -> Option<Garbage> {
        let databases = std::mem::take(&mut self.garbage);
        let mut values = Vec::new();
        for database in &mut self.databases {
            values.append(&mut database.take_loose());
        }
        let before = self.ended.take();
        (!databases.is_empty() || !values.is_empty() || before.is_some()).then_some(Garbage {
            databases,
            values,
            view: None,
            before,
        })
    }
}

/// A command that is executed in pieces.
impl Keyspace {
    /// From now on readers see the keys as they are, until [`Keyspace::end_pieces`].
    pub(crate) fn begin_pieces(&mut self, revision: Revision, keys: usize) {
        let mut lens = [0; DATABASES as usize];
        for (len, database) in lens.iter_mut().zip(0..) {
            *len = self.database_len(database);
        }
        let before = Before::new(revision, lens, keys);
        self.past.set_before(Some(before));
    }

    /// Whether readers see the keys as they were before a command.
    pub(crate) fn is_within_command(&self) -> bool {
        self.past.before().is_some()
    }

    /// Whether the command must be executed to its end before anything is read.
    pub(crate) fn must_end(&self) -> bool {
        self.past.before().is_some_and(Before::is_full)
    }

    /// Readers see the keys as they are.
    pub(crate) fn end_pieces(&mut self) {
        self.ended = self.past.set_before(None);
    }
}

/// Snapshots.
impl Keyspace {
    pub(crate) fn walk(&self) -> Option<&Walk> {
        self.past.walk()
    }

    pub(crate) fn walk_mut(&mut self) -> (Option<&mut Walk>, &[Database]) {
        (self.past.walk_mut(), &self.databases)
    }

    pub(crate) fn begin_walk(&mut self, walk: Walk) {
        self.past.set_walk(Some(walk));
    }

    /// Ends a snapshot. Databases that it held after a flush go the way of the flush.
    pub(crate) fn end_walk(&mut self) {
        let flushed = self
            .past
            .set_walk(None)
            .into_iter()
            .flat_map(Walk::into_flushed);
        self.garbage.extend(flushed);
    }

    /// Puts back an entry of a snapshot, which the ordered index does not know before
    /// [`Keyspace::build_order`]. False if the key is there already or does not belong to the shard
    /// that it should belong to: then nothing changed.
    pub(crate) fn restore(
        &mut self,
        database: u8,
        shard: Option<usize>,
        view: &EntryView<'_>,
    ) -> bool {
        let record = Record {
            parts: &[view.record],
            key_len: view.key_len,
            deadline_ms: view.deadline_ms,
            shared: None,
        };
        let location = self.location(record.key());
        let target = &mut self.databases[usize::from(database)];
        let is_elsewhere = shard.is_some_and(|shard| shard != location.shard);
        if is_elsewhere || target.find(location, record.key()).is_some() {
            return false;
        }
        let numbers = record.numbers(view.create_revision, view.mod_revision);
        target.insert_unordered(location, &record, &numbers);
        self.cost += record.cost();
        true
    }

    pub(crate) fn build_order(&mut self, run: Runner<'_>) {
        let databases = self.databases.iter_mut();
        databases.for_each(|database| database.build_order(run));
    }
}

/// Where deletes of keys of this place are noted. The factor moves the databases apart; it is odd,
/// so no two of them fall together.
fn delete_slot(database: u8, location: Location) -> usize {
    const DATABASE_STEP: usize = 4099;
    (usize::from(location.slot) + usize::from(database) * DATABASE_STEP) % DELETE_SLOTS
}
