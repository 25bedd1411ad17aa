//! The configured list of nodes, as a cluster that could be formed from it.
//!
//! Decides nothing. Invariant: all nodes with the same list give its members the same ids.

use crate::peer::message::MemberInfo;
use crate::{NodeConfig, Peer};

/// The list that this node was configured with, as a cluster that it would form: sorted by name,
/// with ids from 1.
pub(crate) fn configured_members(config: &NodeConfig) -> Vec<MemberInfo> {
    let mut list: Vec<&Peer> = config.peers.iter().chain([&config.me]).collect();
    list.sort();
    (1..)
        .zip(list)
        .map(|(id, peer)| MemberInfo {
            id,
            name: peer.name.clone(),
            addr: peer.addr.clone(),
        })
        .collect()
}

/// The members by name and address, for messages.
pub(crate) fn names(members: &[MemberInfo]) -> String {
    let each: Vec<String> = members
        .iter()
        .map(|member| format!("{} at {}", member.name, member.addr))
        .collect();
    each.join(", ")
}

/// Why a node whose data was damaged founds no cluster.
pub(crate) fn set_aside(name: &str, path: &std::path::Path) -> String {
    format!(
        "the data of {name} was damaged and lies in {}: {name} joins a cluster that has a leader, and \
         founds none. If the data is lost everywhere, move that directory away on every node to \
         begin anew",
        path.display(),
    )
}

/// The value of the setting `durability`.
pub(crate) fn durability(sync: bool) -> &'static str {
    if sync { "sync" } else { "os" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> Peer {
        Peer {
            name: name.to_owned(),
            addr: format!("{name}:1"),
        }
    }

    #[test]
    fn all_nodes_of_a_list_give_its_members_the_same_ids() {
        let layout = memkv_disk::Layout::under(std::path::Path::new("/node"));
        let list = |me: &str, others: [&str; 2]| {
            let mut config = NodeConfig::new(peer(me), layout.clone());
            config.peers = others.map(peer).to_vec();
            configured_members(&config)
        };
        let members = list("b", ["c", "a"]);
        assert_eq!(members, list("a", ["b", "c"]));
        assert_eq!(names(&members), "a at a:1, b at b:1, c at c:1");
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        assert_eq!(ids, [1, 2, 3]);
    }
}
