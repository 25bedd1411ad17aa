//! The cost of one Redis client for a node, and its limits, which
//! `docs/coming-from-redis.md` states, on the real binary. Whatever one client does, the others are
//! served.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use memkv_black_box::{
    Cluster, Http, Node, Resp, allow_files, encode, eventually, rss_bytes, skip, write_secret,
};
use serde_json::json;

const MIB: u64 = 1024 * 1024;

/// Longer than any answer takes on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

fn redis_addr(node: &Node) -> &str {
    node.redis_addr.as_deref().unwrap()
}

fn rss(cluster: &mut Cluster) -> u64 {
    rss_bytes(cluster.nodes[0].process().id())
}

#[track_caller]
fn serves(addr: &str) {
    let mut client = Resp::connect(addr).unwrap();
    let (set, get) = (["SET", "served", "yes"], ["GET", "served"]);
    assert_eq!(client.call(&set).unwrap().text(), b"OK");
    assert_eq!(client.call(&get).unwrap().text(), b"yes");
}

/// Sends bytes on a connection of their own, and returns all bytes until its end.
fn answer_to(addr: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => answer,
        Err(error) => panic!("{}: {error}", bytes.escape_ascii()),
    }
}

#[test]
fn ten_thousand_malformed_frames_leave_memory_flat() {
    const FRAMES: usize = 10_000;
    /// Allocators keep some memory that was used once.
    const GROWTH_LIMIT: u64 = 16 * MIB;
    let malformed: [&[u8]; 12] = [
        b"*x\r\n",
        b"*1048577\r\n",
        b"*99999999999999999999\r\n",
        b"*1\r\n$x\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$999999999999\r\n",
        b"*1\r\nPING\r\n",
        b"*2\r\n$3\r\nGET\r\n:1\r\n",
        b"*1\r\n$0000000000000000000000000000000001\r\n",
        b"*1\r\n+OK\r\n",
        b"SET k \"never closed\r\n",
        b"SET k 'closed'wrongly\r\n",
    ];
    let mut cluster = Cluster::start_with_redis(1);
    let addr = redis_addr(&cluster.nodes[0]).to_owned();
    let send = |count: usize| {
        for bytes in malformed.iter().cycle().take(count) {
            let answer = answer_to(&addr, bytes);
            let text = String::from_utf8_lossy(&answer);
            assert!(
                text.starts_with("-ERR Protocol error: ") && text.ends_with("\r\n"),
                "{}: {text:?}",
                bytes.escape_ascii()
            );
        }
    };
    send(FRAMES / 10);
    let before = rss(&mut cluster);
    send(FRAMES);
    let grown = rss(&mut cluster).saturating_sub(before);
    eprintln!("{FRAMES} malformed frames: {} KiB more", grown / 1024);
    assert!(grown < GROWTH_LIMIT, "grew by {} MiB", grown / MIB);
    serves(&addr);
}

#[test]
fn deleted_values_leave_the_memory_though_no_command_follows() {
    const KEYS: u64 = 200;
    const VALUE_BYTES: u64 = MIB / 4;
    /// The allocator keeps things for a second, and a busy machine is slow.
    const LIMIT: Duration = Duration::from_secs(30);
    let mut cluster = Cluster::start_with_redis(1);
    let addr = redis_addr(&cluster.nodes[0]).to_owned();
    serves(&addr);
    let mut client = Resp::connect(&addr).unwrap();
    let value = "v".repeat(VALUE_BYTES as usize);
    let keys: Vec<String> = (0..KEYS).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        assert_eq!(client.call(&["SET", key, &value]).unwrap().text(), b"OK");
    }
    let filled = rss(&mut cluster);
    let del: Vec<&str> = ["DEL"]
        .into_iter()
        .chain(keys.iter().map(String::as_str))
        .collect();
    let deleted = client.call(&del).unwrap();
    assert_eq!(deleted.integer(), Some(KEYS as i64));
    eventually("half of the values is the system's again", LIMIT, || {
        let left = filled.saturating_sub(rss(&mut cluster));
        (left > KEYS * VALUE_BYTES / 2).then_some(())
    });
}

#[test]
fn a_pipeline_of_a_million_commands_is_answered_in_order() {
    /// In runs of as many writes and as many others: each run of writes is a round of the log.
    const RUN: usize = 1000;
    const RUNS: usize = 500;
    /// Memory that one client's pipeline adds while it runs: buffers of both directions, and entries on
    /// their way to the disk.
    const GROWTH_LIMIT: u64 = 64 * MIB;
    let mut cluster = Cluster::start_with_redis(1);
    let addr = redis_addr(&cluster.nodes[0]).to_owned();
    serves(&addr);
    let before = rss(&mut cluster);
    let mut client = Resp::connect(&addr).unwrap();
    let mut writer = client.writer().unwrap();
    let mut most = before;
    thread::scope(|scope| {
        scope.spawn(move || {
            let counts = encode(&["INCR", "count"]).repeat(RUN);
            for run in 0..RUNS {
                let echoes = encode(&["ECHO", &format!("run {run}")]).repeat(RUN);
                writer.write_all(&counts).unwrap();
                writer.write_all(&echoes).unwrap();
            }
        });
        let mut count = 0;
        for run in 0..RUNS {
            for _ in 0..RUN {
                count += 1;
                assert_eq!(client.receive().unwrap().integer(), Some(count));
            }
            let wanted = format!("run {run}");
            for _ in 0..RUN {
                assert_eq!(client.receive().unwrap().text(), wanted.as_bytes());
            }
            most = most.max(rss(&mut cluster));
        }
    });
    let grown = most - before;
    eprintln!(
        "a pipeline of {} commands: {} KiB more",
        2 * RUN * RUNS,
        grown / 1024
    );
    assert!(grown < GROWTH_LIMIT, "grew by {} MiB", grown / MIB);
    serves(&addr);
}

/// Redis clients that are connected, as the node counts them.
fn redis_clients(addr: &str) -> Option<u64> {
    let page = Http::once(addr, "GET", "/metrics", b"").ok()?.text();
    let mut lines = page.lines();
    lines.find_map(|line| line.strip_prefix("memkv_connections ")?.parse().ok())
}

#[test]
fn clients_that_never_read_are_bounded_and_others_go_on() {
    const CLIENTS: usize = 20;
    /// The value that they read.
    const VALUE_BYTES: usize = 1024 * 1024;
    /// Of each the buffers of the system, and one turn's answers.
    const GROWTH_LIMIT: u64 = CLIENTS as u64 * 8 * MIB;
    /// The server closes after 10 s.
    const CLOSE_LIMIT: Duration = Duration::from_secs(120);
    let mut cluster = Cluster::start_with_redis(1);
    let addr = redis_addr(&cluster.nodes[0]).to_owned();
    let value = vec![b'v'; VALUE_BYTES];
    let mut good = Resp::connect(&addr).unwrap();
    let set: [&[u8]; 3] = [b"SET", b"long", &value];
    assert_eq!(good.call(&set).unwrap().text(), b"OK");
    let before = rss(&mut cluster);
    // A thousand replies of a mebibyte each are requested, and none is read.
    let requests = encode(&["GET", "long"]).repeat(1000);
    let silent: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let mut stream = TcpStream::connect(&addr).unwrap();
            stream.write_all(&requests).unwrap();
            stream
        })
        .collect();
    let mut most = 0;
    for _ in 0..100 {
        assert_eq!(
            good.call(&["GET", "long"]).unwrap().text().len(),
            VALUE_BYTES
        );
        serves(&addr);
        let grown = rss(&mut cluster).saturating_sub(before);
        assert!(grown < GROWTH_LIMIT, "grew by {} MiB", grown / MIB);
        most = most.max(grown);
    }
    eprintln!(
        "{CLIENTS} clients that never read: {} KiB more",
        most / 1024
    );
    eventually("the connections are closed", CLOSE_LIMIT, || {
        // Only the client that reads is left.
        (redis_clients(&cluster.nodes[0].addr)? <= 1).then_some(())
    });
    // Of many such lines at a time, most are left out.
    let output = cluster.nodes[0].process().output();
    assert!(
        output.contains("has read less than 1024 bytes per second"),
        "{output}"
    );
    drop(silent);
    serves(&addr);
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_one_more_is_refused() {
    /// The default of `max_connections`.
    const CONNECTIONS: usize = 10_000;
    /// Memory of a connection that has been used and is idle.
    const CONNECTION_BYTES: u64 = 16 * 1024;
    if !allow_files(CONNECTIONS as u64 + 1000) {
        return skip("ten thousand idle connections", "too few files may be open");
    }
    let mut cluster = Cluster::start_with_redis(1);
    let addr = redis_addr(&cluster.nodes[0]).to_owned();
    let mut working = Resp::connect(&addr).unwrap();
    assert_eq!(working.call(&["PING"]).unwrap().text(), b"PONG");
    let before = rss(&mut cluster);
    let mut idle = Vec::new();
    while idle.len() + 1 < CONNECTIONS {
        let mut client = TcpStream::connect(&addr).unwrap();
        client.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
        client.write_all(b"PING\r\n").unwrap();
        let mut answer = [0; 7];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+PONG\r\n", "connection {}", idle.len());
        idle.push(client);
    }
    let each = rss(&mut cluster).saturating_sub(before) / CONNECTIONS as u64;
    eprintln!("an idle connection: {each} bytes");
    assert!(each < CONNECTION_BYTES, "{each} bytes for each connection");
    let refused = answer_to(&addr, b"");
    assert_eq!(refused, b"-ERR max number of clients reached\r\n");
    assert_eq!(working.call(&["SET", "k", "v"]).unwrap().text(), b"OK");
    assert_eq!(working.call(&["GET", "k"]).unwrap().text(), b"v");
    drop(idle);
    eventually("a connection is admitted again", ANSWER_LIMIT, || {
        let mut client = Resp::connect(&addr).ok()?;
        (client.call(&["PING"]).ok()?.text() == b"PONG").then_some(())
    });
}

#[test]
fn before_the_password_requests_must_be_small() {
    const PASSWORD: &str = "correct horse battery staple";
    let mut cluster = Cluster::configured_with(1, &json!({ "password_file": "../password" }));
    write_secret(&cluster.root().join("password"), PASSWORD);
    cluster.nodes[0].start();
    let addr = cluster.nodes[0].addr.clone();
    let mut client = eventually("the node answers", ANSWER_LIMIT, || {
        let mut client = Resp::connect(&addr).ok()?;
        let reply = client.call(&["AUTH", PASSWORD]).ok()?;
        (reply.text() == b"OK").then_some(client)
    });
    let arguments = |count: usize| [vec!["PING"], vec!["x"; count - 1]].concat();
    let long = |bytes: usize| ["ECHO".to_owned(), "x".repeat(bytes)];
    let protocol_error = |what: &str| format!("-ERR Protocol error: {what}\r\n").into_bytes();
    let noauth = b"-NOAUTH Authentication required.\r\n";
    // Ten arguments and 16 KiB are read, and refused like any command.
    let mut stranger = Resp::connect(&addr).unwrap();
    for allowed in [encode(&arguments(10)), encode(&long(16 * 1024))] {
        stranger.send(&allowed).unwrap();
        let reply = stranger.receive().unwrap();
        let is_refused = reply.is_error() && reply.text().starts_with(b"NOAUTH")
            || reply.text().starts_with(b"ERR wrong number of arguments");
        assert!(is_refused, "{reply}");
    }
    assert_eq!(
        answer_to(&addr, &encode(&arguments(11))),
        protocol_error("unauthenticated multibulk length")
    );
    assert_eq!(
        answer_to(&addr, &encode(&long(16 * 1024 + 1))),
        protocol_error("unauthenticated bulk length")
    );
    stranger.send(&encode(&["GET", "k"])).unwrap();
    assert_eq!(
        stranger.receive().unwrap().text(),
        &noauth[1..noauth.len() - 2]
    );
    // An authenticated client may send more.
    assert_eq!(client.call(&long(100_000)).unwrap().text().len(), 100_000);
}

#[test]
fn a_browser_that_is_led_to_the_redis_address_executes_nothing() {
    let cluster = Cluster::start_with_redis(1);
    let node = &cluster.nodes[0];
    let addr = redis_addr(node);
    for request in [
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nSET k v\r\n",
        "POST /with spaces in it HTTP/1.1\r\n\r\nSET k v\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nSET k v\r\n",
        "Host: localhost\r\nSET k v\r\n",
        "*1\r\n$4\r\nPOST\r\nSET k v\r\n",
    ] {
        let answer = answer_to(addr, request.as_bytes());
        assert_eq!(answer, b"", "{request:?}");
    }
    let mut client = Resp::connect(addr).unwrap();
    assert_eq!(client.call(&["EXISTS", "k"]).unwrap().integer(), Some(0));
}
