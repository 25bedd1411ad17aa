//! Nodes that come back at other addresses: one after the other under clients that write and read, and all at once
//! over a restart. No other node's configuration names the new addresses in the first case; in the second one,
//! two of five nodes are named by no configuration at all.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{
    Cluster, Http, Load, Node, Resp, eventually, free_port, growing, members, wait_voters,
};
use serde_json::json;

/// A restart, an election and an entry of the log, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Gives a node that is down another address. It keeps its name.
fn move_away(node: &mut Node) {
    node.addr = format!("127.0.0.1:{}", free_port());
    node.peer_addr.clone_from(&node.addr);
    let mut config = node.read_config();
    config["node_addr"]["addr"] = json!(node.addr);
    node.write_config(&config);
}

/// Waits until the members are where the nodes are, as the node at `addr` tells it.
#[track_caller]
fn wait_addresses(cluster: &Cluster, addr: &str) {
    let all = cluster.nodes.iter().collect::<Vec<_>>();
    wait_addresses_of(&all, addr);
}

/// The same for some of the nodes.
#[track_caller]
fn wait_addresses_of(nodes: &[&Node], addr: &str) {
    eventually(
        "the members are known at their new addresses",
        LIMIT,
        || {
            let members = members(addr)?;
            let is_there = |node: &&Node| {
                let member = members.get(&node.id);
                member.is_some_and(|member| member["addr"] == node.addr)
            };
            nodes.iter().all(is_there).then_some(())
        },
    );
}

fn set(addr: &str, key: &str, value: &str) {
    let mut client = Resp::connect(addr).unwrap();
    assert_eq!(client.call(&["SET", key, value]).unwrap().text(), b"OK");
}

fn get(addr: &str, key: &str) -> Option<String> {
    let reply = Resp::connect(addr).ok()?.call(&["GET", key]).ok()?;
    let text = String::from_utf8_lossy(reply.text()).into_owned();
    (!reply.is_error()).then_some(text)
}

#[test]
fn each_node_moves_under_load_although_no_configuration_of_another_says_so() {
    let mut cluster = Cluster::start(3);
    // Clients know the first addresses only, so they all go to the nodes that have not moved yet, and to the first
    // of those that has: it answers nothing there, and they go on.
    let load = Load::start(&cluster, 16, 7);
    load.wait_answered(300, LIMIT);
    for slot in [0, 1] {
        cluster.nodes[slot].terminate();
        move_away(&mut cluster.nodes[slot]);
        cluster.nodes[slot].start();
        cluster.nodes[slot].wait_serving();
        let stays = cluster.nodes[2].addr.clone();
        wait_addresses(&cluster, &stays);
        load.wait_answered(300, LIMIT);
        load.next_round();
    }
    // The last one leads, perhaps, and goes without a word.
    cluster.nodes[2].kill();
    move_away(&mut cluster.nodes[2]);
    cluster.nodes[2].start();
    cluster.nodes[2].wait_serving();
    let moved = cluster.nodes[0].addr.clone();
    wait_addresses(&cluster, &moved);
    let verdict = load.finish(&cluster);
    assert!(verdict.acknowledged_writes > 300, "{verdict:?}");

    // All of them start with the configurations of before: the addresses are in the log.
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.wait_serving();
    set(&cluster.nodes[1].addr.clone(), "after", "all");
    assert_eq!(get(&cluster.nodes[0].addr, "after").as_deref(), Some("all"));
}

#[test]
fn all_nodes_move_at_once_two_of_them_known_only_by_what_they_tell() {
    let mut cluster = growing(5);
    cluster.nodes[0].start();
    cluster.nodes[0].wait_serving();
    cluster.nodes[1..].iter_mut().for_each(Node::start);
    wait_voters(&cluster, &[0, 1, 2, 3, 4]);
    set(&cluster.nodes[3].addr.clone(), "before", "the move");
    cluster.nodes.iter_mut().for_each(Node::kill);

    cluster.nodes.iter_mut().for_each(move_away);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    for (at, node) in cluster.nodes.iter().enumerate() {
        let mut config = node.read_config();
        // The first three name each other; the last two name those, and no other names them.
        let known = addrs[..3].iter().filter(|addr| **addr != node.addr);
        config["join"] = json!(known.collect::<Vec<_>>());
        config["peer_addrs"] = json!([]);
        node.write_config(&config);
        assert!(at < 5);
    }
    // Those that no other names, and one more: a majority that has to find itself.
    for slot in [2, 3, 4] {
        cluster.nodes[slot].start();
    }
    cluster.nodes[2].wait_serving();
    assert_eq!(get(&addrs[4], "before").as_deref(), Some("the move"));
    // They tell nothing any more; the last two have to learn it from the table.
    wait_addresses_of(&[2, 3, 4].map(|slot| &cluster.nodes[slot]), &addrs[2]);
    for slot in [0, 1] {
        cluster.nodes[slot].start();
    }
    cluster.wait_serving();
    wait_addresses(&cluster, &addrs[0]);
    eventually("the status of another node names them", LIMIT, || {
        let status = Http::once(&addrs[1], "GET", "/v1/status", b"").ok()?;
        let text = String::from_utf8(status.body).ok()?;
        addrs.iter().all(|addr| text.contains(addr)).then_some(())
    });
}

/// A machine that was cloned, or a directory that was copied while its node ran: it is as new as that node's own, so
/// nothing but the other process itself shows it.
#[test]
fn a_copy_of_a_directory_does_not_start_beside_the_node_that_it_is_of() {
    let mut cluster = Cluster::start(3);
    set(&cluster.nodes[0].addr, "k", "one");
    let original = &cluster.nodes[2];
    eventually("the node has the write", LIMIT, || {
        (get(&original.addr, "k")? == "one").then_some(())
    });
    let mut copy = Node::new(cluster.root());
    std::fs::remove_dir_all(&copy.dir).unwrap();
    let mut cp = std::process::Command::new("cp");
    let copied = cp.arg("-a").args([&original.dir, &copy.dir]).status();
    assert!(copied.unwrap().success());
    let mut config = original.read_config();
    config["node_addr"]["addr"] = json!(copy.addr);
    copy.id.clone_from(&original.id);
    copy.write_config(&config);
    copy.start();
    let status = copy.process().wait_end(LIMIT);
    let said = std::fs::read_to_string(&copy.log).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("takes part in the cluster as"), "{said}");
    assert!(said.contains(&original.addr), "it says where: {said}");
    // The node itself has not noticed. Without it, the copy is the node.
    assert_eq!(get(&original.addr, "k").as_deref(), Some("one"));
    cluster.nodes[2].terminate();
    set(&cluster.nodes[0].addr, "k", "two");
    copy.kill();
    copy.start();
    copy.wait_serving();
    assert_eq!(get(&copy.addr, "k").as_deref(), Some("two"));
}
