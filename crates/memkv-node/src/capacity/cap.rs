//! The cap that follows from the nodes: each announces, in the log, how much memory it has for keys, and
//! the leader writes the smallest announcement of the voters into the log as the cap.
//!
//! Only where the feature level has a cap, and only by nodes that know their limit. A replica without a
//! vote announces, and lowers nothing. A lower cap is proposed only if it is lower by a hundredth, since
//! the store never sets it below what the keys cost: it would follow each command that removes some.
//! Never decides about a command: the store does.

use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use memkv_store::{AnnouncedMemory, EDGE_LEVEL, MemberTable, Memory, SystemOp};

use crate::engine::handle::Engine;
use crate::leadership::known::Leadership;
use crate::peer::answer::{Answer, answer, bad};
use crate::peer::client::Peers;
use crate::peer::encoding::Reader;
use crate::peer::message::{self, Envelope, Kind};
use crate::replica::Replica;
use crate::write::batcher::Batcher;
use crate::write::session::Session;
use crate::{Frame, Lane};

/// How often this is looked at. Limits change when nodes start, so polling is enough.
const INTERVAL: Duration = Duration::from_millis(500);

/// A leader that has not answered by then is asked again.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The share of a node's memory that keys may cost, in percent. Clients' buffers may take 10, the log, its
/// queues and the other nodes 10; the rest is for saved entries of snapshots, garbage and fragmentation.
const DATA_PERCENT: u64 = 60;

/// The part of a node's memory that keys may cost.
pub(crate) fn for_keys(limit: u64) -> u64 {
    (limit / 100 * DATA_PERCENT).max(1)
}

/// Announces this node's memory, and derives the cap while it leads.
pub(crate) struct CapKeeper {
    /// What this node has for keys, if that is known.
    pub(crate) bytes: Option<u64>,
    pub(crate) session: Arc<Session>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) batcher: Arc<Batcher>,
}

/// Runs until the node stops.
pub(crate) async fn run(keeper: CapKeeper, engine: Engine) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if keeper.peers.levels.in_use() < EDGE_LEVEL {
            continue;
        }
        keeper.announce().await;
        if engine.is_leader() {
            keeper.derive(&engine.voters()).await;
        }
    }
}

impl CapKeeper {
    /// Announces what this node has, unless the table says it already.
    async fn announce(&self) {
        let (me, boot) = (self.peers.my_id(), self.session.boot());
        let (Some(bytes), Some(leader), Some(_)) =
            (self.bytes, self.leadership.leader_id(), self.session.id())
        else {
            return;
        };
        let wanted = AnnouncedMemory { boot, bytes };
        if self.replica.member_table().announced_memory(me) == Some(wanted) {
            return;
        }
        if leader == me {
            let op = SystemOp::AnnounceMemory {
                node: me,
                boot,
                bytes,
            };
            // It is looked at again. The same below.
            let _ = self.batcher.propose_system(op).await;
            return;
        }
        let mut request = self.peers.envelope(Kind::AnnounceMemory, leader);
        request.put_u64_le(bytes);
        let request = Frame(vec![request.freeze()]);
        let call = self
            .peers
            .call(leader, Lane::Forward, request, ANSWER_WITHIN);
        if let Err(error) = call.await {
            tracing::debug!(%error, "the leader did not take the announcement of memory");
        }
    }

    async fn derive(&self, voters: &[u64]) {
        let (table, memory) = (self.replica.member_table(), self.replica.memory());
        if let Some(bytes) = next_cap(&table, voters, &memory) {
            let _ = self
                .batcher
                .propose_system(SystemOp::SetCap { bytes })
                .await;
        }
    }
}

/// The cap to be proposed, if there is another one to propose.
fn next_cap(table: &MemberTable, voters: &[u64], memory: &Memory) -> Option<u64> {
    let announced = voters.iter().map(|id| table.announced_memory(*id));
    let smallest = announced
        .map(|announced| announced.map(|it| it.bytes))
        .try_fold(u64::MAX, |least, bytes| Some(least.min(bytes?)))?;
    if voters.is_empty() {
        return None;
    }
    // The cost keeps the cap from falling below it, and never raises the cap.
    let floor = memory
        .derived_cap
        .map_or(memory.cost, |cap| cap.min(memory.cost));
    let target = smallest.max(floor);
    let is_another = match memory.derived_cap {
        None => true,
        Some(cap) => target > cap || cap - target > cap / 100,
    };
    is_another.then_some(smallest)
}

/// Answers [`Kind::AnnounceMemory`].
pub(crate) fn receive(batcher: &Batcher, envelope: &Envelope, mut body: Reader) -> Answer {
    let bytes = match body.u64("bytes of memory") {
        Ok(bytes) => bytes,
        Err(error) => return answer(bad(&error)),
    };
    let outcome = batcher.propose_system(SystemOp::AnnounceMemory {
        node: envelope.from,
        boot: envelope.boot,
        bytes,
    });
    Box::pin(async move {
        match outcome.await {
            Ok(Ok(_)) => message::ok(|_| {}),
            Ok(Err(error)) => message::refused(&error.to_string()),
            Err(_) => message::refused("the node is stopping"),
        }
    })
}

#[cfg(test)]
mod tests {
    use memkv_store::{BatchBuilder, Store};

    use super::*;
    use crate::peer::fake::form_at;

    /// A store of three nodes that have announced so much, 0 for nothing.
    fn store(announced: [u64; 3]) -> Store {
        let mut store = Store::new();
        let mut index = 0;
        let mut apply = |op: &SystemOp| {
            index += 1;
            let mut batch = BatchBuilder::new(5);
            batch.system(op);
            store.apply(index, &batch.finish(), &mut ());
        };
        apply(&form_at(3, EDGE_LEVEL));
        for (node, bytes) in (1..).zip(announced) {
            apply(&SystemOp::OpenSession {
                node,
                boot: 1,
                highest: EDGE_LEVEL,
            });
            if bytes > 0 {
                let boot = 1;
                apply(&SystemOp::AnnounceMemory { node, boot, bytes });
            }
        }
        store
    }

    #[test]
    fn the_cap_is_the_smallest_announcement_of_all_voters() {
        let cap = |announced, voters: &[u64], memory: Memory| {
            next_cap(store(announced).member_table(), voters, &memory)
        };
        let none = Memory::default();
        assert_eq!(cap([500, 400, 300], &[1, 2, 3], none), Some(300));
        assert_eq!(cap([500, 400, 300], &[1, 2], none), Some(400), "a replica");
        assert_eq!(cap([500, 0, 300], &[1, 2, 3], none), None, "one is silent");
        assert_eq!(cap([500, 400, 300], &[], none), None);
        let at = |derived: u64, cost| Memory {
            derived_cap: Some(derived),
            cost,
            ..Memory::default()
        };
        let voters = &[1, 2, 3];
        assert_eq!(cap([500, 400, 300], voters, at(300, 9)), None);
        assert_eq!(cap([500, 400, 300], voters, at(299, 9)), Some(300));
        assert_eq!(cap([500, 400, 300], voters, at(303, 9)), None, "too little");
        assert_eq!(cap([500, 400, 300], voters, at(400, 9)), Some(300));
        assert_eq!(cap([500, 400, 300], voters, at(400, 399)), None, "the cost");
        assert_eq!(cap([500, 400, 300], voters, at(400, 350)), Some(300));
        assert_eq!(
            cap([500, 400, 300], voters, at(300, 350)),
            None,
            "beyond it"
        );
    }

    #[test]
    fn keys_may_cost_three_fifths_of_the_memory() {
        assert_eq!(for_keys(512 << 20), (512 << 20) / 100 * 60);
        assert_eq!((for_keys(0), for_keys(99)), (1, 1));
        assert!(for_keys(u64::MAX) > u64::MAX / 2);
    }
}
