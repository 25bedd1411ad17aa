//! Clusters and requests of other shapes than the usual three nodes with small values: five nodes,
//! `durability: os`, stale reads at a follower, values of 64 MiB.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, Frame, Http, Node, Resp, Signal, eventually};
use serde_json::json;

/// Far longer than an election on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

#[track_caller]
fn call(node: &Node, arguments: &[&str]) -> Frame {
    let mut client = Resp::connect(&node.addr).unwrap();
    client.set_timeout(LIMIT).unwrap();
    client.call(arguments).unwrap()
}

#[track_caller]
fn set_eventually(node: &Node, key: &str, value: &str) {
    eventually("a write is acknowledged", LIMIT, || {
        (call(node, &["SET", key, value]).text() == b"OK").then_some(())
    });
}

#[test]
fn five_nodes_serve_with_two_dead_and_refuse_with_three() {
    let mut cluster = Cluster::start(5);
    set_eventually(&cluster.nodes[0], "key", "five");
    let first = cluster.leader();
    cluster.nodes[first].kill();
    let alive = |cluster: &Cluster| -> Vec<usize> {
        let nodes = cluster.nodes.iter().enumerate();
        nodes.filter(|(_, n)| n.runs()).map(|(at, _)| at).collect()
    };
    set_eventually(&cluster.nodes[alive(&cluster)[0]], "key", "four");
    let second = cluster.leader();
    cluster.nodes[second].kill();
    set_eventually(&cluster.nodes[alive(&cluster)[0]], "key", "three");
    for node in alive(&cluster) {
        assert_eq!(call(&cluster.nodes[node], &["GET", "key"]).text(), b"three");
    }
    let third = alive(&cluster)[0];
    cluster.nodes[third].kill();
    let left = alive(&cluster)[0];
    // No majority: a write may be unknown, it is never acknowledged, and no read is answered.
    for request in [&["SET", "key", "two"][..], &["GET", "key"]] {
        let reply = call(&cluster.nodes[left], request);
        assert!(reply.is_error(), "{request:?}: {reply}");
    }
    cluster.start_all();
    let value = call(&cluster.nodes[first], &["GET", "key"]);
    assert!(
        [&b"three"[..], b"two"].contains(&value.text()),
        "acknowledged, or of unknown outcome: {value}"
    );
}

#[test]
fn durability_os_survives_the_death_of_all_processes_and_is_in_the_status() {
    let mut cluster = Cluster::configured_with(3, &json!({ "durability": "os" }));
    cluster.start_all();
    set_eventually(&cluster.nodes[0], "key", "kept");
    for node in &cluster.nodes {
        let status = node.status().unwrap();
        assert_eq!(status["durability"], "os", "{status}");
    }
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.start_all();
    for node in &cluster.nodes {
        assert_eq!(call(node, &["GET", "key"]).text(), b"kept");
    }
}

#[test]
fn a_follower_answers_stale_reads_by_itself_and_others_not_at_all() {
    let mut cluster = Cluster::start(3);
    set_eventually(&cluster.nodes[0], "key", "old");
    let [follower, others @ ..] = &cluster.followers()[..] else {
        panic!("no follower");
    };
    let follower = &cluster.nodes[*follower];
    let addr = follower.addr.clone();
    let mut stale = Resp::connect(&addr).unwrap();
    let mut listener = Resp::connect(&follower.addr).unwrap();
    assert!(!listener.call(&["SUBSCRIBE", "news"]).unwrap().is_error());
    assert_eq!(stale.call(&["READONLY"]).unwrap().text(), b"OK");
    eventually("the follower has applied it", LIMIT, || {
        (stale.call(&["GET", "key"]).unwrap().text() == b"old").then_some(())
    });
    // Its peers stop answering: only requests that need no other node are answered.
    let leader = cluster.leader();
    let others = others.iter().chain([&leader]);
    let paused: Vec<_> = others
        .map(|node| Paused::pause(&mut cluster.nodes[*node]))
        .collect();
    assert_eq!(stale.call(&["GET", "key"]).unwrap().text(), b"old");
    check_acts_alone_for_seconds_only(&addr, &mut stale, listener);
    let mut fresh = Resp::connect(&addr).unwrap();
    let refused = fresh.call(&["GET", "key"]).unwrap();
    assert!(refused.is_error(), "{refused}");
    assert_eq!(stale.call(&["READWRITE"]).unwrap().text(), b"OK");
    let refused = stale.call(&["GET", "key"]).unwrap();
    assert!(refused.is_error(), "{refused}");
    drop(paused);
}

/// A right may have been taken away where the node does not hear of it: ten seconds after a majority has
/// answered, it serves and delivers nothing by itself.
fn check_acts_alone_for_seconds_only(addr: &str, stale: &mut Resp, mut listener: Resp) {
    eventually("old reads are refused", LIMIT, || {
        let reply = stale.call(&["GET", "key"]).unwrap();
        reply.text().starts_with(b"CLUSTERDOWN ").then_some(())
    });
    let mut client = Resp::connect(addr).unwrap();
    for line in [
        &["PUBLISH", "news", "x"][..],
        &["CLIENT", "KILL", "ID", "0"],
    ] {
        let reply = client.call(line).unwrap();
        assert!(
            reply.text().starts_with(b"CLUSTERDOWN "),
            "{line:?}: {reply}"
        );
    }
    for line in [&["PING"][..], &["INFO"]] {
        assert!(!client.call(line).unwrap().is_error(), "{line:?}");
    }
    listener.set_timeout(Duration::from_millis(500)).unwrap();
    let delivered = listener.receive();
    assert!(delivered.is_err(), "{delivered:?}");
}

/// A process that goes on when this is dropped.
struct Paused(rustix::process::Pid);

impl Paused {
    /// Returns when every thread of the node's process has stopped: until then one of them may answer.
    fn pause(node: &mut Node) -> Paused {
        let process = node.process();
        process.signal(Signal::STOP);
        let id = i32::try_from(process.id()).unwrap();
        Paused(rustix::process::Pid::from_raw(id).unwrap())
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // It fails only if the process is gone.
        let _ = rustix::process::kill_process(self.0, Signal::CONT);
    }
}

#[test]
fn a_value_of_64_mebibytes_is_written_replicated_and_read_and_one_byte_more_is_refused() {
    const LARGEST: usize = 64 << 20;
    let mut cluster = Cluster::configured_with(3, &json!({ "max_value_bytes": LARGEST }));
    cluster.start_all();
    let mut value = vec![b'v'; LARGEST];
    value[LARGEST / 2] = b'w';
    // On a busy machine the outcome may be unknown in time; the same value may then be written again.
    eventually("the value is acknowledged", LIMIT, || {
        let put = Http::once(&cluster.nodes[0].addr, "PUT", "/v1/kv/large", &value).unwrap();
        assert!([200, 504].contains(&put.status), "{}", put.text());
        (put.status == 200).then_some(())
    });
    for node in &cluster.nodes {
        let got = Http::once(&node.addr, "GET", "/v1/kv/large", b"").unwrap();
        assert_eq!(got.status, 200);
        assert!(got.body == value, "{} bytes", got.body.len());
    }
    value.push(b'x');
    let put = Http::once(&cluster.nodes[1].addr, "PUT", "/v1/kv/larger", &value).unwrap();
    assert_eq!(put.status, 413, "{}", put.text());
    let got = Http::once(&cluster.nodes[2].addr, "GET", "/v1/kv/larger", b"").unwrap();
    assert_eq!(got.status, 404, "a refused value changes nothing");
    // Acknowledged values survive, and a node that was away gets them.
    cluster.nodes.iter_mut().for_each(Node::kill);
    value.pop();
    cluster.start_all();
    let got = Http::once(&cluster.nodes[1].addr, "GET", "/v1/kv/large", b"").unwrap();
    assert!(got.body == value, "{} bytes", got.body.len());
}
