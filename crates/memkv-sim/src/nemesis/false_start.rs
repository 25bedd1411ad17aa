//! A fault that has several acts: a member is started on an empty directory by mistake and then on its
//! real one, so that the cluster keeps a seat for a newcomer that does not come. Then another member
//! loses its directory, or the newcomer comes after all, too late.
//!
//! Invariants: the newcomer had nothing of the log, and so no vote, when it goes, hence the real
//! directory misses nothing when it is back; at no time more than a minority is without its directory.

use std::sync::Arc;
use std::time::Duration;

use memkv_node::{Node, Phase};
use tokio::time::Instant;

use super::Nemesis;
use crate::cluster::{Cluster, Loss, name};
use crate::disk::{self, SimDisk};
use crate::host::Death;

/// How often the cluster is looked at: an admitted newcomer gets entries after some milliseconds.
const LOOK: Duration = Duration::from_millis(5);
/// How long an admission may take once the member was silent for long enough.
const ADMISSION: Duration = Duration::from_secs(5);
/// How long the real member may take to serve again.
const RETURN: Duration = Duration::from_secs(5);
/// A leader waits three times `replace_after` for a newcomer whose member is back, and what comes before
/// and after takes less than one more.
const GIVES_UP: u32 = 4;

/// A directory that is not in use.
pub(crate) struct Kept {
    pub(crate) disk: Arc<SimDisk>,
    pub(crate) quarantines: usize,
}

impl Nemesis {
    /// All acts, while all nodes can reach each other; nothing if the member's directory may not be
    /// taken.
    pub(super) async fn false_start(&self, slot: usize) {
        if self.may_lose(slot) {
            self.quiet();
            self.acts(slot).await;
            let weather = self.cluster.swarm.weather.clone();
            self.cluster.net.set_weather(weather);
        }
    }

    async fn acts(&self, slot: usize) {
        let cluster = &self.cluster;
        let replace_after = cluster.swarm.replace_after;
        let node_id = cluster.invariants.node_id(slot);
        let before = pending(cluster, slot);
        cluster.trace.count("false starts");
        let empty = Kept {
            disk: Arc::new(SimDisk::new(self.rng.next())),
            quarantines: 0,
        };
        let real = swap(cluster, slot, empty, Some(node_id));
        let admitted = within(cluster, replace_after + ADMISSION, || {
            pending(cluster, slot).is_some_and(|id| Some(id) != before)
        });
        let admitted = admitted.await;
        if cluster.node(slot).is_some_and(|node| has_data(&node)) {
            // It may vote soon: the real directory is out of date, as after a wipe.
            return;
        }
        let newcomer = swap(cluster, slot, real, None);
        if !admitted || !within(cluster, RETURN, || serves(cluster, slot)).await {
            return;
        }
        cluster.trace.count("seats left over");
        if self.rng.coin() {
            self.lose_another(slot);
            return;
        }
        let gives_up = within(cluster, replace_after * GIVES_UP, || {
            pending(cluster, slot).is_none()
        });
        if gives_up.await && self.may_lose(slot) {
            cluster.trace.count("newcomers that come too late");
            // The real directory is lost now.
            let node_id = cluster.invariants.node_id(slot);
            drop(swap(cluster, slot, newcomer, Some(node_id)));
        }
    }

    /// Another member loses its directory.
    fn lose_another(&self, slot: usize) {
        let others = (0..self.cluster.nodes()).filter(|other| *other != slot);
        let other = *self.rng.pick(&others.collect::<Vec<usize>>());
        if self.may_lose(other) {
            self.cluster.trace.count("wipes beside a seat left over");
            self.cluster.wipe(other);
        }
    }
}

/// Ends a host's process, puts another disk in, and starts it. `lost` is the id of the member whose
/// directory goes with the disk that is taken out, if that matters.
pub(crate) fn swap(cluster: &Arc<Cluster>, slot: usize, next: Kept, lost: Option<u64>) -> Kept {
    cluster.kill(slot, Death::Process, "to start on another directory");
    let taken = {
        let mut host = cluster.hosts[slot].lock();
        let taken = Kept {
            disk: std::mem::replace(&mut host.disk, next.disk),
            quarantines: std::mem::replace(&mut host.quarantines, next.quarantines),
        };
        disk::mend(&taken.disk);
        host.loss = lost.map(|node_id| Loss {
            node_id,
            gone: true,
        });
        taken
    };
    cluster.invariants.note_wipe(slot);
    cluster
        .invariants
        .note_clock(slot, true, cluster.trace.micros());
    cluster.start(slot);
    taken
}

/// The newcomer of this host's name, as far as any node knows.
pub(crate) fn pending(cluster: &Cluster, slot: usize) -> Option<u64> {
    let name = name(slot);
    let of = |node: &Node| {
        node.read_stale(|store| store.member_table().pending_by_name(&name).map(|m| m.id))
    };
    cluster.live().iter().filter_map(|(_, node)| of(node)).max()
}

/// Whether a node has anything of a log.
fn has_data(node: &Node) -> bool {
    node.inspect().is_some_and(|now| {
        let ends = [now.log.last(), now.log.purged(), now.durable, now.committed];
        ends.iter().any(Option::is_some)
    })
}

fn serves(cluster: &Cluster, slot: usize) -> bool {
    let node = cluster.node(slot);
    node.is_some_and(|node| node.status().phase == Phase::Serving)
}

/// Waits until `done`; whether that came about in time.
async fn within(cluster: &Cluster, limit: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline || cluster.violation().is_some() {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}
