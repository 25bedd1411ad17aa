//! The table of deletes: the only trace of deleted keys, for guards on absent keys.
//!
//! A slot holds the last revision that deleted a key of its hash, so another key's delete may look
//! like one's own: a guard may fail without need, but never hold wrongly. A flush does not touch the
//! slots: it raises one number per database. Invariant: no slot goes back.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{DATABASES, Revision};

/// Number of slots: half a mebibyte, in which a false failure needs the delete of one key in
/// 65,536 others between WATCH and EXEC. Part of the snapshot format.
pub(crate) const DELETE_SLOTS: usize = 65_536;

/// Its half mebibyte is not counted as memory of the keys: it does not depend on them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletes {
    /// Empty until the first delete; shared with the snapshot that is being taken.
    slots: Arc<[Revision]>,
    /// Slots that note a delete.
    noted: u64,
    /// Sum over those slots of a hash of place and revision: the table's part of the digest, which
    /// would otherwise read the whole table each time.
    digest: u64,
    /// For each database the revision that last flushed it.
    pub(crate) flushed: [Revision; DATABASES as usize],
}

impl Deletes {
    /// Notes that `revision` deleted a key of this slot.
    pub(crate) fn note(&mut self, slot: usize, revision: Revision) {
        if self.slots.is_empty() {
            self.slots = vec![0; DELETE_SLOTS].into();
        }
        let slot = slot % DELETE_SLOTS;
        let before = self.slots[slot];
        if revision <= before {
            return;
        }
        Arc::make_mut(&mut self.slots)[slot] = revision;
        if before == 0 {
            self.noted += 1;
        } else {
            self.digest = self.digest.wrapping_sub(slot_digest(slot, before));
        }
        self.digest = self.digest.wrapping_add(slot_digest(slot, revision));
    }

    /// The number of slots that note a delete.
    pub(crate) fn noted(&self) -> u64 {
        self.noted
    }

    /// A hash of the slots, the same for the same slots.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// No key of this slot and database was deleted after this revision.
    pub(crate) fn last(&self, database: u8, slot: usize) -> Revision {
        let last = self.slots.get(slot % DELETE_SLOTS).copied().unwrap_or(0);
        last.max(self.flushed[usize::from(database)])
    }

    pub(crate) fn slots(&self) -> &Arc<[Revision]> {
        &self.slots
    }
}

fn slot_digest(slot: usize, at: Revision) -> u64 {
    xxh3_64_with_seed(&at.to_le_bytes(), slot as u64)
}

/// The slots that note a delete, with its revision.
pub(crate) fn noted(slots: &[Revision]) -> impl Iterator<Item = (usize, Revision)> + use<'_> {
    slots.iter().copied().enumerate().filter(|(_, at)| *at > 0)
}
