//! The Redis protocol: one connection reads, executes and answers; all of them share what a node
//! has one of. `conn` is the loop, `execute` takes requests, `segment` collects
//! them, `answer` settles a segment, `transaction` is MULTI to EXEC, `publish` is PUBLISH, `announce`
//! what is told of keys,
//! `wait` is WAIT, `out` is what is to be sent, `session` what a connection has said about itself, `names` what it listens to, `server`, `clients`
//! and `subscriptions` are shared, `queue` is how tasks are handed slow work.
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
use crate::http::Api;
use crate::metrics;

pub(crate) use clients::{Client, Message};
pub(crate) use out::Out;
pub(crate) use server::{Server, View};
pub(crate) use session::{Replies, STEPS_TO_LEAVE, Session};
pub(crate) use subscriptions::Kind;

pub use server::RespSettings;

/// Requests that have arrived in part, of all connections together. As much as for HTTP.
const INPUT_BYTES: usize = 1024 * 1024 * 1024;

/// The RESP side of a node.
pub struct Resp<B> {
    api: Arc<Api<B>>,
    server: Arc<Server>,
    input: Budget,
}

impl<B: Backend> Resp<B> {
    /// Answers "loading" until `api` has its node.
    pub fn new(api: Arc<Api<B>>, settings: RespSettings) -> Self {
        let aside = api.aside().clone();
        Self {
            api,
            server: Arc::new(Server::new(settings, aside)),
            input: Budget::new(INPUT_BYTES),
        }
    }

    /// From now on there is a node to describe. A second call has no effect. Must be called within a
    /// tokio runtime.
    pub fn serve_with(&self, backend: B) {
        let listeners = key_events::Listeners::start(self.server.clone());
        backend.subscribe(Box::new(listeners));
        let (server, latency) = (self.server.clone(), self.api.latency().clone());
        let node = backend.clone();
        self.api.show_metrics_with(Box::new(move || {
            metrics::show(&server, &view(&node), &node.stats(), &latency)
        }));
        self.server.set_view(Box::new(move || view(&backend)));
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

    /// What a connection is told for which there is no place.
    pub fn refusal(&self) -> BytesMut {
        server::Stats::add(&self.server.stats.rejected, 1);
        let mut out = BytesMut::new();
        let failure = ErrorReply::new("ERR max number of clients reached");
        memkv_resp::ReplyWriter::new(&mut out, Default::default()).error(failure.as_bytes());
        out
    }
}

fn view<B: Backend>(backend: &B) -> View {
    let status = backend.status();
    backend.read_stale(|store| {
        let databases = (0..crate::commands::DATABASES).filter_map(|index| {
            let keys = store.database_len(index);
            (keys > 0).then(|| server::Database {
                index,
                keys,
                expires: store.database_deadlines(index),
            })
        });
        View {
            status,
            databases: databases.collect(),
            memory_bytes: store.memory_bytes(),
            expired: store.expired_total(),
            announced: store.announced(),
            now_ms: backend.now_ms(store),
        }
    })
}
