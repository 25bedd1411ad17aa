//! The measurement of free disk space, again and again, and what a leader does when its own disk is low.
//!
//! Never stops a read or a heartbeat. Invariant: the space is measured before
//! the first entry is taken.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memkv_disk::SnapshotStore;

use crate::Env;
use crate::disk::space::{Shortage, SpaceWatch};
use crate::engine::handle::Engine;
use crate::env::blocking;
use crate::leadership::handover;
use crate::peer::client::Peers;
use crate::report::counters::Counters;
use crate::report::event::Event;
use crate::report::seldom::Lines;
use crate::report::timeline::Timeline;

/// How often free space is measured. The reserve outlasts some seconds of the fastest writing.
const INTERVAL: Duration = Duration::from_millis(500);
/// Pause between two attempts to hand over because of space.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

/// Measures the free space of this node's disks.
pub(crate) struct SpaceMeter {
    /// This node's name, for messages.
    pub(crate) name: String,
    pub(crate) env: Env,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) space: Arc<SpaceWatch>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) timeline: Arc<Timeline>,
}

impl SpaceMeter {
    /// Measures once, also before the engine takes anything. Whether that was possible.
    pub(crate) async fn measure(&self) -> bool {
        let snapshots = self.snapshots.clone();
        let space = blocking(&self.env, move || snapshots.space()).await;
        match space.and_then(|space| space) {
            Ok(space) => {
                self.note(&space);
                true
            }
            Err(error) => {
                // A node that does not know its space refuses nothing.
                self.space.room.store(u64::MAX, Ordering::Relaxed);
                let text = format!("cannot tell how much disk space is free: {error}");
                let mut detail = self.space.detail.lock();
                if *detail != text {
                    tracing::warn!("{text}");
                    *detail = text;
                }
                false
            }
        }
    }

    /// Notes how much is left, and logs a change.
    fn note(&self, space: &memkv_disk::Space) {
        self.counters.disk_free.store(space.free, Ordering::Relaxed);
        let before = self.space.note_own(space);
        let shortage = self.space.own();
        if before == shortage {
            return;
        }
        let (free, is_full) = (space.free, shortage == Shortage::Exhausted);
        self.timeline.note(&match shortage {
            Shortage::None => Event::DiskBack { free },
            Shortage::Low | Shortage::Exhausted => Event::DiskLow { free, is_full },
        });
        let free_mib = free >> 20;
        let me = &self.name;
        let detail = match shortage {
            Shortage::Exhausted => {
                tracing::warn!(
                    free_mib,
                    "disk space is used up: this node takes no entries. Free some, or enlarge the disk"
                );
                format!("the disk of {me} is full: {free_mib} MiB are free")
            }
            Shortage::Low => {
                tracing::warn!(
                    free_mib,
                    "disk space is low: free some, or enlarge the disk"
                );
                format!("the disk of {me} has {free_mib} MiB free, too little for another snapshot")
            }
            Shortage::None => {
                tracing::info!(free_mib, "disk space is back");
                String::new()
            }
        };
        *self.space.detail.lock() = detail;
    }
}

/// Watches this node's disks until it stops, and hands leadership over while they are low.
pub(crate) async fn run(meter: SpaceMeter, peers: Arc<Peers>, engine: Engine, lines: Arc<Lines>) {
    let mut hand_over_not_before = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(INTERVAL).await;
        if !meter.measure().await {
            continue;
        }
        let shortage = meter.space.own();
        let now = tokio::time::Instant::now();
        // One that can propose nothing does not wait for the next attempt.
        let may_hand_over = now >= hand_over_not_before || shortage == Shortage::Exhausted;
        if shortage != Shortage::None && engine.is_leader() && may_hand_over {
            hand_over_not_before = now + HAND_OVER_PAUSE;
            let voters = engine.voters().into_iter();
            let of_majority = meter.space.of_majority(peers.my_id(), voters);
            if of_majority == Shortage::None {
                let roomy = |id: &u64| meter.space.of_peer(*id) == Shortage::None;
                let within = handover::TRANSFER_TIMEOUT;
                let told = (&*lines, &*meter.timeline);
                handover::hand_over(&engine, &peers, told, within, roomy).await;
            }
        }
    }
}
