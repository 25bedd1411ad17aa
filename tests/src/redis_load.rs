//! Redis clients at every node while a test harms the leader, and the check of their observations.
//!
//! Four kinds of work: increments, writes and reads, optimistic transactions, locks. A client is at
//! home at one node; it may go to the next one while that refuses it, and comes home with the next
//! round.
//!
//! Invariant: no error is seen other than `CLUSTERDOWN` and `TRYAGAIN`, which were not executed, and
//! `UNKNOWN`; and no connection ends. Only a node that is killed may refuse connections, end them,
//! which is an unknown outcome, and say `LOADING` when it is back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufWriter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use memkv_check::{
    Budget, InFlight, KeyValue, Op, Operation, Outcome, Recorder, Reply, Value, wgl,
};

use crate::cluster::Cluster;
use crate::random::Random;
use crate::redis_work::{WORK, Worker};
use crate::resp::{Frame, Resp};
use crate::wait::eventually;

/// Pause after a node refused a connection or was loading, so that clients do not burn the cores that it needs.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// Longer than a node is ever paused, which its clients wait out.
const PAUSE_MAX: Duration = Duration::from_secs(120);

/// Running clients.
pub struct RedisLoad {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// The checked data.
#[derive(Debug)]
pub struct RedisVerdict {
    /// Operations in the history, and those of unknown outcome among them.
    pub operations: usize,
    /// Operations that may have been executed.
    pub unknown: usize,
    /// Answers by kind of work.
    pub answered: BTreeMap<&'static str, u64>,
    /// Errors by their first word.
    pub errors: BTreeMap<String, u64>,
    /// From each harm to the first write that began after it and was acknowledged, in order.
    pub pauses: BTreeMap<Harm, Vec<Duration>>,
}

/// A fault of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Harm {
    /// `kill -9`.
    Kill,
    /// SIGSTOP.
    Pause,
    /// Nothing passes between it and its peers; its clients reach it.
    CutOff,
}

/// The state that all clients share.
pub(crate) struct Shared {
    nodes: Vec<NodeState>,
    /// Whether clients go elsewhere when their node refuses them.
    roams: bool,
    pub(crate) recorder: Recorder,
    stop: AtomicBool,
    round: AtomicU64,
    /// Whether a client in this process holds the lock, as far as it knows.
    pub(crate) held: AtomicBool,
    counts: Mutex<Counts>,
}

struct NodeState {
    addr: String,
    /// Whether it may be unable to answer.
    harmed: AtomicBool,
    /// Whether it is dead, or comes back from that.
    killed: AtomicBool,
    /// How often it was killed; a connection from before may end at any time.
    kills: AtomicU64,
    answered: AtomicU64,
    refused: AtomicU64,
}

#[derive(Default)]
struct Counts {
    answered: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    /// The last harm, until a write has succeeded.
    harm_at: Option<(Harm, Instant)>,
    pauses: BTreeMap<Harm, Vec<Duration>>,
}

impl RedisLoad {
    /// Starts `each` clients of each kind of work at each node, which go to the next one while
    /// theirs refuses them.
    pub fn start(cluster: &Cluster, each: usize, seed: u64) -> RedisLoad {
        RedisLoad::start_all(cluster, each, seed, true)
    }

    /// The same with clients that stay, so that every node always has its own.
    pub fn start_at_home(cluster: &Cluster, each: usize, seed: u64) -> RedisLoad {
        RedisLoad::start_all(cluster, each, seed, false)
    }

    fn start_all(cluster: &Cluster, each: usize, seed: u64, roams: bool) -> RedisLoad {
        let state = |addr: &String| NodeState {
            addr: addr.clone(),
            harmed: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            kills: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        let shared = Arc::new(Shared {
            nodes: cluster.nodes.iter().map(|node| state(&node.addr)).collect(),
            roams,
            recorder: Recorder::monotonic(),
            stop: AtomicBool::new(false),
            round: AtomicU64::new(0),
            held: AtomicBool::new(false),
            counts: Mutex::default(),
        });
        let mut threads = Vec::new();
        for number in 0..each * WORK.len() * cluster.nodes.len() {
            let client = Client::new(&shared, number);
            let (kind, work) = WORK[number / cluster.nodes.len() % WORK.len()];
            let random = Random::new(seed.wrapping_add(u64::try_from(number).unwrap()));
            let worker = Worker::new(client, number, random);
            threads.push(thread::spawn(move || worker.run(kind, work)));
        }
        RedisLoad { shared, threads }
    }

    /// Call this just before harm is done to a node.
    pub fn harming(&self, node: usize, harm: Harm) {
        let state = &self.shared.nodes[node];
        state.harmed.store(true, Ordering::SeqCst);
        if harm == Harm::Kill {
            state.killed.store(true, Ordering::SeqCst);
            state.kills.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Call this just after harm was done: the pause begins.
    pub fn harmed(&self, harm: Harm) {
        self.shared.counts.lock().unwrap().harm_at = Some((harm, Instant::now()));
    }

    /// Call this when these nodes serve again: the clients come home, and use other keys.
    pub fn healed(&self, nodes: impl IntoIterator<Item = usize>) {
        for node in nodes {
            let state = &self.shared.nodes[node];
            state.killed.store(false, Ordering::SeqCst);
            state.harmed.store(false, Ordering::SeqCst);
        }
        self.shared.round.fetch_add(1, Ordering::SeqCst);
    }

    /// Waits until every node that is not harmed has given `count` more answers.
    #[track_caller]
    pub fn wait_answered(&self, count: u64, limit: Duration) {
        let sound = |state: &&NodeState| !state.harmed.load(Ordering::SeqCst);
        for state in self.shared.nodes.iter().filter(sound) {
            let what = format!("{count} more answers of {}", state.addr);
            self.wait_more(&state.answered, count, &what, limit);
        }
    }

    /// Waits until a node has refused the requests of `count` more clients.
    #[track_caller]
    pub fn wait_refused(&self, node: usize, count: u64, limit: Duration) {
        let state = &self.shared.nodes[node];
        let what = format!("{count} more refusals of {}", state.addr);
        self.wait_more(&state.refused, count, &what, limit);
    }

    /// Waits until all nodes together have given so many more answers or, without a leader, so
    /// many more refusals.
    #[track_caller]
    pub fn wait_outcomes(&self, answers: u64, refusals: u64, limit: Duration) {
        let total = |count: fn(&NodeState) -> &AtomicU64| {
            let counts = self.shared.nodes.iter().map(count);
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        let so_far = || -> (u64, u64) {
            let answered = total(|state| &state.answered);
            (answered, total(|state| &state.refused))
        };
        let (answered, refused) = so_far();
        let what = format!("{answers} more answers or {refusals} more refusals");
        eventually(&what, limit, || {
            self.failed_client();
            let (more_answered, more_refused) = so_far();
            let enough = more_answered >= answered + answers || more_refused >= refused + refusals;
            enough.then_some(())
        });
    }

    #[track_caller]
    fn wait_more(&self, counter: &AtomicU64, count: u64, what: &str, limit: Duration) {
        let target = counter.load(Ordering::Relaxed) + count;
        eventually(what, limit, || {
            self.failed_client();
            (counter.load(Ordering::Relaxed) >= target).then_some(())
        });
    }

    /// Ends the test when a client saw a wrong answer, which the client has printed.
    #[track_caller]
    fn failed_client(&self) {
        let failed = self.threads.iter().any(JoinHandle::is_finished);
        assert!(!failed, "a client failed");
    }

    /// Stops the clients, reads every key at the cluster, which must serve, and judges.
    pub fn finish(self, cluster: &Cluster) -> RedisVerdict {
        self.failed_client();
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a client failed");
        }
        let shared = &self.shared;
        let keys: BTreeSet<String> = shared
            .recorder
            .history()
            .iter()
            .map(|op| op.key.clone())
            .collect();
        let mut client = Resp::connect(&cluster.nodes[0].addr).unwrap();
        let mut content = BTreeMap::new();
        for key in keys {
            let call = shared.recorder.invoke(u64::MAX, key.as_str(), Op::Get);
            let value = value_of(&client.call(&["GET", &key]).unwrap());
            call.ok(Reply::Value(value), None);
            content.insert(key, value.map_or(0, |value| value.id));
        }
        let history = shared.recorder.history();
        let path = cluster.root().join("history.jsonl");
        let file = BufWriter::new(File::create(&path).unwrap());
        memkv_check::history::write_json_lines(file, &history).unwrap();
        if let Err(failure) = wgl::check(&KeyValue, &history, &Budget::default()) {
            panic!(
                "not linearizable: {failure}\nthe history is in {}",
                path.display()
            );
        }
        exact(&history, &content);
        let unknown = |op: &&Operation| op.outcome == Outcome::Unknown;
        let counts = std::mem::take(&mut *shared.counts.lock().unwrap());
        RedisVerdict {
            operations: history.len(),
            unknown: history.iter().filter(unknown).count(),
            answered: counts.answered,
            errors: counts.errors,
            pauses: counts.pauses,
        }
    }
}

/// Every counter holds all acknowledged increments, and no more than may have been executed; the two
/// counters of a pair are equal.
fn exact(history: &[Operation], content: &BTreeMap<String, u64>) {
    let mut bounds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for operation in history.iter().filter(|op| matches!(op.op, Op::Incr(1))) {
        let (least, most) = bounds.entry(&operation.key).or_default();
        match operation.outcome {
            Outcome::Ok { .. } => (*least, *most) = (*least + 1, *most + 1),
            Outcome::Unknown => *most += 1,
            Outcome::NotExecuted => {}
        }
    }
    assert!(!bounds.is_empty(), "nothing was counted");
    for (key, (least, most)) in bounds {
        let held = content[key];
        assert!(
            (least..=most).contains(&held),
            "{key} holds {held}, acknowledged are {least}, and at most {most} were executed"
        );
    }
    for (left, held) in content.iter().filter(|(key, _)| key.starts_with("left:")) {
        let right = left.replacen("left:", "right:", 1);
        assert_eq!(Some(held), content.get(&right), "{left} and {right}");
    }
}

/// Values are the decimal text of their ids.
pub(crate) fn value_of(reply: &Frame) -> Option<Value> {
    if reply.is_null() {
        return None;
    }
    let text = String::from_utf8_lossy(reply.text()).into_owned();
    let id = text.parse();
    Some(Value::new(id.unwrap_or_else(|_| {
        panic!("a value that no client wrote: {reply}")
    })))
}

/// The outcome of an attempt for the client.
pub(crate) enum Answer {
    Done(Frame),
    NotExecuted,
    Unknown,
}

/// One connection at a time, to one node.
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    home: usize,
    node: usize,
    round: u64,
    connection: Option<Open>,
}

struct Open {
    resp: Resp,
    /// How often its node had been killed when it was opened.
    kills: u64,
}

impl Client {
    fn new(shared: &Arc<Shared>, number: usize) -> Client {
        let home = number % shared.nodes.len();
        Client {
            shared: Arc::clone(shared),
            home,
            node: home,
            round: 0,
            connection: None,
        }
    }

    pub(crate) fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::SeqCst)
    }

    /// The round that the keys belong to. A new one brings the client home.
    pub(crate) fn round(&mut self) -> u64 {
        let round = self.shared.round.load(Ordering::SeqCst);
        if round != self.round {
            self.round = round;
            self.node = self.home;
            self.connection = None;
        }
        round
    }

    /// Gives the connection up, and with it everything that it had begun.
    pub(crate) fn leave(&mut self) {
        self.connection = None;
    }

    /// Opens a connection where there is none; false when the node refuses.
    pub(crate) fn connected(&mut self) -> bool {
        if self.connection.is_some() {
            return true;
        }
        let state = &self.shared.nodes[self.node];
        let kills = state.kills.load(Ordering::SeqCst);
        match Resp::connect(&state.addr) {
            Ok(resp) => {
                resp.set_timeout(PAUSE_MAX).unwrap();
                self.connection = Some(Open { resp, kills });
            }
            Err(error) => {
                self.excused(kills, &error);
                if self.shared.roams {
                    self.node = (self.node + 1) % self.shared.nodes.len();
                }
                thread::sleep(REFUSED_PAUSE);
            }
        }
        self.connection.is_some()
    }

    /// Fails unless the node was killed since it had been `kills` times, or is.
    fn excused(&self, kills: u64, error: &dyn std::fmt::Display) {
        let state = &self.shared.nodes[self.node];
        let excused =
            state.killed.load(Ordering::SeqCst) || state.kills.load(Ordering::SeqCst) > kills;
        assert!(
            excused,
            "a node that was not killed: {}: {error}",
            state.addr
        );
    }

    /// Sends a command over the open connection, or none at all.
    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Answer {
        let Some(mut open) = self.connection.take() else {
            return Answer::NotExecuted;
        };
        let frame = match open.resp.call(arguments) {
            Ok(frame) => frame,
            Err(error) => {
                self.excused(open.kills, &error);
                self.count_error("connection lost");
                return Answer::Unknown;
            }
        };
        let state = &self.shared.nodes[self.node];
        if !frame.is_error() {
            state.answered.fetch_add(1, Ordering::Relaxed);
            self.connection = Some(open);
            return Answer::Done(frame);
        }
        let text = String::from_utf8_lossy(frame.text()).into_owned();
        let word = text.split(' ').next().unwrap_or_default();
        let answer = match word {
            "CLUSTERDOWN" | "TRYAGAIN" => Answer::NotExecuted,
            "UNKNOWN" => Answer::Unknown,
            "LOADING" => {
                self.excused(open.kills, &text);
                thread::sleep(REFUSED_PAUSE);
                Answer::NotExecuted
            }
            _ => panic!("{} answered: {text}", state.addr),
        };
        self.count_error(word);
        state.refused.fetch_add(1, Ordering::Relaxed);
        self.connection = Some(open);
        answer
    }

    fn count_error(&self, word: &str) {
        let mut counts = self.shared.counts.lock().unwrap();
        *counts.errors.entry(word.to_owned()).or_default() += 1;
    }

    /// Notes an acknowledged write that began at `began`.
    pub(crate) fn acknowledged(&self, kind: &'static str, began: Instant) {
        let mut counts = self.shared.counts.lock().unwrap();
        *counts.answered.entry(kind).or_default() += 1;
        if let Some((harm, at)) = counts.harm_at.filter(|(_, at)| began > *at) {
            counts.harm_at = None;
            counts.pauses.entry(harm).or_default().push(at.elapsed());
        }
    }
}

/// Notes the outcome of an operation without a reply of its own.
pub(crate) fn note_failure(call: InFlight, answer: &Answer) {
    match answer {
        Answer::NotExecuted => call.not_executed(),
        Answer::Unknown | Answer::Done(_) => call.unknown(),
    }
}
