//! `WAIT` counts the nodes that really have a client's writes, whichever node executes it.

#![allow(clippy::unwrap_used, reason = "tests")]

use memkv_black_box::{Cluster, Resp};

/// A node that is up has a write long before, on any machine.
const LONG: &str = "60000";

#[test]
fn wait_counts_the_other_nodes_that_have_the_write() {
    let mut cluster = Cluster::start(3);
    for (at, node) in cluster.nodes.iter().enumerate() {
        let mut client = Resp::connect(&node.addr).unwrap();
        client.call(&["SET", "k", &at.to_string()]).unwrap();
        let reply = client.call(&["WAIT", "2", LONG]).unwrap();
        assert_eq!(reply.integer(), Some(2), "{reply}");
        let reply = client.call(&["WAITAOF", "1", "2", LONG]).unwrap();
        let numbers: Vec<_> = reply
            .items
            .iter()
            .map(memkv_black_box::Frame::integer)
            .collect();
        assert_eq!(numbers, [Some(1), Some(2)], "{reply}");
    }
    let gone = cluster.followers()[0];
    cluster.nodes[gone].kill();
    for (at, node) in cluster.nodes.iter().enumerate() {
        if at == gone {
            continue;
        }
        let mut client = Resp::connect(&node.addr).unwrap();
        client.call(&["SET", "k", "v"]).unwrap();
        let reply = client.call(&["WAIT", "1", LONG]).unwrap();
        assert_eq!(reply.integer(), Some(1), "{reply}");
        // The one that is gone does not have it, however long one waits.
        let reply = client.call(&["WAIT", "2", "300"]).unwrap();
        assert_eq!(reply.integer(), Some(1), "{reply}");
    }
}
