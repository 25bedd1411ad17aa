//! `memkv_client member check-stop`: whether the cluster can spare a node now.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Cluster, Http, binary, eventually};
use serde_json::{Value, json};

/// Longer than it takes a leader to miss a node, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The exit code and the answer.
fn check_stop(cluster: &Cluster, at: usize, names: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary("memkv_client"));
    command.args([
        "--endpoints",
        &cluster.nodes[at].addr,
        "member",
        "check-stop",
    ]);
    let output = command.args(names).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), said)
}

/// Through a follower, so that the leader is asked; all three still vote in the end.
fn verbs_over_http_and_with_a_wait(cluster: &Cluster, through: usize) {
    let addr = &cluster.nodes[through].addr;
    let http = |method: &str, path: &str, body: &str| {
        let answer = Http::once(addr, method, path, body.as_bytes()).unwrap();
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, json)
    };
    let (status, seen) = http("GET", "/v1/cluster?wait=30", "");
    assert_eq!((status, &seen["settled"]), (200, &true.into()), "{seen}");
    assert_eq!(
        (&seen["voters"], &seen["voters_answering"]),
        (&3.into(), &3.into())
    );
    let name = &cluster.nodes[through].id;
    let remove = json!({ "remove": { "name": name } }).to_string();
    let (status, tried) = http("POST", "/v1/cluster?dry_run=true", &remove);
    let words = tried["message"].as_str().unwrap();
    assert!(status == 200 && words.contains("2 then vote"), "{tried}");
    let (status, refused) = http("POST", "/v1/cluster", r#"{"remove": {"name": "N1"}}"#);
    assert_eq!((status, &refused["code"]), (409, &"MK-050".into()));
    let words = refused["detail"].as_str().unwrap();
    assert!(
        words.contains("no node named N1") && words.contains(name.as_str()),
        "{words}"
    );

    let run = |words: &[&str]| {
        let mut command = Command::new(binary("memkv_client"));
        let output = command.args(["--endpoints", addr]).args(words).output();
        let output = output.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    };
    let done = run(&["leader", "transfer", name, "--wait=30s"]);
    assert_eq!(done.0, Some(0), "{done:?}");
    // Already so: the same verb again is no error.
    let done = run(&["leader", "transfer", name, "--wait"]);
    assert!(
        done.0 == Some(0) && done.1.contains("leads already"),
        "{done:?}"
    );
    let done = run(&["member", "demote", name, "--wait=30s", "--dry-run"]);
    assert_eq!(done.0, Some(2), "nothing to wait for: {done:?}");
    let (_, seen) = http("GET", "/v1/cluster", "");
    assert_eq!(seen["leader"], name.as_str(), "{seen}");
}

#[test]
fn an_operator_is_told_whether_a_node_can_be_spared() {
    let mut cluster = Cluster::start(3);
    let (leader, followers) = (cluster.leader(), cluster.followers());
    let name = cluster.nodes[followers[0]].id.clone();
    let expected = format!("yes: {name} may stop: 2 of 3 voters answer without it");
    // A node that has just joined may lag.
    eventually("each of them may stop", LIMIT, || {
        let (code, said) = check_stop(&cluster, followers[0], &[]);
        let all = said.lines().all(|line| line.starts_with("yes: "));
        (code == Some(0) && all && said.lines().count() == 3).then_some(())
    });
    let (code, said) = check_stop(&cluster, leader, &[&name]);
    assert!(code == Some(0) && said.starts_with(&expected), "{said}");
    verbs_over_http_and_with_a_wait(&cluster, followers[0]);
    let gone = cluster.nodes[followers[1]].id.clone();
    cluster.nodes[followers[1]].kill();
    let expected = format!("no: {name} must not stop now: 2 of 3 voters must answer without it");
    eventually("none may stop any more", LIMIT, || {
        let (code, said) = check_stop(&cluster, leader, &[&name]);
        let is_no = said.starts_with(&expected) && said.contains(&format!("start {gone} first"));
        (code == Some(1) && is_no).then_some(())
    });
    let (code, _) = check_stop(&cluster, leader, &["no-such-node"]);
    assert_eq!(code, Some(2));
}
