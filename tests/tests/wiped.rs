//! A node whose directory was emptied restarts while its peers do not know their cluster yet.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, Node, Partition, eventually};
use serde_json::Value;

/// A member is replaced once it was silent for 10 s; then it must catch up.
const REPLACED_LIMIT: Duration = Duration::from_secs(90);

fn cluster_of(node: &Node) -> Option<Value> {
    let status = node.status()?;
    status["cluster"]
        .is_string()
        .then(|| status["cluster"].clone())
}

#[test]
fn a_wiped_node_founds_no_second_cluster_beside_peers_whose_engines_are_not_up() {
    let partition = Partition::default();
    let mut cluster = Cluster::start_through(&partition, 3);
    // The one with the smallest name is the one that proposes clusters.
    cluster.nodes.sort_by(|a, b| a.id.cmp(&b.id));
    let uuid = cluster_of(&cluster.nodes[1]).unwrap();
    let set = cluster.nodes[0].compat().set("kept", "value").unwrap();
    assert_eq!(set.status, "ok");
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes[0].wipe();
    // Before its engine starts, each of these two waits for what the other one remembers of it, and
    // meanwhile answers the third.
    let [one, other] = [1, 2].map(|index: usize| cluster.nodes[index].id.clone());
    partition.part(&one, &other);
    for node in &mut cluster.nodes {
        node.start();
    }
    let wiped = &mut cluster.nodes[0];
    wiped
        .process()
        .wait_output("this node's directory is empty", REPLACED_LIMIT);
    partition.join(&one, &other);
    eventually("it is replaced", REPLACED_LIMIT, || {
        let reply = cluster.nodes[0].compat().get("kept").ok()?;
        (reply.value.as_deref() == Some("value")).then_some(())
    });
    for node in &cluster.nodes {
        assert_eq!(cluster_of(node).unwrap(), uuid, "node {}", node.id);
    }
    cluster.nodes.iter_mut().for_each(Node::kill);
}
