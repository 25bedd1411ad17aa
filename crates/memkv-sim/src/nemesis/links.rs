//! The nemesis's faults of links: partitions, flapping, bad weather.
//! Never leaves a link cut for good.

use std::time::Duration;

use memkv_node::Lane;
use tokio::time::Instant;

use super::Nemesis;
use crate::cluster::name;
use crate::net::{Cuts, Topology};

/// When a command that has shown no effect has been sent again, in milliseconds: after a second.
const SENT_AGAIN_MS: (u64, u64) = (1_050, 1_400);
/// How long the others' log then takes to be compacted, in milliseconds. Together with that it is less
/// than the three seconds for which a node holds a command.
const COMPACTED_MS: (u64, u64) = (900, 1_200);

impl Nemesis {
    pub(super) fn partition(&mut self, victim: usize) {
        self.cluster.trace.count("partitions");
        let leader = self.cluster.leader().filter(|_| self.rng.below(4) == 0);
        if let Some(leader) = leader {
            self.depose_unheard(leader);
        } else {
            let shape = *self.rng.pick(&Topology::ALL);
            let cuts = shape.draw(self.cluster.nodes(), victim, &self.rng);
            self.note(&format!("{} around {}", shape.name(), name(victim)));
            self.cluster.trace.count(shape.name());
            self.cluster.net.cut(cuts);
        }
        self.heal_later(self.rng.millis(100, 8_000));
    }

    /// The leader is alone but for its reads: it is deposed, does not learn of it, and asks its voters.
    fn depose_unheard(&self, leader: usize) {
        self.note(&format!("isolation of {} but for its reads", name(leader)));
        self.cluster.trace.count("partitions that spare reads");
        let alone = Topology::Isolated.draw(self.cluster.nodes(), leader, &self.rng);
        self.cluster.net.cut(alone.sparing(Lane::Read));
    }

    pub(super) fn heal_later(&mut self, after: Duration) {
        let until = Instant::now() + after;
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            cluster.trace.line(format_args!("nemesis: links heal"));
            cluster.net.heal();
        });
    }

    pub(super) async fn flap(&mut self) {
        self.cluster.trace.count("flapping links");
        self.note("links flap");
        let nodes = self.cluster.nodes();
        for _ in 0..self.rng.between(3, 20) {
            let mut cuts = Cuts::none(nodes);
            let (from, to) = (self.rng.index(nodes), self.rng.index(nodes));
            cuts.set(from, to, true);
            cuts.set(to, from, self.rng.coin());
            self.cluster.net.cut(cuts);
            tokio::time::sleep(self.rng.millis(20, 700)).await;
            self.cluster.net.heal();
            tokio::time::sleep(self.rng.millis(20, 700)).await;
        }
    }

    pub(super) fn storm(&self) {
        self.cluster.trace.count("storms");
        self.note("storm");
        let fair = self.cluster.swarm.weather.clone();
        self.cluster.net.set_weather(fair.stormy(&self.rng));
        let (cluster, lasts) = (self.cluster.clone(), self.rng.millis(500, 5_000));
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            cluster.net.set_weather(fair);
        });
    }

    /// A follower gets no entries, but heartbeats: it asks for no votes, hands on its clients'
    /// commands, once more after a second, and learns their outcome from a snapshot, since other
    /// clients write so much meanwhile that the log no longer has them.
    pub(super) async fn cut_entries(&self, slot: usize) {
        let slot = self.follower(slot);
        let Some(leader) = self.cluster.leader() else {
            return;
        };
        self.cluster.trace.count("followers without entries");
        self.note(&format!("no entries for {}", name(slot)));
        let mut cuts = Cuts::none(self.cluster.nodes());
        cuts.set(leader, slot, true);
        self.cluster.net.cut(cuts.only(Lane::Append));
        tokio::time::sleep(self.rng.millis(SENT_AGAIN_MS.0, SENT_AGAIN_MS.1)).await;
        self.cluster.ask_for_flood(slot);
        tokio::time::sleep(self.rng.millis(COMPACTED_MS.0, COMPACTED_MS.1)).await;
        self.cluster.net.heal();
    }
}
