//! Clusters whose lists of nodes are wrong at first, and corrected before all nodes have started:
//! there is one cluster in the end, and a node never takes a second identity.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::time::Duration;

use memkv_black_box::{Cluster, Node, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

/// Three nodes in the order of their names, in which they get their ids.
fn sorted() -> Cluster {
    let mut cluster = Cluster::configured(3);
    cluster.nodes.sort_by(|a, b| a.id.cmp(&b.id));
    cluster
}

/// Gives a node a list with these peers only.
fn list(node: &Node, peers: &[&Node]) {
    let mut config = node.read_config();
    let peers: Vec<Value> = peers
        .iter()
        .map(|peer| json!({ "addr": peer.peer_addr, "id": peer.id }))
        .collect();
    config["peer_addrs"] = Value::Array(peers);
    node.write_config(&config);
}

/// All nodes serve in one cluster, under ids of their own, with one leader.
#[track_caller]
fn are_one(cluster: &mut Cluster) {
    cluster.wait_serving();
    cluster.leader();
    let all: Vec<Value> = cluster.nodes.iter().map(|n| n.status().unwrap()).collect();
    let each = |key: &str| -> BTreeSet<String> { all.iter().map(|s| s[key].to_string()).collect() };
    assert_eq!(each("cluster").len(), 1, "one cluster: {all:#?}");
    assert_eq!(each("node_id").len(), 3, "an id each: {all:#?}");
    let leaders = all.iter().filter(|status| status["role"] == "leader");
    assert_eq!(leaders.count(), 1, "one leader: {all:#?}");
    for (index, node) in cluster.nodes.iter().enumerate() {
        let (key, value) = (format!("written-at-{index}"), node.id.clone());
        assert_eq!(node.compat().set(&key, &value).unwrap().status, "ok");
        for reader in &cluster.nodes {
            let read = reader.compat().get(&key).unwrap();
            assert_eq!(read.value.as_deref(), Some(&*value), "{key}");
        }
    }
}

#[test]
fn a_proposer_whose_list_is_corrected_follows_the_right_one() {
    let mut cluster = sorted();
    let [a, b, c] = &mut cluster.nodes[..] else {
        unreachable!("three nodes")
    };
    list(b, &[c]);
    b.start();
    c.start();
    // It has proposed a cluster of two, and c knows of three.
    b.process().wait_output("the lists of nodes differ", LIMIT);
    let message = b.status().unwrap()["message"].to_string();
    b.kill();
    assert!(
        message.contains("give all nodes the same list"),
        "{message}"
    );
    list(b, &[a, c]);
    b.start();
    eventually("b answers again", LIMIT, || b.status());
    a.start();
    are_one(&mut cluster);
}

#[test]
fn a_list_that_stays_wrong_is_named_and_serves_nothing() {
    let mut cluster = sorted();
    let [a, b, c] = &mut cluster.nodes[..] else {
        unreachable!("three nodes")
    };
    list(c, &[b]);
    for node in [&mut *a, &mut *b, &mut *c] {
        node.start();
    }
    a.process().wait_output("the lists of nodes differ", LIMIT);
    for node in [&*a, &*b, &*c] {
        let status = node.status().unwrap();
        assert_eq!(status["node_id"], 0, "no identity: {status}");
        assert_eq!(node.compat().get("key").unwrap().status, "no leader");
    }
    c.kill();
    list(c, &[a, b]);
    c.start();
    are_one(&mut cluster);
}
