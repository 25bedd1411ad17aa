//! The clients: tasks that read and write a few keys through the node that they are
//! connected to, and record what they saw.
//!
//! They never retry: every attempt is an operation of its own with a value of its own, so that the
//! history says exactly what was asked. They never spin: an error is followed by a pause, or paused
//! time would stand still.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use memkv_check::space::{self, Answer, Expiry, If, Query};
use memkv_check::{InFlight, Op, Recorder, Reply, Value};
use memkv_node::{Node, RequestError};
use memkv_store::{Command, Principal, ReplyError, ReplyValue, Store};
use tokio::sync::watch;

use crate::cluster::{Cluster, name};
use crate::operations::{Asking, Operations};
use crate::promise::Promise;
use crate::rng::Rng;
use crate::{translate, users};

/// How long a client waits for an answer, in milliseconds; nodes hold commands for 3 s.
const GIVE_UP_MS: (u64, u64) = (200, 6_000);
/// Pause after an error, in milliseconds.
const BACK_OFF_MS: (u64, u64) = (10, 200);
/// Commands of the next feature level, out of 100.
#[cfg(memkv_bugs)]
const NEXT_LEVEL_PERCENT: u64 = 2;
/// Floods of one run: each costs as much as seconds of other writes.
const FLOODS: u64 = 4;
/// Most writes that a client sends without waiting for the answers.
const BURST: u64 = 4;

/// State that the clients share.
pub(crate) struct Workload {
    pub(crate) cluster: Arc<Cluster>,
    /// The plain clients' operations, key by key.
    pub(crate) recorder: Recorder,
    /// All clients' operations.
    pub(crate) operations: Operations,
    pub(crate) rng: Rng,
    /// Values are named by numbers that are never used twice.
    pub(crate) next_value: Rng,
    /// How many floods may still come.
    pub(crate) floods: AtomicU64,
    stop: watch::Sender<bool>,
}

/// A key's name.
pub(crate) fn key_name(number: usize) -> String {
    format!("k{number}")
}

/// A value: its id in decimal, padded with dots.
pub(crate) fn value_bytes(id: u64, len: u64) -> Bytes {
    let mut text = id.to_string().into_bytes();
    text.resize(text.len().max(usize::try_from(len).unwrap_or(0)), b'.');
    text.into()
}

/// The id that a value names; `None` for bytes that no client wrote.
pub(crate) fn value_id(bytes: &[u8]) -> Option<u64> {
    let digits = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let rest_is_padding = bytes[digits..].iter().all(|byte| *byte == b'.');
    let id = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
    rest_is_padding.then_some(id)
}

impl Workload {
    /// No client runs yet. Stamps of the history are simulated nanoseconds.
    pub(crate) fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        let trace = cluster.trace.clone();
        let clock = move || trace.micros() * 1000;
        let seed = cluster.seed();
        Arc::new(Self {
            cluster,
            recorder: Recorder::with_clock(clock.clone()),
            operations: Operations::new(clock),
            rng: Rng::new(seed, "clients"),
            next_value: Rng::new(seed, "values"),
            floods: AtomicU64::new(FLOODS),
            stop: watch::Sender::new(false),
        })
    }

    /// Starts all clients of the run.
    pub(crate) fn start(self: &Arc<Self>) -> Vec<tokio::task::JoinHandle<()>> {
        let client = |process| tokio::spawn(self.clone().client(process));
        (1..=self.cluster.swarm.clients as u64)
            .map(client)
            .chain(self.start_users())
            .collect()
    }

    /// Tells all clients to end after their current operation.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    async fn client(self: Arc<Self>, process: u64) {
        let mut stop = self.stop.subscribe();
        let mut home = self.rng.index(self.cluster.nodes());
        loop {
            let pause = self.rng.wait(self.cluster.swarm.think);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
            if self.rng.chance(100_000) {
                home = self.rng.index(self.cluster.nodes());
            }
            let done = match self.cluster.node(home) {
                Some(node) => self.operate(process, home, node).await,
                None => false,
            };
            if !done {
                home = self.rng.index(self.cluster.nodes());
                tokio::time::sleep(self.rng.millis(BACK_OFF_MS.0, BACK_OFF_MS.1)).await;
            }
        }
    }

    /// Whether the clients were told to end.
    pub(crate) fn stopped(&self) -> watch::Receiver<bool> {
        self.stop.subscribe()
    }

    /// How long a client waits for its next answer.
    pub(crate) fn patience(&self) -> Duration {
        Self::patience_by(&self.rng)
    }

    /// The same by another stream.
    pub(crate) fn patience_by(rng: &Rng) -> Duration {
        rng.millis(GIVE_UP_MS.0, GIVE_UP_MS.1)
    }

    /// One operation, or a burst of writes; whether it was answered.
    async fn operate(&self, process: u64, home: usize, node: Node) -> bool {
        let swarm = &self.cluster.swarm;
        #[cfg(memkv_bugs)]
        if self.rng.below(100) < NEXT_LEVEL_PERCENT {
            return self.next_level(&node).await;
        }
        let has_no_leader = || swarm.floods && node.status().leader.is_none();
        if self.cluster.takes_flood(home) || has_no_leader() && self.may_flood() {
            return self.flood(process, home, &node).await;
        }
        if node.status().disk_low && self.rng.below(4) == 0 && self.may_flood() {
            return self.flood_before_deletes(process, home, &node).await;
        }
        if self.rng.below(100) < swarm.redis_percent {
            return self.redis(process, home, node).await;
        }
        if self.rng.below(100) < swarm.reads_percent {
            let op = if self.rng.below(4) == 0 {
                Op::Exist
            } else {
                Op::Get
            };
            let key = key_name(self.rng.index(swarm.keys));
            return self.read(process, home, &node, key, op).await;
        }
        let count = if self.rng.below(8) == 0 {
            self.rng.between(2, BURST)
        } else {
            1
        };
        let key = key_name(self.rng.index(swarm.keys));
        let writes: Vec<_> = (0..count)
            .map(|_| self.write(process, home, &node, key.clone()))
            .collect();
        let mut answered = false;
        let mut last_revision = 0;
        for write in writes {
            let Some((changed, revision)) = write.await else {
                continue;
            };
            answered = true;
            if revision < last_revision || (changed && revision == last_revision) {
                let seen = format!(
                    "client {process} sent writes one after the other, and they got revisions \
                     {last_revision} and {revision}"
                );
                self.cluster.violated(Promise::OrderOfAClient, seen);
            }
            last_revision = revision;
        }
        answered
    }

    /// A command of the next feature level: refused where the cluster is not at it. The log is held
    /// against that, entry by entry, by the simulator's own store.
    #[cfg(memkv_bugs)]
    async fn next_level(&self, node: &Node) -> bool {
        let answer = node.write(&Command::OfNextLevel).await;
        self.cluster.trace.count(match &answer {
            Ok(_) => "commands of the next level executed",
            Err(RequestError::NeedsLevel { .. }) => "commands of the next level refused",
            Err(_) => "commands of the next level without an answer",
        });
        matches!(answer, Ok(_) | Err(RequestError::NeedsLevel { .. }))
    }

    /// Sends a write at once; resolves to whether it changed anything, and its revision.
    pub(crate) fn write(
        &self,
        process: u64,
        home: usize,
        node: &Node,
        key: String,
    ) -> impl Future<Output = Option<(bool, u64)>> + use<> {
        self.write_as(process, home, node, key, users::default_of(node))
    }

    /// The same for a user, by which it was judged.
    pub(crate) fn write_as(
        &self,
        process: u64,
        home: usize,
        node: &Node,
        key: String,
        principal: Option<Principal>,
    ) -> impl Future<Output = Option<(bool, u64)>> + use<> {
        let swarm = &self.cluster.swarm;
        let bytes = Bytes::from(key.clone());
        let (op, checked, command) = if self.rng.below(6) == 0 {
            let keys = vec![key.clone()];
            let command = Command::Del { keys: vec![bytes] };
            (Op::Del, space::Command::Del { keys }, command)
        } else {
            // 32 bits are few enough to be readable and enough not to meet in one run.
            let id = self.next_value.next() >> 32;
            let value = value_bytes(id, self.rng.below(swarm.value_bytes + 1));
            let checked = space::Command::Set {
                key: key.clone(),
                value: id.to_string(),
                condition: If::Always,
                expiry: Expiry::None,
                get: false,
            };
            (Op::Set(id), checked, Command::Set { key: bytes, value })
        };
        let cluster = self.cluster.clone();
        let in_flight = self.recorder.invoke(process, key.clone(), op);
        let asking = self.operations.write(process, checked, &command);
        let patience = self.patience();
        // Only a value tells a command from others.
        if let (Some(principal), Command::Set { .. }) = (principal, &command) {
            self.cluster.sent_by_users.note(&command, principal);
        }
        let answer = node.write_as(&command, principal);
        let answer = tokio::spawn(async move {
            let answer = tokio::time::timeout(patience, answer)
                .await
                .unwrap_or_else(|_| {
                    Err(RequestError::Unknown {
                        detail: "the client gave up".to_owned(),
                    })
                });
            settle_asking(asking, &answer);
            settle_write(&cluster, process, home, &key, op, in_flight, answer)
        });
        async move { answer.await.ok().flatten() }
    }

    /// Reads linearizably; whether it was answered.
    pub(crate) async fn read(
        &self,
        process: u64,
        home: usize,
        node: &Node,
        key: String,
        op: Op,
    ) -> bool {
        let in_flight = self.recorder.invoke(process, key.clone(), op);
        let query = Query::Get { key: key.clone() };
        let asking = self.operations.read(process, vec![query]);
        let patience = self.patience();
        let wanted = key.clone();
        let read = node.read(move |store: &Store| {
            let held = store.get(wanted.as_bytes());
            let text = held.map_or(Answer::Nil, |held| {
                Answer::Text(translate::text(held.value))
            });
            (
                held.map(|held| value_id(held.value)),
                text,
                store.revision(),
            )
        });
        let answer = tokio::time::timeout(patience, read).await;
        let home = name(home);
        let Ok(Ok((held, text, revision))) = answer else {
            self.cluster.trace.count("reads without an answer");
            self.cluster.trace.line(format_args!(
                "client {process} {home} {op:?} {key}: no answer"
            ));
            in_flight.unknown();
            asking.unknown();
            return false;
        };
        asking.ok(Answer::List(vec![text]), Some(revision));
        if held == Some(None) {
            let seen = format!("{home} answered {op:?} {key} with bytes that no client wrote");
            self.cluster.violated(Promise::ValueIsAsWritten, seen);
        }
        let reply = match op {
            Op::Exist => Reply::Exists(held.is_some()),
            _ => Reply::Value(held.flatten().map(Value::new)),
        };
        self.cluster.trace.count("reads");
        self.cluster.trace.line(format_args!(
            "client {process} {home} {op:?} {key}: {reply:?} at {revision}"
        ));
        in_flight.ok(reply, Some(revision));
        true
    }
}

/// The same for the history of all keys.
fn settle_asking(asking: Asking, answer: &Result<memkv_store::Reply, RequestError>) {
    match answer {
        Ok(reply) => asking.ok(translate::answer(&reply.value), Some(reply.revision)),
        Err(RequestError::Unknown { .. }) => asking.unknown(),
        Err(_) => asking.not_executed(),
    }
}

/// The replies of a run fit into the session's cache many times over.
pub(crate) fn check_kept(cluster: &Cluster, home: &str, detail: &str) {
    if detail.contains("keep its reply") {
        let seen = format!("{home}: {detail}");
        cluster.violated(Promise::ReplyIsKept, seen);
    }
}

fn settle_write(
    cluster: &Cluster,
    process: u64,
    home: usize,
    key: &str,
    op: Op,
    in_flight: InFlight,
    answer: Result<memkv_store::Reply, RequestError>,
) -> Option<(bool, u64)> {
    if let Err(RequestError::Unknown { detail }) = &answer {
        cluster.check_stop(home, detail);
    }
    let home = name(home);
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            cluster.trace.line(format_args!(
                "client {process} {home} {op:?} {key}: {error}"
            ));
            if matches!(error, RequestError::DiskFull | RequestError::DiskExhausted) {
                cluster.trace.count("writes refused for lack of space");
            }
            if let RequestError::Unknown { detail } = &error {
                check_kept(cluster, &home, detail);
                cluster.trace.count("writes of unknown outcome");
                in_flight.unknown();
            } else {
                cluster.trace.count(match error {
                    RequestError::NoPermission => "writes of users refused",
                    _ => "writes not executed",
                });
                in_flight.not_executed();
            }
            return None;
        }
    };
    let revision = answer.revision;
    if answer.value == ReplyValue::Error(ReplyError::OutOfMemory) {
        cluster.trace.count("writes refused at the cap");
        in_flight.not_executed();
        return Some((false, revision));
    }
    let (reply, changed) = match answer.value {
        ReplyValue::Ok => (Reply::Done, true),
        ReplyValue::Integer(removed) => (Reply::Removed(removed > 0), removed > 0),
        other => {
            let seen = format!("{home} answered {op:?} {key} with {other:?}");
            cluster.violated(Promise::AnswersWhatItShould, seen);
            return None;
        }
    };
    cluster.trace.count("writes");
    cluster.trace.line(format_args!(
        "client {process} {home} {op:?} {key}: {reply:?} at {revision}"
    ));
    in_flight.ok(reply, Some(revision));
    Some((changed, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_id() {
        assert_eq!(value_id(&value_bytes(17, 9)), Some(17));
        assert_eq!(value_bytes(17, 9).len(), 9);
        assert_eq!(value_id(&value_bytes(17, 0)), Some(17));
        assert_eq!(value_id(b"17.x"), None);
        assert_eq!(value_id(b""), None);
    }
}
