//! TLS between nodes: a running cluster is switched over under load, a network that is listened to shows
//! nothing, and a node is what its certificate says.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use memkv_black_box::{
    Ca, Cluster, Http, Node, Resp, RollingLoad, Signal, TlsClient, Wiretap, eventually, tls_config,
    write_secret,
};
use serde_json::{Value, json};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// The peers' protocol, by which they ask in the upgrade and by ALPN.
const PROTOCOL: &str = "memkv-peer/2";

/// What each node needs for TLS with its peers; the certificate is that of the files `name`.
fn files(ca: &Ca, name: &str) -> Value {
    json!({
        "tls_cert_file": ca.file(&format!("{name}.crt")),
        "tls_key_file": ca.file(&format!("{name}.key")),
        "tls_peer_ca_file": ca.file("ca.crt"),
        "cluster_name": "prod",
    })
}

fn configure(node: &Node, settings: &Value) {
    let mut config = node.read_config();
    for (key, value) in settings.as_object().unwrap() {
        config[key] = value.clone();
    }
    node.write_config(&config);
}

/// Three nodes with certificates that require TLS of each other, not started.
fn three() -> (Cluster, Ca) {
    let cluster = Cluster::configured_with(3, &json!({ "tls_peers": "require" }));
    let ca = Ca::new(cluster.root(), "ca");
    for node in &cluster.nodes {
        ca.issue_node(&node.id);
        configure(node, &files(&ca, &node.id));
    }
    (cluster, ca)
}

fn set(node: &Node, key: &str, value: &str) {
    let mut client = Resp::connect(&node.addr).unwrap();
    let reply = client.call(&["SET", key, value]).unwrap();
    assert_eq!(reply.text(), b"OK", "{reply}");
}

/// Waits until every node answers with this value of its own copy, so that it has crossed the network to it.
fn wait_copied(cluster: &Cluster, key: &str, value: &str) {
    for node in &cluster.nodes {
        eventually("the value is everywhere", LIMIT, || {
            let path = format!("/v1/kv/{key}");
            let found = Http::once(&node.addr, "GET", &path, b"").ok()?;
            (found.body == value.as_bytes()).then_some(())
        });
    }
}

/// The peers' connections all pass a proxy that keeps their bytes. Each node is restarted three times, as the
/// documentation says, under clients that must see no error.
#[test]
fn a_running_cluster_is_switched_to_tls_node_by_node_and_no_request_fails() {
    let taps = std::cell::RefCell::new(Vec::new());
    let mut cluster = Cluster::configured_as(3, &json!({}), |node| {
        let tap = Wiretap::new(&node.addr);
        let addr = tap.addr.clone();
        taps.borrow_mut().push(tap);
        addr
    });
    let taps = taps.into_inner();
    let ca = Ca::new(cluster.root(), "ca");
    let secret = cluster.root().join("cluster_secret");
    write_secret(&secret, "0123456789abcdef0123456789abcdef");
    for node in &cluster.nodes {
        ca.issue_node(&node.id);
        configure(node, &json!({ "cluster_secret_file": secret }));
    }
    cluster.start_all();
    set(&cluster.nodes[0], "before", "canary-in-clear");
    wait_copied(&cluster, "before", "canary-in-clear");
    let saw = |canary: &str| taps.iter().filter(|tap| tap.saw(canary.as_bytes())).count();
    assert!(
        saw("canary-in-clear") >= 1,
        "the proxies see what is sent in clear"
    );

    let load = RollingLoad::start(&cluster, 20);
    for round in ["accept", "dial", "require"] {
        load.restart_each(&mut cluster, |node| {
            configure(node, &files(&ca, &node.id));
            configure(node, &json!({ "tls_peers": round }));
        });
    }
    load.finish(&cluster);

    taps.iter().for_each(Wiretap::forget);
    set(&cluster.nodes[0], "after", "canary-in-tls");
    wait_copied(&cluster, "after", "canary-in-tls");
    assert!(taps.iter().map(Wiretap::bytes).sum::<usize>() > 0);
    assert_eq!(saw("canary-in-tls"), 0);
    // Nor names of nodes, which open every connection between peers.
    assert_eq!(saw("X-Memkv-From"), 0);
}

/// A listener in place of a node, which answers as a node without TLS would.
fn strip(listener: &TcpListener, connections: usize) -> Vec<Vec<u8>> {
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: memkv-peer/2\r\n\r\n";
    let taken = listener.incoming().take(connections).flatten();
    taken
        .map(|mut stream| {
            let mut said = vec![0; 4096];
            let read = stream.read(&mut said).unwrap_or(0);
            said.truncate(read);
            // The node may have gone already.
            drop(stream.write_all(answer));
            drop(stream.read_to_end(&mut said));
            said
        })
        .collect()
}

#[test]
fn a_node_that_calls_over_tls_never_goes_on_without() {
    let (mut cluster, _ca) = three();
    let listener = TcpListener::bind(&cluster.nodes[1].addr).unwrap();
    cluster.nodes[0].start();
    let said = strip(&listener, 12);
    for said in &said {
        assert_eq!(said.first(), Some(&0x16), "{}", said.escape_ascii());
        let text = String::from_utf8_lossy(said);
        assert!(!text.contains("/raft/"), "{}", said.escape_ascii());
    }
    let node = &mut cluster.nodes[0];
    node.process().wait_output("no TLS: ", LIMIT);
}

#[test]
fn a_node_with_anothers_certificate_does_not_start_and_is_not_spoken_to() {
    let (mut cluster, ca) = three();
    cluster.start_all();
    let (second, third) = (cluster.nodes[1].id.clone(), cluster.nodes[2].id.clone());
    cluster.nodes[1].terminate();
    // By itself it finds the mistake.
    configure(&cluster.nodes[1], &files(&ca, &third));
    cluster.nodes[1].start();
    let process = cluster.nodes[1].process();
    let ended = process.wait_end(LIMIT);
    assert_eq!(ended.code(), Some(2), "{}", process.output());
    let words = format!("it is the certificate of the node \"{third}\"");
    assert!(process.output().contains(&words), "{}", process.output());
    cluster.nodes[1].kill();

    // A thief who has the third node's key, at the second node's address.
    let mut thief = Node::new(cluster.root());
    thief.write_config(&cluster.nodes[2].read_config());
    thief.addr.clone_from(&cluster.nodes[1].addr);
    thief.start();
    // A node tells of an outage once, and the second one was away.
    cluster.nodes[0].terminate();
    cluster.nodes[0].start();
    cluster.nodes[0].wait_serving();
    let process = cluster.nodes[0].process();
    let words = format!("it shows the certificate of \"{third}\" and not of \"{second}\"");
    eventually("the first node tells what it was shown", LIMIT, || {
        let output = process.output().replace('\\', "");
        output.contains(&words).then_some(())
    });
    set(&cluster.nodes[0], "k", "two of three go on");
    thief.kill();
    configure(&cluster.nodes[1], &files(&ca, &second));
    cluster.nodes[1].start();
    cluster.wait_serving();
    wait_copied(&cluster, "k", "two of three go on");
}

/// The head of the answer to an upgrade to the peers' protocol of the node `to`, as the node `from`.
fn upgrade(client: &mut TlsClient, to: &str, from: &str) -> String {
    let head = format!(
        "GET /memkv{to}/raft/control HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: {PROTOCOL}\r\nX-Memkv-From: {from}\r\n\r\n"
    );
    client.send(head.as_bytes()).unwrap();
    client.receive_head().unwrap()
}

/// A frame between peers that asks for the identity of the node, as the node `name` with this id.
fn hello(name: &str, id: u64) -> Vec<u8> {
    // Version, kind, group, no cluster.
    let mut body = [&[5, 10][..], &[0; 4], &[0; 16]].concat();
    // Sender, its boot, any recipient, no time, level 1, name.
    for number in [id, 0, 0, 0] {
        body.extend(number.to_le_bytes());
    }
    body.push(0);
    body.extend(1_u32.to_le_bytes());
    body.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
    body.extend(name.as_bytes());
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.extend(7_u64.to_le_bytes());
    frame.extend(crc32fast::hash(&body).to_le_bytes());
    frame.extend(crc32fast::hash(&frame).to_le_bytes());
    frame.extend(body);
    frame
}

fn exchange(client: &mut TlsClient, frame: &[u8]) -> String {
    client.send(frame).unwrap();
    let header = client.receive(20).unwrap();
    let length = u32::from_le_bytes(header[..4].try_into().unwrap());
    let body = client.receive(usize::try_from(length).unwrap()).unwrap();
    String::from_utf8_lossy(&body).into_owned()
}

#[test]
fn a_node_that_has_proved_itself_cannot_come_as_another() {
    let (mut cluster, ca) = three();
    cluster.start_all();
    let ids: Vec<String> = cluster.nodes.iter().map(|node| node.id.clone()).collect();
    let first = &cluster.nodes[0];
    let connect = |own: Option<(&Ca, &str)>, protocol: Option<&str>| {
        TlsClient::connect(&first.addr, tls_config(&ca, own, protocol)).unwrap()
    };
    let as_third = || connect(Some((&ca, &ids[2])), Some(PROTOCOL));

    let named = upgrade(&mut as_third(), &ids[0], &ids[1]);
    assert!(named.starts_with("HTTP/1.1 403"), "{named}");
    let mut third = as_third();
    let taken = upgrade(&mut third, &ids[0], &ids[2]);
    assert!(taken.starts_with("HTTP/1.1 101"), "{taken}");
    // The three have the ids 1 to 3, in an order of theirs.
    let mut refused = |name: &str, id| {
        let answer = exchange(&mut third, &hello(name, id));
        answer.contains(&format!("the connection is that of the node {:?}", ids[2]))
    };
    assert_eq!(
        (1..=3).filter(|id| refused(&ids[1], *id)).count(),
        3,
        "another's name"
    );
    assert_eq!(
        (1..=3).filter(|id| refused(&ids[2], *id)).count(),
        2,
        "another's id"
    );

    // Nothing else is a proof: no certificate, a client's, another CA's, an old one.
    let stranger = Ca::new(cluster.root(), "stranger");
    stranger.issue_node("n3");
    ca.issue_client("alice");
    ca.issue_odd_node("old", &ids[2], 78, true);
    for own in [
        None,
        Some((&stranger, "n3")),
        Some((&ca, "alice")),
        Some((&ca, "old")),
    ] {
        let name = own.map(|(_, name)| name);
        let mut client = connect(own, Some(PROTOCOL));
        let answer = client.send(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = answer.and_then(|()| client.receive_head());
        assert!(answer.is_err(), "{name:?}: {answer:?}");
    }
    // A client's connection is none of a peer, and one without TLS neither. Clients have no TLS here.
    let mut client = connect(Some((&ca, &ids[2])), None);
    assert!(
        client
            .send(b"GET /livez HTTP/1.1\r\n\r\n")
            .and_then(|()| client.receive(1))
            .is_err()
    );
    let path = format!("/memkv{}/raft/control", ids[0]);
    let head = [
        ("Connection", "Upgrade"),
        ("Upgrade", PROTOCOL),
        ("X-Memkv-From", &ids[2]),
    ];
    let mut plain = Http::connect(&first.addr).unwrap();
    let refused = plain.request("GET", &path, &head, b"").unwrap();
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("over TLS only"),
        "{}",
        refused.text()
    );
}

#[test]
fn a_node_whose_certificate_is_revoked_is_cut_off_at_once_and_comes_back_with_a_new_one() {
    let (mut cluster, ca) = three();
    ca.revoke(&[1]);
    let third = cluster.nodes[2].id.clone();
    for node in &cluster.nodes {
        configure(node, &json!({ "tls_crl_file": ca.file("crl.pem") }));
    }
    ca.issue_odd_node("third", &third, 77, false);
    configure(&cluster.nodes[2], &files(&ca, "third"));
    cluster.start_all();
    ca.revoke(&[1, 77]);
    for node in &mut cluster.nodes[..2] {
        node.process().signal(Signal::HUP);
        node.process()
            .wait_output("new files of TLS are in force", LIMIT);
    }
    eventually("the third node follows no more", LIMIT, || {
        let status = cluster.nodes[2].status()?;
        status["leader"].is_null().then_some(())
    });
    set(&cluster.nodes[0], "k", "two of three go on");
    // With files of its own name again, it is back without a restart of any node.
    let issued = [".crt", ".key"].map(|end| fs::read(ca.file(&format!("{third}{end}"))).unwrap());
    let replace = |end: &str, bytes: &[u8]| {
        let file = ca.file(&format!("third{end}"));
        fs::write(Path::new(&file), bytes).unwrap();
    };
    replace(".crt", &issued[0]);
    replace(".key", &issued[1]);
    cluster.nodes[2].process().signal(Signal::HUP);
    cluster.wait_serving();
    wait_copied(&cluster, "k", "two of three go on");
}
