//! Lines of the log that a stranger can cause as often as it likes: a node logs each seldom, and goes
//! on.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use memkv_black_box::{Cluster, Http, Node, eventually};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// Time between two lines of one kind.
const PERIOD: Duration = Duration::from_secs(10);

/// Longer than a busy machine needs.
const LIMIT: Duration = Duration::from_secs(30);

/// How often a stranger does the same.
const TIMES: usize = 100;

/// How long descriptors are short: many times the pause after a failed accept.
const SHORTAGE: Duration = Duration::from_secs(2);

/// More connections than there may be holes among a node's descriptors.
const CONNECTIONS: usize = 64;

/// Asserts that a line was logged, and not more than once in a period, however slow the machine is.
#[track_caller]
fn check_seldom(node: &mut Node, text: &str, began: Instant) {
    let output = node.process().output();
    let lines = output.lines().filter(|line| line.contains(text)).count();
    let most = 1 + usize::try_from(began.elapsed().as_secs() / PERIOD.as_secs()).unwrap();
    assert!((1..=most).contains(&lines), "{lines} lines:\n{output}");
    assert!(node.process().ended().is_none());
}

/// Sends something, and waits until the other side closes.
fn send(addr: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.write_all(bytes).unwrap();
    // A reset closes it, too.
    drop(stream.read_to_end(&mut Vec::new()));
}

#[test]
fn a_browser_at_the_address_for_redis_clients_is_logged_seldom() {
    let mut cluster = Cluster::start_with_redis(1);
    let node = &mut cluster.nodes[0];
    let addr = node.redis_addr.clone().unwrap();
    let began = Instant::now();
    for _ in 0..TIMES {
        send(&addr, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    check_seldom(node, "it sent HTTP to an address for Redis clients", began);
}

#[test]
fn a_peer_that_sends_unreadable_bytes_is_logged_seldom() {
    let mut cluster = Cluster::start(1);
    let node = &mut cluster.nodes[0];
    let head = format!(
        "GET /memkv{}/raft/control HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: memkv-peer/2\r\nX-Memkv-From: n9\r\n\r\n",
        node.id
    );
    let mut request = head.into_bytes();
    request.extend_from_slice(&[0xff; 64]);
    let began = Instant::now();
    for _ in 0..TIMES {
        send(&node.addr, &request);
    }
    check_seldom(node, "peer connection closed", began);
}

/// Lets a process have so many files open; returns how many it could have before.
fn allow_files(process: u32, count: u64) -> u64 {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
    let limit = |current, maximum| Rlimit {
        current: Some(current),
        maximum,
    };
    let maximum = getrlimit(Resource::Nofile).maximum;
    let before = prlimit(pid, Resource::Nofile, limit(count, maximum)).unwrap();
    before.current.unwrap_or(u64::MAX)
}

/// The connection is served.
fn alive(mut stream: &TcpStream) {
    let request = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).unwrap();
    assert!(stream.read(&mut [0; 1024]).unwrap() > 0);
}

#[test]
fn a_shortage_of_descriptors_is_logged_seldom() {
    let mut cluster = Cluster::configured(1);
    let node = &mut cluster.nodes[0];
    node.start();
    node.wait_serving();
    let began = Instant::now();
    let mut held = vec![TcpStream::connect(&node.addr).unwrap()];
    alive(&held[0]);
    // No more than it has open: a node that begins with few would let in fewer connections.
    let process = node.process().id();
    let open = fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
    let before = allow_files(process, open as u64);
    for _ in 0..CONNECTIONS {
        held.push(TcpStream::connect(&node.addr).unwrap());
    }
    let text = "cannot accept a connection";
    node.process().wait_output(text, PERIOD);
    let short = Instant::now();
    // Open connections are served, however many wait to be accepted.
    while short.elapsed() < SHORTAGE {
        alive(&held[0]);
    }
    check_seldom(node, text, began);
    drop(held);
    allow_files(process, before);
    eventually("a new connection is served", LIMIT, || {
        let answer = Http::once(&node.addr, "GET", "/livez", b"").ok()?;
        (answer.status == 200).then_some(())
    });
}
