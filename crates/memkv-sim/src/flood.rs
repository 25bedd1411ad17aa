//! Clients that write more at once than one group of commands holds, so that a session has numbers on
//! their way in several groups. Invariant: a run has so many floods at most.

use std::sync::atomic::Ordering;

use memkv_raft::{Node, store};

use crate::client::{Workload, value_bytes};
use crate::redis::set;

/// Keys of floods.
pub(crate) const FLOODED: usize = 3;
/// Commands of a flood, and their largest value: some groups of commands together.
const FLOOD: u64 = 64;
const FLOOD_BYTES: u64 = 64 * 1024;

impl Workload {
    /// Whether there may be one more flood; if so, there is.
    pub(crate) fn may_flood(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.floods
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Writes more at once than one group of commands holds; whether any of it was answered.
    pub(crate) async fn flood(&self, process: u64, home: usize, node: &Node) -> bool {
        self.cluster.trace.count("floods");
        let commands: Vec<_> = (0..FLOOD)
            .map(|_| {
                let (key, id) = (self.key("flooded", FLOODED), self.next_value.next() >> 32);
                let value = value_bytes(id, self.dice.below(FLOOD_BYTES));
                let asked = set(key.clone(), id.to_string());
                let sent = store::Command::Set {
                    key: key.into(),
                    value,
                };
                self.send(process, home, node, asked, &sent)
            })
            .collect();
        let answers = futures_util::future::join_all(commands).await;
        answers.iter().any(Option::is_some)
    }
}
