//! A full disk is predicted, never hit: nodes tell each other when space is low, and the leader
//! refuses new commands while a majority could not keep them.
//!
//! While the reserve holds, what only removes goes on, and so do expiry and what the cluster itself
//! records: a cluster that is full is emptied by its clients. When even the reserve is in danger,
//! nothing is proposed. Never fails an append and never stops a read or a heartbeat; it heals by itself
//! when space is back. A leader whose own disk is low hands over to a peer whose disk is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::lock::Mutex;
use openraft::async_runtime::watch::WatchReceiver;

use crate::engine::Raft;
use crate::env::blocking;
use crate::node::Inner;
use crate::stop;

/// How often free space is looked at. The reserve outlasts some seconds of the fastest writing.
const INTERVAL: Duration = Duration::from_millis(500);
/// Pause between two attempts to hand over because of space.
const HAND_OVER_PAUSE: Duration = Duration::from_secs(10);

/// How short a node is of space.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Shortage {
    /// It is not.
    #[default]
    None = 0,
    /// It could not keep much more.
    Low = 1,
    /// It needs what is left for what is under way.
    Exhausted = 2,
}

impl Shortage {
    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        [Self::None, Self::Low, Self::Exhausted]
            .into_iter()
            .find(|shortage| *shortage as u8 == value)
    }

    fn of(space: &memkv_storage::Space) -> Self {
        match (space.exhausted, space.low) {
            (true, _) => Self::Exhausted,
            (false, true) => Self::Low,
            (false, false) => Self::None,
        }
    }
}

/// Who is short of space, as far as this node knows.
#[derive(Default)]
pub(crate) struct SpaceWatch {
    own: AtomicU8,
    detail: Mutex<String>,
    peers: Mutex<BTreeMap<u64, Shortage>>,
}

impl SpaceWatch {
    /// How short this node is; goes to the leader with every answer to its entries.
    pub(crate) fn own(&self) -> Shortage {
        Shortage::from_u8(self.own.load(Ordering::Relaxed)).unwrap_or_default()
    }

    fn set_own(&self, shortage: Shortage) -> Shortage {
        let before = self.own.swap(shortage as u8, Ordering::Relaxed);
        Shortage::from_u8(before).unwrap_or_default()
    }

    /// Whether this node is low.
    pub(crate) fn is_low(&self) -> bool {
        self.own() != Shortage::None
    }

    /// This node's shortage in words; empty when there is none.
    pub(crate) fn detail(&self) -> String {
        self.detail.lock().clone()
    }

    /// Notes what a peer said with its answer.
    pub(crate) fn note(&self, peer: u64, shortage: Shortage) {
        self.peers.lock().insert(peer, shortage);
    }

    fn of_peer(&self, id: u64) -> Shortage {
        self.peers.lock().get(&id).copied().unwrap_or_default()
    }

    /// The shortage that every majority has a voter of: with less, an entry may be kept.
    pub(crate) fn of_majority(&self, me: u64, voters: impl Iterator<Item = u64>) -> Shortage {
        let shortage = |id| {
            if id == me {
                self.own()
            } else {
                self.of_peer(id)
            }
        };
        let mut all: Vec<Shortage> = voters.map(shortage).collect();
        all.sort_unstable();
        // The voter with the least space of the majority that has the most.
        all.get(all.len() / 2).copied().unwrap_or_default()
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
        let shortage = Shortage::of(&space);
        if inner.space.set_own(shortage) != shortage {
            let free_mib = space.free >> 20;
            let me = &inner.peers.me.name;
            let detail = match shortage {
                Shortage::Exhausted => {
                    tracing::warn!(
                        free_mib,
                        "disk space is used up: free some, or enlarge the disk"
                    );
                    format!("the disk of {me} is full: {free_mib} MiB are free")
                }
                Shortage::Low => {
                    tracing::warn!(
                        free_mib,
                        "disk space is low: free some, or enlarge the disk"
                    );
                    format!(
                        "the disk of {me} has {free_mib} MiB free, too little for another snapshot"
                    )
                }
                Shortage::None => {
                    tracing::info!(free_mib, "disk space is back");
                    String::new()
                }
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
            let of_majority = inner
                .space
                .of_majority(inner.peers.my_id(), voters.into_iter());
            if of_majority == Shortage::None {
                let roomy = |id: &u64| inner.space.of_peer(*id) == Shortage::None;
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
        let of_majority = || watch.of_majority(1, [1, 2, 3].into_iter());
        assert_eq!(of_majority(), Shortage::None);
        watch.note(2, Shortage::Exhausted);
        assert_eq!(of_majority(), Shortage::None, "one of three");
        watch.set_own(Shortage::Low);
        assert_eq!(of_majority(), Shortage::Low, "two of three");
        watch.note(3, Shortage::Exhausted);
        assert_eq!(of_majority(), Shortage::Exhausted, "two that have nothing");
        watch.note(2, Shortage::None);
        watch.note(3, Shortage::None);
        assert_eq!(of_majority(), Shortage::None, "it heals");
        assert_eq!(watch.of_majority(1, [1].into_iter()), Shortage::Low);
        watch.note(2, Shortage::Low);
        assert_eq!(watch.of_majority(1, [2, 4].into_iter()), Shortage::Low);
    }
}
