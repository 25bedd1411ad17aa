//! `memkv_server acl reset-admin`: the way back into a cluster whose passwords are lost, with real binaries and a
//! node that is killed at any moment.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use memkv_black_box::{Cluster, Node, Resp, binary, eventually, files_in, write_secret};
use serde_json::json;

/// Longer than an election takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

const LOST: &str = "canary-lost-password-41";
const NEW: &str = "canary-new-password-52";

/// A cluster of three whose only user with rights is `admin`, with a password that is lost.
fn lost_cluster() -> Cluster {
    let mut cluster = Cluster::configured_with(3, &json!({ "audit_file": "audit" }));
    cluster.start_all();
    let mut client = Resp::connect(&cluster.nodes[0].addr).unwrap();
    let password = format!(">{LOST}");
    for line in [
        &["ACL", "SETUSER", "admin", "on", &password, "+@all", "~*"][..],
        &["SET", "kept", "v"],
        &["AUTH", "admin", LOST],
        &["ACL", "SETUSER", "default", "off"],
    ] {
        assert_eq!(client.call(line).unwrap().text(), b"OK", "{line:?}");
    }
    cluster
}

/// Asks for a new password of the user `admin`, which comes from a file.
fn reset(node: &Node, password: &str) -> Output {
    let file = node.dir.with_extension("password");
    let _ = fs::remove_file(&file);
    write_secret(&file, password);
    let mut command = Command::new(binary("memkv_server"));
    let data = node.dir.to_str().unwrap();
    command.args(["acl", "reset-admin", "--data", data]);
    let output = command.stdin(Stdio::from(File::open(&file).unwrap()));
    let output = output.output().unwrap();
    fs::remove_file(&file).unwrap();
    output
}

fn may(node: &Node, password: &str) -> Option<bool> {
    let mut client = Resp::connect(&node.addr).ok()?;
    let shown = client.call(&["AUTH", "admin", password]).ok()?;
    let text = String::from_utf8_lossy(shown.text()).into_owned();
    match &text[..] {
        "OK" => Some(client.call(&["GET", "kept"]).ok()?.text() == b"v"),
        // A node that starts knows no users.
        _ => text.contains("WRONGPASS").then_some(false),
    }
}

#[test]
fn a_lost_password_is_replaced_through_a_stopped_nodes_directory() {
    let mut cluster = lost_cluster();
    let running = reset(&cluster.nodes[0], NEW);
    let said = String::from_utf8_lossy(&running.stderr).into_owned();
    assert_eq!(running.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use"), "{said}");
    cluster.nodes[0].terminate();
    let empty = reset(&cluster.nodes[0], "\n");
    assert_eq!(empty.status.code(), Some(1));
    let request = cluster.nodes[0].dir.join("metadata/reset-admin");
    assert!(!request.exists());
    // The second takes the place of the first.
    for password in [GUESSED, NEW] {
        let done = reset(&cluster.nodes[0], password);
        assert!(done.status.success(), "{done:?}");
    }
    assert_eq!(fs::metadata(&request).unwrap().mode() & 0o777, 0o600);
    assert_eq!(
        may(&cluster.nodes[1], NEW),
        Some(false),
        "not before the node runs"
    );
    cluster.nodes[0].start();
    for node in &cluster.nodes {
        eventually("the new password is right", LIMIT, || {
            may(node, NEW)?.then_some(())
        });
        for wrong in [LOST, GUESSED] {
            assert_eq!(may(node, wrong), Some(false));
        }
    }
    eventually("the request is gone", LIMIT, || {
        (!request.exists()).then_some(())
    });
    let audit = cluster.nodes[0].dir.join("audit");
    eventually("the audit log tells of it", LIMIT, || {
        let text = fs::read_to_string(&audit).ok()?;
        text.contains("acl reset-admin").then_some(())
    });
    for file in files_in(cluster.root()) {
        let content = fs::read(&file).unwrap_or_default();
        for secret in [LOST, GUESSED, NEW] {
            let has = content
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!has, "{secret} is in {}", file.display());
        }
    }
}

const GUESSED: &str = "canary-other-password-63";

#[test]
fn a_node_that_is_killed_meanwhile_resets_the_password_all_the_same() {
    let mut cluster = lost_cluster();
    cluster.nodes[0].terminate();
    assert!(reset(&cluster.nodes[0], NEW).status.success());
    let request = cluster.nodes[0].dir.join("metadata/reset-admin");
    // It starts in some hundred milliseconds: some of these are before the request was seen, some behind.
    for round in 0..12 {
        cluster.nodes[0].start();
        thread::sleep(Duration::from_millis(60 * round));
        cluster.nodes[0].kill();
    }
    cluster.nodes[0].start();
    for node in &cluster.nodes {
        eventually("the new password is right", LIMIT, || {
            may(node, NEW)?.then_some(())
        });
    }
    eventually("the request is gone", LIMIT, || {
        (!request.exists()).then_some(())
    });
    // What others change later stays, however often the node starts.
    let mut client = Resp::connect(&cluster.nodes[1].addr).unwrap();
    client.call(&["AUTH", "admin", NEW]).unwrap();
    let again = format!(">{GUESSED}");
    let line = ["ACL", "SETUSER", "admin", "resetpass", &again];
    assert_eq!(client.call(&line).unwrap().text(), b"OK");
    cluster.nodes[0].kill();
    cluster.nodes[0].start();
    eventually("the node serves", LIMIT, || {
        may(&cluster.nodes[0], GUESSED)?.then_some(())
    });
    assert_eq!(may(&cluster.nodes[0], NEW), Some(false));
}
