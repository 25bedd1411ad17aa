//! Clients that write more at once than one group of commands holds, so that a session has numbers on
//! their way in several groups. Invariant: clients begin so
//! many floods in a run at most, besides those that a fault asks for.

use std::sync::atomic::Ordering;

use memkv_check::space::Command;
use memkv_node::Node;

use crate::client::{Workload, value_bytes};
use crate::redis::set;
use crate::translate;

/// Keys of floods.
pub(crate) const FLOODED: usize = 3;
/// Commands of a flood, and their largest value: some groups of commands together.
const FLOOD: u64 = 64;
const FLOOD_BYTES: u64 = 64 * 1024;
/// Writes that fill a group of half a mebibyte but for less than one of the deletes behind them.
const FILLING: u64 = 8;
const FILLING_BYTES: u64 = 63 * 1024;
/// Deletes that are together worth a group beside the one that is on its way: 64 KiB.
const DELETES: usize = 2;
const DELETED_KEYS: usize = 5;
const DELETED_KEY_BYTES: usize = 8 * 1024;

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
                let value = value_bytes(id, self.rng.below(FLOOD_BYTES));
                let checked = set(key.clone(), id.to_string());
                let sent = memkv_store::Command::Set {
                    key: key.into(),
                    value,
                };
                self.send(process, home, node, checked, &sent)
            })
            .collect();
        let answers = futures_util::future::join_all(commands).await;
        answers.iter().any(Option::is_some)
    }

    /// Where disks are low: a group of writes, which are refused, and behind it one of deletes, which are
    /// not. Its numbers are not the next ones then. Whether any of it was answered.
    pub(crate) async fn flood_before_deletes(
        &self,
        process: u64,
        home: usize,
        node: &Node,
    ) -> bool {
        self.cluster.trace.count("floods before deletes");
        let write = |_| {
            let (key, id) = (self.key("flooded", FLOODED), self.next_value.next() >> 32);
            let sent = memkv_store::Command::Set {
                key: key.clone().into(),
                value: value_bytes(id, FILLING_BYTES),
            };
            (set(key, id.to_string()), sent)
        };
        let keys: Vec<String> = (0..DELETED_KEYS)
            .map(|number| format!("{number:0DELETED_KEY_BYTES$}"))
            .collect();
        let delete = Command::Del { keys };
        let deletes = (0..DELETES).map(|_| (delete.clone(), translate::command(&delete)));
        let commands = (0..FILLING).map(write).chain(deletes);
        let sent = commands.map(|(checked, sent)| self.send(process, home, node, checked, &sent));
        let answers = futures_util::future::join_all(sent.collect::<Vec<_>>()).await;
        answers.iter().any(Option::is_some)
    }
}
