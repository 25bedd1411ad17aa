//! A node that is told to stop (SIGTERM) takes no request of another node's clients with it: they see
//! a pause and no error, also when it led. A rolling restart is that for each node in turn.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memkv_black_box::{Cluster, Resp, eventually};

/// Clients at each node.
const CLIENTS: usize = 2;

/// Answers of each node's clients between two events, so that the next one happens under load.
const ANSWERS: u64 = 100;

/// Far longer than a leadership transfer on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Clients of one node, each of which counts up a key of its own.
struct Home {
    /// Set while the node is to be left alone.
    away: AtomicBool,
    /// Clients that have left it alone.
    rests: AtomicU64,
    stop: AtomicBool,
    answers: AtomicU64,
    longest_us: AtomicU64,
}

/// Increments `key` until it must stop; returns the answers, each of which must be the next
/// number.
fn count_up(home: &Home, addr: &str, key: &str) -> i64 {
    let mut counted = 0;
    'connections: while !home.stop.load(Ordering::Acquire) {
        let mut client = Resp::connect(addr).unwrap();
        while !home.stop.load(Ordering::Acquire) {
            if home.away.load(Ordering::Acquire) {
                drop(client);
                home.rests.fetch_add(1, Ordering::AcqRel);
                while home.away.load(Ordering::Acquire) && !home.stop.load(Ordering::Acquire) {
                    thread::park_timeout(Duration::from_millis(5));
                }
                continue 'connections;
            }
            let started = Instant::now();
            let reply = client.call(&["INCR", key]).unwrap();
            let took = u64::try_from(started.elapsed().as_micros()).unwrap();
            counted += 1;
            assert_eq!(reply.integer(), Some(counted), "{key} at {addr}: {reply}");
            home.longest_us.fetch_max(took, Ordering::AcqRel);
            home.answers.fetch_add(1, Ordering::AcqRel);
        }
    }
    counted
}

/// The clients of all nodes, and their results.
struct Clients {
    homes: Vec<Arc<Home>>,
    threads: Vec<(String, JoinHandle<i64>)>,
}

impl Clients {
    fn start(cluster: &Cluster) -> Clients {
        let mut clients = Clients {
            homes: Vec::new(),
            threads: Vec::new(),
        };
        for node in &cluster.nodes {
            let home = Arc::new(Home {
                away: AtomicBool::new(false),
                rests: AtomicU64::new(0),
                stop: AtomicBool::new(false),
                answers: AtomicU64::new(0),
                longest_us: AtomicU64::new(0),
            });
            for number in 0..CLIENTS {
                let (home, addr) = (home.clone(), node.addr.clone());
                let key = format!("count-{}-{number}", node.id);
                let name = key.clone();
                let thread = thread::spawn(move || count_up(&home, &addr, &key));
                clients.threads.push((name, thread));
            }
            clients.homes.push(home);
        }
        clients
    }

    /// Waits until the clients of these nodes have had answers, and no one of them has failed.
    #[track_caller]
    fn wait_answered(&self, nodes: impl Iterator<Item = usize>) {
        for node in nodes {
            let home = &self.homes[node];
            let aim = home.answers.load(Ordering::Acquire) + ANSWERS;
            eventually("answers", LIMIT, || {
                let failed = self.threads.iter().find(|(_, thread)| thread.is_finished());
                if let Some((name, _)) = failed {
                    panic!("the client of {name} has seen an error");
                }
                (home.answers.load(Ordering::Acquire) >= aim).then_some(())
            });
        }
    }

    /// Has the clients of a node leave it alone.
    fn leave(&self, node: usize) {
        let home = &self.homes[node];
        home.rests.store(0, Ordering::Release);
        home.away.store(true, Ordering::Release);
        eventually("its clients rest", LIMIT, || {
            (home.rests.load(Ordering::Acquire) == CLIENTS as u64).then_some(())
        });
    }

    fn come_back(&self, node: usize) {
        self.homes[node].away.store(false, Ordering::Release);
    }

    /// Ends all clients and returns each key with the number that it must hold.
    fn finish(self) -> Vec<(String, i64)> {
        for home in &self.homes {
            home.stop.store(true, Ordering::Release);
        }
        let counted = self.threads.into_iter();
        counted
            .map(|(key, thread)| (key, thread.join().unwrap()))
            .collect()
    }
}

#[test]
fn a_rolling_restart_under_load_fails_no_request_at_the_other_nodes() {
    let mut cluster = Cluster::start(3);
    let clients = Clients::start(&cluster);
    clients.wait_answered(0..3);
    // Followers first, then the leader: the order of an upgrade. Whichever node leads by then, each node is
    // restarted once; the last one led at the beginning.
    let leader = cluster.leader();
    let order = cluster.followers().into_iter().chain([leader]);
    for node in order {
        let led = cluster.leader() == node;
        for home in &clients.homes {
            home.longest_us.store(0, Ordering::Release);
        }
        clients.leave(node);
        let others = || (0..3).filter(|other| *other != node);
        clients.wait_answered(others());
        let stopping = Instant::now();
        cluster.nodes[node].terminate();
        let stopped = stopping.elapsed();
        clients.wait_answered(others());
        cluster.nodes[node].start();
        cluster.wait_serving();
        clients.wait_answered(others());
        let longest = others().map(|other| clients.homes[other].longest_us.load(Ordering::Acquire));
        eprintln!(
            "{} told to stop: it ended after {stopped:?}, the longest request elsewhere took {:?}",
            if led { "the leader" } else { "a follower" },
            Duration::from_micros(longest.max().unwrap()),
        );
        clients.come_back(node);
        clients.wait_answered(0..3);
    }
    for (key, counted) in clients.finish() {
        let mut client = Resp::connect(&cluster.nodes[0].addr).unwrap();
        let reply = client.call(&["GET", &key]).unwrap();
        assert_eq!(reply.text(), counted.to_string().as_bytes(), "{key}");
    }
}
