//! `memkv_client member check-stop`: whether the cluster can spare a node now.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Cluster, binary, eventually};

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
