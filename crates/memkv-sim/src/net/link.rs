//! One directed lane between two hosts: delivers requests in order, breaks and connects anew.
//! Never delivers anything to a process that has not been started or is dead, or to another one than
//! the connection was made with.

use std::sync::Arc;

use bytes::Bytes;
use memkv_node::{CallError, Frame, Lane, kind_of};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::{Port, Shared};

/// How long a cut connection is kept before it is given up, in milliseconds: from a keep-alive's
/// reset to a good part of TCP's retransmissions.
const PATIENCE_MS: (u64, u64) = (150, 3_000);
/// How late ghosts and duplicates are, in milliseconds.
const LATE_MS: (u64, u64) = (1, 5_000);

type Answer = oneshot::Sender<Result<Bytes, CallError>>;

/// A request on its way.
pub(crate) struct Message {
    /// Process that sent it.
    pub(crate) generation: u64,
    pub(crate) arrives_at: Instant,
    pub(crate) request: Bytes,
    pub(crate) answer: Option<Answer>,
}

impl Message {
    fn fail(&mut self, error: CallError) {
        if let Some(answer) = self.answer.take() {
            // The caller may have given up.
            let _ = answer.send(Err(error));
        }
    }
}

/// The task of one lane.
pub(crate) struct Wire {
    net: Arc<Shared>,
    from: usize,
    to: usize,
    lane: Lane,
    /// The two processes that the connection joins; `None` while there is none.
    joins: Option<(u64, u64)>,
}

impl Wire {
    pub(crate) fn new(net: Arc<Shared>, from: usize, to: usize, lane: Lane) -> Self {
        Self {
            net,
            from,
            to,
            lane,
            joins: None,
        }
    }

    pub(crate) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Message>) {
        while let Some(message) = queue.recv().await {
            if message.arrives_at > Instant::now() {
                tokio::time::sleep_until(message.arrives_at).await;
            }
            let patience = self.net.rng.millis(PATIENCE_MS.0, PATIENCE_MS.1);
            let way = (self.from, self.to);
            if !self.net.wait_open(way, self.lane, patience).await {
                self.reset(
                    message,
                    &mut queue,
                    "the link is cut",
                    CallError::Unreachable,
                );
            } else if self.net.rng.chance(self.net.weather().loss) {
                self.net.trace.count("connections reset");
                self.reset(
                    message,
                    &mut queue,
                    "connection reset",
                    CallError::Unreachable,
                );
            } else {
                self.arrive(message, &mut queue);
            }
        }
    }

    /// Breaks the connection: everything on it gets an error, and may still arrive later.
    fn reset(
        &mut self,
        first: Message,
        queue: &mut mpsc::UnboundedReceiver<Message>,
        why: &'static str,
        unsent: fn(String) -> CallError,
    ) {
        let joined = self.joins.take();
        let mut ghosts = Vec::new();
        let mut next = Some(first);
        while let Some(mut message) = next {
            message.fail(if joined.is_some() {
                CallError::Lost(why.to_owned())
            } else {
                unsent(why.to_owned())
            });
            ghosts.push(message.request);
            next = queue.try_recv().ok();
        }
        self.note("reset", "", ghosts.len());
        if let Some((_, receiver)) = joined
            && self.net.rng.chance(self.net.weather().ghost)
        {
            self.net.trace.count("late arrivals");
            self.deliver_late(ghosts, receiver);
        }
    }

    fn arrive(&mut self, mut message: Message, queue: &mut mpsc::UnboundedReceiver<Message>) {
        if message.generation != self.net.generation(self.from) {
            // Its sender died after sending it: it was still in some buffer, or not.
            if let Some((_, receiver)) = self.joins
                && self.net.rng.coin()
            {
                self.net.trace.count("late arrivals");
                self.deliver_late(vec![message.request], receiver);
            }
            return;
        }
        if self.net.has_firewall(self.from, self.to) {
            return self.reset(message, queue, "connection refused", CallError::NoListener);
        }
        let Some(port) = self.net.port(self.to) else {
            return if self.net.refuses(self.to) {
                self.reset(message, queue, "connection refused", CallError::NoListener)
            } else {
                self.reset(message, queue, "no answer", CallError::Unreachable)
            };
        };
        let now_joins = (message.generation, port.generation);
        if self.joins.is_some_and(|joins| joins != now_joins) {
            // The other side's process is a new one: the old connection does not reach it.
            self.joins = None;
            return message.fail(CallError::Lost("connection reset by peer".to_owned()));
        }
        self.joins = Some(now_joins);
        // Raft's messages may come twice. A forwarded request whose refusal was believed may not:
        // that is more than any transport over TCP does, and sessions rely on it.
        let may_repeat = !matches!(self.lane, Lane::Forward | Lane::Publish);
        if may_repeat && self.net.rng.chance(self.net.weather().duplicate) {
            self.net.trace.count("duplicates");
            self.deliver_late(vec![message.request.clone()], port.generation);
        }
        self.deliver(&port, message.request, message.answer);
    }

    /// A connection joins two processes, so a late message on it reaches this receiver or none.
    fn deliver_late(&self, requests: Vec<Bytes>, receiver: u64) {
        let wire = Wire::new(self.net.clone(), self.from, self.to, self.lane);
        let drawn = || self.net.rng.millis(LATE_MS.0, LATE_MS.1);
        let delay = self.net.late().unwrap_or_else(drawn);
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            for request in requests {
                let port = wire.net.port(wire.to);
                if let Some(port) = port.filter(|port| port.generation == receiver) {
                    wire.deliver(&port, request, None);
                }
            }
        });
    }

    fn deliver(&self, port: &Port, request: Bytes, answer: Option<Answer>) {
        let kind = kind_of(&request);
        self.note(
            kind,
            if answer.is_some() { "" } else { " late" },
            request.len(),
        );
        let handled = port.node.handle(self.lane, request);
        let mut dead = port.dead.clone();
        let (net, from, to, lane) = (self.net.clone(), self.from, self.to, self.lane);
        tokio::spawn(async move {
            let response = tokio::select! {
                biased;
                _ = dead.wait_for(|dead| *dead) => None,
                response = handled => Some(response),
            };
            let Some(answer) = answer else { return };
            let result = match response {
                None => Err(CallError::Lost("the peer died".to_owned())),
                Some(response) => send_back(&net, (to, from), lane, kind, response).await,
            };
            // The caller may have given up.
            let _ = answer.send(result);
        });
        self.net.observe(self.from, self.to, kind);
    }

    fn note(&self, what: &str, how: &str, bytes: usize) {
        let (from, to, lane) = (self.from + 1, self.to + 1, self.lane);
        self.net
            .trace
            .line(format_args!("n{from}>n{to} {lane:?} {what}{how} {bytes}"));
    }
}

/// The way back: it can break like the way there.
async fn send_back(
    net: &Shared,
    (callee, caller): (usize, usize),
    lane: Lane,
    kind: &'static str,
    response: Frame,
) -> Result<Bytes, CallError> {
    let response = response.into_bytes();
    tokio::time::sleep(net.latency(response.len())).await;
    let patience = net.rng.millis(PATIENCE_MS.0, PATIENCE_MS.1);
    if !net.wait_open((callee, caller), lane, patience).await {
        return Err(CallError::Lost("the link is cut".to_owned()));
    }
    if net.rng.chance(net.weather().loss) {
        net.trace.count("connections reset");
        return Err(CallError::Lost("connection reset".to_owned()));
    }
    if kind == "SnapshotInstall" && response.first() == Some(&0) {
        net.trace.count("snapshots installed");
    }
    match (kind, &response[..]) {
        ("Confirm", [0, 1]) => net.trace.count("reads confirmed by a peer"),
        ("Confirm", _) => net.trace.count("reads not confirmed by a peer"),
        _ => {}
    }
    let (caller, callee, bytes) = (caller + 1, callee + 1, response.len());
    let sum = crc32fast::hash(&response);
    net.trace.line(format_args!(
        "n{callee}>n{caller} answer {kind} {bytes} {sum:08x}"
    ));
    Ok(response)
}
