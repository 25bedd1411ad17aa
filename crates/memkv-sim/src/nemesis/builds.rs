//! Faults of operators: nodes that come back with another build than they had, in any order, and
//! processes that die around the moment when the feature level is raised.

use std::time::Duration;

use memkv_store::Store;
use tokio::time::Instant;

use super::Nemesis;
use crate::cluster::name;
use crate::levels::{NEW, OLD};

/// How long to wait for a raise after an upgrade: the longest `raise_level_after` of a run, and a
/// little.
const RAISE_PATIENCE: Duration = Duration::from_secs(6);
/// How often the level is read; a process then dies within less time than that.
const LOOK: Duration = Duration::from_millis(5);

impl Nemesis {
    /// The next node comes back with the newer build, as in a rolling upgrade, or all do.
    pub(super) fn upgrade(&self, slot: usize) {
        let all = self.rng.below(4) == 0;
        for slot in (0..self.cluster.nodes()).filter(|other| all || *other == slot) {
            if self.cluster.hosts[slot].lock().build == OLD {
                self.cluster.trace.count("upgrades");
                self.change_build(slot, NEW);
            }
        }
        if self.rng.coin() {
            self.crash_at_a_raise();
        }
    }

    /// A node comes back with the older build, perhaps on an empty directory.
    pub(super) fn downgrade(&self, slot: usize) {
        if self.cluster.hosts[slot].lock().build == OLD {
            return;
        }
        self.cluster.trace.count("downgrades");
        let wipes = self.rng.below(3) == 0 && self.may_lose(slot);
        self.change_build(slot, OLD);
        if wipes {
            self.cluster.trace.count("downgrades on an empty directory");
            self.wipe(slot);
        }
    }

    fn change_build(&self, slot: usize, build: u32) {
        self.note(&format!(
            "{} is to run a build of level {build}",
            name(slot)
        ));
        self.cluster.hosts[slot].lock().set_build(build);
        if self.rng.coin() {
            self.stop(slot);
        } else {
            self.crash(slot, "to run another build");
        }
    }

    /// The leader, or another, dies when the level has just been raised, or a moment later, unless faults
    /// are over by then.
    fn crash_at_a_raise(&self) {
        let (cluster, rng) = (self.cluster.clone(), self.rng.clone());
        let (death, after) = (self.death(), self.rng.millis(0, 400));
        let before = cluster.invariants.level();
        tokio::spawn(async move {
            let deadline = Instant::now() + RAISE_PATIENCE;
            while Instant::now() < deadline {
                tokio::time::sleep(LOOK).await;
                let leader = cluster
                    .leader()
                    .and_then(|slot| Some((slot, cluster.node(slot)?)));
                let Some((slot, leader)) = leader else {
                    continue;
                };
                if leader.read_stale(|store: &Store| store.member_table().level()) <= before {
                    continue;
                }
                tokio::time::sleep(after).await;
                if cluster.net.is_calm() {
                    return;
                }
                let slot = if rng.coin() {
                    slot
                } else {
                    rng.index(cluster.nodes())
                };
                cluster.trace.count("crashes at a raise");
                cluster.restart(slot, death, "the level is raised");
                return;
            }
        });
    }
}
