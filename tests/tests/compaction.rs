//! The log is compacted as the original's settings say, and a node that missed what was dropped comes
//! back by a snapshot, with its own disk or with an empty one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, Compat, Load, Node, eventually, files_in, first_index};
use serde_json::Value;

/// The original's `max_log_count` in these clusters' configurations.
const MAX_LOG_COUNT: u64 = 6;

/// Its segments: `max_log_size` 1024 is rounded up to 64 KiB, as in the original.
const SEGMENT_BYTES: usize = 64 * 1024;

const LIMIT: Duration = Duration::from_secs(30);

/// A member is replaced once it was silent for 10 s; then it must catch up.
const REPLACED_LIMIT: Duration = Duration::from_secs(60);

/// Writes at least `bytes` of values over twenty keys, so that the data stay far smaller than the
/// log.
fn fill(client: &mut Compat, bytes: usize) {
    let value = "v".repeat(1024);
    for number in 0..bytes / value.len() {
        let reply = client
            .set(&format!("fill-{}", number % 20), &value)
            .unwrap();
        assert_eq!(reply.status, "ok");
    }
}

fn number(status: &Value, name: &str) -> u64 {
    status[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no `{name}` in {status}"))
}

#[test]
fn more_segments_than_max_log_count_lead_to_a_snapshot_and_fewer_segments_on_every_node() {
    let cluster = Cluster::start(3);
    fill(&mut cluster.nodes[0].compat(), 16 * SEGMENT_BYTES);
    for node in &cluster.nodes {
        eventually(
            "a snapshot, and the log within max_log_count",
            LIMIT,
            || {
                let status = node.status()?;
                let compacted = number(&status, "snapshot_index") > 0
                    && number(&status, "log_segments") <= MAX_LOG_COUNT + 1;
                compacted.then_some(())
            },
        );
        assert!(first_index(node) > 0, "the first segment is gone");
        let snapshots = files_in(&node.dir.join("snapshot"));
        let complete = snapshots
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "snap"));
        assert!(
            (1..=2).contains(&complete.count()),
            "the newest two are kept: {snapshots:?}"
        );
    }
}

#[test]
fn data_survive_a_restart_of_all_nodes_after_compaction() {
    let mut cluster = Cluster::start(3);
    assert_eq!(
        cluster.nodes[0]
            .compat()
            .set("early", "kept")
            .unwrap()
            .status,
        "ok"
    );
    fill(&mut cluster.nodes[0].compat(), 16 * SEGMENT_BYTES);
    eventually("a snapshot", LIMIT, || {
        (number(&cluster.nodes[0].status()?, "snapshot_index") > 0).then_some(())
    });
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.start_all();
    for node in &cluster.nodes {
        assert_eq!(
            node.compat().get("early").unwrap().value.as_deref(),
            Some("kept")
        );
    }
}

#[test]
fn a_follower_that_missed_more_than_the_log_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start(3);
    let absent = cluster.followers()[0];
    let leader = cluster.leader();
    let had = number(&cluster.nodes[absent].status().unwrap(), "applied_index");
    cluster.nodes[absent].kill();
    fill(&mut cluster.nodes[leader].compat(), 24 * SEGMENT_BYTES);
    assert_eq!(
        cluster.nodes[leader]
            .compat()
            .set("late", "seen")
            .unwrap()
            .status,
        "ok"
    );
    eventually(
        "the leader has dropped what the follower needs",
        LIMIT,
        || (first_index(&cluster.nodes[leader]) > had + 1).then_some(()),
    );
    let target = number(&cluster.nodes[leader].status().unwrap(), "commit_index");

    cluster.nodes[absent].start();
    eventually("the follower has caught up", LIMIT, || {
        (number(&cluster.nodes[absent].status()?, "applied_index") >= target).then_some(())
    });
    let status = cluster.nodes[absent].status().unwrap();
    assert!(
        number(&status, "snapshot_index") > had,
        "by a snapshot: {status}"
    );
    // Its own copy answers: it is one of the two that are left.
    let third = (0..3)
        .find(|index| *index != absent && *index != leader)
        .unwrap();
    cluster.nodes[third].kill();
    cluster.nodes[absent].wait_serving();
    assert_eq!(
        cluster.nodes[absent]
            .compat()
            .get("late")
            .unwrap()
            .value
            .as_deref(),
        Some("seen")
    );
}

#[test]
fn a_wiped_follower_is_replaced_under_a_new_id_under_load_without_a_change_of_leader() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let wiped = cluster.followers()[0];
    let load = Load::start(&cluster, 8, 1);
    load.wait_answered(500, LIMIT);
    let before = cluster.nodes[leader].status().unwrap();
    let old_id = number(&cluster.nodes[wiped].status().unwrap(), "node_id");

    cluster.nodes[wiped].kill();
    cluster.nodes[wiped].wipe();
    cluster.nodes[wiped].start();
    let new_id = eventually("the wiped node serves again", REPLACED_LIMIT, || {
        let status = cluster.nodes[wiped].status()?;
        let serves = status["phase"] == "serving" && status["role"] == "follower";
        serves.then(|| number(&status, "node_id"))
    });
    assert!(
        new_id > 3 && new_id != old_id,
        "an id that was never used: {new_id} after {old_id}"
    );
    load.wait_answered(500, LIMIT);
    cluster.nodes[wiped].wait_serving();

    // The member table follows one step behind the vote.
    let after = eventually(
        "the old node is out of the member table",
        REPLACED_LIMIT,
        || {
            let status = cluster.nodes[leader].status()?;
            (status["members"].as_array()?.len() == 3).then_some(status)
        },
    );
    assert_eq!(
        (&before["leader"], &before["term"]),
        (&after["leader"], &after["term"])
    );
    let verdict = load.finish(&cluster);
    assert!(verdict.acknowledged_writes > 200, "{verdict:?}");
    // The new one counts: it and one other are a majority.
    let third = (0..3)
        .find(|index| *index != wiped && *index != leader)
        .unwrap();
    cluster.nodes[third].kill();
    cluster.nodes[wiped].wait_serving();
}

#[test]
fn in_a_cluster_of_two_a_wiped_node_waits_for_the_operator_and_says_so() {
    let mut cluster = Cluster::start(2);
    assert_eq!(
        cluster.nodes[0].compat().set("key", "kept").unwrap().status,
        "ok"
    );
    let old = number(&cluster.nodes[1].status().unwrap(), "node_id");
    cluster.nodes[1].kill();
    cluster.nodes[1].wipe();
    cluster.nodes[1].start();
    let message = eventually(
        "the wiped node says what it waits for",
        REPLACED_LIMIT,
        || {
            let status = cluster.nodes[1].status()?;
            assert_ne!(status["phase"], "serving", "{status}");
            assert_ne!(status["node_id"], old, "{status}");
            let message = status["message"].as_str().unwrap_or_default().to_owned();
            message.contains("operator").then_some(message)
        },
    );
    assert!(message.len() > 40, "what, why and what next: {message}");
    let reply = cluster.nodes[0].compat().get("key").unwrap();
    assert_eq!((reply.status.as_str(), reply.maybe), ("no leader", false));
}
