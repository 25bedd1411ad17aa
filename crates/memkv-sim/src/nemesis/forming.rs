//! The nemesis's faults while a cluster is formed: lists that are wrong and corrected between starts,
//! in any order, deaths between any two steps on disk, emptied directories.
//!
//! Never takes the directories of more than a minority of those that have agreed to a cluster or
//! belong to one; a directory that has done neither holds nothing to lose.

use std::time::Duration;

use memkv_node::Node;
use memkv_store::Store;
use tokio::time::Instant;

use super::{EARLY_AMBUSH_MS, EARLY_AMBUSHES, EARLY_FAULTS_EVERY, Nemesis};
use crate::cluster::{Loss, name};
use crate::disk;
use crate::promise::Promise;
use crate::settle;

/// How long lists are wrong, in milliseconds.
const WRONG_MS: (u64, u64) = (2_000, 8_000);
/// Most disk operations before a death inside them: an agreement and an identity are made durable, and
/// a log begins, in about as many.
const DISK_OPERATIONS: u64 = 16;
/// How long nodes whose lists are right may take to form a cluster of all: two replacements of nodes
/// whose directories were emptied are in it, each after 3 s of silence, and some elections.
const FORMS_WITHIN: Duration = Duration::from_secs(20);
/// Time between two looks at a cluster whose lists were corrected: less than an election takes.
const LOOK: Duration = Duration::from_millis(2);

impl Nemesis {
    /// Disturbs formation for a while, then has all lists corrected, or leaves them to the end.
    pub(super) async fn disturb_formation(&self) {
        let until = Instant::now() + self.rng.millis(WRONG_MS.0, WRONG_MS.1);
        while Instant::now() < until {
            tokio::time::sleep(self.rng.wait(EARLY_FAULTS_EVERY)).await;
            let slot = self.rng.index(self.cluster.nodes());
            match self.rng.below(10) {
                0..=3 => self.crash(slot, "to start with another list"),
                4 | 5 => self.ambush(*self.rng.pick(&EARLY_AMBUSHES), EARLY_AMBUSH_MS),
                6 | 7 => self.stop_disk_early(slot),
                8 => self.power_loss(),
                _ => {
                    self.wipe_early(if self.rng.coin() { 0 } else { slot });
                }
            }
        }
        if self.cluster.swarm.lists_stay_wrong {
            self.cluster.trace.count("lists that stay unequal");
        } else {
            self.correct_lists().await;
        }
    }

    fn stop_disk_early(&self, slot: usize) {
        let operations = self.rng.between(1, DISK_OPERATIONS);
        self.note(&format!("{}'s disk stops after {operations}", name(slot)));
        self.cluster.trace.count("disks that stop during formation");
        let mut host = self.cluster.hosts[slot].lock();
        host.excused = true;
        disk::fail_soon(&host.disk, operations, false, &self.rng);
    }

    /// Whether that was possible.
    fn wipe_early(&self, slot: usize) -> bool {
        let cluster = &self.cluster;
        let before = cluster.hosts[slot].lock().loss;
        let lost = (0..cluster.nodes()).filter(|slot| cluster.hosts[*slot].lock().loss.is_some());
        // What a directory holds that no process has opened is not known.
        let is_bound = cluster.node(slot).is_none_or(|node| node.is_bound());
        if is_bound && before.is_none() && lost.count() >= cluster.minority() {
            return false;
        }
        cluster.trace.count("directories emptied during formation");
        cluster.wipe(slot);
        // It may get any id next, even the one that it had in a cluster that never came to be.
        let loss = Loss {
            node_id: 0,
            gone: true,
        };
        cluster.hosts[slot].lock().loss = before.or(is_bound.then_some(loss));
        true
    }

    /// Gives every host the right list; a cluster of all must come of it, even if the one that has
    /// proposed it dies or loses its directory when it has told some of the others.
    async fn correct_lists(&self) {
        self.quiet();
        self.cluster.correct_lists();
        let mut lurks = self.rng.coin();
        let began = Instant::now();
        while !settle::serving(&self.cluster) {
            if began.elapsed() >= FORMS_WITHIN {
                let seen = settle::describe(&self.cluster);
                let promise = Promise::EqualListsForm;
                return self.cluster.violated(promise, seen);
            }
            tokio::time::sleep(LOOK).await;
            if lurks && self.founder_runs_alone() && self.rng.coin() {
                lurks = false;
                self.take_founder();
            }
        }
        let formed = "clusters formed from corrected lists";
        self.cluster.trace.count(formed);
        let weather = self.cluster.swarm.weather.clone();
        self.cluster.net.set_weather(weather);
    }

    /// Whether the cluster exists on its proposer's disk, and has never had a leader.
    fn founder_runs_alone(&self) -> bool {
        let runs = |slot| {
            self.cluster
                .node(slot)
                .is_some_and(|n| n.inspect().is_some())
        };
        let has_state = |(_, node): &(usize, Node)| node.read_stale(Store::applied_index) > 0;
        runs(0) && self.cluster.leader().is_none() && !self.cluster.live().iter().any(has_state)
    }

    fn take_founder(&self) {
        if self.rng.coin() && self.wipe_early(0) {
            self.cluster
                .trace
                .count("founders emptied before the first leader");
        } else {
            self.cluster
                .trace
                .count("founders that died before the first leader");
            self.crash(0, "before its cluster has a leader");
        }
    }
}
