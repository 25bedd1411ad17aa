//! The Redis protocol: one connection reads, executes and answers; all connections share the node's
//! registries and counters.
//!
//! - `conn` is the loop of a connection; `dispatch` sorts its requests into a `pipeline_batch`,
//!   `run_batch` submits that and writes the answers, `out` sends them.
//! - `transaction` is MULTI to EXEC, `publish` is PUBLISH, `wait` is WAIT, `key_events` are
//!   notifications of keys.
//! - `session` is the state of a connection, `names` are its subscriptions. `server`, `clients` and
//!   `subscriptions` are shared. `queue` hands slow work to tasks.
//! - `deadline_timer` and `wake_flag` are how a connection waits.
//!
//! Invariants: every request gets exactly one answer, in order; a read sees the connection's own
//! earlier writes and none of its later ones; what a connection holds is bounded.

mod clients;
mod conn;
mod deadline_timer;
mod dispatch;
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

use crate::backend::Backend;
use crate::budget::Budget;
use crate::commands::ErrorReply;
use crate::metrics;
use crate::service::Service;

pub(crate) use clients::{Client, Message};
pub(crate) use out::Out;
pub(crate) use server::Server;
pub(crate) use session::{Replies, STEPS_TO_LEAVE, Session};
pub(crate) use subscriptions::Kind;

pub use server::RespSettings;

/// Requests that have arrived in part, of all connections together. As much as for HTTP.
const INPUT_BYTES: usize = 1024 * 1024 * 1024;

/// The RESP side of a node.
pub struct Resp<B> {
    service: Arc<Service<B>>,
    server: Arc<Server>,
    input: Budget,
}

impl<B: Backend> Resp<B> {
    /// Answers "loading" until `service` has its node.
    pub fn new(service: Arc<Service<B>>, settings: RespSettings) -> Self {
        let aside = service.aside().clone();
        Self {
            service,
            server: Arc::new(Server::new(settings, aside)),
            input: Budget::new(INPUT_BYTES),
        }
    }

    /// From now on there is a node to describe, whose messages and events of keys are delivered. A
    /// second call has no effect. Must be called within a tokio runtime.
    pub fn attach(&self, backend: B) {
        let listeners = key_events::Listeners::start(self.server.clone());
        backend.subscribe(Box::new(listeners));
        let introspect = Box::new(move || backend.introspect());
        self.server.introspect_with(introspect);
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
        let client = self.server.clients.add(addr, local);
        let session = Session::new(self.server.clone(), client);
        conn::Conn::new(self, stream, input, session).run().await;
    }

    /// The answer to a connection above the limit.
    pub fn refusal(&self) -> BytesMut {
        server::Stats::add(&self.server.stats.rejected, 1);
        let mut out = BytesMut::new();
        let error = ErrorReply::new("ERR max number of clients reached");
        memkv_resp::ReplyWriter::new(&mut out, Default::default()).error(error.as_bytes());
        out
    }
}
