//! A connection with or without TLS. Without, each call is the socket's own behind one branch.
//!
//! Invariant: a TLS connection never encrypts or decrypts more than a piece before the other tasks of
//! its thread have had their turn, whoever serves it: so a snapshot holds up no heartbeat.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio_rustls::TlsStream;

use super::lease::Lease;
use super::wire::Wire;
use crate::ledger::{Held, Ledger};

/// Bytes that TLS takes in one call, and after which others have their turn (64 KiB): four records, which
/// take some hundredths of a millisecond.
const PIECE_BYTES: usize = 64 * 1024;

/// What is known of a connection with TLS besides its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The node whose certificate the other side has shown: it is a peer.
    pub(crate) node: Option<String>,
    /// The user for whom the client's certificate stands.
    pub(crate) user: Option<Bytes>,
    /// Of a peer: a value that both ends know and no connection but this has, in hexadecimal digits
    /// (RFC 8446, section 7.5).
    pub(crate) channel: String,
}

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<Secure>),
}

/// A connection with TLS.
pub(crate) struct Secure {
    tls: TlsStream<Wire>,
    facts: Arc<Facts>,
    lease: Option<Box<Lease>>,
    /// What it takes besides a connection without TLS.
    held: Option<Held>,
    /// Bytes moved since others had their turn.
    moved: usize,
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl std::fmt::Debug for Secure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secure")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Secure {
    pub(super) fn new(tls: TlsStream<Wire>, facts: Facts, lease: Option<Lease>) -> Self {
        Self {
            tls,
            facts: Arc::new(facts),
            lease: lease.map(Box::new),
            held: None,
            moved: 0,
            turn: None,
        }
    }

    /// Others have their turn, if it is time for that.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.moved >= PIECE_BYTES {
            self.moved = 0;
            self.turn = Some(Box::pin(yield_now()));
        }
        if let Some(turn) = &mut self.turn {
            ready!(turn.as_mut().poll(context));
            self.turn = None;
        }
        Poll::Ready(())
    }

    fn count(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = written {
            self.moved += count;
        }
        written
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl Stream {
    /// None without TLS.
    pub(crate) fn facts(&self) -> Option<Arc<Facts>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secure) => Some(secure.facts.clone()),
        }
    }

    /// Whether the other side has shown that it is a node.
    pub(crate) fn is_of_peer(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(secure) => secure.facts.node.is_some(),
        }
    }

    /// Whether the other side's certificate stands for a user.
    pub(crate) fn is_certified(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(secure) => secure.facts.user.is_some(),
        }
    }

    /// The time for which the other side's certificate lets the connection live; it is told once.
    pub(crate) fn take_lease(&mut self) -> Option<Box<Lease>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(secure) => secure.lease.take(),
        }
    }

    /// Charges what TLS takes, if there is TLS, until the connection ends.
    pub(crate) fn charge(&mut self, ledger: &Ledger) {
        if let Self::Tls(secure) = self {
            secure.held = Some(ledger.tls());
        }
    }

    /// The socket, for its options.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(secure) => secure.tls.get_ref().0.tcp(),
        }
    }

    /// Leaves the runtime on which it is.
    pub(crate) fn park(self) -> io::Result<Parked> {
        Ok(Parked(match self {
            Self::Plain(tcp) => Inner::Plain(tcp.into_std()?),
            Self::Tls(mut secure) => {
                match &mut secure.tls {
                    TlsStream::Client(tls) => tls.get_mut().0.park()?,
                    TlsStream::Server(tls) => tls.get_mut().0.park()?,
                }
                Inner::Tls(secure)
            }
        }))
    }
}

/// A connection between two runtimes.
#[derive(Debug)]
pub(crate) struct Parked(Inner);

#[derive(Debug)]
enum Inner {
    Plain(std::net::TcpStream),
    Tls(Box<Secure>),
}

impl Parked {
    /// The node whose certificate the other side has shown.
    pub(super) fn node(&self) -> Option<&str> {
        match &self.0 {
            Inner::Plain(_) => None,
            Inner::Tls(secure) => secure.facts.node.as_deref(),
        }
    }

    /// Goes on, on the runtime of the caller.
    pub(crate) fn resume(self) -> io::Result<Stream> {
        Ok(match self.0 {
            Inner::Plain(tcp) => Stream::Plain(TcpStream::from_std(tcp)?),
            Inner::Tls(mut secure) => {
                match &mut secure.tls {
                    TlsStream::Client(tls) => tls.get_mut().0.resume()?,
                    TlsStream::Server(tls) => tls.get_mut().0.resume()?,
                }
                Stream::Tls(secure)
            }
        })
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_turn(context));
        let before = into.filled().len();
        let read = Pin::new(&mut this.tls).poll_read(context, into);
        this.moved += into.filled().len() - before;
        read
    }
}

impl AsyncWrite for Secure {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_turn(context));
        // All that is given is encrypted at once while the socket takes it.
        let piece = bytes.get(..PIECE_BYTES).unwrap_or(bytes);
        let written = Pin::new(&mut this.tls).poll_write(context, piece);
        this.count(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_turn(context));
        // Bounded by the buffer that rustls encrypts into, a piece too.
        let written = Pin::new(&mut this.tls).poll_write_vectored(context, slices);
        this.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_shutdown(context)
    }
}

/// The same call on either kind.
macro_rules! either {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Stream::Tls($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_read(context, into))
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write(context, bytes))
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, inner => inner.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, inner => inner.poll_shutdown(context))
    }
}
