//! This node's copy of the replicated state: the store, and how far the log has been applied to it.
//!
//! Applied means applied in memory; nothing here is ever taken from a number on disk, because the
//! engine would skip the replay. One lock guards the store together with its position in the log, so
//! a snapshot can be begun at any moment and knows exactly what it covers.

use std::sync::Arc;

use memkv_store::Store;
use tokio::sync::watch;

use crate::engine::{EngineLogId, StoredMembership};
use crate::lock_order::Root;
use crate::session::Session;

/// The store and its position in the log.
#[derive(Default)]
pub(crate) struct Machine {
    pub(crate) store: Store,
    pub(crate) last_applied: Option<EngineLogId>,
    pub(crate) membership: StoredMembership,
    /// How often a leader's snapshot has replaced the store: a snapshot that was being built from
    /// the store before must not go on with the one after.
    pub(crate) installs: u64,
}

/// Shared by apply, snapshots, reads and the session.
pub(crate) struct Replica {
    pub(crate) machine: Root<Machine>,
    /// Number of log entries applied: one more than the last applied index, 0 for none.
    applied: watch::Sender<u64>,
    pub(crate) session: Arc<Session>,
}

impl Replica {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self {
            machine: Root::new(Machine::default()),
            applied: watch::Sender::new(0),
            session,
        }
    }

    /// Announces that everything up to `index` has been applied.
    pub(crate) fn announce(&self, index: u64) {
        self.applied.send_replace(index + 1);
    }

    /// Tells of every change of the number of applied entries.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Whether the entry at `index` has been applied here.
    pub(crate) fn has_applied(&self, index: u64) -> bool {
        *self.applied.borrow() > index
    }

    /// Waits until the entry at `index` has been applied here.
    pub(crate) async fn wait_applied(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        let _ = applied.wait_for(|count| *count > index).await;
    }

    /// Highest applied index; 0 when nothing was.
    pub(crate) fn applied_index(&self) -> u64 {
        self.applied.borrow().saturating_sub(1)
    }
}
