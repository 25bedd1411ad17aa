//! Clients that count while nodes are restarted one after the other. Those of a node leave it alone before
//! it stops, as behind a balancer, and come back when it serves; no other may see an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Node};
use crate::resp::Resp;
use crate::wait::eventually;

/// Clients at each node.
const CLIENTS: usize = 2;

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
pub struct RollingLoad {
    /// Answers of each node's clients between two events, so that the next one happens under load.
    answers: u64,
    homes: Vec<Arc<Home>>,
    threads: Vec<(String, JoinHandle<i64>)>,
}

impl RollingLoad {
    /// Starts the clients of a cluster that serves. Between two events each node's have so many `answers`.
    #[track_caller]
    pub fn start(cluster: &Cluster, answers: u64) -> RollingLoad {
        let mut load = RollingLoad {
            answers,
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
                load.threads.push((name, thread));
            }
            load.homes.push(home);
        }
        load.wait_answered(|_| true);
        load
    }

    /// Restarts every node once: followers first, then the leader, the order of an upgrade. Whichever node
    /// leads by then, the last one led at the beginning.
    #[track_caller]
    pub fn restart_each(&self, cluster: &mut Cluster, change: impl Fn(&Node)) {
        let leader = cluster.leader();
        for node in cluster.followers().into_iter().chain([leader]) {
            self.restart(cluster, node, &change);
        }
    }

    /// Stops a node, changes what `change` does, and starts it again, under the others' load.
    #[track_caller]
    fn restart(&self, cluster: &mut Cluster, node: usize, change: impl Fn(&Node)) {
        let led = cluster.leader() == node;
        for home in &self.homes {
            home.longest_us.store(0, Ordering::Release);
        }
        self.leave(node);
        self.wait_answered(|other| other != node);
        let stopping = Instant::now();
        cluster.nodes[node].terminate();
        let stopped = stopping.elapsed();
        self.wait_answered(|other| other != node);
        change(&cluster.nodes[node]);
        cluster.nodes[node].start();
        cluster.wait_serving();
        self.wait_answered(|other| other != node);
        let others = self.homes.iter().enumerate();
        let longest = others
            .filter(|(other, _)| *other != node)
            .map(|(_, home)| home.longest_us.load(Ordering::Acquire));
        eprintln!(
            "{} told to stop: it ended after {stopped:?}, the longest request elsewhere took {:?}",
            if led { "the leader" } else { "a follower" },
            Duration::from_micros(longest.max().unwrap()),
        );
        self.homes[node].away.store(false, Ordering::Release);
        self.wait_answered(|_| true);
    }

    /// Waits until the clients of these nodes have had answers, and no one of them has failed.
    #[track_caller]
    fn wait_answered(&self, is_meant: impl Fn(usize) -> bool) {
        for (_, home) in self
            .homes
            .iter()
            .enumerate()
            .filter(|(at, _)| is_meant(*at))
        {
            let aim = home.answers.load(Ordering::Acquire) + self.answers;
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

    /// Ends all clients. Each must have seen every number of its key, and the key must hold the last.
    #[track_caller]
    pub fn finish(self, cluster: &Cluster) {
        for home in &self.homes {
            home.stop.store(true, Ordering::Release);
        }
        for (key, thread) in self.threads {
            let counted = thread.join().unwrap();
            let mut client = Resp::connect(&cluster.nodes[0].addr).unwrap();
            let reply = client.call(&["GET", &key]).unwrap();
            assert_eq!(reply.text(), counted.to_string().as_bytes(), "{key}");
        }
    }
}
