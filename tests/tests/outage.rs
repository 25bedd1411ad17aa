//! The log of the nodes while one of them is away: each event once, with its reason.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use memkv_black_box::{Cluster, Node, eventually, first_index};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// How long a node is away: many times what any pause between two attempts is.
const AWAY: Duration = Duration::from_secs(6);

/// How often one line may occur, whatever numbers and names are in it: a node has six connections to
/// the one that is away, and leaders may change on a busy machine.
const MOST: usize = 8;

/// A line without its time and the parts that vary.
fn kind_of(line: &str) -> String {
    let words = line.split_whitespace().skip(1);
    words
        .filter(|word| !word.contains(|c: char| c.is_ascii_digit()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Lines by kind, most frequent first.
fn kinds(output: &str) -> Vec<(usize, String)> {
    let mut counts = BTreeMap::new();
    for line in output.lines() {
        *counts.entry(kind_of(line)).or_insert(0) += 1;
    }
    let mut counts: Vec<_> = counts
        .into_iter()
        .map(|(kind, count)| (count, kind))
        .collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts
}

/// Writes a key once; while there is no leader, the write has no effect and is sent again.
fn write(node: &Node, key: &str, value: &str) {
    let mut client = node.compat();
    eventually("a write is taken", LIMIT, || {
        let reply = client.set(key, value).unwrap();
        assert!(
            reply.status == "ok" || (reply.http, reply.maybe) == (503, false),
            "{reply:?}"
        );
        (reply.status == "ok").then_some(())
    });
}

#[test]
fn a_node_that_is_away_is_logged_once_and_catches_up_by_one_snapshot() {
    let mut cluster = Cluster::start(3);
    let leader = cluster.leader();
    let away = cluster.followers()[0];
    let others: Vec<usize> = (0..3).filter(|index| *index != away).collect();
    let had = cluster.nodes[away].status().unwrap()["applied_index"].as_u64();
    let said: Vec<usize> = (0..3)
        .map(|index| cluster.nodes[index].process().output().len())
        .collect();
    cluster.nodes[away].kill();
    let value = "v".repeat(4096);
    let until = Instant::now() + AWAY;
    let mut number = 0;
    // Until the log no longer has what the node lacks, however slow the machine is.
    let is_compacted = |node: &Node| first_index(node) > had.unwrap() + 1;
    while Instant::now() < until
        || !others
            .iter()
            .all(|index| is_compacted(&cluster.nodes[*index]))
    {
        let key = format!("key-{}", number % 100);
        write(&cluster.nodes[leader], &key, &value);
        number += 1;
    }
    for index in &others {
        let output = cluster.nodes[*index].process().output();
        let output = &output[said[*index]..];
        assert!(
            !output.contains("sending a snapshot"),
            "nothing takes it:\n{output}"
        );
        let kinds = kinds(output);
        let is_bounded = kinds.iter().all(|(count, _)| *count <= MOST);
        assert!(is_bounded, "{kinds:#?}\n{output}");
    }
    cluster.nodes[away].start();
    cluster.nodes[away].wait_serving();
    let sent = others.iter().map(|index| {
        let output = cluster.nodes[*index].process().output();
        let told = output
            .lines()
            .filter(|line| line.contains("sending a snapshot"));
        told.map(str::to_owned).collect::<Vec<_>>()
    });
    let sent: Vec<Vec<String>> = sent.collect();
    // The leader may have changed meanwhile.
    let once = sent.iter().any(|lines| lines.len() == 1) && sent.iter().all(|it| it.len() <= 1);
    assert!(once, "{sent:#?}");
    let words = "the log does not reach back to what this node lacks";
    assert!(
        sent.iter().flatten().all(|line| line.contains(words)),
        "{sent:#?}"
    );
    cluster.nodes.iter_mut().for_each(Node::kill);
}
