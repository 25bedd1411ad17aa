//! A full disk is predicted, never hit: nodes tell each other when space is low, and the leader
//! refuses new commands while a majority could not keep them.
//!
//! Never fails an append and never stops a read or a heartbeat; it heals by itself when space is
//! back. A leader whose own disk is low hands over to a peer whose disk is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Mutex;

use crate::engine::Raft;
use crate::env::blocking;
use crate::node::Inner;
use crate::stop;

/// How often free space is looked at. The reserve outlasts some seconds of the fastest writing.
const INTERVAL: Duration = Duration::from_millis(500);
/// Pause between two attempts to hand over because of space.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

/// Who is low on space, as far as this node knows.
#[derive(Default)]
pub(crate) struct SpaceWatch {
    own: AtomicBool,
    detail: Mutex<String>,
    peers: Mutex<BTreeMap<u64, bool>>,
}

impl SpaceWatch {
    /// Whether this node is low; goes to the leader with every answer to its entries.
    pub(crate) fn is_low(&self) -> bool {
        self.own.load(Ordering::Relaxed)
    }

    /// This node's shortage in words; empty when there is none.
    pub(crate) fn detail(&self) -> String {
        self.detail.lock().clone()
    }

    /// Notes what a peer said with its answer.
    pub(crate) fn note(&self, peer: u64, low: bool) {
        self.peers.lock().insert(peer, low);
    }

    fn peer_is_low(&self, id: u64) -> bool {
        self.peers.lock().get(&id).copied().unwrap_or(false)
    }

    /// Whether too few voters have space for a majority.
    pub(crate) fn majority_is_low(&self, me: u64, voters: impl Iterator<Item = u64>) -> bool {
        let (mut all, mut with_space) = (0, 0);
        for id in voters {
            all += 1;
            let low = if id == me {
                self.is_low()
            } else {
                self.peer_is_low(id)
            };
            with_space += usize::from(!low);
        }
        all > 0 && with_space <= all / 2
    }
}

/// Watches this node's disks until it stops.
pub(crate) async fn run(inner: Arc<Inner>, raft: Raft) {
    let mut hand_over_not_before = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let snapshots = inner.storage.snapshots.clone();
        let space = blocking(&inner.env, move || snapshots.space()).await;
        let space = match space.and_then(|space| space) {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, "cannot tell how much disk space is free");
                continue;
            }
        };
        inner
            .counters
            .disk_free
            .store(space.free, Ordering::Relaxed);
        if inner.space.own.swap(space.low, Ordering::Relaxed) != space.low {
            let free_mib = space.free >> 20;
            let detail = if space.low {
                tracing::warn!(
                    free_mib,
                    "disk space is low: free some, or enlarge the disk"
                );
                format!(
                    "the disk of {} has {free_mib} MiB free, too little for another snapshot",
                    inner.peers.me.name
                )
            } else {
                tracing::info!(free_mib, "disk space is back");
                String::new()
            };
            *inner.space.detail.lock() = detail;
        }
        let now = tokio::time::Instant::now();
        if space.low && inner.leads() && now >= hand_over_not_before {
            hand_over_not_before = now + HAND_OVER_PAUSE;
            let voters: Vec<u64> = {
                let metrics = raft.metrics();
                let metrics = metrics.borrow_watched();
                metrics.membership_config.voter_ids().collect()
            };
            if !inner
                .space
                .majority_is_low(inner.peers.my_id(), voters.into_iter())
            {
                let roomy = |id: &u64| !inner.space.peer_is_low(*id);
                stop::hand_over(&inner, &raft, roomy).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_refused_only_when_a_majority_is_low() {
        let watch = SpaceWatch::default();
        let voters = || [1, 2, 3].into_iter();
        assert!(!watch.majority_is_low(1, voters()));
        watch.note(2, true);
        assert!(!watch.majority_is_low(1, voters()), "one of three");
        watch.own.store(true, Ordering::Relaxed);
        assert!(watch.majority_is_low(1, voters()), "two of three");
        watch.note(2, false);
        assert!(!watch.majority_is_low(1, voters()), "it heals");
    }
}
