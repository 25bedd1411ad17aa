//! A store that computes something else than the others: its node finds that out, sets its directory
//! aside and is replaced; where it is not known which node is right, there is an alarm and all keep running.
//! Needs a server that was built with the deliberate bugs, which `cargo xtask test` builds and names in
//! `MEMKV_BUGS_BIN_DIR`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, Http, command_with_bugs, eventually, order};

/// Longer than a start, an election and a replacement take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

fn start(size: usize) -> Cluster {
    let mut cluster = Cluster::configured(size);
    for node in &mut cluster.nodes {
        let command = command_with_bugs(node);
        node.start_with(command);
    }
    for node in &mut cluster.nodes {
        node.wait_serving();
    }
    cluster
}

fn put(addr: &str, key: &str) -> Option<()> {
    let path = format!("/v1/kv/{key}");
    let response = Http::once(addr, "PUT", &path, b"kept").ok()?;
    (response.status / 100 == 2).then_some(())
}

fn holds(addr: &str, key: &str) -> bool {
    let path = format!("/v1/kv/{key}");
    Http::once(addr, "GET", &path, b"").is_ok_and(|found| found.body == b"kept")
}

/// A number of a node's metrics.
fn metric(addr: &str, name: &str) -> Option<u64> {
    let page = Http::once(addr, "GET", "/metrics", b"").ok()?.text();
    let value = page.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

#[test]
fn a_store_that_differs_from_a_majority_is_set_aside_and_its_node_replaced() {
    let mut cluster = start(3);
    let leader = |cluster: &Cluster| {
        let leads = |index: &usize| {
            let status = cluster.nodes[*index].status();
            status.is_some_and(|status| status["role"] == "leader")
        };
        (0..3).find(leads)
    };
    for (what, is_leader) in [("reply", true), ("key", false)] {
        let first = eventually("there is a leader", LIMIT, || leader(&cluster));
        let wrong = if is_leader { first } else { (first + 1) % 3 };
        let other = cluster.nodes[(wrong + 2) % 3].addr.clone();
        let id =
            |cluster: &Cluster, index: usize| cluster.nodes[index].status()?["node_id"].as_u64();
        let before: Vec<u64> = (0..3).map(|index| id(&cluster, index).unwrap()).collect();
        let path = format!("/deliberate-difference/{what}");
        order(&cluster.nodes[wrong].addr, &path);
        eventually("a write is taken", LIMIT, || put(&other, what));
        eventually("the node was replaced", LIMIT, || {
            let status = cluster.nodes[wrong].status()?;
            let is_new = status["node_id"].as_u64()? > before.iter().copied().max()?;
            (status["phase"] == "serving" && is_new).then_some(())
        });
        let (name, addr) = {
            let node = &cluster.nodes[wrong];
            (node.id.clone(), node.addr.clone())
        };
        let output = cluster.nodes[wrong].process().output();
        let said = format!("the store of {name} is another than that of");
        assert!(output.contains(&said), "{output}");
        let aside = cluster.nodes[wrong].dir.join("metadata/quarantine-1");
        assert!(aside.join("condemned").is_file(), "what was wrong is kept");
        eventually("it has what was acknowledged", LIMIT, || {
            holds(&addr, what).then_some(())
        });
        for index in (0..3).filter(|index| *index != wrong) {
            assert_eq!(id(&cluster, index), Some(before[index]), "the others stay");
            let addr = &cluster.nodes[index].addr;
            assert!(metric(addr, "memkv_divergence_checks_total ").unwrap() > 0);
        }
    }
}

#[test]
fn without_a_majority_there_is_an_alarm_and_no_node_stops() {
    let mut cluster = start(2);
    order(&cluster.nodes[1].addr, "/deliberate-difference/key");
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    eventually("a write is taken", LIMIT, || put(&addrs[0], "k"));
    for (index, addr) in addrs.iter().enumerate() {
        eventually("there is an alarm", LIMIT, || {
            metric(addr, "memkv_divergence_alarm ").filter(|alarm| *alarm == 1)
        });
        let status = cluster.nodes[index].status().unwrap();
        let message = status["message"].as_str().unwrap();
        assert!(
            message.contains("it is not known which node is right"),
            "{message}"
        );
        let output = cluster.nodes[index].process().output();
        assert!(
            output.contains("the stores of the nodes differ after"),
            "{output}"
        );
    }
    for (index, addr) in addrs.iter().enumerate() {
        eventually("a write is taken", LIMIT, || put(addr, "later"));
        assert!(holds(addr, "later"));
        assert!(cluster.nodes[index].process().ended().is_none());
    }
}
