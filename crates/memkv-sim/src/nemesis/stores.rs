//! Faults of a node's memory or processor: a store that computes another effect than the others, and a
//! node that reports such a difference although there is none.
//!
//! Never two at once: then nothing is promised.

use std::time::Duration;

use memkv_node::Phase;
use tokio::time::Instant;

use super::Nemesis;
use crate::cluster::{Cluster, Loss, name};
use crate::promise::Promise;

/// How long all nodes may take to be level, and a store that differs to be found.
const PATIENCE: Duration = Duration::from_secs(5);
/// Entries that a node may lag behind and still count as level: far fewer than the log keeps.
const LEVEL: u64 = 32;

impl Nemesis {
    /// Makes a store compute one effect otherwise, while all nodes can be reached: it must be found, and
    /// its node replaced. Where there is nothing to compute meanwhile, nothing is done.
    pub(super) async fn deviate(&self, slot: usize) {
        self.try_deviate(slot).await;
        let weather = self.cluster.swarm.weather.clone();
        self.cluster.net.set_weather(weather);
    }

    async fn try_deviate(&self, slot: usize) {
        self.quiet();
        let deadline = Instant::now() + PATIENCE;
        while !self.are_level() {
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let leader = self.cluster.leader().filter(|_| self.rng.coin());
        let slot = leader.unwrap_or(slot);
        if !self.may_lose(slot) || !order(&self.cluster, slot, self.rng.coin()) {
            return;
        }
        self.note(&format!("{} is to compute something else", name(slot)));
        let generation = {
            let mut host = self.cluster.hosts[slot].lock();
            host.differs = Some(host.generation);
            host.loss = Some(Loss {
                node_id: self.cluster.invariants.node_id(slot),
                gone: false,
            });
            host.generation
        };
        if leader.is_some() {
            self.cluster.trace.count("leaders made to deviate");
        }
        let deadline = Instant::now() + PATIENCE;
        while self.cluster.hosts[slot].lock().differs.is_some() {
            if Instant::now() >= deadline {
                return self.was_not_found(slot, generation);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn was_not_found(&self, slot: usize, generation: u64) {
        let goes_on = self.cluster.hosts[slot].lock().generation == generation;
        if !goes_on {
            // It has come back, perhaps with what was wrong.
            return;
        }
        if take_back(&self.cluster, slot) {
            return;
        }
        let seen = format!("{} goes on with another store than the others", name(slot));
        let promise = Promise::DifferentIsFound;
        self.cluster.violated(promise, seen);
    }

    /// Whether all nodes serve on sound disks and have applied nearly the same, so that none is sent a
    /// snapshot soon.
    fn are_level(&self) -> bool {
        let sound = |slot: usize| {
            let host = self.cluster.hosts[slot].lock();
            host.life.is_some()
                && host.disk.is_powered()
                && host.disk_is_as_usual()
                && host.loss.is_none()
                && !(host.excused || host.stops.is_some() || host.lies)
        };
        let nodes = self.cluster.live();
        let applied = nodes.iter().filter_map(|(_, node)| {
            let now = node.inspect()?;
            let serves = node.status().phase == Phase::Serving;
            serves.then_some((now.applied, now.committed.map_or(0, |id| id.index)))
        });
        let applied: Vec<(u64, u64)> = applied.collect();
        let most = applied.iter().map(|(_, committed)| *committed).max();
        applied.len() == self.cluster.nodes()
            && (0..self.cluster.nodes()).all(sound)
            && applied
                .iter()
                .all(|(applied, _)| applied + LEVEL >= most.unwrap_or(0))
    }

    /// A node reports another store than its own to its peers, for a while. None of them stops.
    pub(super) fn lie(&self, slot: usize) {
        // While a cluster grows, one voter alone may be its majority: the others believe it then.
        if self.cluster.swarm.founders.is_some() {
            return;
        }
        // Two that tell the same would be a majority of three.
        let is_taken = |slot: usize| {
            let host = self.cluster.hosts[slot].lock();
            host.lies || host.differs.is_some()
        };
        if (0..self.cluster.nodes()).any(is_taken) || !set_lying(&self.cluster, slot, true) {
            return;
        }
        self.cluster.trace.count("false reports");
        self.note(&format!("{} tells of another store", name(slot)));
        let (cluster, lasts) = (self.cluster.clone(), self.rng.millis(1_000, 6_000));
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            set_lying(&cluster, slot, false);
        });
    }
}

/// Withdraws orders that have had no effect yet, and ends false reports.
pub(crate) fn relent(cluster: &Cluster, slot: usize) {
    set_lying(cluster, slot, false);
    let goes_on = {
        let host = cluster.hosts[slot].lock();
        host.differs == Some(host.generation)
    };
    if goes_on {
        take_back(cluster, slot);
    }
}

/// Withdraws an order; whether it had had no effect.
fn take_back(cluster: &Cluster, slot: usize) -> bool {
    let is_in_time = countermand(cluster, slot);
    if is_in_time {
        let mut host = cluster.hosts[slot].lock();
        (host.differs, host.loss) = (None, None);
    }
    is_in_time
}

/// Has the next command of a node write a key that the others do not write, and counts that as a loss of
/// its directory; whether that can be.
pub(crate) fn order_of(cluster: &Cluster, slot: usize) -> bool {
    let is_ordered = order(cluster, slot, false);
    let mut host = cluster.hosts[slot].lock();
    host.differs = is_ordered.then_some(host.generation);
    host.loss = is_ordered.then_some(Loss {
        node_id: cluster.invariants.node_id(slot),
        gone: false,
    });
    is_ordered
}

/// Has the next command of a node have another effect, which no client sees; whether that can be.
#[cfg(memkv_bugs)]
fn order(cluster: &Cluster, slot: usize, coin: bool) -> bool {
    use memkv_store::bugs::Deviate;
    // At the memory cap, a key that the others lack has commands refused, which clients see.
    let how = match coin || cluster.swarm.caps {
        true => Deviate::Reply,
        false => Deviate::Key,
    };
    let node = cluster.node(slot);
    node.is_some_and(|node| {
        node.read_stale(|store| store.deviate(Some(how)));
        true
    })
}

#[cfg(memkv_bugs)]
fn countermand(cluster: &Cluster, slot: usize) -> bool {
    let node = cluster.node(slot);
    node.is_none_or(|node| {
        node.read_stale(|store| {
            let is_in_time = !store.has_deviated();
            if is_in_time {
                store.deviate(None);
            }
            is_in_time
        })
    })
}

/// Makes a node report a false state to its peers, or the true one; whether that is possible.
#[cfg(memkv_bugs)]
fn set_lying(cluster: &Cluster, slot: usize, lies: bool) -> bool {
    cluster.hosts[slot].lock().lies = lies;
    let node = cluster.node(slot);
    node.is_some_and(|node| {
        node.lie(lies);
        true
    })
}

/// A plain build holds no way to do it.
#[cfg(not(memkv_bugs))]
fn order(_: &Cluster, _: usize, _: bool) -> bool {
    false
}

#[cfg(not(memkv_bugs))]
fn countermand(_: &Cluster, _: usize) -> bool {
    true
}

#[cfg(not(memkv_bugs))]
fn set_lying(_: &Cluster, _: usize, _: bool) -> bool {
    false
}
