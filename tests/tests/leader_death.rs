//! A leader whose process dies is replaced without waiting for an election timeout, and nodes that
//! were all restarted elect one without waiting for it, and then take the first command.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, Node, eventually};
use serde_json::json;

/// If the survivors waited for it, no leader would be elected within this test's time limit.
const ELECTION_TIMEOUT_MS: u64 = 60_000;

/// Far below that, and far longer than an election.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn survivors_elect_at_once_when_the_leaders_process_dies() {
    let settings = json!({ "election_timeout_ms": ELECTION_TIMEOUT_MS });
    let mut cluster = Cluster::configured_with(3, &settings);
    cluster.start_all();
    cluster.wait_serving();
    // Three leaders die in turn, and return as followers.
    for round in 0..3 {
        let leader = cluster.leader();
        cluster.nodes[leader].kill();
        for follower in (0..3).filter(|index| *index != leader) {
            let node = &cluster.nodes[follower];
            eventually("a write at every survivor", LIMIT, || {
                let set = node.compat().set("round", &format!("{round} {follower}"));
                set.is_ok_and(|reply| reply.status == "ok").then_some(())
            });
        }
        cluster.nodes[leader].start();
        cluster.nodes[leader].wait_serving();
    }
}

#[test]
fn nodes_that_were_all_restarted_elect_at_once() {
    let settings = json!({ "election_timeout_ms": ELECTION_TIMEOUT_MS });
    let mut cluster = Cluster::configured_with(3, &settings);
    cluster.start_all();
    cluster.wait_serving();
    for round in 0..3 {
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.nodes.iter_mut().for_each(Node::start);
        for node in &cluster.nodes {
            eventually("a write at every node", LIMIT, || {
                let set = node.compat().set("round", &format!("{round}"));
                set.is_ok_and(|reply| reply.status == "ok").then_some(())
            });
        }
    }
}

#[test]
fn the_first_command_after_an_election_waits_for_no_pause() {
    // A command fails after 3 s. A node waits for longer than that for the effect of having asked for
    // its session, and must not where that was refused: by a leader that was elected a moment ago,
    // or because one entry opens one session and all three have asked.
    let mut cluster = Cluster::start(3);
    for round in 0..8 {
        cluster.nodes.iter_mut().for_each(Node::kill);
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster.wait_serving();
        for node in &cluster.nodes {
            let set = node.compat().set("round", &format!("{round}"));
            assert_eq!(set.unwrap().status, "ok", "round {round}");
        }
    }
}
