//! Keyspace notifications on their way from `apply` to this node's subscribers.
//!
//! Every node announces what it applies to its own listeners, so nothing is sent between nodes
//! and all of them say the same in the same order. Never waits for a subscriber. Entries that were
//! in the log before this process began are applied without announcements: the listeners of now did not listen
//! then. What a snapshot brings is not announced either, because it does not say how it came about.

use std::sync::Arc;

use memkv_store::{KeyEvent, KeyEventClasses, Store};

use crate::pubsub::publish::Publisher;

/// Announces the key events of applied entries.
pub(crate) struct Announcer {
    pub(crate) publisher: Arc<Publisher>,
    /// The classes that are announced until the cluster is told others.
    pub(crate) configured: KeyEventClasses,
    /// Last index of the log when this process began.
    pub(crate) old_through: u64,
}

impl Announcer {
    /// To be called before the entry at `index` is applied.
    pub(crate) fn prepare(&self, store: &mut Store, index: u64) {
        let wanted = index > self.old_through && self.publisher.has_listeners();
        store.listen(wanted, self.configured);
    }

    /// Passes on what was noted. To be called without holding the store.
    pub(crate) fn tell(&self, events: Vec<KeyEvent>) {
        if let Some(subscribers) = self.publisher.subscribers()
            && !events.is_empty()
        {
            subscribers.announce(events);
        }
    }
}
