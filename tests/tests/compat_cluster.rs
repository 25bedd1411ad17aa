//! The original's contract: its seven configuration keys, its client's configuration and its JSON on
//! every node, in clusters of three and of two, with and without a majority.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use memkv_black_box::{Cluster, Compat, CompatReply, Signal, binary, eventually, within};

/// The promise: without a majority a request is answered within this, not held for ever.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Exit codes of `memkv_client`, part of its contract.
const EXIT_NOT_FOUND: i32 = 1;
const EXIT_UNAVAILABLE: i32 = 3;
const EXIT_UNKNOWN: i32 = 4;

fn client(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(binary("memkv_client"))
        .current_dir(dir)
        .args(arguments)
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    let streams = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&streams).into_owned()
}

/// The original's bodies, byte for byte, at one node.
fn exact_bodies(node: &mut Compat, key: &str) {
    let body = |reply: std::io::Result<CompatReply>| {
        let reply = reply.unwrap();
        assert_eq!(reply.http, 200);
        reply.body
    };
    assert_eq!(body(node.get(key)), r#"{"status":"not found","value":""}"#);
    assert_eq!(body(node.exist(key)), r#"{"status":"no"}"#);
    assert_eq!(body(node.del(key)), r#"{"status":"ok"}"#);
    assert_eq!(body(node.set(key, "v1")), r#"{"status":"ok"}"#);
    assert_eq!(body(node.get(key)), r#"{"status":"ok","value":"v1"}"#);
    assert_eq!(body(node.exist(key)), r#"{"status":"yes"}"#);
    assert_eq!(body(node.del(key)), r#"{"status":"ok"}"#);
    assert_eq!(body(node.exist(key)), r#"{"status":"no"}"#);
}

#[test]
fn three_original_configurations_form_a_cluster_that_answers_on_every_node() {
    let cluster = Cluster::start(3);
    for node in &cluster.nodes {
        assert_eq!(
            node.read_config().as_object().unwrap().len(),
            7,
            "exactly the original's keys"
        );
        exact_bodies(&mut node.compat(), "key");
    }
}

#[test]
fn two_original_configurations_form_a_cluster() {
    let cluster = Cluster::start(2);
    for node in &cluster.nodes {
        exact_bodies(&mut node.compat(), "key");
    }
}

#[test]
fn a_write_on_any_node_is_read_at_once_on_every_other() {
    let cluster = Cluster::start(3);
    let mut clients: Vec<Compat> = cluster.nodes.iter().map(|node| node.compat()).collect();
    for round in 0..30 {
        let value = format!("value-{round}");
        assert_eq!(clients[round % 3].set("key", &value).unwrap().status, "ok");
        for client in &mut clients {
            assert_eq!(
                client.get("key").unwrap().value.as_deref(),
                Some(value.as_str())
            );
        }
    }
}

#[test]
fn any_nodes_id_is_accepted_in_the_path_by_every_node() {
    let cluster = Cluster::start(3);
    for node in &cluster.nodes {
        for other in &cluster.nodes {
            assert_eq!(
                Compat::new(&node.addr, &other.id)
                    .set("k", "v")
                    .unwrap()
                    .status,
                "ok"
            );
        }
    }
}

#[test]
fn curl_with_the_seeds_json_works_on_every_node() {
    let cluster = Cluster::start(3);
    for node in &cluster.nodes {
        let url = format!("http://{}/memkv{}/store/set", node.addr, node.id);
        let body = r#"{"key":"curl","value":"from curl"}"#;
        let json = "Content-Type: application/json";
        let output = Command::new("curl")
            .args(["-sS", "-H", json, "-d", body, &url])
            .output()
            .unwrap();
        assert_eq!(printed(&output), r#"{"status":"ok"}"#);
    }
    assert_eq!(
        cluster.nodes[0]
            .compat()
            .get("curl")
            .unwrap()
            .value
            .as_deref(),
        Some("from curl")
    );
}

#[test]
fn memkv_client_reads_the_originals_cluster_config_and_its_exit_codes_tell_the_outcome() {
    let cluster = Cluster::start(3);
    let dir = cluster.client_dir();
    let get = client(&dir, &["get", "name"]);
    assert_eq!(get.status.code(), Some(EXIT_NOT_FOUND), "{}", printed(&get));
    let set = client(&dir, &["set", "name", "value 1", "1"]);
    assert_eq!(set.status.code(), Some(0), "{}", printed(&set));
    let get = client(&dir, &["get", "name"]);
    assert_eq!(get.status.code(), Some(0), "{}", printed(&get));
    assert!(printed(&get).contains("value 1"), "{}", printed(&get));
    assert_eq!(client(&dir, &["exist", "name"]).status.code(), Some(0));
    assert_eq!(client(&dir, &["del", "name"]).status.code(), Some(0));
    assert_eq!(
        client(&dir, &["exist", "name"]).status.code(),
        Some(EXIT_NOT_FOUND)
    );
}

#[test]
fn a_node_alone_answers_no_leader_and_executes_nothing() {
    let mut cluster = Cluster::start(3);
    assert_eq!(
        cluster.nodes[0].compat().set("kept", "1").unwrap().status,
        "ok"
    );
    for node in &mut cluster.nodes {
        node.kill();
    }
    // A node that was just started has never led, so nothing can have been appended.
    cluster.nodes[0].start();
    let mut alone = cluster.nodes[0].compat();
    eventually("the node listens", ANSWER_LIMIT, || alone.get("kept").ok());
    let ask = |what: &str, ask: &mut dyn FnMut() -> CompatReply| {
        let reply = within(what, ANSWER_LIMIT, ask);
        assert_eq!(
            (reply.status.as_str(), reply.maybe),
            ("no leader", false),
            "{what}"
        );
        reply
    };
    let get = ask("get", &mut || alone.get("kept").unwrap());
    assert_eq!(get.body, r#"{"status":"no leader","value":""}"#);
    let set = ask("set", &mut || alone.set("never", "1").unwrap());
    assert_eq!(set.body, r#"{"status":"no leader"}"#);
    ask("del", &mut || alone.del("kept").unwrap());
    ask("exist", &mut || alone.exist("kept").unwrap());
    let dir = cluster.client_dir();
    let output = client(&dir, &["set", "never", "1", "1"]);
    assert_eq!(
        output.status.code(),
        Some(EXIT_UNAVAILABLE),
        "{}",
        printed(&output)
    );

    cluster.start_all();
    assert_eq!(
        cluster.nodes[1]
            .compat()
            .get("kept")
            .unwrap()
            .value
            .as_deref(),
        Some("1")
    );
    assert_eq!(
        cluster.nodes[1].compat().exist("never").unwrap().status,
        "no"
    );
}

#[test]
fn a_write_that_may_have_been_appended_is_unknown_and_never_no_leader() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let mut client = cluster.nodes[leader].compat();
    // Opens the leader's session: a node without one cannot append anything for its clients.
    assert_eq!(client.set("before", "1").unwrap().status, "ok");
    for follower in cluster.followers() {
        cluster.nodes[follower].process().signal(Signal::STOP);
    }
    // The leader cannot know yet that it has no followers: it appends.
    let set = within("set", ANSWER_LIMIT, || client.set("key", "maybe").unwrap());
    assert_eq!(set.body, r#"{"status":"error"}"#);
    assert!(set.maybe, "X-Memkv-Executed: maybe");
    let get = within("get", ANSWER_LIMIT, || client.get("key").unwrap());
    assert_eq!((get.status.as_str(), get.maybe), ("no leader", false));

    for node in &mut cluster.nodes {
        node.process().signal(Signal::CONT);
    }
    cluster.wait_serving();
    // Whatever its outcome, all nodes agree.
    let read = |node: usize| cluster.nodes[node].compat().get("key").unwrap().value;
    let first = read(0);
    assert_eq!((read(1), read(2)), (first.clone(), first));
}

#[test]
fn memkv_client_exits_with_4_when_the_outcome_is_unknown() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let dir = cluster.client_dir();
    // Only the leader is in the client's configuration, so that it appends for certain.
    let node = &cluster.nodes[leader];
    let config = serde_json::json!({ "addrs": [{ "addr": node.addr, "id": node.id }] });
    assert_eq!(node.compat().set("before", "1").unwrap().status, "ok");
    std::fs::write(dir.join("cluster_config.json"), config.to_string()).unwrap();
    for follower in cluster.followers() {
        cluster.nodes[follower].process().signal(Signal::STOP);
    }
    let output = client(&dir, &["set", "key", "value", "1"]);
    assert_eq!(
        output.status.code(),
        Some(EXIT_UNKNOWN),
        "{}",
        printed(&output)
    );
}
