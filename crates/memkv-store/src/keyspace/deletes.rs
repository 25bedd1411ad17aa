//! The table of deletes: all that deleted keys leave behind, for guards on absent keys.
//!
//! A slot holds the last revision that deleted a key of its hash, so another key's delete may look
//! like one's own: a guard may fail for nothing, but never hold wrongly. A flush does not touch the
//! slots: it raises one number per database. Invariant: no slot goes back.

use std::sync::Arc;

use crate::{DATABASES, Revision};

/// Number of slots: half a mebibyte, in which a false failure needs the delete of one key in
/// 65,536 others between WATCH and EXEC. Part of the snapshot format.
pub(crate) const DELETE_SLOTS: usize = 65_536;

/// Its half mebibyte is not counted as memory of the keys: it does not depend on them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deletes {
    /// Empty until the first delete; shared with the snapshot that is being taken.
    slots: Arc<[Revision]>,
    /// For each database the revision that last flushed it.
    pub(crate) flushed: [Revision; DATABASES as usize],
}

impl Deletes {
    /// Notes that `revision` deleted a key of this slot.
    pub(crate) fn note(&mut self, slot: usize, revision: Revision) {
        if self.slots.is_empty() {
            self.slots = std::iter::repeat_n(0, DELETE_SLOTS).collect();
        }
        let last = &mut Arc::make_mut(&mut self.slots)[slot % DELETE_SLOTS];
        *last = revision.max(*last);
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

/// The slots that note a delete, with its revision.
pub(crate) fn noted(slots: &[Revision]) -> impl Iterator<Item = (usize, Revision)> + use<'_> {
    slots.iter().copied().enumerate().filter(|(_, at)| *at > 0)
}
