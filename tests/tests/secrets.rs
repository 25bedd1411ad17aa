//! Passwords, tokens, keys and cluster secrets as operators meet them: which files a node takes, whom a node
//! that has something to protect speaks the peers' protocol with, and that none of them is written anywhere.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use memchr::memmem;
use memkv_black_box::{
    Ca, Cluster, Frame, Http, Node, Resp, binary, eventually, files_in, write_secret,
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

/// The first file below `dir` that has these bytes.
fn found_in(dir: &Path, bytes: &str) -> Option<PathBuf> {
    let has = |path: &PathBuf| {
        let content = fs::read(path).unwrap_or_default();
        memmem::find(&content, bytes.as_bytes()).is_some()
    };
    files_in(dir).into_iter().find(has)
}

/// Whether a file below `dir` has the hash of a password.
fn has_hash(dir: &Path) -> bool {
    found_in(dir, "$argon2id$").is_some()
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

/// The password of the user `ann`, and one that no user has.
const CANARY: &str = "canary-password-7f3a";
const GUESS: &str = "canary-guess-91bd";

/// What must be written down nowhere.
struct Canaries(Vec<String>);

impl Canaries {
    #[track_caller]
    fn check(&self, what: &str, shown: &str) {
        for secret in &self.0 {
            assert!(!shown.contains(secret), "{what} shows {secret}: {shown}");
        }
    }

    #[track_caller]
    fn check_files(&self, dir: &Path) {
        for secret in &self.0 {
            assert_eq!(found_in(dir, secret), None, "{secret}");
        }
    }
}

/// Nodes that write down as much as they can, and the directory of their secrets and certificates.
fn telling_cluster(kept: &Path, ca: &Ca, cluster_secret: &str) -> Cluster {
    for (name, text) in [("password", PASSWORD), ("secret", cluster_secret)] {
        write_secret(&kept.join(name), text);
    }
    let mut cluster = Cluster::configured_with(
        3,
        &json!({
            "password_file": kept.join("password"),
            "cluster_secret_file": kept.join("secret"),
            "audit_file": "audit",
            "tls": "accept",
            "tls_cert_file": ca.file("n1.crt"),
            "tls_key_file": ca.file("n1.key"),
            "log_level": "trace",
        }),
    );
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster
}

/// A client that may do everything.
fn admin(node: &Node) -> Resp {
    eventually("the node answers", LIMIT, || {
        let mut client = Resp::connect(&node.addr).ok()?;
        let shown = client.call(&["AUTH", PASSWORD]).ok()?;
        (shown.text() == b"OK").then_some(client)
    })
}

/// Makes `ann`, with a token besides the password; once she can use it on every node.
fn make_ann(cluster: &Cluster) -> String {
    let mut client = admin(&cluster.nodes[0]);
    let password = format!(">{CANARY}");
    let set = [
        "ACL", "SETUSER", "ann", "on", &password, "+@all", "~*", "&*",
    ];
    assert_eq!(client.call(&set).unwrap().text(), b"OK");
    let token = client.call(&["MEMKV.USERS", "TOKEN", "ann"]).unwrap();
    let token = String::from_utf8(token.text().to_vec()).unwrap();
    for node in &cluster.nodes {
        let mut client = Resp::connect(&node.addr).unwrap();
        for secret in [CANARY, &token] {
            eventually("the node knows the user", LIMIT, || {
                let shown = client.call(&["AUTH", "ann", secret]).ok()?;
                (shown.text() == b"OK").then_some(())
            });
        }
    }
    token
}

/// All texts of a reply.
fn text_of(reply: &Frame) -> String {
    let items = reply.items.iter().map(text_of);
    let own = String::from_utf8_lossy(reply.text()).into_owned();
    std::iter::once(own)
        .chain(items)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Checks what a node says over RESP: to secrets that are right, wrong and misplaced, and of itself.
fn check_replies(node: &Node, canaries: &Canaries) {
    let mut client = admin(node);
    let [added, removed, misplaced] = [
        format!(">{GUESS}"),
        format!("<{GUESS}"),
        format!("#{CANARY}"),
    ];
    for line in [
        &["AUTH", "ann", GUESS][..],
        &["AUTH", GUESS],
        &["AUTH", "ann", GUESS, CANARY],
        &["HELLO", "3", "AUTH", "ann", GUESS],
        &["HELLO", "9", "AUTH", "ann", CANARY],
        &["ACL", "SETUSER", "ann", &removed],
        &["ACL", "SETUSER", "ann", &misplaced],
        &["ACL", "SETUSER", "ann", &added, "+nosuch"],
        &["ACL", "DRYRUN", "ann", "AUTH", "ann", CANARY],
        &["ACL", "LIST"],
        &["ACL", "GETUSER", "ann"],
        &["ACL", "LOG"],
        &["CLIENT", "LIST"],
        &["CONFIG", "GET", "*"],
        &["INFO", "everything"],
        &["SLOWLOG", "GET"],
        &["MEMKV.CLUSTER", "MEMBERS"],
    ] {
        let reply = client.call(line).unwrap();
        canaries.check(line[0], &text_of(&reply));
    }
    let list = text_of(&client.call(&["ACL", "LIST"]).unwrap());
    assert!(list.contains("user ann on #$argon2id$"), "{list}");
}

/// Checks what a node says over HTTP.
fn check_responses(node: &Node, canaries: &Canaries, token: &str) {
    let of_ann = format!("Basic {}", basic("ann", CANARY));
    let of_token = format!("Bearer {token}");
    let malformed = format!("Basic {GUESS}");
    let (guessed, unknown) = (
        format!("Basic {}", basic("ann", GUESS)),
        format!("Bearer {GUESS}"),
    );
    let everywhere = [
        ("GET", "/v1/status"),
        ("GET", "/metrics"),
        ("GET", "/readyz"),
        ("GET", "/v1/kv/nosuch"),
        ("GET", "/nosuch"),
        ("PATCH", "/v1/txn"),
        ("POST", "/v1/txn"),
    ];
    for (authorization, requests) in [
        (&of_ann, &everywhere[..]),
        (&of_token, &everywhere),
        (&malformed, &everywhere),
        // Each further failure makes the next attempt wait for longer.
        (&guessed, &everywhere[..1]),
        (&unknown, &everywhere[..1]),
    ] {
        let mut http = Http::connect(&node.addr).unwrap();
        for (method, path) in requests {
            let what = format!("{method} {path} with {authorization}");
            let shown = [("Authorization", authorization.as_str())];
            let response = http.request(method, path, &shown, b"");
            let response = response.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (headers, body) = (&response.headers, response.text());
            canaries.check(path, &format!("{headers:?} {body}"));
            if response.header("connection") == Some("close") {
                http = Http::connect(&node.addr).unwrap();
            }
        }
    }
}

/// Runs the client as `ann`; what it prints.
fn client(node: &Node, password_file: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(binary("memkv_client"));
    command.args([
        "--endpoints",
        &node.addr,
        "--user",
        "ann",
        "--password-file",
    ]);
    let output = command.arg(password_file).args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

#[test]
fn passwords_tokens_and_keys_are_written_down_nowhere() {
    let kept = tempfile::tempdir().unwrap();
    let kept = kept.path();
    let ca = Ca::new(kept, "ca");
    ca.issue_node("n1");
    let cluster_secret = new_secret();
    let mut cluster = telling_cluster(kept, &ca, &cluster_secret);
    let token = make_ann(&cluster);
    // Any line of the key's text but the first and the last.
    let key = fs::read_to_string(ca.file("n1.key")).unwrap();
    let key = key.lines().nth(1).unwrap();
    let secrets = [
        PASSWORD,
        CANARY,
        GUESS,
        &token,
        key,
        cluster_secret.trim_end(),
    ];
    let mut secrets: Vec<String> = secrets.map(str::to_owned).into();
    for (user, password) in [("ann", CANARY), ("default", PASSWORD), ("ann", GUESS)] {
        secrets.push(basic(user, password));
    }
    let canaries = Canaries(secrets);
    thread::scope(|scope| {
        for node in &cluster.nodes {
            let (canaries, token) = (&canaries, &token);
            scope.spawn(move || {
                check_responses(node, canaries, token);
                check_replies(node, canaries);
                let process = node.process_id().unwrap();
                let arguments = fs::read(format!("/proc/{process}/cmdline")).unwrap();
                canaries.check("the argument list", &String::from_utf8_lossy(&arguments));
            });
        }
    });

    // A backup by the real client, with the password, and what it says to a wrong one.
    let (right, wrong) = (kept.join("ann"), kept.join("guess"));
    write_secret(&right, CANARY);
    write_secret(&wrong, GUESS);
    let backup = cluster.root().join("all.backup");
    let save = ["backup", "save", backup.to_str().unwrap()];
    let (is_done, said) = client(&cluster.nodes[1], &wrong, &save);
    assert!(!is_done, "{said}");
    canaries.check("the client", &said);
    let (is_done, said) = client(&cluster.nodes[1], &right, &save);
    assert!(is_done, "{said}");
    canaries.check("the client", &said);
    // Its content is compressed: it is looked at where it is restored.
    let restored = cluster.root().join("restored");
    let mut restore = Command::new(binary("memkv_server"));
    restore
        .arg("restore")
        .arg(&backup)
        .arg("--data")
        .arg(&restored);
    let output = restore.args(["--users", "keep"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    canaries.check("restore", &said);

    // The log holds the users, and goes once a snapshot holds them.
    for node in &cluster.nodes {
        assert!(has_hash(&node.dir.join("log")));
    }
    canaries.check_files(cluster.root());
    let mut writer = admin(&cluster.nodes[0]);
    let value = "v".repeat(8 * 1024);
    let has_snapshot = |node: &Node| {
        let is_snapshot = |path: &PathBuf| path.extension().is_some_and(|end| end == "snap");
        files_in(&node.dir.join("snapshot")).iter().any(is_snapshot)
    };
    eventually("every node has a snapshot", LIMIT, || {
        for key in 0..64 {
            writer.call(&["SET", &format!("k{key}"), &value]).ok()?;
        }
        cluster.nodes.iter().all(has_snapshot).then_some(())
    });
    cluster.nodes.iter_mut().for_each(Node::terminate);

    canaries.check_files(cluster.root());
    // What is looked for would be found: the hashes are where the secrets must not be.
    for node in &cluster.nodes {
        assert!(has_hash(&node.dir.join("snapshot")));
        let audit = fs::read_to_string(node.dir.join("audit")).unwrap();
        assert!(audit.contains("\"authentication\""), "{audit}");
    }
    let audit = fs::read_to_string(cluster.nodes[1].dir.join("audit")).unwrap();
    assert!(audit.contains("\"backup\""), "{audit}");
    assert!(has_hash(&restored));
}
