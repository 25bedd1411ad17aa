//! The nemesis's faults around changes of membership: each waits for a moment within a replacement.
//! Never takes more than a minority, and heals every link that it has cut.

use std::time::Duration;

use memkv_node::{Inspection, Lane};
use tokio::time::Instant;

use super::Nemesis;
use crate::cluster::name;
use crate::net::{Cuts, Topology};

/// How often to look for the moment: a change is in the log for some milliseconds.
const LOOK: Duration = Duration::from_millis(2);
/// How long to wait for the moment: a member must have been silent for three seconds, and a
/// newcomer may take some more to start.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long no majority reaches the leader, in milliseconds: longer than the second after which a node
/// does not count as alive.
const ALONE_MS: (u64, u64) = (1_600, 2_200);
/// How long the leader and a newcomer then have for themselves: the leader looks four times a second.
const FOR_THEMSELVES: Duration = Duration::from_millis(1_500);

impl Nemesis {
    /// Two nodes lose their directories, and come back to the others at one moment: they ask for
    /// their new seats together.
    pub(super) async fn lose_two(&self) {
        let Some(leader) = self.cluster.leader() else {
            return;
        };
        let others = (0..self.cluster.nodes()).filter(|slot| *slot != leader);
        let mut lost: Vec<usize> = others.collect();
        while lost.len() > 2 {
            lost.remove(self.rng.index(lost.len()));
        }
        if !lost.iter().all(|slot| self.may_lose(*slot)) {
            return;
        }
        self.cluster.trace.count("two nodes lost together");
        let mut cuts = Cuts::none(self.cluster.nodes());
        for slot in &lost {
            self.wipe(*slot);
            for other in (0..self.cluster.nodes()).filter(|other| other != slot) {
                cuts.cut_both(*slot, other);
            }
        }
        self.note("the two hear nobody");
        self.cluster.net.cut(cuts);
        let silence = self.cluster.swarm.replace_after + self.rng.millis(300, 800);
        tokio::time::sleep(silence).await;
        self.cluster.net.heal();
    }

    /// A member is replaced; when its successor is to vote, no other voter has reached the leader for
    /// a while. That the successor is a learner is settled then: one change waits for another.
    pub(super) async fn change_alone(&self, slot: usize) {
        let slot = self.follower(slot);
        let Some(leader) = self.newcomer(slot).await else {
            return;
        };
        let mut cuts = Cuts::none(self.cluster.nodes());
        cuts.cut_both(leader, slot);
        self.cluster.net.cut(cuts);
        let has_learner = |now: &Inspection| {
            !now.learners.is_empty() && now.membership_at.0 == now.membership_at.1
        };
        if self.moment(leader, has_learner).await {
            self.cluster.trace.count("changes without a majority");
            self.note("nobody hears anybody");
            let nodes = self.cluster.nodes();
            let mut cuts = Cuts::none(nodes);
            for a in 0..nodes {
                (0..a).for_each(|b| cuts.cut_both(a, b));
            }
            self.cluster.net.cut(cuts.clone());
            let alone = self.rng.millis(ALONE_MS.0, ALONE_MS.1);
            tokio::time::sleep(alone).await;
            self.note(&format!("{} hears {}", name(leader), name(slot)));
            cuts.set(leader, slot, false);
            cuts.set(slot, leader, false);
            self.cluster.net.cut(cuts);
            tokio::time::sleep(FOR_THEMSELVES).await;
        }
        self.cluster.net.heal();
    }

    /// A member is replaced; while a change is in the leader's log and not applied, only reads reach
    /// the others.
    pub(super) async fn change_unsettled(&self, slot: usize) {
        let Some(leader) = self.newcomer(slot).await else {
            return;
        };
        let is_unsettled = |now: &Inspection| now.membership_at.0 > now.membership_at.1;
        // Of a learner, of a joint membership, of the final one.
        for _ in 0..self.rng.between(1, 3) {
            if !self.moment(leader, is_unsettled).await {
                break;
            }
            self.cluster.trace.count("changes that nobody hears of");
            self.note(&format!("{} is alone with a change", name(leader)));
            let alone = Topology::Isolated.draw(self.cluster.nodes(), leader, &self.rng);
            self.cluster.net.cut(alone.sparing(Lane::Read));
            tokio::time::sleep(self.rng.millis(150, 600)).await;
            self.cluster.net.heal();
            tokio::time::sleep(self.rng.millis(50, 300)).await;
        }
    }

    /// This node, or the next one if it leads.
    pub(super) fn follower(&self, slot: usize) -> usize {
        match self.cluster.leader() == Some(slot) {
            true => (slot + 1) % self.cluster.nodes(),
            false => slot,
        }
    }

    /// Empties a directory and waits until its node has a new id; gives the leader.
    async fn newcomer(&self, slot: usize) -> Option<usize> {
        let leader = self.cluster.leader()?;
        if leader == slot || !self.may_lose(slot) {
            return None;
        }
        let old = self.cluster.invariants.node_id(slot);
        self.wipe(slot);
        let is_new = |now: &Inspection| now.node_id != old;
        let came = self.moment(slot, is_new).await;
        (came && self.cluster.leader() == Some(leader)).then_some(leader)
    }

    /// Waits until a node is as wanted; whether it came to that.
    async fn moment(&self, slot: usize, is_come: impl Fn(&Inspection) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.cluster.node(slot).and_then(|node| node.inspect());
            if now.is_some_and(|now| is_come(&now)) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
