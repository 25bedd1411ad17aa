//! The Redis protocol: one connection reads, executes and answers; all connections share the node's
//! registries and counters.
//!
//! - `conn` is the loop of a connection; `dispatch` sorts its requests into a `pipeline_batch`,
//!   `run_batch` submits that and writes the answers, `out` sends them.
//! - `transaction` is MULTI to EXEC, `publish` is PUBLISH, `wait` is WAIT, `key_events` are
//!   notifications of keys.
//! - `account` is who the client is, and changes of users; `judge` what the client may do.
//! - `session` is the state of a connection, `names` are its subscriptions. `server`, `clients` and
//!   `subscriptions` are shared. `queue` hands slow work to tasks.
//! - `deadline_timer` and `wake_flag` are how a connection waits.
//!
//! Invariants: every request gets exactly one answer, in order; a read sees the connection's own
//! earlier writes and none of its later ones; what a connection holds is bounded.

mod account;
mod clients;
mod conn;
mod deadline_timer;
mod dispatch;
mod judge;
mod key_events;
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

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::admission::{Counts, Door, Full};
use crate::backend::Backend;
use crate::metrics;
use crate::service::Service;

pub(crate) use clients::{Client, Message, most_waiting};
pub(crate) use out::Out;
pub(crate) use server::Server;
pub(crate) use session::{Replies, STEPS_TO_LEAVE, Session};
pub(crate) use subscriptions::{Kind, memory_of};

#[cfg(test)]
pub(crate) use conn::task_bytes;
pub use server::RespSettings;

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
        self.server.users_with(Box::new(move || node.users()));
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
            if changes.changed().await.is_err() {
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
        self.serve_through(&Door::open(), stream, input, (addr, local))
            .await;
    }

    /// The same for a connection that gets a client's place through its door. The addresses are the
    /// client's and this node's.
    pub(crate) async fn serve_through<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        door: &Door,
        stream: S,
        input: BytesMut,
        (addr, local): (SocketAddr, SocketAddr),
    ) {
        let client = self.server.clients.add(addr, local);
        let session = Session::new(self.server.clone(), client);
        let conn = conn::Conn::new(self, door, stream, input, session);
        // Of its own size, and not of the largest that a connection might need.
        Box::pin(conn.run()).await;
    }

    /// Whether a client need not authenticate.
    pub(crate) fn is_open(&self) -> bool {
        self.server.rights.table().default_user().nopass
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
