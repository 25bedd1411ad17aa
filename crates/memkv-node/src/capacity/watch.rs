//! Which nodes are near the limit of their memory, as far as this node knows: they tell the leader with
//! each answer to its entries, and the leader then proposes nothing that may grow the keys.
//!
//! The cap is exact and the same for all nodes; this is the net below it, for memory that no cap counts:
//! fragmentation, garbage, buffers. Refused is before a command takes effect anywhere, so nodes need not
//! agree. What does not grow the keys goes on, and it heals by itself. A single node stops growth for a
//! bounded time, since a majority without it can go on; a majority for as long as it lasts. Like
//! [`SpaceWatch`](crate::disk::space::SpaceWatch), but nothing here ever refuses an entry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock::Mutex;

/// How long a node that is near its limit alone stops growth. Garbage is dropped within seconds, and a
/// snapshot's saved entries within its duration; a longer shortage needs its operator.
const ALONE_FOR: Duration = Duration::from_secs(30);

/// Of a limit, in percent: from here on a node is near it. The rest is what may arrive until the leader
/// has been told: queues of commands, and entries in flight.
const NEAR_PERCENT: u64 = 90;

/// Below this it is near no more, so that it does not change its mind at every look.
const CLEAR_PERCENT: u64 = 85;

/// Bit of the byte in which a node tells its shortage of disk space: it is near its limit of memory.
pub(crate) const NEAR_BIT: u8 = 0x80;

/// Which nodes are near their limit.
#[derive(Default)]
pub(crate) struct CapacityWatch {
    own: AtomicBool,
    /// Since when each node is near its limit.
    near: Mutex<BTreeMap<u64, Instant>>,
    pub(super) detail: Mutex<String>,
}

impl CapacityWatch {
    /// Whether this node is near its limit; goes to the leader with every answer to its entries.
    pub(crate) fn is_near(&self) -> bool {
        self.own.load(Ordering::Relaxed)
    }

    /// Takes a measurement of this node, whose id is `me`; returns whether it is near its limit now.
    pub(super) fn note_own(&self, me: u64, resident: u64, limit: u64) -> bool {
        let percent = if self.is_near() {
            CLEAR_PERCENT
        } else {
            NEAR_PERCENT
        };
        let is_near = resident / 100 >= limit / 100 * percent / 100;
        self.own.store(is_near, Ordering::Relaxed);
        self.note(me, is_near);
        is_near
    }

    /// Notes what a node said with its answer.
    pub(crate) fn note(&self, node: u64, is_near: bool) {
        let mut near = self.near.lock();
        if is_near {
            near.entry(node).or_insert_with(Instant::now);
        } else {
            near.remove(&node);
        }
    }

    /// Whether a leader proposes nothing that may grow the keys.
    pub(crate) fn refuses_growth(&self, voters: &[u64]) -> bool {
        let near = self.near.lock();
        if near.is_empty() {
            return false;
        }
        let since: Vec<&Instant> = voters.iter().filter_map(|id| near.get(id)).collect();
        2 * since.len() > voters.len() || since.iter().any(|at| at.elapsed() < ALONE_FOR)
    }

    /// This node's shortage as a sentence; empty when there is none.
    pub(crate) fn detail(&self) -> String {
        self.detail.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_node_stops_growth_for_a_while_and_a_majority_for_as_long_as_it_lasts() {
        let watch = CapacityWatch::default();
        let refuses = || watch.refuses_growth(&[1, 2, 3]);
        assert!(!refuses());
        watch.note(2, true);
        assert!(refuses(), "one of three, for now");
        tokio::time::advance(ALONE_FOR / 2).await;
        watch.note(2, true);
        assert!(refuses());
        tokio::time::advance(ALONE_FOR / 2).await;
        assert!(!refuses(), "it has had its time, whatever it says");
        watch.note(3, true);
        tokio::time::advance(2 * ALONE_FOR).await;
        assert!(refuses(), "a majority");
        watch.note(3, false);
        assert!(!refuses(), "it heals");
        watch.note(2, false);
        watch.note(2, true);
        assert!(refuses(), "it was well in between");
        assert!(!watch.refuses_growth(&[1, 3]), "one that has no vote");
    }

    #[test]
    fn a_node_at_the_edge_does_not_change_its_mind_at_every_look() {
        const LIMIT: u64 = 100 << 20;
        let watch = CapacityWatch::default();
        let note = |percent: u64| watch.note_own(1, LIMIT / 100 * percent, LIMIT);
        assert!(!note(89) && note(90));
        assert!(note(86) && note(89) && watch.is_near());
        assert!(!note(84) && !note(89));
        assert!(watch.note_own(1, u64::MAX, u64::MAX));
    }
}
