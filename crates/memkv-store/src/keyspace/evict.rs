//! Room at the memory cap: whether the keys cost as much as they may, and which keys go for others.
//!
//! Eviction is a part of applying an entry, so every node evicts the same keys. Only keys with a deadline
//! go, the nearest deadline first; equal deadlines by database and by the index of deadlines, whose order
//! is that of the keys' hashes under the replicated seed. Never evicts more than
//! [`EVICTED_PER_ENTRY`] keys for an entry, but for keys that share one element of that index.

use super::Keyspace;
use super::database::Due;
use crate::key_event::KeyEventClasses;
use crate::memory::{CAP_OVERRUN_BYTES, EVICTED_PER_ENTRY, EvictionPolicy};
use crate::{DATABASES, Revision};

impl Keyspace {
    /// Whether commands that may grow are refused.
    #[inline]
    pub(crate) fn is_at_cap(&self) -> bool {
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::RefuseByLocalMemory) {
            return self.memory_bytes() >= self.memory.limit();
        }
        self.cost >= self.memory.limit()
    }

    /// Whether a value may become so many bytes longer, or a new value be so long, by a command that makes
    /// values out of values.
    pub(crate) fn has_room_for(&self, bytes: usize) -> bool {
        let most = self.memory.limit().saturating_add(CAP_OVERRUN_BYTES);
        self.cost.saturating_add(bytes as u64) <= most
    }

    /// Another entry begins, which may evict keys of its own.
    pub(crate) fn begin_entry(&mut self, last: &mut Revision) {
        self.evictable = EVICTED_PER_ENTRY;
        if self.is_at_cap() {
            self.make_room(last);
        }
    }

    /// Evicts keys until they cost less than they may, as far as the policy and this entry allow. All of
    /// them go at one revision, as keys that expire do.
    #[cold]
    pub(crate) fn make_room(&mut self, last: &mut Revision) {
        if self.memory.policy == EvictionPolicy::NoEviction {
            return;
        }
        let revision = *last + 1;
        let mut evicted = 0;
        while self.is_at_cap()
            && evicted < self.evictable
            && let Some((due, database)) = self.nearest_due()
        {
            // All keys of the element: the order within it is not the same on all nodes.
            while let Some(number) = self.databases[usize::from(database)].find_due(due) {
                let entry = self.databases[usize::from(database)].entry(number);
                let location = self.location(entry.key());
                let class = KeyEventClasses::EVICTED;
                self.key_events
                    .note(class, "evicted", database, entry.key());
                self.take_out(database, location, number, revision);
                evicted += 1;
            }
        }
        self.evictable = self.evictable.saturating_sub(evicted);
        self.memory.evicted_total += evicted as u64;
        *last += u64::from(evicted > 0);
    }

    fn nearest_due(&self) -> Option<(Due, u8)> {
        let firsts = (0..DATABASES).zip(&self.databases);
        let firsts = firsts.filter_map(|(number, database)| Some((database.first_due()?, number)));
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::EvictByLocalOrder) && self.past.walk().is_some() {
            return firsts.max();
        }
        firsts.min_by_key(|((deadline, shard, tag), number)| (*deadline, *number, *shard, *tag))
    }
}
