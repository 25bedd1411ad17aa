//! `memkv_server demo`: three nodes from one command, none of which outlives it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Process, Signal, binary, children_of, eventually, exists};

const READY_LIMIT: Duration = Duration::from_secs(30);
const END_LIMIT: Duration = Duration::from_secs(15);

/// A demo that is ready, and its nodes' process ids.
fn start(dir: &std::path::Path) -> (Process, Vec<u32>) {
    let mut command = Command::new(binary("memkv_server"));
    command.arg("demo").current_dir(dir);
    let mut demo = Process::start(&mut command, &dir.join("demo.log"));
    demo.wait_output("ready", READY_LIMIT);
    let nodes = children_of(demo.id());
    assert_eq!(nodes.len(), 3, "three nodes run:\n{}", demo.output());
    (demo, nodes)
}

#[test]
fn demo_reaches_ready_and_its_nodes_end_with_it() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let (mut demo, nodes) = start(dir.path());
        demo.signal(signal);
        demo.wait_end(END_LIMIT);
        eventually(
            &format!("the nodes end after {signal:?}"),
            END_LIMIT,
            || nodes.iter().all(|node| !exists(*node)).then_some(()),
        );
    }
}
