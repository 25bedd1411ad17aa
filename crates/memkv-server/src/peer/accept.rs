//! The answering side of the peer link: hands each request to the node in the order of arrival and
//! writes the responses as they complete, in any order.
//! Never closes a healthy connection by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use memkv_node::seldom::Seldom;
use memkv_node::{Frame, Lane};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::frame::{self, FrameError, FrameReader};
use super::{lane_name, socket};
use crate::tls::Stream;

/// What answers peers' requests: [`memkv_node::Node::handle`].
pub type PeerHandler = Arc<dyn Fn(Lane, Bytes) -> BoxFuture<'static, Frame> + Send + Sync>;

/// Responses that one `writev` round takes.
const BATCH: usize = 64;

/// A peer that sends what cannot be read connects again.
static UNREADABLE: Seldom = Seldom::new();

type Response = (u64, Frame);

/// Serves a connection that has just been upgraded, until it ends. `leftover` is what was read
/// behind the upgrade. Must run on the consensus runtime, for [`Lane::Read`] on any.
pub(crate) async fn serve(
    stream: impl Into<Stream>,
    leftover: BytesMut,
    lane: Lane,
    peer: String,
    handler: PeerHandler,
) {
    #[cfg(memkv_bugs)]
    memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Peer);
    let stream = stream.into();
    socket::tune(&stream);
    let end = match stream {
        Stream::Plain(mut tcp) => {
            let (read_half, write_half) = tcp.split();
            exchange((read_half, write_half), leftover, lane, handler).await
        }
        Stream::Tls(tls) => {
            let halves = tokio::io::split(tls);
            Box::pin(exchange(halves, leftover, lane, handler)).await
        }
    };
    match end {
        Ok(()) => tracing::debug!(peer, lane = lane_name(lane), "peer disconnected"),
        Err(FrameError::Io(error)) => {
            tracing::debug!(peer, lane = lane_name(lane), %error, "peer connection lost");
        }
        Err(error) => {
            if let Some(left_out) = UNREADABLE.say() {
                let lane = lane_name(lane);
                tracing::warn!(peer, lane, %error, left_out, "peer connection closed");
            }
        }
    }
}

async fn exchange(
    (read_half, write_half): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    leftover: BytesMut,
    lane: Lane,
    handler: PeerHandler,
) -> Result<(), FrameError> {
    let (responses, to_write) = mpsc::unbounded_channel();
    tokio::select! {
        end = read(FrameReader::new(read_half, leftover), lane, handler, responses) => end,
        end = write(write_half, to_write) => end,
    }
}

async fn read(
    mut reader: FrameReader<impl AsyncRead + Unpin>,
    lane: Lane,
    handler: PeerHandler,
    responses: mpsc::UnboundedSender<Response>,
) -> Result<(), FrameError> {
    while let Some((id, request)) = reader.next().await? {
        // Called here and spawned at once: both in the order of arrival, as the node demands.
        let answer = handler(lane, request);
        let responses = responses.clone();
        tokio::spawn(async move {
            let _ = responses.send((id, answer.await));
        });
    }
    Ok(())
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut responses: mpsc::UnboundedReceiver<Response>,
) -> Result<(), FrameError> {
    let mut batch = Vec::new();
    let mut out = VecDeque::new();
    while responses.recv_many(&mut batch, BATCH).await > 0 {
        for (id, response) in batch.drain(..) {
            frame::push(&mut out, id, response)?;
        }
        frame::write_all(&mut writer, &mut out).await?;
    }
    Ok(())
}
