//! The earlier states that are still needed while the keys change: the snapshot in progress, views, and the
//! state before a command that is executed in pieces. A write checks once whether there is any.

use std::sync::Arc;

use super::before::Before;
use super::database::{Database, Location};
use super::entry::Entry;
use super::view::View;
use crate::snapshot::Walk;

#[derive(Debug, Default)]
pub(super) struct Past {
    /// Whether there is any of the below.
    saves: bool,
    walk: Option<Walk>,
    pub(super) views: Vec<View>,
    /// How many views there have been.
    pub(super) last_view: u64,
    /// Of the command that is executed in pieces.
    before: Option<Before>,
}

impl Past {
    /// Called before an entry is changed, or when it was removed.
    #[inline]
    pub(super) fn save(&mut self, database: u8, location: Location, entry: &Entry<'_>) {
        if self.saves {
            self.save_now(database, location, entry);
        }
    }

    #[cold]
    fn save_now(&mut self, database: u8, location: Location, entry: &Entry<'_>) {
        if let Some(walk) = &mut self.walk {
            walk.save(database, location.shard, entry);
        }
        for view in &mut self.views {
            view.save(database, location.shard, entry);
        }
        if let Some(before) = &mut self.before {
            before.save(database, location, entry);
        }
    }

    pub(super) fn save_database(&mut self, database: u8, old: &Arc<Database>, bytes: u64) {
        if let Some(walk) = &mut self.walk {
            walk.save_database(database, old, bytes);
        }
        for view in &mut self.views {
            view.save_database(database, old);
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let walk = self.walk.as_ref().map_or(0, Walk::memory_bytes);
        let before = self.before.as_ref().map_or(0, Before::memory_bytes);
        walk + before + self.views.iter().map(View::memory_bytes).sum::<u64>()
    }

    pub(super) fn walk(&self) -> Option<&Walk> {
        self.walk.as_ref()
    }

    pub(super) fn walk_mut(&mut self) -> Option<&mut Walk> {
        self.walk.as_mut()
    }

    pub(super) fn set_walk(&mut self, walk: Option<Walk>) -> Option<Walk> {
        let before = std::mem::replace(&mut self.walk, walk);
        self.note();
        before
    }

    pub(super) fn begin_view(&mut self, view: View) {
        self.views.push(view);
        self.note();
    }

    pub(super) fn end_view(&mut self, index: usize) -> View {
        let view = self.views.swap_remove(index);
        self.note();
        view
    }

    pub(super) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    pub(super) fn set_before(&mut self, before: Option<Before>) -> Option<Before> {
        let ended = std::mem::replace(&mut self.before, before);
        self.note();
        ended
    }

    fn note(&mut self) {
        self.saves = self.walk.is_some() || !self.views.is_empty() || self.before.is_some();
    }
}
