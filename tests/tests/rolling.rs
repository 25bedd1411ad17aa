//! A node that is told to stop (SIGTERM) takes no request of another node's clients with it: they see
//! a pause and no error, also when it led. Its own clients are answered, and told to go. A rolling restart is
//! that for each node in turn.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, DrainLoad, Resp, RollingLoad, Signal};

/// Far longer than an end that waits for nothing, on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_rolling_restart_under_load_fails_no_request_at_the_other_nodes() {
    let mut cluster = Cluster::start(3);
    let load = RollingLoad::start(&cluster, 100);
    load.restart_each(&mut cluster, |_| {});
    load.finish(&cluster);
}

#[test]
fn a_node_that_stops_answers_what_it_has_received_and_tells_its_clients_to_go() {
    let mut cluster = Cluster::start(3);
    let load = DrainLoad::start(&cluster);
    for _ in 0..2 {
        load.restart_each(&mut cluster);
    }
    load.finish(&cluster);
}

#[test]
fn a_second_signal_ends_a_node_at_once() {
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    // For the sake of this client the node would wait.
    let mut idle = Resp::connect(&node.addr).unwrap();
    assert_eq!(idle.call(&["PING"]).unwrap().text(), b"PONG");
    node.process().signal(Signal::TERM);
    node.process().signal(Signal::INT);
    let status = node.process().wait_end(LIMIT);
    // Either may come first.
    assert!(matches!(status.code(), Some(130 | 143)), "{status}");
}
