//! A right that was taken away is gone everywhere when its revocation is acknowledged: 64 clients write at all
//! three nodes as one user, while an administrator takes the right away and gives it back and leaders are
//! killed.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use memkv_black_box::{Cluster, Resp, eventually};

const CLIENTS: usize = 64;
const ROUNDS: usize = 3;
/// A busy machine elects and starts within this time.
const LIMIT: Duration = Duration::from_secs(60);
/// Acknowledged writes between two revocations.
const WRITES: u64 = 300;
/// How long a command that was wrongly accepted could still be on its way.
const AFTER: Duration = Duration::from_millis(500);

/// What all clients share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    written: AtomicU64,
    refused: AtomicU64,
    /// When the right was gone: the revocation's reply was here. None before the right is given back.
    revoked: Mutex<Option<Instant>>,
    /// Writes that began after that moment and were acknowledged while the right was gone.
    violations: Mutex<Vec<String>>,
}

/// Writes as the user until it is told to stop; a node that is gone costs its connection.
fn write_at(addrs: &[String], client: usize, shared: &Shared) {
    let mut number = 0;
    for attempt in client.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let connected = Resp::connect(&addrs[attempt % addrs.len()]).and_then(|mut node| {
            node.set_timeout(LIMIT)?;
            node.call(&["AUTH", "app", "any"])
                .map(|reply| (node, reply))
        });
        let Ok((mut node, reply)) = connected else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        if reply.is_error() {
            continue;
        }
        while !shared.stop.load(Ordering::Relaxed) {
            number += 1;
            let began = Instant::now();
            let (key, value) = (format!("k{client}"), number.to_string());
            let Ok(reply) = node.call(&["SET", &key, &value]) else {
                break;
            };
            if reply.text() == b"OK" {
                let revoked = *shared.revoked.lock().unwrap();
                if revoked.is_some_and(|at| began > at) {
                    let seen = format!("client {client} wrote {value} without the right");
                    shared.violations.lock().unwrap().push(seen);
                }
                shared.written.fetch_add(1, Ordering::Relaxed);
            } else {
                let is_denied = reply.text().starts_with(b"NOPERM ");
                shared
                    .refused
                    .fetch_add(u64::from(is_denied), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Has a change of the user acknowledged; its outcome may be unknown while leaders change.
fn change(cluster: &Cluster, node: usize, rule: &str) {
    eventually("the change is acknowledged", LIMIT, || {
        let mut admin = Resp::connect(&cluster.nodes[node].addr).ok()?;
        admin.set_timeout(LIMIT).ok()?;
        let reply = admin.call(&["ACL", "SETUSER", "app", rule]).ok()?;
        (reply.text() == b"OK").then_some(())
    });
}

fn values(cluster: &Cluster, node: usize) -> Vec<Vec<u8>> {
    let keys: Vec<String> = (0..CLIENTS).map(|client| format!("k{client}")).collect();
    let line: Vec<&str> = ["MGET"]
        .into_iter()
        .chain(keys.iter().map(|key| &key[..]))
        .collect();
    eventually("a read is answered", LIMIT, || {
        let reply = Resp::connect(&cluster.nodes[node].addr)
            .ok()?
            .call(&line)
            .ok()?;
        let items = reply
            .items
            .iter()
            .map(|item| item.text().to_vec())
            .collect();
        (!reply.is_error()).then_some(items)
    })
}

#[test]
fn nothing_is_executed_under_a_right_whose_revocation_was_acknowledged() {
    let mut cluster = Cluster::start(3);
    let mut admin = Resp::connect(&cluster.nodes[0].addr).unwrap();
    let made = admin.call(&[
        "ACL", "SETUSER", "app", "on", "nopass", "~k*", "+set", "+mget",
    ]);
    assert_eq!(made.unwrap().text(), b"OK");
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    let shared = Arc::new(Shared::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (addrs, shared) = (addrs.clone(), shared.clone());
            thread::spawn(move || write_at(&addrs, client, &shared))
        })
        .collect();
    for round in 0..ROUNDS {
        let before = shared.written.load(Ordering::Relaxed);
        eventually("clients write", LIMIT, || {
            (shared.written.load(Ordering::Relaxed) >= before + WRITES).then_some(())
        });
        let leader = cluster.leader();
        let survivor = (leader + 1) % 3;
        let kills = round < 2;
        if kills {
            cluster.nodes[leader].kill();
        }
        change(&cluster, survivor, "-set");
        *shared.revoked.lock().unwrap() = Some(Instant::now());
        let then = values(&cluster, survivor);
        let refused = shared.refused.load(Ordering::Relaxed);
        if kills {
            cluster.nodes[leader].start();
            cluster.wait_serving();
        }
        thread::sleep(AFTER);
        eventually("clients are refused", LIMIT, || {
            (shared.refused.load(Ordering::Relaxed) > refused + CLIENTS as u64).then_some(())
        });
        assert_eq!(
            values(&cluster, leader),
            then,
            "round {round}: written without the right"
        );
        assert_eq!(*shared.violations.lock().unwrap(), [""; 0]);
        *shared.revoked.lock().unwrap() = None;
        change(&cluster, survivor, "+set");
    }
    shared.stop.store(true, Ordering::Relaxed);
    clients
        .into_iter()
        .for_each(|client| client.join().unwrap());
    let [written, refused] =
        [&shared.written, &shared.refused].map(|count| count.load(Ordering::Relaxed));
    eprintln!("{written} writes acknowledged, {refused} refused, {ROUNDS} revocations");
}
