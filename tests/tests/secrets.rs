//! Passwords, tokens, keys and cluster secrets as operators meet them: which files a node takes, whom a node
//! that has something to protect speaks the peers' protocol with, and that none of them is written anywhere.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{
    Ca, Cluster, Frame, Http, Node, Resp, binary, eventually, files_in, newest_snapshot,
    write_secret,
};
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

/// The files below `dir` that have these bytes.
fn found_in(dir: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let has = |path: &PathBuf| {
        let content = fs::read(path).unwrap_or_default();
        content.windows(bytes.len()).any(|part| part == bytes)
    };
    files_in(dir).into_iter().filter(has).collect()
}

/// `name:secret` in base64, as HTTP's basic authentication shows it.
fn basic(name: &str, secret: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = format!("{name}:{secret}").into_bytes();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let part = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = part(0) << 16 | part(1) << 8 | part(2);
        for digit in 0..=three.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
        text.push_str(&"=".repeat(3 - three.len()));
    }
    text
}

/// What a node tells of itself over HTTP.
fn told(node: &Node, authorization: &str, method: &str, path: &str) -> String {
    let mut http = Http::connect(&node.addr).unwrap();
    let shown = [("Authorization", authorization)];
    let response = http.request(method, path, &shown, b"").unwrap();
    format!(
        "{} {:?} {}",
        response.status,
        response.headers,
        response.text()
    )
}

#[test]
fn passwords_tokens_and_keys_are_written_down_nowhere() {
    const CANARY: &str = "canary-password-7f3a";
    const GUESS: &str = "canary-guess-91bd";
    let kept = tempfile::tempdir().unwrap();
    let ca = Ca::new(kept.path(), "ca");
    ca.issue_node("n1");
    let cluster_secret = new_secret();
    for (name, text) in [("password", PASSWORD), ("secret", cluster_secret.as_str())] {
        write_secret(&kept.path().join(name), text);
    }
    let file = |name: &str| kept.path().join(name).to_str().unwrap().to_owned();
    let more = json!({
        "password_file": file("password"),
        "cluster_secret_file": file("secret"),
        "audit_file": "audit",
        "tls": "accept",
        "tls_cert_file": ca.file("n1.crt"),
        "tls_key_file": ca.file("n1.key"),
        "log_level": "trace",
    });
    let mut cluster = Cluster::configured_with(3, &more);
    cluster.nodes.iter_mut().for_each(Node::start);
    let admin = |node: &Node| {
        let mut client = Resp::connect(&node.addr).ok()?;
        let shown = client.call(&["AUTH", PASSWORD]).ok()?;
        (shown.text() == b"OK").then_some(client)
    };
    let mut clients: Vec<Resp> = cluster
        .nodes
        .iter()
        .map(|node| eventually("the node answers", LIMIT, || admin(node)))
        .collect();
    let set = format!(">{CANARY}");
    let set = ["ACL", "SETUSER", "ann", "on", &set, "+@all", "~*", "&*"];
    assert_eq!(clients[0].call(&set).unwrap().text(), b"OK");
    let token = clients[0].call(&["MEMKV.USERS", "TOKEN", "ann"]).unwrap();
    let token = String::from_utf8(token.text().to_vec()).unwrap();
    // The longest line of the key's text.
    let key = fs::read_to_string(ca.file("n1.key")).unwrap();
    let key = key.lines().max_by_key(|line| line.len()).unwrap();
    let cluster_secret = cluster_secret.trim_end();
    let (of_ann, of_default) = (basic("ann", CANARY), basic("default", PASSWORD));
    let secrets = [
        PASSWORD,
        CANARY,
        GUESS,
        &token,
        key,
        cluster_secret,
        &of_ann,
        &of_default,
    ];
    let check = |what: &str, shown: &str| {
        for secret in secrets {
            assert!(!shown.contains(secret), "{what} shows {secret}: {shown}");
        }
    };
    for (at, node) in cluster.nodes.iter().enumerate() {
        let mut client = Resp::connect(&node.addr).unwrap();
        for secret in [CANARY, &token] {
            assert_eq!(client.call(&["AUTH", "ann", secret]).unwrap().text(), b"OK");
        }
        let remove = format!("<{GUESS}");
        let hidden = format!("zz>{CANARY}");
        for line in [
            &["AUTH", "ann", GUESS][..],
            &["AUTH", "ann", GUESS, CANARY],
            &["HELLO", "3", "AUTH", "ann", GUESS],
            &["ACL", "SETUSER", "ann", &remove],
            &["ACL", "DRYRUN", "ann", "AUTH", "ann", CANARY],
            &["ACL", "LIST"],
            &["ACL", "GETUSER", "ann"],
            &["ACL", "LOG"],
            &["CLIENT", "LIST"],
            &["CONFIG", "GET", "*"],
            &["INFO", "everything"],
        ] {
            let shown = clients[at].call(line).unwrap();
            check(
                &line.join(" ").replace(GUESS, "?").replace(CANARY, "?"),
                &shown.to_string(),
            );
        }
        // Redis repeats a modifier that it does not know, but for passwords.
        assert!(
            clients[at]
                .call(&["ACL", "SETUSER", "ann", &hidden[..2]])
                .unwrap()
                .is_error()
        );
        let of_ann = format!("Basic {of_ann}");
        for authorization in [
            &of_ann,
            &format!("Bearer {token}"),
            &format!("Bearer {GUESS}"),
        ] {
            for (method, path) in [
                ("GET", "/v1/status"),
                ("GET", "/metrics"),
                ("GET", "/v1/kv/nosuch"),
                ("GET", "/nosuch"),
                ("PATCH", "/v1/txn"),
                ("POST", "/v1/txn"),
            ] {
                check(path, &told(node, authorization, method, path));
            }
        }
        let arguments = fs::read(format!("/proc/{}/cmdline", node.process_id().unwrap())).unwrap();
        check("the argument list", &String::from_utf8_lossy(&arguments));
    }
    // A snapshot holds the users; the log up to it may go.
    let value = "v".repeat(8 * 1024);
    let find = |node: &Node| {
        let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|end| end == "snap");
        files_in(&node.dir.join("snapshot")).iter().any(is_snapshot)
    };
    eventually("every node has a snapshot", LIMIT, || {
        for key in 0..64 {
            clients[0].call(&["SET", &format!("k{key}"), &value]).ok()?;
        }
        cluster.nodes.iter().all(find).then_some(())
    });
    let hashed = b"$argon2id$";
    for node in &cluster.nodes {
        let snapshot = newest_snapshot(&node.dir.join("snapshot"));
        assert!(fs::metadata(&snapshot).unwrap().len() > 0);
        let audit = fs::read_to_string(node.dir.join("audit")).unwrap();
        assert!(audit.contains("authentication"), "{audit}");
    }
    cluster.nodes.iter_mut().for_each(Node::terminate);
    for secret in secrets {
        let found = found_in(cluster.root(), secret.as_bytes());
        assert!(found.is_empty(), "{secret} is in {found:?}");
    }
    let found = found_in(cluster.root(), hashed);
    assert!(
        !found.is_empty(),
        "the hash of a password is in the log or a snapshot"
    );
}
