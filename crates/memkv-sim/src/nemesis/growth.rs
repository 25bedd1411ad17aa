//! Operators who change members: roles, removals, leaders. And the operator who, in the end, wants every host in
//! the cluster, each with a vote.
//!
//! Never begins a change while a directory is lost, nor loses one while a change is under way: both together may
//! be more than a minority of the voters that are to come.

use std::sync::Arc;
use std::time::Duration;

use memkv_node::{MemberVerb, MemberView, Node, Phase, VerbError};
use memkv_store::{MemberState, Role};
use tokio::time::Instant;

use super::Nemesis;
use crate::cluster::{Cluster, name};

/// How long a change may take until other faults go on: a node that leaves has two seconds to finish.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often the operator who wants every host in the cluster looks.
const TEND: Duration = Duration::from_millis(500);

impl Nemesis {
    /// One verb, through any node, and perhaps a death soon after it.
    pub(super) async fn change_members(&self, slot: usize) {
        let cluster = &self.cluster;
        let is_lost = |slot: usize| cluster.hosts[slot].lock().loss.is_some();
        if (0..cluster.nodes()).any(is_lost) || !is_settled(cluster) {
            return;
        }
        let named = name(slot);
        let verb = match self.rng.below(6) {
            0 => MemberVerb::Demote { name: named },
            1 => MemberVerb::Promote { name: named },
            2 | 3 => MemberVerb::Remove { name: named },
            4 => MemberVerb::Replace {
                old: named,
                new: name(self.rng.index(cluster.nodes())),
            },
            _ => MemberVerb::Transfer {
                to: self.rng.coin().then_some(named),
            },
        };
        let Some((_, node)) = self.any_node() else {
            return;
        };
        self.note(&format!("{verb:?}"));
        let carried_out = node.administer(verb, false).await;
        cluster.trace.count(match &carried_out {
            Ok(_) => "verbs carried out",
            Err(VerbError::Refused(_)) => "verbs refused",
            Err(_) => "verbs without an answer",
        });
        if carried_out.is_ok() && self.rng.coin() {
            tokio::time::sleep(self.rng.millis(0, 3_000)).await;
            let slot = match cluster.leader().filter(|_| self.rng.coin()) {
                Some(leader) => leader,
                None => self.rng.index(cluster.nodes()),
            };
            cluster.trace.count("crashes at a change of members");
            self.crash(slot, "members change");
        }
        let deadline = Instant::now() + PATIENCE;
        while !is_settled(cluster) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn any_node(&self) -> Option<(usize, Node)> {
        let live = self.cluster.live();
        let serving = live
            .into_iter()
            .filter(|(_, node)| node.status().phase == Phase::Serving);
        let mut serving: Vec<_> = serving.collect();
        match serving.len() {
            0 => None,
            len => Some(serving.swap_remove(self.rng.index(len))),
        }
    }
}

/// Whether the engine's membership of the leader is what the table wants, but for nodes that are to get a vote.
fn is_settled(cluster: &Cluster) -> bool {
    let leader = cluster.leader().and_then(|slot| cluster.node(slot));
    let Some((now, node)) = leader.and_then(|node| Some((node.inspect()?, node))) else {
        return false;
    };
    let [voters] = &now.voters[..] else {
        return false;
    };
    let wants = node.read_stale(|store| {
        let is_wanted = |row: memkv_store::Row<'_>| {
            let votes = voters.contains(&row.member.id);
            row.state != MemberState::Leaving && !(votes && row.role == Role::Replica)
        };
        store.member_table().rows().all(is_wanted)
    });
    wants && now.membership_at.0 == now.membership_at.1
}

/// Whether one more directory than `lost` may be taken from a cluster that grows: less than half of its voters.
pub(crate) fn may_lose(cluster: &Cluster, lost: usize) -> bool {
    if cluster.swarm.founders.is_none() {
        return true;
    }
    let leader = cluster.leader().and_then(|slot| cluster.node(slot));
    let voters = leader.and_then(|node| node.inspect()).map(|now| now.voters);
    let voters = voters.and_then(|voters| voters.first().map(|voters| voters.len()));
    is_settled(cluster) && voters.is_some_and(|voters| lost < (voters - 1) / 2)
}

/// The number of voters that so many nodes come to which are all to vote: all, or one less if that is odd.
pub(crate) fn is_grown(nodes: usize, voters: usize) -> bool {
    voters == nodes || (voters + 1 == nodes && voters % 2 == 1)
}

impl Cluster {
    /// The operator of a cluster that grows: removed nodes may come back after a while, and in the end every
    /// node is to vote.
    pub(crate) async fn tend(self: Arc<Self>) {
        if self.swarm.founders.is_none() {
            return;
        }
        loop {
            tokio::time::sleep(TEND).await;
            let in_the_end = self.net.is_calm();
            if !in_the_end && self.rng.below(8) > 0 {
                continue;
            }
            let live = self.live();
            let serves = |(_, node): &&(usize, Node)| node.status().phase == Phase::Serving;
            let Some((_, server)) = live.iter().find(serves) else {
                continue;
            };
            for (slot, node) in &live {
                let status = node.status();
                let waits = status.phase == Phase::Joining
                    && status.message.contains("was removed from this cluster");
                if waits {
                    let (name, role) = (name(*slot), Role::Voter);
                    self.trace.count("removed nodes that come back");
                    let _ = server
                        .administer(MemberVerb::Add { name, role }, false)
                        .await;
                }
            }
            if !in_the_end {
                continue;
            }
            let replica = |view: &MemberView| {
                view.state == Some(MemberState::Member) && view.role == Role::Replica
            };
            let views = server
                .members()
                .await
                .map(|list| list.members)
                .unwrap_or_default();
            for MemberView { name, .. } in views.into_iter().filter(replica) {
                let _ = server.administer(MemberVerb::Promote { name }, false).await;
            }
        }
    }
}
