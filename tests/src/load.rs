//! Clients that write, read and delete while a test injects faults, and the check of their observations.
//!
//! Half of the clients speak the original's JSON, half REST. A client stays at a node until that one
//! fails it, so that reads on followers are tested as much as on the leader. The keys change with
//! each round: unknown outcomes of one round then never multiply with those of the next, and the
//! judge's search stays short.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use memkv_check::ledger::{Final, Ledger};
use memkv_check::{
    Budget, InFlight, KeyValue, Op, Operation, Recorder, Reply, Value, revision, wgl,
};

use crate::cluster::Cluster;
use crate::compat::{Compat, CompatReply};
use crate::http::{Http, Response};
use crate::random::Random;
use crate::wait::eventually;

/// Keys of one round: few, so that clients meet on them.
const KEYS: usize = 32;

/// Pause after a node refused a connection, so that clients of a dead cluster do not burn the cores
/// that it needs to come back.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// Running clients.
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    nodes: Vec<(String, String)>,
    recorder: Recorder,
    stop: AtomicBool,
    round: AtomicU64,
    answered: AtomicU64,
}

/// The checked data, so that an empty proof can be told from a real one.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    /// Operations in the history.
    pub operations: usize,
    /// Writes that were acknowledged.
    pub acknowledged_writes: u64,
    /// Writes of unknown outcome.
    pub unknown_writes: u64,
    /// Keys.
    pub keys: usize,
}

impl Load {
    /// Starts `clients` clients; `seed` decides what each of them does.
    pub fn start(cluster: &Cluster, clients: usize, seed: u64) -> Load {
        let nodes = cluster
            .nodes
            .iter()
            .map(|node| (node.addr.clone(), node.id.clone()));
        let shared = Arc::new(Shared {
            nodes: nodes.collect(),
            recorder: Recorder::monotonic(),
            stop: AtomicBool::new(false),
            round: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        });
        let spawn = |client: usize| {
            let shared = Arc::clone(&shared);
            let random = Random::new(seed.wrapping_add(u64::try_from(client).unwrap()));
            thread::spawn(move || Client::new(shared, client, random).run())
        };
        let threads = (0..clients).map(spawn).collect();
        Load { shared, threads }
    }

    /// From now on the clients use other keys.
    pub fn next_round(&self) {
        self.shared.round.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until `count` more operations were answered: the cluster serves.
    #[track_caller]
    pub fn wait_answered(&self, count: u64, limit: Duration) {
        let target = self.shared.answered.load(Ordering::Relaxed) + count;
        eventually(&format!("{count} more answers"), limit, || {
            (self.shared.answered.load(Ordering::Relaxed) >= target).then_some(())
        });
    }

    /// Stops the clients, reads every key once more at the cluster, which must serve, and judges:
    /// the history is linearizable, revisions agree with it, no acknowledged write is lost and none
    /// was executed twice.
    pub fn finish(self, cluster: &Cluster) -> Verdict {
        self.finish_beside(cluster, 0)
    }

    /// The same where others have executed so many writes beside these clients.
    pub fn finish_beside(self, cluster: &Cluster, others: u64) -> Verdict {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let history = self.shared.recorder.history();
        let keys: BTreeSet<String> = history.iter().map(|op| op.key.clone()).collect();
        let mut http = Http::connect(&cluster.nodes[0].addr).unwrap();
        let mut content = Vec::new();
        let mut last_revision = 0;
        for key in &keys {
            let call = self.shared.recorder.invoke(u64::MAX, key.as_str(), Op::Get);
            let response = http
                .request("GET", &format!("/v1/kv/{key}"), &[], b"")
                .unwrap();
            last_revision = revision_of(&response).expect("every reply carries a revision");
            let value = (response.status == 200).then(|| id_of(&response.text()));
            if let Some(value) = value {
                let etag = response.header("etag").unwrap().trim_matches('"');
                let revision = etag.parse().unwrap();
                content.push(Final {
                    key: key.clone(),
                    value,
                    revision,
                });
            }
            call.ok(Reply::Value(value.map(Value::new)), Some(last_revision));
        }
        judge(
            cluster,
            &self.shared.recorder.history(),
            content,
            last_revision - others,
            keys.len(),
        )
    }
}

fn judge(
    cluster: &Cluster,
    history: &[Operation],
    content: Vec<Final>,
    last_revision: u64,
    keys: usize,
) -> Verdict {
    let path = cluster.root().join("history.jsonl");
    let file = io::BufWriter::new(std::fs::File::create(&path).unwrap());
    memkv_check::history::write_json_lines(file, history).unwrap();
    let said = |what: &str, why: &dyn std::fmt::Display| -> ! {
        panic!("{what}: {why}\nthe history is in {}", path.display())
    };
    if let Err(failure) = wgl::check(&KeyValue, history, &Budget::default()) {
        said("not linearizable", &failure);
    }
    if let Err(failure) = revision::check(&KeyValue, history, &Budget::default()) {
        said("revisions do not agree with the history", &failure);
    }
    let mut ledger = Ledger::new();
    for operation in history {
        ledger.record(operation);
    }
    // Nothing else wrote since the cluster was formed, so its revision without others' writes counts executed writes. A
    // deletion that removed nothing is executed too, but the ledger does not count it.
    let removed_nothing = history
        .iter()
        .filter(|op| op.reply() == Some(&Reply::Removed(false)));
    let counted = last_revision - u64::try_from(removed_nothing.count()).unwrap();
    match ledger.audit(content, Some(counted)) {
        Err(failure) => said("the account does not agree", &failure),
        Ok(audit) => Verdict {
            operations: history.len(),
            acknowledged_writes: audit.acknowledged,
            unknown_writes: audit.unknown,
            keys,
        },
    }
}

/// One client: at one node over one connection until that fails.
struct Client {
    shared: Arc<Shared>,
    number: usize,
    random: Random,
    written: u64,
    node: usize,
    connection: Option<Connection>,
}

enum Connection {
    Compat(Compat),
    Rest(Http),
}

/// The outcome of an attempt for the client.
enum Answer {
    Done(Reply, Option<u64>),
    NotExecuted,
    Unknown,
}

impl Client {
    fn new(shared: Arc<Shared>, number: usize, random: Random) -> Client {
        let node = number % shared.nodes.len();
        Client {
            shared,
            number,
            random,
            written: 0,
            node,
            connection: None,
        }
    }

    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let Some(connection) = self.connection.take().or_else(|| self.connect()) else {
                self.node = (self.node + 1) % self.shared.nodes.len();
                thread::sleep(REFUSED_PAUSE);
                continue;
            };
            self.once(connection);
        }
    }

    fn connect(&self) -> Option<Connection> {
        let (addr, id) = &self.shared.nodes[self.node];
        let http = Http::connect(addr).ok()?;
        // Both are connected now: a refused connection is no operation of unknown outcome.
        Some(match self.number % 2 {
            0 => Connection::Rest(http),
            _ => Connection::Compat(Compat::over(http, addr, id)),
        })
    }

    fn once(&mut self, mut connection: Connection) {
        let round = self.shared.round.load(Ordering::Relaxed);
        let key = format!("r{round}-{}", self.random.below(KEYS));
        let op = self.choose(&connection);
        let process = u64::try_from(self.number).unwrap();
        let call = self.shared.recorder.invoke(process, key.as_str(), op);
        let answer = match &mut connection {
            Connection::Rest(http) => rest(http, &key, op),
            Connection::Compat(compat) => compat_call(compat, &key, op),
        };
        match answer {
            Ok(answer) => {
                self.note(call, answer);
                self.connection = Some(connection);
            }
            Err(_) => {
                call.unknown();
                self.node = (self.node + 1) % self.shared.nodes.len();
            }
        }
    }

    /// Only REST tells whether a deletion removed something, so only its clients delete.
    fn choose(&mut self, connection: &Connection) -> Op {
        match (self.random.below(20), connection) {
            (0..=8, _) => {
                self.written += 1;
                Op::Set((u64::try_from(self.number).unwrap() << 32) | self.written)
            }
            (9, Connection::Rest(_)) => Op::Del,
            (9, Connection::Compat(_)) => Op::Exist,
            _ => Op::Get,
        }
    }

    fn note(&self, call: InFlight, answer: Answer) {
        match answer {
            Answer::Done(reply, revision) => {
                call.ok(reply, revision);
                self.shared.answered.fetch_add(1, Ordering::Relaxed);
            }
            Answer::NotExecuted => call.not_executed(),
            Answer::Unknown => call.unknown(),
        }
    }
}

fn rest(http: &mut Http, key: &str, op: Op) -> io::Result<Answer> {
    let path = format!("/v1/kv/{key}");
    let response = match op {
        Op::Set(value) => http.request("PUT", &path, &[], value.to_string().as_bytes())?,
        Op::Del => http.request("DELETE", &path, &[], b"")?,
        Op::Get | Op::Exist => http.request("GET", &path, &[], b"")?,
        Op::Append(_) | Op::Incr(_) => unreachable!("not chosen"),
    };
    let reply = match (op, response.status) {
        (Op::Set(_), 200..=299) => Reply::Done,
        (Op::Del, 200..=299) => Reply::Removed(response.header("x-memkv-deleted") == Some("1")),
        (Op::Get, 200) => Reply::Value(Some(Value::new(id_of(&response.text())))),
        (Op::Get, 404) => Reply::Value(None),
        _ => return Ok(refusal(response.text().contains(r#""executed":"no""#))),
    };
    Ok(Answer::Done(reply, revision_of(&response)))
}

fn compat_call(compat: &mut Compat, key: &str, op: Op) -> io::Result<Answer> {
    let reply: CompatReply = match op {
        Op::Set(value) => compat.set(key, &value.to_string())?,
        Op::Exist => compat.exist(key)?,
        Op::Get => compat.get(key)?,
        Op::Del | Op::Append(_) | Op::Incr(_) => unreachable!("not chosen"),
    };
    let done = match (op, reply.status.as_str()) {
        (Op::Set(_), "ok") => Reply::Done,
        (Op::Get, "ok") => Reply::Value(reply.value.as_deref().map(id_of).map(Value::new)),
        (Op::Get, "not found") => Reply::Value(None),
        (Op::Exist, "yes") => Reply::Exists(true),
        (Op::Exist, "no") => Reply::Exists(false),
        _ => return Ok(refusal(!reply.maybe)),
    };
    Ok(Answer::Done(done, reply.revision))
}

fn refusal(not_executed: bool) -> Answer {
    if not_executed {
        Answer::NotExecuted
    } else {
        Answer::Unknown
    }
}

fn revision_of(response: &Response) -> Option<u64> {
    response.header("x-memkv-revision")?.parse().ok()
}

/// Values are the decimal text of their ids; anything else was never written by these clients.
fn id_of(value: &str) -> u64 {
    value
        .parse()
        .unwrap_or_else(|_| panic!("a value that no client wrote: {value:?}"))
}
