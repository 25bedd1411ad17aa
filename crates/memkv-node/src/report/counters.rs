//! The counters that the node's tasks share. Nothing here decides anything, and counting never locks.

use std::sync::atomic::{AtomicBool, AtomicU64};

use memkv_metrics::Histogram;

use crate::report::waypoints::Waypoints;

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
    /// How often the wall clock has jumped.
    pub(crate) clock_steps: AtomicU64,
    /// Commands of this node's session that were refused at the memory cap.
    pub(crate) growth_refused: AtomicU64,
    /// How long applying took, a run of entries at a time.
    pub(crate) apply: Histogram,
    /// Reads that shared a confirmation.
    pub(crate) read_batch: Histogram,
    /// The longest time without a leader that has ended since it was taken, in nanoseconds.
    pub(crate) leaderless: AtomicU64,
    /// When the last entries were where.
    pub(crate) waypoints: Waypoints,
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
            clock_steps: AtomicU64::new(0),
            growth_refused: AtomicU64::new(0),
            apply: Histogram::of_durations(),
            read_batch: Histogram::of_sizes(),
            leaderless: AtomicU64::new(0),
            waypoints: Waypoints::default(),
        }
    }
}
