//! The timeline: each node tells what has happened to it with reasons, over HTTP,
//! and begins anew with each process.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Cluster, Http, Node, Resp, binary, eventually};
use serde_json::Value;

/// Longer than an election takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The events of one node behind a number.
fn events(node: &Node, since: u64) -> Value {
    let path = format!("/v1/events?since={since}");
    let answer = Http::once(&node.addr, "GET", &path, b"").unwrap();
    assert_eq!(answer.status, 200);
    serde_json::from_slice(&answer.body).unwrap()
}

/// The texts of one kind.
fn texts(node: &Node, kind: &str) -> Vec<String> {
    let all = events(node, 0);
    let all = all["events"].as_array().unwrap().iter();
    all.filter(|event| event["kind"] == kind)
        .map(|event| event["text"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits for an event of a kind on one node.
#[track_caller]
fn wait(node: &Node, kind: &str, fits: impl Fn(&str) -> bool) -> String {
    eventually(kind, LIMIT, || {
        let told = texts(node, kind);
        told.into_iter().find(|text| fits(text))
    })
}

#[test]
fn a_leaders_death_is_told_by_all_with_its_reason() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let old = cluster.nodes[leader].id.clone();
    for node in &cluster.nodes {
        let (started, formed) = (texts(node, "started"), texts(node, "formed"));
        assert!(started.len() == 1 && formed.len() == 1, "{formed:?}");
        assert!(started[0].ends_with("start 1"), "{started:?}");
        assert!(formed[0].contains(&node.id), "{formed:?}");
    }
    assert_eq!(texts(&cluster.nodes[leader], "leader").len(), 1);
    cluster.nodes[leader].kill();
    // The two others say the same of it, each with the reason that it knows.
    let gone = format!("the process of the leader {old} is gone");
    let others: Vec<&Node> = cluster.nodes.iter().filter(|node| node.id != old).collect();
    let why = format!("the process of {old} is gone");
    for other in others {
        wait(other, "leader_gone", |text| text == gone);
    }
    let next = cluster.leader();
    wait(&cluster.nodes[next], "leader", |text| text.ends_with(&why));
    // Numbers begin anew with the process.
    cluster.nodes[leader].start();
    cluster.nodes[leader].wait_serving();
    let back = &cluster.nodes[leader];
    wait(back, "started", |text| text.ends_with("start 2"));
    wait(back, "follower", |_| true);
    let all = events(back, 0);
    assert_eq!(
        (&all["boot"], &all["events"][0]["seq"]),
        (&2.into(), &1.into())
    );
    // Nothing is told again that was replayed from the log.
    assert_eq!(texts(&cluster.nodes[leader], "formed"), [""; 0]);
    let last = all["events"].as_array().unwrap().len() as u64;
    let behind = events(back, last + 1000);
    assert_eq!(behind["events"], Value::Array(vec![]));
}

#[test]
fn a_handover_and_a_backup_are_told() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let (old, addr) = (
        cluster.nodes[leader].id.clone(),
        cluster.nodes[leader].addr.clone(),
    );
    let mut resp = Resp::connect(&addr).unwrap();
    let asked = resp.call(&["MEMKV.CLUSTER", "TRANSFER"]).unwrap();
    assert!(!asked.is_error(), "{asked:?}");
    let handed = eventually("it hands over", LIMIT, || {
        texts(&cluster.nodes[leader], "handing_over").pop()
    });
    assert!(handed.starts_with("hands leadership over to "), "{handed}");
    let next = cluster.leader();
    let why = format!("{old} has handed leadership over");
    eventually("the next leader says why", LIMIT, || {
        let led = texts(&cluster.nodes[next], "leader");
        led.iter().any(|text| text.ends_with(&why)).then_some(())
    });
    let file = cluster.root().join("backup");
    let saved = Command::new(binary("memkv_client"))
        .args(["--endpoints", &addr, "backup", "save"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(saved.status.success(), "{saved:?}");
    eventually("the backup is told", LIMIT, || {
        let node = &cluster.nodes[leader];
        let (begun, done) = (texts(node, "backup_begun"), texts(node, "backup_done"));
        let snapshots = texts(node, "snapshot_written");
        (begun.len() == 1 && done.len() == 1 && !snapshots.is_empty()).then_some(())
    });
    let answer = Http::once(&addr, "GET", "/v1/events?since=x", b"").unwrap();
    assert_eq!(answer.status, 400);
}
