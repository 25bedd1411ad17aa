//! The Redis protocol: one connection reads, executes and answers; all connections share the node's
//! registries and counters.
//!
//! - `conn` is the loop of a connection; `dispatch` sorts its requests into a `pipeline_batch`,
//!   `run_batch` submits that and writes the answers, `out` sends them.
//! - `multi` is MULTI to EXEC, planned by `transaction`; `counted` counts calls and keeps what was slow,
//!   `publish` is PUBLISH, `wait` is WAIT, `key_events` are
//!   notifications of keys.
//! - `account` is who the client is, and changes of users; `judge` what the client may do.
//! - `session` is the state of a connection, `names` are its subscriptions. `server`, `clients` and
//!   `subscriptions` are shared. `queue` hands slow work to tasks.
//! - `deadline_timer` and `wake_flag` are how a connection waits.
//!
//! Invariants: every request gets exactly one answer, in order; a read sees the connection's own
//! earlier writes and none of its later ones; what a connection holds is bounded.

mod account;
mod check_stop;
mod clients;
mod conn;
mod counted;
mod deadline_timer;
mod dispatch;
mod judge;
mod key_events;
mod members;
mod multi;
mod names;
mod out;
mod pipeline_batch;
mod publish;
mod queue;
mod run_batch;
mod server;
mod session;
mod subscriptions;
mod transaction;
mod wait;
mod wake_flag;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::admission::{Counts, Door, Full};
use crate::audit::{self, Event};
use crate::backend::Backend;
use crate::metrics;
use crate::read_batch::ReadBatch;
use crate::report::Kind as Spike;
use crate::rights::CERTIFIED_GONE;
use crate::service::Service;
use crate::tls::Facts;

pub(crate) use clients::{Client, Message, most_waiting};
pub(crate) use counted::unix_seconds;
pub(crate) use out::Out;
pub(crate) use server::Server;
pub(crate) use session::{Replies, STEPS_TO_LEAVE, Session};
pub(crate) use subscriptions::{Kind, memory_of};

#[cfg(test)]
pub(crate) use conn::task_bytes;
pub use server::RespSettings;

/// A majority answers within this time, or the node is taken to be cut off.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// How often the node is asked for its longest waits: as often as `LATENCY` takes a sample.
const PEAK_INTERVAL: Duration = Duration::from_secs(1);

/// How long it is until it is looked whether a token has expired: not less, so that many tokens cost little,
/// and not more, so that a jump of log time is noticed.
const MIN_EXPIRY_WAIT: Duration = Duration::from_millis(100);
const MAX_EXPIRY_WAIT: Duration = Duration::from_secs(60);

/// The RESP side of a node.
pub struct Resp<B> {
    service: Arc<Service<B>>,
    server: Arc<Server>,
}

impl<B: Backend> Resp<B> {
    /// Answers "loading" until `service` has its node.
    pub fn new(service: Arc<Service<B>>, settings: RespSettings) -> Self {
        let aside = service.aside().clone();
        let (ledger, rights) = (service.ledger().clone(), service.rights().clone());
        Self {
            service,
            server: Arc::new(Server::new(settings, aside, ledger, rights)),
        }
    }

    /// From now on there is a node to describe, whose messages and events of keys are delivered. A
    /// second call has no effect. Must be called within a tokio runtime.
    pub fn attach(&self, backend: B) {
        let listeners = key_events::Listeners::start(self.server.clone());
        backend.subscribe(Box::new(listeners));
        let node = backend.clone();
        self.server.rights.confirm_with(Box::new(move || {
            let node = node.clone();
            Box::pin(async move {
                let read = node.read(CONFIRM_WITHIN, false, ReadBatch::default());
                read.await.is_ok()
            })
        }));
        let node = backend.clone();
        self.server.users_with(Box::new(move || node.users()));
        let node = backend.clone();
        self.server.measure_with(Box::new(move || node.stats()));
        let introspect = Box::new(move || backend.introspect());
        self.server.introspect_with(introspect);
    }

    /// Goes by the users of the cluster as they are here now, and ends what they no longer allow.
    pub(crate) fn follow_users(&self) {
        self.server.follow_users();
    }

    /// Goes by every change of the users, until the node ends.
    pub async fn follow_all_users(&self) {
        let Some(backend) = self.service.backend() else {
            return;
        };
        let mut changes = backend.watch_users();
        loop {
            self.follow_users();
            let now_ms = backend.log_time_ms();
            self.server.end_expired(now_ms);
            let next = self.server.rights.table().next_expiry(now_ms);
            let wait = next.map_or(MAX_EXPIRY_WAIT, |at| Duration::from_millis(at - now_ms));
            // Log time may go faster than this node's clock.
            let wait = wait.clamp(MIN_EXPIRY_WAIT, MAX_EXPIRY_WAIT);
            if let Ok(Err(_ended)) = tokio::time::timeout(wait, changes.changed()).await {
                return;
            }
        }
    }

    /// The text of `/metrics`, which counts clients of this side; nothing while the node loads its
    /// data.
    pub(crate) fn metrics(&self) -> Option<String> {
        let stats = self.service.backend()?.stats();
        let node = self.server.introspect()?;
        let latency = self.service.latency();
        Some(metrics::show(&self.server, &node, &stats, latency))
    }

    /// Has every connection look how far the end of the service has come.
    pub fn wake_all(&self) {
        let clients = self.server.clients.all();
        clients.iter().for_each(|client| client.wake());
    }

    /// Looks once a second for the longest that the node has waited, for `LATENCY`, until the process ends.
    pub async fn follow_peaks(&self) {
        let Some(backend) = self.service.backend() else {
            return;
        };
        loop {
            tokio::time::sleep(PEAK_INTERVAL).await;
            let peaks = backend.take_peaks();
            let now = counted::unix_seconds();
            let spikes = &self.server.spikes;
            spikes.add(Spike::Fsync, now, peaks.fsync);
            spikes.add(Spike::Apply, now, peaks.apply);
            spikes.add(Spike::Election, now, peaks.leaderless);
        }
    }

    /// Resolves when a client has said `SHUTDOWN`.
    pub async fn stop_asked(&self) {
        self.server.stop.notified().await;
    }

    /// Serves a connection until it ends. `input` is what has already been read.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        stream: S,
        input: BytesMut,
        addr: SocketAddr,
        local: SocketAddr,
    ) {
        let client = self.add_client((addr, local), None);
        self.serve_through(&Door::open(), stream, input, client)
            .await;
    }

    /// A new connection, to be served at once. The addresses are the client's and this node's.
    pub(crate) fn add_client(
        &self,
        (addr, local): (SocketAddr, SocketAddr),
        facts: Option<&Facts>,
    ) -> Arc<Client> {
        let certified = facts.and_then(|facts| facts.user.clone());
        self.server.clients.add_certified(addr, local, certified)
    }

    /// The same for a connection that gets a client's place through its door.
    pub(crate) async fn serve_through<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        door: &Door,
        stream: S,
        input: BytesMut,
        client: Arc<Client>,
    ) {
        let session = Session::new(self.server.clone(), client);
        let conn = conn::Conn::new(self, door, stream, input, session);
        // Of its own size, and not of the largest that a connection might need.
        Box::pin(conn.run()).await;
    }

    /// Whether a client need not authenticate.
    pub(crate) fn is_open(&self) -> bool {
        self.server.rights.table().default_user().nopass
    }

    /// Whether a certificate may stand for this user now; waits for the users of a node that starts. The
    /// words for the client if not.
    pub(crate) async fn admit_certified(
        &self,
        user: &[u8],
        client: SocketAddr,
    ) -> Result<(), &'static str> {
        let rights = &self.server.rights;
        let is_known = rights.wait_known(self.service.answer_within()).await;
        let admitted = is_known && rights.certified(user).is_some();
        audit::record(&Event {
            kind: audit::Kind::Authentication,
            allowed: admitted,
            user: &String::from_utf8_lossy(user),
            origin: Some(client),
            detail: "certificate",
        });
        match (admitted, is_known) {
            (true, _) => Ok(()),
            (false, true) => Err(CERTIFIED_GONE),
            (false, false) => {
                Err("this node is starting and does not know the cluster's users yet")
            }
        }
    }

    /// What admission counts.
    pub(crate) fn counts(&self) -> &Arc<Counts> {
        &self.server.admission
    }

    /// The answer to a connection for which there is no place.
    pub(crate) fn refusal(&self, why: Full) -> BytesMut {
        let mut out = BytesMut::new();
        let error = self.server.refused(why);
        memkv_resp::ReplyWriter::new(&mut out, Default::default()).error(error.as_bytes());
        out
    }
}
