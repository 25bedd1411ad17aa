//! A panic in each kind of task of a real node. A client's connection costs itself alone, unless it
//! was changing what others see; everything else ends the process. Needs a server that was built with
//! the deliberate bugs, which `cargo xtask test` builds and names in `MEMKV_BUGS_BIN_DIR`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use memkv_black_box::{
    Cluster, Http, Node, Resp, Signal, command_with_bugs, eventually, first_index, order,
};

/// Longer than a start and an election take on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The signal with which `abort` ends a process.
const SIGABRT: i32 = 6;

/// Keys of 4 KiB: a snapshot of several blocks.
const KEYS: usize = 200;

/// Starts a node with the deliberate bugs, and waits until it serves.
fn serve(node: &mut Node) {
    let command = command_with_bugs(node);
    node.start_with(command);
    node.wait_serving();
}

fn start() -> Cluster {
    let mut cluster = Cluster::configured(1);
    serve(&mut cluster.nodes[0]);
    cluster
}

/// A number of the node's metrics.
fn metric(addr: &str, name: &str) -> u64 {
    let page = Http::once(addr, "GET", "/metrics", b"").unwrap().text();
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {page}"));
    value.trim().parse().unwrap()
}

/// Log lines of one panic at a point: the text of the panic is logged once.
fn lines(output: &str, point: &str) -> Vec<String> {
    let text = format!("a deliberate panic: {point}");
    let found = output.lines().filter(|line| line.contains(&text));
    found.map(str::to_owned).collect()
}

#[test]
fn a_panic_in_a_clients_connection_costs_that_connection() {
    let mut cluster = start();
    let addr = cluster.nodes[0].addr.clone();
    let mut other = Resp::connect(&addr).unwrap();
    assert_eq!(other.call(&["SET", "k", "v"]).unwrap().text(), b"OK");
    let mut client = Resp::connect(&addr).unwrap();
    for (point, name, expected) in [
        ("Command", "command", 1),
        ("Request", "request", 2),
        ("Reading", "reading", 3),
    ] {
        let subscribed = client.call(&["HELLO", "3"]).is_ok()
            && client.call(&["SUBSCRIBE", "c"]).is_ok()
            && client.call(&["PSUBSCRIBE", "p*"]).is_ok();
        assert!(subscribed);
        assert_eq!(metric(&addr, "memkv_subscriptions "), 2);
        let open = metric(&addr, "memkv_connections ");
        if name == "request" {
            let mut http = Http::connect(&addr).unwrap();
            order(&addr, &format!("/deliberate-panic/{name}"));
            assert!(http.request("GET", "/livez", &[], b"").is_err(), "closed");
        } else {
            order(&addr, &format!("/deliberate-panic/{name}"));
            assert!(
                client.call(&["GET", "k"]).is_err(),
                "the connection was closed"
            );
        }
        drop(client);
        eventually("what it held is given back", LIMIT, || {
            let left = metric(&addr, "memkv_subscriptions ") == 0;
            (left && metric(&addr, "memkv_connections ") == open - 1).then_some(())
        });
        assert_eq!(metric(&addr, "memkv_panics_total "), expected);
        // The others go on, writing and reading.
        assert_eq!(other.call(&["SET", "k", name]).unwrap().text(), b"OK");
        assert_eq!(other.call(&["GET", "k"]).unwrap().text(), name.as_bytes());
        let output = cluster.nodes[0].process().output();
        let said = lines(&output, point);
        assert_eq!(said.len(), 1, "{output}");
        assert!(
            said[0].contains("bugs.rs:") && said[0].contains("was closed"),
            "{said:?}"
        );
        client = Resp::connect(&addr).unwrap();
    }
    assert!(cluster.nodes[0].process().ended().is_none());
}

#[test]
fn a_panic_anywhere_else_ends_the_process() {
    for (point, name) in [
        ("Writing", "writing"),
        ("Accept", "accept"),
        ("Peer", "peer"),
        ("Round", "round"),
        ("Consensus", "consensus"),
        ("Apply", "apply"),
        ("Log", "log"),
        ("Blocking", "blocking"),
    ] {
        let mut cluster = start();
        let (addr, id) = (cluster.nodes[0].addr.clone(), cluster.nodes[0].id.clone());
        let mut client = Resp::connect(&addr).unwrap();
        let kept = client.call(&["SET", "k", "acknowledged"]).unwrap();
        assert_eq!(kept.text(), b"OK");
        order(&addr, &format!("/deliberate-panic/{name}"));
        if name == "peer" {
            let mut http = Http::connect(&addr).unwrap();
            let head = format!(
                "GET /memkv{id}/raft/control HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
                 Upgrade: memkv-peer/2\r\nX-Memkv-From: n9\r\n\r\n"
            );
            http.send(head.as_bytes()).unwrap();
        }
        // A write and a read pass every other point; whether they are answered does not matter.
        drop(client.call(&["SET", "other", "v"]));
        drop(client.call(&["GET", "other"]));
        drop(Resp::connect(&addr));
        let status = cluster.nodes[0].process().wait_end(LIMIT);
        let output = cluster.nodes[0].process().output();
        assert_eq!(status.signal(), Some(SIGABRT), "{point}: {output}");
        let said = lines(&output, point);
        assert_eq!(said.len(), 1, "{output}");
        assert!(
            said[0].contains("bugs.rs:") && said[0].contains("the node panicked"),
            "{said:?}"
        );
        // Acknowledged writes are there again.
        cluster.nodes[0].kill();
        serve(&mut cluster.nodes[0]);
        let mut client = Resp::connect(&addr).unwrap();
        assert_eq!(client.call(&["GET", "k"]).unwrap().text(), b"acknowledged");
    }
}

/// Asserts that the node has ended by the panic that was ordered where snapshots are loaded.
#[track_caller]
fn check_ended_loading(node: &mut Node) {
    let status = node.process().wait_end(LIMIT);
    let output = node.process().output();
    assert_eq!(status.signal(), Some(SIGABRT), "{output}");
    let said = lines(&output, "Loading");
    assert_eq!(said.len(), 1, "{output}");
    assert!(said[0].contains("the node panicked"), "{said:?}");
    node.kill();
}

#[test]
fn a_panic_while_a_snapshot_is_loaded_ends_the_process_which_loads_it_again() {
    let mut cluster = Cluster::configured(3);
    for node in &mut cluster.nodes {
        let command = command_with_bugs(node);
        node.start_with(command);
    }
    cluster.wait_serving();
    let leader = cluster.leader();
    let behind = cluster.followers()[0];
    let others = (0..3).filter(|point| *point != behind);
    let others: Vec<usize> = others.collect();
    let had = cluster.nodes[behind].status().unwrap()["applied_index"].as_u64();
    let had = had.unwrap();
    order(&cluster.nodes[behind].addr, "/deliberate-panic/loading");
    cluster.nodes[behind].process().signal(Signal::STOP);
    let mut client = Resp::connect(&cluster.nodes[leader].addr).unwrap();
    let value = "v".repeat(4096);
    let is_compacted = |point: &usize| first_index(&cluster.nodes[*point]) > had + 1;
    eventually("the log lacks what the node lacks", LIMIT, || {
        for number in 0..KEYS {
            let set = client.call(&["SET", &format!("k{number}"), &value]);
            assert_eq!(set.unwrap().text(), b"OK");
        }
        others.iter().all(is_compacted).then_some(())
    });
    // The leader's snapshot, while the node runs.
    cluster.nodes[behind].process().signal(Signal::CONT);
    check_ended_loading(&mut cluster.nodes[behind]);
    serve(&mut cluster.nodes[behind]);
    check_holds_all(&cluster.nodes[behind], &value);
    // Its own snapshot, when it starts.
    cluster.nodes[behind].kill();
    let mut panics = command_with_bugs(&cluster.nodes[behind]);
    panics.env("MEMKV_DELIBERATE_PANIC", "loading");
    cluster.nodes[behind].start_with(panics);
    check_ended_loading(&mut cluster.nodes[behind]);
    serve(&mut cluster.nodes[behind]);
    check_holds_all(&cluster.nodes[behind], &value);
}

/// Asserts that a node answers for all keys that were written.
#[track_caller]
fn check_holds_all(node: &Node, value: &str) {
    let mut client = Resp::connect(&node.addr).unwrap();
    for number in 0..KEYS {
        let held = client.call(&["GET", &format!("k{number}")]).unwrap();
        assert_eq!(held.text(), value.as_bytes(), "k{number}");
    }
}
