//! What a node counts of its work, for whoever watches it. Nothing here decides anything, and
//! counting never locks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memkv_metrics::{Counted, Histogram};

use crate::node::Inner;

/// The counters that the node's tasks share.
#[derive(Debug)]
pub(crate) struct Counters {
    /// How often another leader than before was heard of.
    pub(crate) leader_changes: AtomicU64,
    /// Groups of commands that came back without having been applied.
    pub(crate) failed_proposals: AtomicU64,
    /// Commands that were sent to another node, the leader.
    pub(crate) forwarded: AtomicU64,
    /// Snapshots that were built here.
    pub(crate) snapshots_built: AtomicU64,
    /// Whether one is being built.
    pub(crate) building: AtomicBool,
    /// Free bytes of the disk when it was last looked at; `u64::MAX` before.
    pub(crate) disk_free: AtomicU64,
    /// How long applying took, a run of entries at a time.
    pub(crate) apply: Histogram,
    /// Reads that shared a confirmation.
    pub(crate) read_batch: Histogram,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            leader_changes: AtomicU64::new(0),
            failed_proposals: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            snapshots_built: AtomicU64::new(0),
            building: AtomicBool::new(false),
            disk_free: AtomicU64::new(u64::MAX),
            apply: Histogram::of_durations(),
            read_batch: Histogram::of_sizes(),
        }
    }
}

/// A node's counters at about one moment, since its process began.
#[derive(Debug, Clone)]
pub struct NodeStats {
    /// How often another leader than before was heard of, this node among them.
    pub leader_changes: u64,
    /// Groups of commands that wait here, as the leader, for the next entry.
    pub proposals_pending: u64,
    /// Groups of commands that came back without having been applied, and were sent again or
    /// answered so.
    pub proposals_failed: u64,
    /// Commands that were sent to another node, the leader.
    pub forwarded: u64,
    /// Entries that each other member lacks, by its name; empty unless this node leads.
    pub peer_lag: Vec<(String, u64)>,
    /// Snapshots that were built here.
    pub snapshots_built: u64,
    /// Snapshots of a leader that were installed here.
    pub snapshots_installed: u64,
    /// Free bytes of the disk, if it was looked at yet.
    pub disk_free: Option<u64>,
    /// Whether that is too little to accept more.
    pub disk_low: bool,
    /// Rounds in which this node's store was compared with another node's.
    pub divergence_checks: u64,
    /// Whether stores differ, and it is not known which node is right.
    pub divergence_alarm: bool,
    /// Published messages that a peer did not confirm.
    pub publications_unconfirmed: u64,
    /// Duration of the log's fsyncs.
    pub fsync: Counted,
    /// Duration of applying, a run of entries at a time.
    pub apply: Counted,
    /// Reads that shared a confirmation, each confirmation counted once.
    pub read_batch: Counted,
}

impl Inner {
    /// See [`crate::Node::stats`].
    pub(crate) fn stats(&self) -> NodeStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let disk_free = count(&counters.disk_free);
        NodeStats {
            leader_changes: count(&counters.leader_changes),
            proposals_pending: self.batcher.pending() as u64,
            proposals_failed: count(&counters.failed_proposals),
            forwarded: count(&counters.forwarded),
            peer_lag: self.peer_lag(),
            snapshots_built: count(&counters.snapshots_built),
            snapshots_installed: self.replica.applied_state().installs,
            disk_free: (disk_free != u64::MAX).then_some(disk_free),
            disk_low: self.space.is_low(),
            divergence_checks: self.divergence.rounds(),
            divergence_alarm: !self.divergence.alarm().is_empty(),
            publications_unconfirmed: count(&self.publisher.unconfirmed),
            fsync: self.storage.wal.fsync_durations(),
            apply: counters.apply.counted(),
            read_batch: counters.read_batch.counted(),
        }
    }

    fn peer_lag(&self) -> Vec<(String, u64)> {
        let Some(engine) = self.engine.get() else {
            return Vec::new();
        };
        let matched = engine.matched();
        let last = matched.last.unwrap_or(0);
        let me = self.peers.my_id();
        let peers = matched.members.into_iter().filter(|(id, _)| *id != me);
        let lag = |has: Option<u64>| last.saturating_sub(has.unwrap_or(0));
        peers
            .map(|(id, has)| (self.peers.name_of(id), lag(has)))
            .collect()
    }
}
