//! TLS as clients and operators meet it: who is served, who is refused and in which words, and what a new
//! set of files does while clients work. The clients are redis-cli and curl as they are.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use memkv_black_box::{
    Ca, Cluster, Http, Node, Resp, Signal, Wiretap, binary, eventually, free_port, write_secret,
};
use serde_json::{Value, json};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// One node with a `redis_addr`, not started, and its CA.
fn node(more: &Value) -> (Cluster, Ca) {
    let mut cluster = Cluster::configured(1);
    let ca = Ca::new(cluster.root(), "ca");
    ca.issue_node("own");
    let redis_addr = format!("127.0.0.1:{}", free_port());
    let node = &mut cluster.nodes[0];
    let mut config = node.read_config();
    config["redis_addr"] = json!(redis_addr);
    config["tls_cert_file"] = json!(ca.file("own.crt"));
    config["tls_key_file"] = json!(ca.file("own.key"));
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    node.write_config(&config);
    node.redis_addr = Some(redis_addr);
    (cluster, ca)
}

/// Starts a node to which only TLS leads.
fn start(node: &mut Node) {
    node.start();
    node.process().wait_output("ready in", LIMIT);
}

fn both(node: &Node) -> [String; 2] {
    [node.addr.clone(), node.redis_addr.clone().unwrap()]
}

fn redis_cli(addr: &str, tls: &[&str]) -> Command {
    let (host, port) = addr.rsplit_once(':').unwrap();
    let mut command = Command::new("redis-cli");
    command.args(["-h", host, "-p", port]).args(tls);
    command
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).trim().to_owned()
}

/// What redis-cli prints for a PING with these options.
fn ping(addr: &str, tls: &[&str]) -> String {
    said(&redis_cli(addr, tls).arg("ping").output().unwrap())
}

fn curl(addr: &str, arguments: &[&str]) -> Output {
    let url = format!("https://{addr}/v1/kv/k");
    Command::new("curl")
        .args(["-sS", "--max-time", "30"])
        .args(arguments)
        .arg(url)
        .output()
        .unwrap()
}

#[test]
fn clients_come_with_tls_and_without_until_it_is_required() {
    let (mut cluster, ca) = node(&json!({ "tls": "accept" }));
    let node = &mut cluster.nodes[0];
    node.start();
    node.wait_serving();
    let file = ca.file("ca.crt");
    let trust = ["--tls", "--cacert", &file];
    for addr in both(node) {
        assert_eq!(ping(&addr, &trust), "PONG");
        assert_eq!(ping(&addr, &[]), "PONG");
        assert_ne!(
            ping(&addr, &["--tls", "--cacert", &ca.file("own.crt")]),
            "PONG"
        );
    }
    let put = curl(&node.addr, &["--cacert", &file, "-T", &file]);
    assert!(put.status.success(), "{}", said(&put));
    // A client that would rather speak h2 is served all the same.
    let got = curl(
        &node.addr,
        &["--cacert", &file, "--http2", "-w", "%{http_version}"],
    );
    assert!(said(&got).ends_with("1.1"), "{}", said(&got));
    let old = curl(&node.addr, &["--cacert", &file, "--tls-max", "1.2"]);
    assert!(old.status.success(), "{}", said(&old));
    let metrics = Http::once(&node.addr, "GET", "/metrics", b"")
        .unwrap()
        .text();
    assert!(
        metrics.contains("memkv_tls_certificate_not_after_seconds "),
        "{metrics}"
    );
    assert!(
        !metrics.contains("memkv_tls_handshakes_total 0\n"),
        "{metrics}"
    );

    node.terminate();
    let mut config = node.read_config();
    config["tls"] = json!("require");
    node.write_config(&config);
    start(node);
    for addr in both(node) {
        assert_eq!(ping(&addr, &trust), "PONG");
        let refused = Resp::connect(&addr).unwrap().call(&["PING"]).unwrap();
        assert!(refused.is_error(), "{refused}");
        let words = String::from_utf8_lossy(refused.text()).into_owned();
        assert!(
            words.starts_with("ERR") && words.contains("over TLS only"),
            "{words}"
        );
    }
    let refused = Http::once(&node.addr, "GET", "/v1/kv/k", b"").unwrap();
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("over TLS only"),
        "{}",
        refused.text()
    );
    assert!(curl(&node.addr, &["--cacert", &file]).status.success());
}

#[test]
fn a_clients_certificate_must_be_good_on_every_listener_and_a_list_revokes_it_at_once() {
    let (mut cluster, ca) = node(&json!({
        "tls": "require", "tls_client_auth": "require",
        "tls_ca_file": "../ca/ca.crt", "tls_crl_file": "../ca/crl.pem",
    }));
    let stranger = Ca::new(cluster.root(), "stranger");
    stranger.issue_client("alice");
    ca.issue_client("alice");
    ca.issue_odd_client("bob", 77, false);
    ca.issue_odd_client("old", 78, true);
    ca.revoke(&[1]);
    let node = &mut cluster.nodes[0];
    start(node);
    let trust = ca.file("ca.crt");
    let ping_as = |addr: &str, of: &Ca, name: &str| {
        let (cert, key) = (
            of.file(&format!("{name}.crt")),
            of.file(&format!("{name}.key")),
        );
        ping(
            addr,
            &["--tls", "--cacert", &trust, "--cert", &cert, "--key", &key],
        )
    };
    for addr in both(node) {
        assert_eq!(ping_as(&addr, &ca, "alice"), "PONG");
        assert_eq!(ping_as(&addr, &ca, "bob"), "PONG");
        assert_ne!(ping_as(&addr, &ca, "old"), "PONG", "expired");
        assert_ne!(ping_as(&addr, &stranger, "alice"), "PONG", "of another CA");
        assert_ne!(ping(&addr, &["--tls", "--cacert", &trust]), "PONG", "none");
    }
    // Connections that are open, one at each listener: they end with the reload, and others do not.
    let open: Vec<(&str, Child)> = both(node)
        .iter()
        .flat_map(|addr| ["alice", "bob"].map(|name| (name, addr.clone())))
        .map(|(name, addr)| {
            let (cert, key) = (
                ca.file(&format!("{name}.crt")),
                ca.file(&format!("{name}.key")),
            );
            let tls = ["--tls", "--cacert", &trust, "--cert", &cert, "--key", &key];
            let mut command = redis_cli(&addr, &tls);
            command
                .args(["subscribe", "news"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let mut first = [0; 1];
            child
                .stdout
                .as_mut()
                .unwrap()
                .read_exact(&mut first)
                .unwrap();
            (name, child)
        })
        .collect();
    ca.revoke(&[1, 77]);
    node.process().signal(Signal::HUP);
    node.process()
        .wait_output("new files of TLS are in force", LIMIT);
    for addr in both(node) {
        eventually("the list holds", LIMIT, || {
            (ping_as(&addr, &ca, "bob") != "PONG").then_some(())
        });
        assert_eq!(ping_as(&addr, &ca, "alice"), "PONG");
    }
    let subscribers = || {
        let (cert, key) = (ca.file("alice.crt"), ca.file("alice.key"));
        let tls = ["--tls", "--cacert", &trust, "--cert", &cert, "--key", &key];
        said(
            &redis_cli(&both(node)[0], &tls)
                .args(["publish", "news", "x"])
                .output()
                .unwrap(),
        )
    };
    eventually("bob's connections have ended", LIMIT, || {
        (subscribers() == "2").then_some(())
    });
    for (_, mut child) in open {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn files_that_cannot_be_used_change_nothing_and_are_told() {
    let (mut cluster, ca) = node(&json!({ "tls": "accept" }));
    let node = &mut cluster.nodes[0];
    node.start();
    node.wait_serving();
    let trust = ca.file("ca.crt");
    let alarms = |node: &Node| node.status().unwrap()["alarms"].clone();
    assert_eq!(alarms(node), json!([]));
    let good = fs::read(ca.file("own.crt")).unwrap();
    fs::write(ca.file("own.crt"), "half a file").unwrap();
    node.process().signal(Signal::HUP);
    node.process()
        .wait_output("cannot be used; those before stay in force", LIMIT);
    assert_eq!(ping(&node.addr, &["--tls", "--cacert", &trust]), "PONG");
    assert!(
        alarms(node)[0].as_str().unwrap().contains("files of TLS"),
        "{}",
        alarms(node)
    );
    fs::write(ca.file("own.crt"), good).unwrap();
    node.process().signal(Signal::HUP);
    eventually("the alarm ends", LIMIT, || {
        (alarms(node) == json!([])).then_some(())
    });
}

/// A supervisor sends the same signal to every node.
#[test]
fn a_hangup_ends_no_node_without_tls() {
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    node.process().signal(Signal::HUP);
    // By its end the signal before it has been delivered.
    node.process().signal(Signal::TERM);
    let ended = node.process().wait_end(LIMIT);
    assert_eq!(ended.code(), Some(0), "{}", node.process().output());
}

#[test]
fn a_handshake_that_stops_is_ended_and_costs_the_node_nothing_else() {
    let (mut cluster, ca) = node(&json!({ "tls": "require" }));
    let node = &mut cluster.nodes[0];
    start(node);
    let mut silent: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut stream = TcpStream::connect(&node.addr).unwrap();
            stream.write_all(&[0x16, 3, 1]).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            stream
        })
        .collect();
    let began = Instant::now();
    assert_eq!(
        ping(&node.addr, &["--tls", "--cacert", &ca.file("ca.crt")]),
        "PONG"
    );
    for stream in &mut silent {
        // Ended by the node: nothing more comes, or a reset.
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
    assert!(began.elapsed() < LIMIT, "the reads did not time out");
}

/// Certificate, then CA, then the old CA goes: under clients that stay connected and clients that come anew.
#[test]
fn certificates_and_the_ca_are_replaced_under_load_and_no_request_fails() {
    const REQUESTS: usize = 3000;
    const CLIENTS: usize = 3;
    let (mut cluster, ca) = node(&json!({ "tls": "require" }));
    let new = Ca::new(cluster.root(), "new");
    new.issue_node("own");
    let node = &mut cluster.nodes[0];
    start(node);
    // Clients believe both.
    let trust = ca.file("both.crt");
    let cas = [ca.file("ca.crt"), new.file("ca.crt")].map(|file| fs::read(file).unwrap());
    fs::write(&trust, cas.concat()).unwrap();
    let tls = ["--tls", "--cacert", &trust];
    let addr = node.addr.clone();
    let count = REQUESTS.to_string();
    let clients: Vec<Child> = (0..CLIENTS)
        .map(|_| {
            let mut command = redis_cli(&addr, &tls);
            command.args(["-r", &count, "-i", "0.002", "incr", "n"]);
            command
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let counted = || {
        let output = redis_cli(&addr, &tls).args(["get", "n"]).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        said(&output).parse::<usize>().unwrap_or(0)
    };
    eventually("the clients work", LIMIT, || (counted() > 20).then_some(()));
    // A certificate of the same CA, one of the new CA, and the first again: what was in force is replaced.
    let files = |of: &Ca| ["own.crt", "own.key"].map(|name| fs::read(of.file(name)).unwrap());
    let first = files(&ca);
    for name in ["own.crt", "own.key"] {
        fs::remove_file(ca.file(name)).unwrap();
    }
    ca.issue_node("own");
    for (round, next) in [files(&ca), files(&new), first].iter().enumerate() {
        let before = counted();
        for (name, bytes) in ["own.crt", "own.key"].iter().zip(next) {
            fs::write(ca.file(name), bytes).unwrap();
        }
        node.process().signal(Signal::HUP);
        eventually("the files are in force", LIMIT, || {
            let output = node.process().output();
            (output.matches("new files of TLS are in force").count() > round).then_some(())
        });
        eventually("the clients go on", LIMIT, || {
            (counted() > before + 20).then_some(())
        });
    }
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(counted(), CLIENTS * REQUESTS);
}

/// `memkv_client` with these arguments.
fn client(arguments: &[&str]) -> Output {
    Command::new(binary("memkv_client"))
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .output()
        .unwrap()
}

#[test]
fn a_certificate_for_another_name_or_of_another_ca_is_believed_by_no_client() {
    let (mut cluster, ca) = node(&json!({
        "tls": "require",
        "tls_cert_file": "../ca/one.crt", "tls_key_file": "../ca/one.key",
    }));
    let stranger = Ca::new(cluster.root(), "stranger");
    // Not for `localhost`, by which it is reached too.
    ca.cert(&["issue", "one", "--cluster", "prod", "--host", "127.0.0.1"]);
    ca.issue_odd_node("old", "own", 78, true);
    let node = &mut cluster.nodes[0];
    start(node);
    let addr = node.addr.clone();
    let (_, port) = addr.rsplit_once(':').unwrap();
    let (trust, other) = (ca.file("ca.crt"), stranger.file("ca.crt"));
    let get = |host: &str, ca: &str| {
        let endpoint = format!("{host}:{port}");
        client(&[
            "--endpoints",
            &endpoint,
            "--tls",
            "--cacert",
            ca,
            "set",
            "k",
            "v",
        ])
    };
    for (host, ca, why) in [
        ("127.0.0.1", &trust, ""),
        ("localhost", &trust, "and not for localhost"),
        ("127.0.0.1", &other, "of a CA that is not trusted"),
    ] {
        let output = get(host, ca);
        assert_eq!(
            output.status.success(),
            why.is_empty(),
            "{host}: {}",
            said(&output)
        );
        assert!(said(&output).contains(why), "{host}: {}", said(&output));
    }
    let there = format!("elsewhere.test:{port}:127.0.0.1");
    let url = format!("https://elsewhere.test:{port}/livez");
    let named = Command::new("curl")
        .args(["-sS", "--cacert", &trust, "--resolve", &there, &url])
        .output()
        .unwrap();
    assert_eq!(named.status.code(), Some(60), "{}", said(&named));

    // Nor one that has ended, which the node itself tells of and still serves with.
    for name in [".crt", ".key"] {
        fs::copy(
            ca.file(&format!("old{name}")),
            ca.file(&format!("one{name}")),
        )
        .unwrap();
    }
    node.process().signal(Signal::HUP);
    node.process().wait_output("certificate has ended", LIMIT);
    let ended = get("127.0.0.1", &trust);
    assert!(
        !ended.status.success() && said(&ended).contains("expired"),
        "{}",
        said(&ended)
    );
    assert_ne!(ping(&addr, &["--tls", "--cacert", &trust]), "PONG");
    assert_eq!(curl(&addr, &["--cacert", &trust]).status.code(), Some(60));
}

#[test]
fn a_proxy_that_takes_tls_away_learns_no_password() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let cluster = Cluster::configured(1);
    let ca = Ca::new(cluster.root(), "ca");
    let password = cluster.root().join("password");
    write_secret(&password, "canary-password");
    let trust = ca.file("ca.crt");
    let password = password.to_str().unwrap();
    let seen = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut said = vec![0; 4096];
        let read = stream.read(&mut said).unwrap();
        said.truncate(read);
        // As a node without TLS answers, so that a client that would go on without it does.
        stream.write_all(b"-ERR speak plainly\r\n").unwrap();
        // A reset is an end.
        drop(stream.read_to_end(&mut said));
        said
    });
    let tls = ["--tls", "--cacert", &trust, "--password-file", password];
    let output = client(
        &[
            &["--endpoints", &addr, "--timeout", "2s"],
            &tls[..],
            &["get", "k"],
        ]
        .concat(),
    );
    assert!(!output.status.success(), "{}", said(&output));
    let seen = seen.join().unwrap();
    assert_eq!(seen.first(), Some(&0x16));
    assert!(
        !String::from_utf8_lossy(&seen).contains("canary"),
        "{}",
        seen.escape_ascii()
    );
}

#[test]
fn a_proxy_that_keeps_all_bytes_sees_no_value() {
    let (mut cluster, ca) = node(&json!({ "tls": "accept" }));
    let node = &mut cluster.nodes[0];
    node.start();
    node.wait_serving();
    let tap = Wiretap::new(&node.addr);
    let trust = ca.file("ca.crt");
    let canary = "a-canary-that-sings";
    let set = |tls: &[&str]| {
        let output = redis_cli(&tap.addr, tls)
            .args(["set", "k", canary])
            .output()
            .unwrap();
        assert_eq!(said(&output), "OK");
    };
    set(&[]);
    assert!(
        tap.saw(canary.as_bytes()),
        "the proxy sees what is sent in clear"
    );
    tap.forget();
    set(&["--tls", "--cacert", &trust]);
    assert!(tap.bytes() > 500 && !tap.saw(canary.as_bytes()));
}
