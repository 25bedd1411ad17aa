//! Hosts that come back at other addresses. And the operator who gives an emptied node the address that the cluster
//! knows: a seat is given only to a node at its address.
//!
//! Never moves a host whose process runs. Invariant: a process is configured with the addresses of its start.

use std::sync::Arc;
use std::time::Duration;

use memkv_node::Phase;

use super::Nemesis;
use crate::cluster::{Cluster, name};
use crate::host::Death;

/// How often the operator looks.
const LOOK: Duration = Duration::from_millis(500);

impl Nemesis {
    /// A host comes back at another address; at times all of them do, each when it likes.
    pub(super) fn relocate(&self, slot: usize) {
        let slots = match self.rng.below(4) {
            0 => (0..self.cluster.nodes()).collect(),
            _ => vec![slot],
        };
        if slots.len() > 1 {
            self.cluster.trace.count("moves of all");
        }
        for slot in slots {
            self.cluster.trace.count("moves");
            self.cluster.kill(slot, self.death(), "moves away");
            self.cluster.move_away(slot);
            self.cluster.start_after(slot, self.rng.millis(10, 2_000));
        }
    }
}

impl Cluster {
    /// The operator who reads why an emptied node waits.
    pub(crate) async fn mind_addresses(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            for (slot, node) in self.live() {
                let status = node.status();
                let waits = status.phase == Phase::Joining
                    && status
                        .message
                        .contains("a node keeps its address when it is replaced");
                if !waits {
                    continue;
                }
                let Some(known) = self.known_addr(slot) else {
                    continue;
                };
                self.trace
                    .count("emptied nodes that go back to their address");
                self.kill(slot, Death::Process, "goes back to its address");
                self.settle_at(slot, &known);
                self.start(slot);
            }
        }
    }

    /// Where the leader's table has a host.
    fn known_addr(&self, slot: usize) -> Option<String> {
        let leader = self.node(self.leader()?)?;
        leader.read_stale(|store| {
            let mut rows = store.member_table().rows();
            let row = rows.find(|row| row.member.name == name(slot))?;
            Some(row.member.addr.clone())
        })
    }
}
