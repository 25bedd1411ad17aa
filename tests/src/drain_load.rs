//! Clients that keep their connections to a node that stops. Each counts up a key of its own, over Redis's
//! protocol with and without a pipeline or over HTTP, and accepts no end of a connection that it was not told of:
//! by an error that says that nothing was executed, or by `Connection: close`.
//!
//! The numbers must follow each other without a gap, so a request that was refused was not executed, and one that
//! was executed was answered.

use std::io::{self, ErrorKind};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cluster::{Cluster, Node};
use crate::http::Http;
use crate::resp::{Resp, encode};
use crate::wait::eventually;

/// Clients of each kind at each node: 63 at three nodes.
const CLIENTS: usize = 7;

/// Requests that a client with a pipeline sends at once.
const PIPELINE: usize = 8;

/// Far longer than anything that is waited for, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A client that is not served comes back after so long.
const PAUSE: Duration = Duration::from_millis(20);

/// Answers of each node between two events, so that the next one happens under load.
const ANSWERS: u64 = 500;

/// How a client speaks.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Resp { pipeline: usize },
    Http,
}

const KINDS: [Kind; 3] = [
    Kind::Resp { pipeline: 1 },
    Kind::Resp { pipeline: PIPELINE },
    Kind::Http,
];

/// What the clients of one node have seen.
#[derive(Default)]
struct Seen {
    answers: AtomicU64,
    longest_us: AtomicU64,
    /// Connections that ended with words.
    told: AtomicU64,
    /// Connections that ended before their first answer: the system resets those that the process did not accept.
    reset: AtomicU64,
}

/// How a turn of a client ended.
enum Turn {
    Answered,
    Told,
}

/// Clients at all nodes.
pub struct DrainLoad {
    seen: Vec<Arc<Seen>>,
    stop: Arc<AtomicBool>,
    threads: Vec<(String, JoinHandle<i64>)>,
}

impl DrainLoad {
    /// Starts the clients of a cluster that serves, and waits until all nodes have answered some.
    #[track_caller]
    pub fn start(cluster: &Cluster) -> DrainLoad {
        let stop = Arc::new(AtomicBool::new(false));
        let mut load = DrainLoad {
            seen: Vec::new(),
            stop: stop.clone(),
            threads: Vec::new(),
        };
        for node in &cluster.nodes {
            let seen = Arc::new(Seen::default());
            load.seen.push(seen.clone());
            for (number, kind) in (0..CLIENTS * KINDS.len()).zip(KINDS.into_iter().cycle()) {
                let key = format!("counted-{}-{number}", node.id);
                let client = Client {
                    addr: node.addr.clone(),
                    key: key.clone(),
                    counted: 0,
                    seen: seen.clone(),
                    stop: stop.clone(),
                };
                load.threads
                    .push((key, thread::spawn(move || client.run(kind))));
            }
        }
        load.wait_answered();
        load
    }

    /// Stops each node and starts it again, the leader of the beginning last; prints what it took.
    #[track_caller]
    pub fn restart_each(&self, cluster: &mut Cluster) {
        let leader = cluster.leader();
        for node in cluster.followers().into_iter().chain([leader]) {
            self.restart(cluster, node);
        }
    }

    #[track_caller]
    fn restart(&self, cluster: &mut Cluster, node: usize) {
        self.restart_with(cluster, node, Node::command);
    }

    /// Stops a node, and starts it again by this command, such as one of another build.
    #[track_caller]
    pub fn restart_with(&self, cluster: &mut Cluster, node: usize, command: fn(&Node) -> Command) {
        let led = cluster.leader() == node;
        for seen in &self.seen {
            for count in [&seen.longest_us, &seen.told, &seen.reset] {
                count.store(0, Ordering::Release);
            }
        }
        let stopping = Instant::now();
        let process = cluster.nodes[node].process();
        process.signal(Signal::TERM);
        let status = process.wait_end(LIMIT);
        let stopped = stopping.elapsed();
        assert_eq!(status.code(), Some(0), "{}", process.output());
        let told = self.seen[node].told.load(Ordering::Acquire);
        let of_node = (CLIENTS * KINDS.len()) as u64;
        assert!(told >= of_node, "{told} of {of_node} clients were told");
        cluster.nodes[node].kill();
        let command = command(&cluster.nodes[node]);
        cluster.nodes[node].start_with(command);
        cluster.wait_serving();
        self.wait_answered();
        let others = self.seen.iter().enumerate().filter(|(at, _)| *at != node);
        let longest = others
            .map(|(_, seen)| seen.longest_us.load(Ordering::Acquire))
            .max();
        eprintln!(
            "{} told to stop: it ended after {stopped:?}; {of_node} clients were told, {} connections that it had \
             not accepted were reset; the longest request elsewhere took {:?}",
            if led { "the leader" } else { "a follower" },
            self.seen[node].reset.load(Ordering::Acquire),
            Duration::from_micros(longest.unwrap()),
        );
    }

    /// Waits until the clients of each node have had more answers, and none of them has failed.
    #[track_caller]
    fn wait_answered(&self) {
        for seen in &self.seen {
            let aim = seen.answers.load(Ordering::Acquire) + ANSWERS;
            eventually("answers", LIMIT, || {
                let failed = self.threads.iter().find(|(_, thread)| thread.is_finished());
                if let Some((key, _)) = failed {
                    panic!("the client of {key} has seen what it must not");
                }
                (seen.answers.load(Ordering::Acquire) >= aim).then_some(())
            });
        }
    }

    /// Ends all clients; each key must hold the last number that its client has seen.
    #[track_caller]
    pub fn finish(self, cluster: &Cluster) {
        self.stop.store(true, Ordering::Release);
        let mut client = Resp::connect(&cluster.nodes[0].addr).unwrap();
        for (key, thread) in self.threads {
            let counted = thread.join().unwrap();
            let reply = client.call(&["GET", &key]).unwrap();
            assert_eq!(reply.text(), counted.to_string().as_bytes(), "{key}");
        }
    }
}

struct Client {
    addr: String,
    key: String,
    counted: i64,
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
}

impl Client {
    /// Counts until it must stop; returns the last number.
    fn run(mut self, kind: Kind) -> i64 {
        while !self.stopped() {
            let ended = match kind {
                Kind::Resp { pipeline } => self.over_resp(pipeline),
                Kind::Http => self.over_http(),
            };
            // Nothing was sent, or it was told: all else is a panic.
            if ended.is_err() {
                self.seen.reset.fetch_add(1, Ordering::AcqRel);
            }
            thread::sleep(PAUSE);
        }
        self.counted
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// One connection. An error is one that ended before its first answer.
    fn over_resp(&mut self, pipeline: usize) -> io::Result<()> {
        let Ok(mut client) = Resp::connect(&self.addr) else {
            return Ok(());
        };
        let one = encode(&["INCR", &self.key]);
        let all = one.repeat(pipeline);
        self.turns(|this| {
            client.send(&all)?;
            for _ in 0..pipeline {
                let reply = client.receive()?;
                if reply.text().starts_with(b"LOADING ") {
                    return Ok(Turn::Told);
                }
                this.counted += 1;
                assert_eq!(reply.integer(), Some(this.counted), "{}: {reply}", this.key);
            }
            Ok(Turn::Answered)
        })
    }

    fn over_http(&mut self) -> io::Result<()> {
        let Ok(mut client) = Http::connect(&self.addr) else {
            return Ok(());
        };
        let path = format!("/v1/kv/{}?incr=1", self.key);
        self.turns(|this| {
            let response = client.request("POST", &path, &[], b"")?;
            let closes = response
                .header("connection")
                .is_some_and(|it| it == "Close");
            let text = response.text();
            if response.status == 503 {
                assert!(text.contains("MK-102"), "{}: {text}", this.key);
                return Ok(Turn::Told);
            }
            this.counted += 1;
            assert_eq!(text.trim(), this.counted.to_string(), "{}", this.key);
            Ok(if closes { Turn::Told } else { Turn::Answered })
        })
    }

    /// Takes turns until the connection ends with words.
    fn turns(&mut self, mut turn: impl FnMut(&mut Self) -> io::Result<Turn>) -> io::Result<()> {
        let mut is_first = true;
        while !self.stopped() {
            let (started, before) = (Instant::now(), self.counted);
            let turned = turn(self);
            let answered = u64::try_from(self.counted - before).unwrap();
            self.seen.answers.fetch_add(answered, Ordering::AcqRel);
            match turned {
                Ok(Turn::Answered) => {
                    let took = u64::try_from(started.elapsed().as_micros()).unwrap();
                    self.seen.longest_us.fetch_max(took, Ordering::AcqRel);
                }
                Ok(Turn::Told) => {
                    self.seen.told.fetch_add(1, Ordering::AcqRel);
                    return Ok(());
                }
                Err(error) if is_first && answered == 0 && ends(&error) => return Err(error),
                Err(error) => panic!("{}: its connection ended without a word: {error}", self.key),
            }
            is_first = false;
        }
        Ok(())
    }
}

fn ends(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
    )
}
