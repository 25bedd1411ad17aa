//! Passwords and cluster secrets as operators meet them: which files a node takes, and whom a node
//! that has something to protect speaks the peers' protocol with.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Cluster, Frame, Http, Resp, binary, eventually, write_secret};
use serde_json::json;

/// Longer than formation takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

const PASSWORD: &str = "correct horse battery staple";

/// The output of `memkv_server secret`.
fn new_secret() -> String {
    let output = Command::new(binary("memkv_server"))
        .arg("secret")
        .output()
        .unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

/// Requests the peers' protocol without a secret; returns the status and the text of the answer.
fn knock(addr: &str, to: &str) -> Option<(u16, String)> {
    let mut http = Http::connect(addr).ok()?;
    let nonce = "0123456789abcdef".repeat(4);
    let head = format!(
        "GET /memkv{to}/raft/control HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: memkv-peer/2\r\nX-Memkv-From: n9\r\nX-Memkv-Nonce: {nonce}\r\n\r\n"
    );
    http.send(head.as_bytes()).unwrap();
    let response = http.receive(false).ok()?;
    let said = format!("{:?}", response.headers);
    (response.status != 503).then_some((response.status, said))
}

#[test]
fn a_node_with_a_password_admits_no_peer_without_a_proof() {
    let mut cluster = Cluster::configured_with(1, &json!({ "password_file": "../password" }));
    write_secret(&cluster.root().join("password"), PASSWORD);
    let node = &mut cluster.nodes[0];
    node.start();
    let (status, _) = eventually("the node answers", LIMIT, || knock(&node.addr, &node.id));
    assert_eq!(status, 403);
}

#[test]
fn nodes_with_a_password_and_a_new_secret_form_a_cluster_and_tell_strangers_nothing() {
    let more = json!({ "password_file": "../password", "cluster_secret_file": "../secret" });
    let mut cluster = Cluster::configured_with(3, &more);
    let secret = new_secret();
    assert_ne!(secret, new_secret());
    assert_eq!(secret.trim_end().len(), 64, "{secret}");
    write_secret(&cluster.root().join("secret"), &secret);
    write_secret(&cluster.root().join("password"), PASSWORD);
    for node in &mut cluster.nodes {
        node.start();
    }
    for node in &cluster.nodes {
        eventually("the node takes a write", LIMIT, || {
            let mut client = Resp::connect(&node.addr).ok()?;
            client.call(&["AUTH", PASSWORD]).ok()?;
            let said: Frame = client.call(&["SET", "k", "v"]).ok()?;
            (said.text() == b"OK").then_some(())
        });
    }
    let node = &cluster.nodes[0];
    for to in [node.id.as_str(), "n9"] {
        let (status, said) = knock(&node.addr, to).unwrap();
        assert_eq!(status, 101, "whatever the name");
        assert!(!said.contains(&node.id), "{said}");
    }
}

#[test]
fn a_node_does_not_start_with_secrets_that_protect_nothing() {
    let mut cluster = Cluster::configured(2);
    let root = cluster.root().to_owned();
    write_secret(&root.join("password"), PASSWORD);
    write_secret(&root.join("short"), "0123456789abcdef0123456789abcde\n");
    write_secret(&root.join("long"), &"a".repeat(2 << 20));
    write_secret(&root.join("open"), &new_secret());
    fs::set_permissions(root.join("open"), Permissions::from_mode(0o644)).unwrap();
    let node = &mut cluster.nodes[0];
    let original = node.read_config();
    let no_variable: &[(&str, &str)] = &[];
    for (settings, variables, words) in [
        (
            json!({ "password_file": "../password" }),
            no_variable,
            "memkv_server secret",
        ),
        (
            json!({}),
            &[("MEMKV_PASSWORD", PASSWORD)],
            "memkv_server secret",
        ),
        (
            json!({ "cluster_secret_file": "../short" }),
            no_variable,
            "fewer than 32 bytes",
        ),
        (
            json!({ "cluster_secret_file": "../long" }),
            no_variable,
            "longer than 4096 bytes",
        ),
        (
            json!({ "cluster_secret_file": "../open" }),
            no_variable,
            "chmod 600",
        ),
        (
            json!({ "password_file": "../open" }),
            no_variable,
            "chmod 600",
        ),
        (
            json!({ "password_file": "../password" }),
            &[("MEMKV_PASSWORD", "another")],
            "different passwords",
        ),
    ] {
        let mut config = original.clone();
        for (key, value) in settings.as_object().unwrap() {
            config[key] = value.clone();
        }
        node.write_config(&config);
        let mut command = node.command();
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{settings}: {said}");
        assert!(said.contains(words), "{settings}: {said}");
        assert!(!said.contains(PASSWORD), "{said}");
        assert!(!node.dir.join("metadata").exists(), "nothing was created");
    }
}
