//! Clusters that grow from one node, and what they say of their members.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::cluster::Cluster;
use crate::resp::Resp;
use crate::wait::eventually;

/// A node joins, gets the log, and is close behind for ten seconds; on a busy machine all that takes longer.
const LIMIT: Duration = Duration::from_secs(180);

/// `size` nodes of which the first one founds a cluster; each is told to join through all others.
pub fn growing(size: usize) -> Cluster {
    let cluster = Cluster::configured(size);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let mut config = node.read_config();
        config["peer_addrs"] = json!([]);
        if at > 0 {
            let others = addrs.iter().filter(|addr| **addr != node.addr);
            config["join"] = json!(others.collect::<Vec<_>>());
        }
        node.write_config(&config);
    }
    cluster
}

/// Has the node at an address execute `MEMKV.CLUSTER` with these words.
pub fn ask_cluster(addr: &str, words: &[&str]) -> Result<String, String> {
    let asked = [&["MEMKV.CLUSTER"], words].concat();
    let reply = Resp::connect(addr).and_then(|mut client| client.call(&asked));
    let reply = reply.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(reply.text()).into_owned();
    match reply.is_error() {
        true => Err(text),
        false => Ok(text),
    }
}

/// The members by name, each with its fields; nothing while there is no leader.
pub fn members(addr: &str) -> Option<BTreeMap<String, BTreeMap<String, String>>> {
    let lines = ask_cluster(addr, &["MEMBERS"]).ok()?;
    let fields = |line: &str| -> Option<BTreeMap<String, String>> {
        let pairs = line.split(' ').map(|pair| pair.split_once('='));
        let pairs = pairs.collect::<Option<Vec<_>>>()?;
        let pairs = pairs.into_iter();
        Some(
            pairs
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
        )
    };
    let members = lines.lines().filter_map(fields);
    Some(
        members
            .map(|fields| (fields["name"].clone(), fields))
            .collect(),
    )
}

/// Waits until exactly these nodes are in the cluster, all of them with a vote.
#[track_caller]
pub fn wait_voters(cluster: &Cluster, slots: &[usize]) {
    let mut wanted: Vec<&str> = slots.iter().map(|slot| &*cluster.nodes[*slot].id).collect();
    wanted.sort_unstable();
    let addr = &cluster.nodes[slots[0]].addr;
    eventually(&format!("{wanted:?} vote"), LIMIT, || {
        let members = members(addr)?;
        let all_vote = members.values().all(|member| member["votes"] == "yes");
        let names: Vec<&str> = members.keys().map(String::as_str).collect();
        (all_vote && names == wanted).then_some(())
    });
}
