//! The audit log as an operator meets it, and what the system can tell of a node's memory.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use memkv_black_box::{Cluster, Resp, eventually, write_secret};
use serde_json::{Value, json};

/// Longer than a write to a file takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

const PASSWORD: &str = "a password that must be in no file";

#[test]
fn who_authenticated_failed_and_stopped_the_node_is_in_a_file_without_the_password() {
    let more = json!({ "password_file": "../password", "audit_file": "../audit" });
    let mut cluster = Cluster::configured_with(1, &more);
    let (audit, rotated) = (cluster.root().join("audit"), cluster.root().join("audit.1"));
    write_secret(&cluster.root().join("password"), PASSWORD);
    let node = &mut cluster.nodes[0];
    node.start();
    let mut client = eventually("the node answers", LIMIT, || Resp::connect(&node.addr).ok());
    let wrong = format!("{PASSWORD}\n{{\"event\":\"shutdown\"}}");
    assert!(client.call(&["AUTH", &wrong]).unwrap().is_error());
    assert_eq!(client.call(&["AUTH", PASSWORD]).unwrap().text(), b"OK");
    let seen = lines_until(&audit, 2);
    let outcomes: Vec<_> = seen.iter().map(|line| &line["outcome"]).collect();
    assert_eq!(outcomes, ["refused", "allowed"]);
    for line in &seen {
        assert_eq!(
            (&line["event"], &line["user"]),
            (&"authentication".into(), &"default".into())
        );
        assert!(
            line["origin"].as_str().unwrap().starts_with("127.0.0.1:"),
            "{line}"
        );
    }
    assert_eq!(fs::metadata(&audit).unwrap().mode() & 0o777, 0o600);

    // A tool renames the file: the node makes a new one.
    fs::rename(&audit, &rotated).unwrap();
    assert_eq!(lines_until(&audit, 0).len(), 0);
    drop(client.call(&["SHUTDOWN"]));
    node.process().wait_end(LIMIT);
    assert_eq!(lines_until(&audit, 1)[0]["event"], "shutdown");
    for file in [&audit, &rotated, &node.log] {
        let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        assert!(!text.contains(PASSWORD), "{}: {text}", file.display());
    }
    node.kill();
}

#[test]
fn a_node_leaves_no_core_dump() {
    let mut cluster = Cluster::configured(1);
    let node = &mut cluster.nodes[0];
    node.start();
    node.wait_serving();
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.process().id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..6], ["0", "0"], "{limits}");
}

/// The lines of the file, once there are so many.
fn lines_until(file: &std::path::Path, count: usize) -> Vec<Value> {
    eventually("the audit log has its lines", LIMIT, || {
        let text = fs::read_to_string(file).ok()?;
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines.len() >= count).then_some(lines)
    })
}
