//! That there is one cluster, and that no node is two: an identity never changes while an engine runs
//! under it, and everything that serves or leads belongs to one cluster.
//!
//! Only looks. Holds for all hosts of a run, with any lists.

use memkv_node::{Inspection, NodeStatus, Phase};

use crate::cluster::{Cluster, name};
use crate::invariants::{Verdict, fail};
use crate::promise::Promise;

/// Process, node id and cluster.
type Identity = (u64, u64, Option<[u8; 16]>);

/// What was seen so far.
#[derive(Default)]
pub(crate) struct OneCluster {
    /// The cluster, and the host that served or led first.
    served: Option<([u8; 16], usize)>,
    /// By host.
    identities: Vec<Option<Identity>>,
}

impl OneCluster {
    pub(crate) fn look(
        &mut self,
        slot: usize,
        process: u64,
        now: &Inspection,
        status: &NodeStatus,
        cluster: &Cluster,
    ) -> Verdict {
        self.identities.resize(cluster.nodes(), None);
        let mine: Identity = (process, now.node_id, status.cluster);
        if now.engine_id != now.node_id {
            let seen = format!(
                "{} is node id {}, and its engine is {}",
                name(slot),
                now.node_id,
                now.engine_id
            );
            return fail(Promise::IdentityIsEngines, seen);
        }
        let before = self.identities[slot].replace(mine);
        if let Some(before) = before.filter(|before| before.0 == process && *before != mine) {
            let seen = format!("{} was {before:?} and is {mine:?}", name(slot));
            return fail(Promise::IdentityStays, seen);
        }
        let serves = now.leads.is_some() || status.phase == Phase::Serving;
        let Some(uuid) = status.cluster.filter(|_| serves) else {
            return Ok(());
        };
        let (known, first) = *self.served.get_or_insert((uuid, slot));
        if known != uuid {
            let seen = format!(
                "{} serves {uuid:02x?}, and {} served {known:02x?}",
                name(slot),
                name(first)
            );
            return fail(Promise::OneCluster, seen);
        }
        Ok(())
    }
}
