//! Which nodes are near the limit of their memory, as far as this node knows: they tell the leader with
//! each answer to its entries, and the leader then proposes nothing that may grow the keys.
//!
//! The cap is exact and the same for all nodes; this is the net below it, for memory that no cap counts:
//! fragmentation, garbage, buffers. Refused is before a command takes effect anywhere, so nodes need not
//! agree. What does not grow the keys goes on, and it heals by itself. A single node stops growth for a
//! bounded time, since a majority without it can go on; a majority for as long as it lasts. A node that is
//! well for a moment gets no new time, and one that says nothing any more is counted no more. Like
//! [`SpaceWatch`](crate::disk::space::SpaceWatch), but nothing here ever refuses an entry.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::sync::lock::Mutex;

/// How long a node that is near its limit alone stops growth. Garbage is dropped within seconds, and a
/// snapshot's saved entries within its duration; a longer shortage needs its operator.
const ALONE_FOR: Duration = Duration::from_secs(30);

/// A node gets that time anew once it has not been near its limit for so long: one that is near it every few
/// seconds would stop growth for ever otherwise.
const WELL_FOR: Duration = Duration::from_secs(300);

/// What a node said counts for so long. It answers many times a second while it is reached, so after this
/// it is dead or cut off, and its memory counts for nothing.
const SAID_FOR: Duration = Duration::from_secs(10);

/// Of a limit, in percent: from here on a node is near it. The rest is what may arrive until the leader
/// has been told: queues of commands, and entries in flight.
const NEAR_PERCENT: u64 = 90;

/// At least so many of the largest values must fit into that rest: the links, the leader's queue and the log
/// each hold one beside what they hold of small commands.
const LARGEST_VALUES: u64 = 3;

/// However large values may be, half of a limit is not near it: otherwise a node that has too little memory
/// for its largest values would refuse small ones as well.
const LEAST_PERCENT: u64 = 50;

/// So much below the first mark, in percent of the limit, a node is near it no more, so that it does not
/// change its mind at every look.
const CLEAR_PERCENT: u64 = 5;

/// Bit of the byte in which a node tells its shortage of disk space: it is near its limit of memory.
pub(crate) const NEAR_BIT: u8 = 0x80;

/// The most memory that this process may take, and where it is near that.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) bytes: u64,
    near_from: u64,
    clear_below: u64,
}

impl Limit {
    /// For a node that takes values of up to `largest_value` bytes.
    pub(super) fn new(bytes: u64, largest_value: u64) -> Self {
        let percent = |share: u64| bytes / 100 * share;
        let for_values = bytes.saturating_sub(LARGEST_VALUES.saturating_mul(largest_value));
        Self {
            bytes,
            near_from: percent(NEAR_PERCENT)
                .min(for_values)
                .max(percent(LEAST_PERCENT)),
            clear_below: percent(CLEAR_PERCENT),
        }
    }
}

/// Of one node.
struct Shortage {
    /// It was near its limit when it last said anything, and since when; otherwise since when it was not.
    is_near: bool,
    since: Instant,
    /// How long it was near its limit before that.
    before: Duration,
    said: Instant,
}

impl Shortage {
    fn is_near(&self) -> bool {
        self.is_near && self.said.elapsed() < SAID_FOR
    }

    /// How long it was near its limit, moments apart in which it was well. While it said nothing it was dead,
    /// and stopped no growth.
    fn lasted(&self) -> Duration {
        let until = Instant::now().min(self.said + SAID_FOR);
        match self.is_near {
            true => self.before + until.saturating_duration_since(self.since),
            false => self.before,
        }
    }

    fn is_over(&self) -> bool {
        !self.is_near && self.since.elapsed() >= WELL_FOR
    }
}

/// Which nodes are near their limit.
#[derive(Default)]
pub(crate) struct CapacityWatch {
    own: AtomicBool,
    /// Nodes that are near their limit, or were.
    near: Mutex<BTreeMap<u64, Shortage>>,
    pub(super) detail: Mutex<String>,
}

impl CapacityWatch {
    /// Whether this node is near its limit; goes to the leader with every answer to its entries.
    pub(crate) fn is_near(&self) -> bool {
        self.own.load(Ordering::Relaxed)
    }

    /// Takes a measurement of this node, whose id is `me`; returns whether it is near its limit now.
    pub(super) fn note_own(&self, me: u64, resident: u64, limit: &Limit) -> bool {
        let is_near = match self.is_near() {
            true => resident >= limit.near_from.saturating_sub(limit.clear_below),
            false => resident >= limit.near_from,
        };
        self.own.store(is_near, Ordering::Relaxed);
        self.note(me, is_near);
        is_near
    }

    /// Notes what a node said with its answer.
    pub(crate) fn note(&self, node: u64, is_near: bool) {
        let mut near = self.near.lock();
        let now = Instant::now();
        if let Some(shortage) = near.get_mut(&node) {
            let lasted = shortage.lasted();
            let was_silent = shortage.said.elapsed() >= SAID_FOR;
            shortage.said = now;
            if shortage.is_near != is_near || (is_near && was_silent) {
                shortage.before = lasted;
                shortage.is_near = is_near;
                shortage.since = now;
            } else if shortage.is_over() {
                near.remove(&node);
            }
        } else if is_near {
            let shortage = Shortage {
                is_near,
                since: now,
                before: Duration::ZERO,
                said: now,
            };
            near.insert(node, shortage);
        }
    }

    /// Whether a leader proposes nothing that may grow the keys.
    pub(crate) fn refuses_growth(&self, voters: &[u64]) -> bool {
        let near = self.near.lock();
        if near.is_empty() {
            return false;
        }
        let short = voters.iter().filter_map(|id| near.get(id));
        let short: Vec<&Shortage> = short.filter(|shortage| shortage.is_near()).collect();
        2 * short.len() > voters.len() || short.iter().any(|node| node.lasted() < ALONE_FOR)
    }

    /// This node's shortage as a sentence; empty when there is none.
    pub(crate) fn detail(&self) -> String {
        self.detail.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets so much time pass, in which these nodes say that they are near their limit.
    async fn pass(watch: &CapacityWatch, time: Duration, near: &[u64]) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            tokio::time::advance(Duration::from_secs(1)).await;
            near.iter().for_each(|node| watch.note(*node, true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_node_stops_growth_for_a_while_and_a_majority_for_as_long_as_it_lasts() {
        let watch = CapacityWatch::default();
        let refuses = || watch.refuses_growth(&[1, 2, 3]);
        assert!(!refuses());
        watch.note(2, true);
        assert!(refuses(), "one of three, for now");
        pass(&watch, ALONE_FOR / 2, &[2]).await;
        assert!(refuses());
        pass(&watch, ALONE_FOR / 2, &[2]).await;
        assert!(!refuses(), "it has had its time, whatever it says");
        pass(&watch, 2 * ALONE_FOR, &[2, 3]).await;
        assert!(refuses(), "a majority");
        watch.note(3, false);
        assert!(!refuses(), "it heals");
        watch.note(2, false);
        watch.note(3, true);
        assert!(!watch.refuses_growth(&[1, 2]), "one that has no vote");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_is_well_for_a_moment_gets_no_new_time() {
        let watch = CapacityWatch::default();
        let refuses = || watch.refuses_growth(&[1, 2, 3]);
        for _ in 0..3 {
            watch.note(2, true);
            assert!(refuses());
            pass(&watch, ALONE_FOR / 3, &[2]).await;
            watch.note(2, false);
            assert!(!refuses());
            pass(&watch, Duration::from_secs(60), &[]).await;
        }
        watch.note(2, true);
        assert!(!refuses(), "it has had its time");
        watch.note(2, false);
        pass(&watch, WELL_FOR, &[]).await;
        watch.note(2, false);
        watch.note(2, true);
        assert!(refuses(), "it was well for long");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_says_nothing_any_more_is_not_counted() {
        let watch = CapacityWatch::default();
        let refuses = || watch.refuses_growth(&[1, 2, 3]);
        pass(&watch, 2 * ALONE_FOR, &[2, 3]).await;
        assert!(refuses());
        pass(&watch, SAID_FOR, &[3]).await;
        assert!(!refuses(), "one died, and the other has had its time");
        watch.note(2, true);
        assert!(refuses(), "it is back, as it was");
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_a_node_was_dead_does_not_count() {
        let watch = CapacityWatch::default();
        let refuses = || watch.refuses_growth(&[1, 2, 3]);
        watch.note(2, true);
        pass(&watch, Duration::from_secs(5), &[2]).await;
        pass(&watch, 2 * ALONE_FOR, &[]).await;
        assert!(!refuses());
        watch.note(2, true);
        assert!(refuses(), "it is back, and has had a part of its time");
        pass(&watch, ALONE_FOR, &[2]).await;
        assert!(!refuses());
    }

    #[test]
    fn a_node_at_the_edge_does_not_change_its_mind_at_every_look() {
        const LIMIT: u64 = 100 << 20;
        let watch = CapacityWatch::default();
        let limit = Limit::new(LIMIT, 1 << 20);
        let note = |percent: u64| watch.note_own(1, LIMIT / 100 * percent, &limit);
        assert!(!note(89) && note(90));
        assert!(note(86) && note(89) && watch.is_near());
        assert!(!note(84) && !note(89));
        assert!(watch.note_own(1, u64::MAX, &Limit::new(u64::MAX, u64::MAX)));
    }

    #[test]
    fn a_few_of_the_largest_values_fit_between_the_mark_and_the_limit() {
        const MIB: u64 = 1 << 20;
        let near_from = |value: u64| Limit::new(500 * MIB, value * MIB).near_from / MIB;
        assert_eq!(near_from(8), 450);
        assert_eq!(near_from(64), 500 - 3 * 64);
        assert_eq!(near_from(200), 250, "small values are taken all the same");
    }
}
