//! PUBLISH on its way to this node's subscribers and to the other nodes.
//!
//! A pipeline of messages is sent without waiting for each one's count. Invariants: a message leaves
//! when everything that the connection asked for before it was executed; messages of one connection
//! leave in order; a connection that publishes to itself gets the message before the count.

use futures_util::future::BoxFuture;
use memkv_node::Publication;
use memkv_resp::{ReplyWriter, Request};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Resp;
use super::conn::{Conn, Disconnected};
use super::pipeline_batch::Slot;
use crate::aside::{is_long, steps_of};
use crate::backend::Backend;
use crate::commands::{Args, ErrorReply, Publish, Spec};

/// The number of a message's receivers: here, and on the other nodes once they have answered.
pub(super) struct Receivers {
    here: usize,
    elsewhere: Option<BoxFuture<'static, u64>>,
}

impl Receivers {
    pub(super) async fn count(self) -> i64 {
        let elsewhere = match self.elsewhere {
            Some(count) => count.await,
            None => 0,
        };
        i64::try_from(self.here as u64 + elsewhere).unwrap_or(i64::MAX)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Takes a message into the batch that is being collected.
    pub(super) async fn publish(
        &mut self,
        publish: Publish,
        spec: &'static Spec,
        args: &Args<'_>,
    ) -> Result<(), Disconnected> {
        if self.batch.waits_for_store() {
            self.run_batch().await?;
        }
        if let Err(error) = self.judge_now(spec, args).await? {
            self.fail_of(spec, &error);
            return Ok(());
        }
        match message(self.resp, publish, args).await {
            Ok(publication) => {
                let receivers = send_out(self.resp, &publication).await;
                let silent = self.session.is_silent();
                self.batch.slots.push(Slot::Published {
                    spec,
                    receivers,
                    silent,
                });
                if self.session.listens.iter().any(|names| !names.is_empty()) {
                    self.run_batch().await?;
                }
            }
            Err(error) => self.fail_of(spec, &error),
        }
        Ok(())
    }

    /// Publishes as part of a transaction that has been executed, and answers in its place.
    pub(super) async fn publish_in_exec(
        &mut self,
        publish: Publish,
        request: &Request,
        name: &'static str,
    ) {
        let args = Args {
            request,
            name,
            db: self.session.db,
        };
        match message(self.resp, publish, &args).await {
            Ok(publication) => {
                let count = send_out(self.resp, &publication).await.count().await;
                ReplyWriter::new(&mut self.out, self.session.protocol).integer(count);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Writes the count, behind the messages that the connection has published to itself.
    pub(super) async fn write_receivers(
        &mut self,
        receivers: Receivers,
        silent: bool,
    ) -> Result<(), Disconnected> {
        let count = receivers.count().await;
        self.push_messages().await?;
        if !silent {
            ReplyWriter::new(&mut self.out, self.session.protocol).integer(count);
        }
        Ok(())
    }
}

/// The message of a request, of which a copy is made: aside if that takes long.
async fn message<B: Backend>(
    resp: &Resp<B>,
    publish: Publish,
    args: &Args<'_>,
) -> Result<Publication, ErrorReply> {
    let steps = steps_of(args.len(), args.request.byte_count());
    if !is_long(steps) {
        return publish(args);
    }
    Box::pin(resp.server.aside.run(steps, || publish(args))).await
}

async fn send_out<B: Backend>(resp: &Resp<B>, publication: &Publication) -> Receivers {
    resp.server.follow_users();
    let elsewhere = resp.service.backend();
    let elsewhere = elsewhere.map(|backend| backend.publish(publication));
    let here =
        resp.server
            .subscriptions
            .deliver(&resp.server.aside, &resp.server.ledger, publication);
    Receivers {
        here: here.await,
        elsewhere,
    }
}
