//! Keyspace notifications: the same scripts to redis-server 7.0 and to a cluster, and the same
//! messages from both, in the same order, whichever node one listens to.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use memkv_black_box::{Cluster, Redis, Resp, encode, eventually};
use serde_json::json;

/// Longer than an election and a restart on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// Commands that announce something in Redis 7.0, or nothing. `|` separates those that are sent one
/// after the other; after each script a marker ends its messages.
const SCRIPTS: &[&str] = &[
    "SET a 1|SET a 2|SET a 3 NX|SET a 4 XX GET|SET b 1 XX|SET a 5 KEEPTTL",
    "SET a 1 EX 100|SETEX a 100 v|PSETEX a 100000 v|SET new 1 PX 100000|SET a 1 EX 0",
    "SETNX a 1|SETNX fresh 1|GETSET a 2|GETSET fresher 2|GETDEL fresh|GETDEL fresh",
    "SET g v|GETEX g|GETEX g EX 100|GETEX g PERSIST|GETEX g PERSIST|GETEX g EXAT 1|GETEX g EX 1",
    "MSET a 1 m1 2 m2 3 m1 4|MSETNX m1 1 m3 2|MSETNX m3 1 m4 2 m3 3",
    "APPEND ap x|APPEND ap y|APPEND ap2|APPEND ap3 ''|SETRANGE sr 3 x|SETRANGE sr 0 ''|SETRANGE sr 0 yy",
    "INCR i|DECR i|INCRBY i 5|DECRBY i 5|INCRBYFLOAT i 0.5|INCR i|SET word x|INCR word",
    "DEL a m1 nosuch m2|UNLINK i ap|DEL nosuch|EXISTS a|GET a|TOUCH word",
    "SET e 1|EXPIRE e 100|EXPIRE e 10 NX|PEXPIRE e 100000|EXPIREAT e 99999999999|PERSIST e|PERSIST e",
    "EXPIRE e -1|EXPIRE e 100|SET e 1|PEXPIREAT e 1|SET e 1|EXPIREAT e 0",
    "SET r1 x|SET r2 y|RENAME r1 r2|RENAME r2 r2|RENAMENX r2 r3|RENAME nosuch r3|SET r4 z|RENAMENX r3 r4",
    "COPY r3 c1|COPY r3 c1|COPY r3 c1 REPLACE|COPY r3 c2 DB 2|COPY nosuch c3",
    "SELECT 2|SET two 1|DEL c2|SELECT 0",
    "MULTI|SET t1 1|EXPIRE t1 100|INCR t2|RENAME t1 t2|DEL t2|EXEC|MULTI|SET t3 1|DISCARD",
    "FLUSHDB|FLUSHALL|SET after 1",
];

/// Settings that the scripts run with.
const SETTINGS: &[&str] = &["KEA", "KEAn", "Kg", "E$", "Exn", "K", "A", ""];

fn words(line: &str) -> Vec<&str> {
    let unquoted = |word| if word == "''" { "" } else { word };
    line.split(' ').map(unquoted).collect()
}

/// A connection that listens to everything.
fn listener(addr: &str) -> Resp {
    let mut client = Resp::connect(addr).unwrap();
    client.call(&["PSUBSCRIBE", "__key*"]).unwrap();
    client
}

/// The messages of a listener up to the marker: channel and payload.
fn until_marker(listener: &mut Resp) -> Vec<String> {
    let mut messages = Vec::new();
    loop {
        let message = listener.receive().unwrap();
        let text = |at: usize| String::from_utf8_lossy(message.items[at].text()).into_owned();
        if text(2) == "__keyspace@0__:marker" {
            return messages;
        }
        messages.push(format!("{} {}", text(2), text(3)));
    }
}

fn play(client: &mut Resp, script: &str) {
    for line in script.split('|') {
        client.call(&words(line)).unwrap();
    }
}

#[track_caller]
fn call(client: &mut Resp, line: &str) -> String {
    let reply = client.call(&words(line)).unwrap();
    match reply.items.last() {
        Some(last) => String::from_utf8_lossy(last.text()).into_owned(),
        None => String::from_utf8_lossy(reply.text()).into_owned(),
    }
}

/// Announces the end of a script, on the way that everything before it takes.
fn mark(client: &mut Resp, letters: &str) {
    for line in ["CONFIG SET notify-keyspace-events K$", "SET marker x"] {
        assert_eq!(call(client, line), "OK");
    }
    let back = ["CONFIG", "SET", "notify-keyspace-events", letters];
    assert_eq!(client.call(&back).unwrap().line, b"OK");
}

#[test]
fn every_node_announces_the_same_key_events_as_redis() {
    let cluster = Cluster::start(3);
    let redis = Redis::start(cluster.root());
    let mut oracle = Resp::connect(&redis.addr).unwrap();
    let mut oracle_listener = listener(&redis.addr);
    let addrs = cluster.nodes.iter().map(|node| node.addr.clone());
    let mut clients: Vec<_> = addrs
        .clone()
        .map(|addr| Resp::connect(&addr).unwrap())
        .collect();
    let mut listeners: Vec<_> = addrs.map(|addr| listener(&addr)).collect();
    let mut compared = 0;
    for (round, letters) in SETTINGS.iter().enumerate() {
        // Told to one node, and executed at another.
        let index = round % 3;
        let set = ["CONFIG", "SET", "notify-keyspace-events", letters];
        oracle.call(&set).unwrap();
        assert_eq!(clients[(index + 1) % 3].call(&set).unwrap().line, b"OK");
        let get = "CONFIG GET notify-keyspace-events";
        assert_eq!(
            call(&mut clients[(index + 1) % 3], get),
            call(&mut oracle, get)
        );
        for script in SCRIPTS {
            play(&mut oracle, script);
            mark(&mut oracle, letters);
            let expected = until_marker(&mut oracle_listener);
            play(&mut clients[index], script);
            mark(&mut clients[index], letters);
            for (node, listener) in listeners.iter_mut().enumerate() {
                let announced = until_marker(listener);
                assert_eq!(announced, expected, "{letters:?} at node {node}: {script}");
            }
            compared += expected.len();
        }
    }
    assert!(compared > 400, "only {compared} messages were compared");
}

#[test]
fn an_expired_key_is_announced_on_every_node_once() {
    let cluster = Cluster::start(3);
    let mut clients: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| Resp::connect(&node.addr).unwrap())
        .collect();
    let mut listeners: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| listener(&node.addr))
        .collect();
    clients[1]
        .call(&["CONFIG", "SET", "notify-keyspace-events", "Ex"])
        .unwrap();
    for number in 0..20 {
        let key = format!("k{number}");
        clients[number % 3]
            .call(&["SET", &key, "v", "PX", &(1 + number).to_string()])
            .unwrap();
    }
    clients[0].call(&["SET", "last", "v", "PX", "60"]).unwrap();
    for listener in &mut listeners {
        let mut expired = Vec::new();
        while expired.last().is_none_or(|key| key != "last") {
            let message = listener.receive().unwrap();
            assert_eq!(message.items[2].text(), b"__keyevent@0__:expired");
            expired.push(String::from_utf8_lossy(message.items[3].text()).into_owned());
        }
        let mut expected: Vec<_> = (0..20).map(|number| format!("k{number}")).collect();
        expected.push("last".to_owned());
        expired.sort();
        expected.sort();
        assert_eq!(expired, expected);
    }
    // Redis announces it at once, and removes the key: `SET` with a deadline that has passed.
    clients[2]
        .call(&["CONFIG", "SET", "notify-keyspace-events", "KEA"])
        .unwrap();
    clients[2].call(&["SET", "past", "v", "EXAT", "1"]).unwrap();
    mark(&mut clients[2], "");
    for listener in &mut listeners {
        let events: Vec<_> = until_marker(listener);
        let keyspace = events
            .iter()
            .filter_map(|event| event.strip_prefix("__keyspace@0__:past "));
        assert_eq!(keyspace.collect::<Vec<_>>(), ["set", "expire", "expired"]);
    }
}

#[test]
fn the_setting_is_the_clusters_and_until_then_the_configurations() {
    let mut cluster = Cluster::configured_with(3, &json!({ "notify_keyspace_events": "K$" }));
    cluster.start_all();
    let addr = |cluster: &Cluster, node: usize| cluster.nodes[node].addr.clone();
    let get = "CONFIG GET notify-keyspace-events";
    let mut client = Resp::connect(&addr(&cluster, 0)).unwrap();
    assert_eq!(call(&mut client, get), "$K");
    let mut other = listener(&addr(&cluster, 1));
    client.call(&["SET", "k", "v"]).unwrap();
    client.call(&["SET", "marker", "x"]).unwrap();
    assert_eq!(until_marker(&mut other), ["__keyspace@0__:k set"]);

    for (line, refusal) in [
        (
            "CONFIG SET notify-keyspace-events KEq",
            "Invalid event class character",
        ),
        ("CONFIG SET save 1", "can't set immutable config"),
        (
            "CONFIG SET maxmemory lots",
            "argument must be a memory value",
        ),
        (
            "CONFIG SET maxmemory-policy allkeys-lru",
            "must be one of the following: noeviction, volatile-ttl",
        ),
        ("CONFIG SET nosuch 1", "Unknown option"),
    ] {
        let reply = call(&mut client, line);
        assert!(reply.contains(refusal), "{line}: {reply}");
    }
    assert_eq!(
        call(&mut client, "CONFIG SET Notify-Keyspace-Events Ex"),
        "OK"
    );
    for node in 0..3 {
        let mut client = Resp::connect(&addr(&cluster, node)).unwrap();
        eventually("every node has heard of it", LIMIT, || {
            (call(&mut client, get) == "xE").then_some(())
        });
    }
    // It survives all of them, and replayed entries are not announced again.
    cluster
        .nodes
        .iter_mut()
        .for_each(memkv_black_box::Node::terminate);
    for node in &mut cluster.nodes {
        node.start();
    }
    cluster.wait_serving();
    let mut client = Resp::connect(&addr(&cluster, 2)).unwrap();
    assert_eq!(call(&mut client, get), "xE");
    let mut listeners: Vec<_> = (0..3).map(|node| listener(&addr(&cluster, node))).collect();
    client
        .send(&encode(&["SET", "soon", "v", "PX", "1"]))
        .unwrap();
    assert_eq!(client.receive().unwrap().line, b"OK");
    for listener in &mut listeners {
        let message = listener.receive().unwrap();
        assert_eq!(message.items[2].text(), b"__keyevent@0__:expired");
        assert_eq!(message.items[3].text(), b"soon");
    }
}
