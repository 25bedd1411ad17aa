//! The asking side of the peer link: one task per peer and lane, which dials when there is
//! something to send, keeps the requests in order and matches the responses by id.
//!
//! Invariant: a request is reported as unreachable only if no byte of it was handed to the kernel.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use memkv_node::lock::Mutex;
use memkv_node::seldom::Seldom;
use memkv_node::{CallError, Frame, Lane, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use super::dial::{Credentials, Dialled, dial};
use super::frame::{self, FrameError, FrameReader};
use super::handshake::Trust;
use super::lane_name;
use crate::tls::{Stream, Tls, during};

/// After a failed attempt the next one waits as long as the outage has lasted, but at least this.
const BACK_OFF_MIN: Duration = Duration::from_millis(20);

/// A peer that comes back is found within this: one heartbeat, which is small beside a start, and
/// ten attempts a second to a peer that is away cost nothing.
const BACK_OFF_MAX: Duration = Duration::from_millis(100);

/// An outage longer than this is no restart.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// Requests of one lane that may wait for a peer that does not read, in bytes; what exceeds it is
/// refused. Two of the largest frames, so that one of them never blocks the lane for good.
const QUEUE_MAX_BYTES: usize = 2 * frame::MAX_BODY_BYTES;

/// Requests that one `writev` round takes from the queue.
const BATCH: usize = 64;

type Reply = oneshot::Sender<Result<Bytes, CallError>>;

/// Ways to all peers, as a [`Transport`].
pub struct Links {
    me: String,
    credentials: Credentials,
    /// The consensus runtime.
    runtime: Handle,
    /// Where the tasks of [`Lane::Read`] run.
    reads: Handle,
    /// In order of their first use. Few, so that to look at each costs less than to hash a name.
    links: Mutex<Vec<(Target, Link)>>,
}

#[derive(Debug, Clone)]
struct Target {
    name: String,
    addr: String,
    lane: Lane,
}

struct Link {
    queue: mpsc::UnboundedSender<Request>,
    queued_bytes: Arc<AtomicUsize>,
}

struct Request {
    frame: Frame,
    bytes: usize,
    reply: Reply,
}

impl Links {
    /// The links of the node named `me`, to peers of which no proof is wanted; their tasks run on
    /// `runtime`.
    pub fn new(me: String, runtime: Handle) -> Self {
        Self {
            me,
            credentials: Credentials {
                trust: Trust::Everybody,
                tls: None,
            },
            reads: runtime.clone(),
            runtime,
            links: Mutex::default(),
        }
    }

    /// The same links, to those that `trust` says, by the proof that it says.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.credentials.trust = trust;
        self
    }

    /// The same links, inside TLS where it says so.
    #[must_use]
    pub(crate) fn with_tls(mut self, tls: Option<Arc<Tls>>) -> Self {
        self.credentials.tls = tls;
        self
    }

    /// The same links; those of [`Lane::Read`] run on another runtime.
    #[must_use]
    pub fn with_reads_on(mut self, runtime: Handle) -> Self {
        self.reads = runtime;
        self
    }

    fn enqueue(&self, (name, addr, lane): (&str, &str, Lane), frame: Frame, reply: Reply) {
        let bytes = frame.len();
        let mut links = self.links.lock();
        let is_it =
            |target: &Target| target.lane == lane && target.addr == addr && target.name == name;
        let known = links.iter().position(|(target, _)| is_it(target));
        let at = known.unwrap_or_else(|| {
            let target = Target {
                name: name.to_owned(),
                addr: addr.to_owned(),
                lane,
            };
            let link = self.open(target.clone());
            links.push((target, link));
            links.len() - 1
        });
        let (_, link) = &links[at];
        if link.queued_bytes.load(Ordering::Relaxed) + bytes > QUEUE_MAX_BYTES {
            let full = "too much waits for this peer; it reads slowly or not at all".to_owned();
            let _ = reply.send(Err(CallError::Unreachable(full)));
            return;
        }
        link.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // Fails only when the runtime is gone; then the reply is dropped, and the caller told.
        let _ = link.queue.send(Request {
            frame,
            bytes,
            reply,
        });
    }

    fn open(&self, target: Target) -> Link {
        let (queue, requests) = mpsc::unbounded_channel();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let source = Source {
            requests,
            queued_bytes: queued_bytes.clone(),
        };
        let credentials = self.credentials.clone();
        let runtime = match target.lane {
            Lane::Read => &self.reads,
            _ => &self.runtime,
        };
        runtime.spawn(keep(self.me.clone(), credentials, target, source));
        Link {
            queue,
            queued_bytes,
        }
    }
}

impl Transport for Links {
    fn call(
        &self,
        name: &str,
        addr: &str,
        lane: Lane,
        request: Frame,
    ) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let (reply, response) = oneshot::channel();
        self.enqueue((name, addr, lane), request, reply);
        Box::pin(async move {
            let stopped = || Err(CallError::Lost("the node is stopping".to_owned()));
            response.await.unwrap_or_else(|_| stopped())
        })
    }
}

/// The end of the queue that the link's task holds.
struct Source {
    requests: mpsc::UnboundedReceiver<Request>,
    queued_bytes: Arc<AtomicUsize>,
}

impl Source {
    /// Takes at least one request whose caller still waits; `false` when there will never be one.
    async fn take(&mut self, batch: &mut Vec<Request>) -> bool {
        while batch.is_empty() {
            if self.requests.recv_many(batch, BATCH).await == 0 {
                return false;
            }
            let taken = batch.iter().map(|request| request.bytes).sum();
            self.queued_bytes.fetch_sub(taken, Ordering::Relaxed);
            batch.retain(|request| !request.reply.is_closed());
        }
        true
    }

    /// Answers everything that waits: it was certainly not sent.
    fn refuse(&mut self, batch: &mut Vec<Request>, error: &CallError) {
        while let Ok(request) = self.requests.try_recv() {
            self.queued_bytes
                .fetch_sub(request.bytes, Ordering::Relaxed);
            batch.push(request);
        }
        for request in batch.drain(..) {
            let _ = request.reply.send(Err(error.clone()));
        }
    }
}

/// The life of a link: dial for the first request, exchange frames until the connection ends, wait,
/// begin again.
async fn keep(me: String, credentials: Credentials, target: Target, mut source: Source) {
    let mut batch = Vec::new();
    let mut outage = Outage::default();
    let Target { name, addr, lane } = &target;
    while source.take(&mut batch).await {
        let why = match dial(&me, name, addr, *lane, &credentials).await {
            Ok(dialled) => {
                let connected = Instant::now();
                let works = || outage.end(&target);
                let why = converse(dialled, &mut batch, &mut source, works).await;
                outage.connected_for(connected.elapsed());
                why
            }
            Err(error) => {
                let why = error.to_string();
                let error = if error.is_no_listener() {
                    CallError::NoListener(why.clone())
                } else {
                    CallError::Unreachable(why.clone())
                };
                source.refuse(&mut batch, &error);
                why
            }
        };
        outage.note(&target, &why);
        tokio::time::sleep(outage.back_off).await;
    }
}

/// How long a link has not worked. Told once, and only if it lasts: peers restart, and a log that
/// repeats itself is not read. Of a peer that comes and goes, seldom.
struct Outage {
    since: Option<Instant>,
    told: bool,
    back_off: Duration,
    line: Seldom,
}

impl Default for Outage {
    fn default() -> Self {
        Self {
            since: None,
            told: false,
            back_off: BACK_OFF_MIN,
            line: Seldom::new(),
        }
    }
}

impl Outage {
    fn note(&mut self, target: &Target, why: &str) {
        let lasted = self.since.get_or_insert_with(Instant::now).elapsed();
        if lasted > WORTH_TELLING && !self.told && self.line.say().is_some() {
            self.told = true;
            let Target { name, addr, lane } = target;
            tracing::warn!(
                peer = name,
                addr,
                lane = lane_name(*lane),
                why,
                "no connection"
            );
        }
        // The next attempt waits as long as this outage has lasted, within bounds.
        self.back_off = lasted.clamp(BACK_OFF_MIN, BACK_OFF_MAX);
    }

    /// A connection that lasted worked, also if nothing was answered: what a follower leaves at its
    /// leader is answered only at the end, and if that is the leader's death the next attempt tells.
    /// A peer that cannot talk closes at once.
    fn connected_for(&mut self, time: Duration) {
        if time >= BACK_OFF_MIN {
            self.is_over();
        }
    }

    fn end(&mut self, target: &Target) {
        if self.told {
            let Target { name, addr, lane } = target;
            tracing::info!(
                peer = name,
                addr,
                lane = lane_name(*lane),
                "connected again"
            );
        }
        self.is_over();
    }

    fn is_over(&mut self) {
        self.since = None;
        self.told = false;
        self.back_off = BACK_OFF_MIN;
    }
}

/// Requests on their way, by id.
#[derive(Default)]
struct Pending {
    replies: HashMap<u64, Reply>,
    /// Size at which forgotten requests are looked for; doubles, so the search stays cheap.
    sweep_at: usize,
}

impl Pending {
    fn insert(&mut self, id: u64, reply: Reply) {
        if self.replies.len() >= self.sweep_at {
            self.replies.retain(|_, reply| !reply.is_closed());
            self.sweep_at = 2 * self.replies.len() + BATCH;
        }
        self.replies.insert(id, reply);
    }
}

/// Talks until the connection ends; returns why it did. `works` is called when the peer has
/// answered: until then it may only have accepted the connection.
async fn converse(
    (mut stream, leftover): Dialled,
    batch: &mut Vec<Request>,
    source: &mut Source,
    works: impl FnMut(),
) -> String {
    let pending = Mutex::new(Pending::default());
    let lease = stream.take_lease();
    let why = match stream {
        Stream::Plain(mut tcp) => {
            let halves = tcp.split();
            exchange(halves, leftover, batch, source, &pending, works).await
        }
        Stream::Tls(tls) => {
            let halves = tokio::io::split(tls);
            let exchange = || exchange(halves, leftover, batch, source, &pending, works);
            let ended = || "the peer's certificate has ended or was revoked".to_owned();
            Box::pin(during(lease, exchange))
                .await
                .unwrap_or_else(ended)
        }
    };
    for (_, reply) in pending.into_inner().replies {
        let _ = reply.send(Err(CallError::Lost(why.clone())));
    }
    why
}

/// Both directions at once: a peer that is writing responses may not be reading requests.
async fn exchange(
    (read_half, write_half): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    leftover: BytesMut,
    batch: &mut Vec<Request>,
    source: &mut Source,
    pending: &Mutex<Pending>,
    works: impl FnMut(),
) -> String {
    let reader = FrameReader::new(read_half, leftover);
    tokio::select! {
        end = send(write_half, batch, source, pending) => match end {
            Ok(()) => "the node is stopping".to_owned(),
            Err(error) => error.to_string(),
        },
        end = receive(reader, pending, works) => match end {
            Ok(()) => "the peer closed the connection".to_owned(),
            Err(error) => error.to_string(),
        },
    }
}

async fn send(
    mut writer: impl AsyncWrite + Unpin,
    batch: &mut Vec<Request>,
    source: &mut Source,
    pending: &Mutex<Pending>,
) -> Result<(), FrameError> {
    let mut out = VecDeque::new();
    let mut id = 0;
    // On the first round the batch is what made the link dial.
    while !batch.is_empty() || source.take(batch).await {
        for request in batch.drain(..) {
            id += 1;
            match frame::push(&mut out, id, request.frame) {
                Ok(()) => pending.lock().insert(id, request.reply),
                Err(error) => {
                    let _ = request
                        .reply
                        .send(Err(CallError::Unreachable(error.to_string())));
                }
            }
        }
        frame::write_all(&mut writer, &mut out).await?;
    }
    Ok(())
}

async fn receive(
    mut reader: FrameReader<impl AsyncRead + Unpin>,
    pending: &Mutex<Pending>,
    mut works: impl FnMut(),
) -> Result<(), FrameError> {
    let mut answered = false;
    while let Some((id, body)) = reader.next().await? {
        if !std::mem::replace(&mut answered, true) {
            works();
        }
        // A response whose caller has gone counts as none.
        if let Some(reply) = pending.lock().replies.remove(&id) {
            let _ = reply.send(Ok(body));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_lasted_ends_the_outage_though_nothing_was_answered() {
        let target = Target {
            name: "n2".to_owned(),
            addr: "127.0.0.1:1".to_owned(),
            lane: Lane::Control,
        };
        let mut outage = Outage {
            since: Instant::now().checked_sub(10 * BACK_OFF_MAX),
            ..Outage::default()
        };
        outage.connected_for(BACK_OFF_MIN / 2);
        outage.note(&target, "it accepts, and closes");
        assert_eq!(outage.back_off, BACK_OFF_MAX);
        outage.connected_for(BACK_OFF_MIN);
        outage.note(&target, "it died");
        assert!(outage.back_off < BACK_OFF_MAX, "{:?}", outage.back_off);
    }
}
