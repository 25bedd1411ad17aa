//! A connection without a network: it delivers what a client sends in pieces, ends, and keeps what
//! it is answered. Never waits.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

thread_local! {
    /// Where connections are served.
    pub(crate) static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().unwrap();
}

/// The server's end of the connection.
pub(crate) struct Wire<'a> {
    /// What the server has not read yet.
    pub(crate) rest: &'a [u8],
    /// Sizes of the pieces, one after the other and again.
    pieces: Vec<usize>,
    next: usize,
    replies: Replies,
}

/// What the server has said.
#[derive(Clone, Default)]
pub(crate) struct Replies(Arc<Mutex<Vec<u8>>>);

impl Replies {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().clone()
    }
}

impl<'a> Wire<'a> {
    /// One that delivers `stream` in pieces of these sizes; a size of 0 is 1.
    pub(crate) fn new(stream: &'a [u8], pieces: Vec<usize>) -> Self {
        Self {
            rest: stream,
            pieces,
            next: 0,
            replies: Replies::default(),
        }
    }

    /// What the server will have said.
    pub(crate) fn replies(&self) -> Replies {
        self.replies.clone()
    }

    fn piece(&mut self) -> usize {
        let size = self.pieces.get(self.next).copied().unwrap_or(1).max(1);
        self.next = (self.next + 1) % self.pieces.len().max(1);
        size
    }
}

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = self.piece().min(self.rest.len()).min(buf.remaining());
        let (piece, rest) = self.rest.split_at(count);
        buf.put_slice(piece);
        self.rest = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.replies.0.lock().unwrap().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
