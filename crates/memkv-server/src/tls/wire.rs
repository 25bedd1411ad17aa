//! The TCP connection below TLS: it first gives the bytes that were read to detect the protocol, and it
//! can leave the runtime that it was opened on.
//! Never looks into its bytes.

use std::io::{self, IoSlice};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Wire {
    tcp: Tcp,
    /// What comes before anything that is still to be read.
    before: BytesMut,
}

#[derive(Debug)]
enum Tcp {
    Here(TcpStream),
    /// Between two runtimes.
    Parked(std::net::TcpStream),
    /// A move has failed.
    Failed,
}

impl Wire {
    pub(super) fn new(tcp: TcpStream, before: BytesMut) -> Self {
        Self {
            tcp: Tcp::Here(tcp),
            before,
        }
    }

    /// Leaves the runtime.
    pub(super) fn park(&mut self) -> io::Result<()> {
        if let Tcp::Here(tcp) = mem::replace(&mut self.tcp, Tcp::Failed) {
            self.tcp = Tcp::Parked(tcp.into_std()?);
        }
        Ok(())
    }

    /// Goes on, on the runtime of the caller.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        if let Tcp::Parked(tcp) = mem::replace(&mut self.tcp, Tcp::Failed) {
            self.tcp = Tcp::Here(TcpStream::from_std(tcp)?);
        }
        Ok(())
    }

    /// The connection, unless it is between two runtimes.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match &self.tcp {
            Tcp::Here(tcp) => Some(tcp),
            Tcp::Parked(_) | Tcp::Failed => None,
        }
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.tcp {
            Tcp::Here(tcp) => Ok(Pin::new(tcp)),
            Tcp::Parked(_) | Tcp::Failed => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.before.is_empty() {
            return this.here()?.poll_read(context, into);
        }
        let count = this.before.len().min(into.remaining());
        into.put_slice(&this.before[..count]);
        this.before.advance(count);
        if this.before.is_empty() {
            // Its memory would stay as long as the connection.
            this.before = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().here()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().here()?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_shutdown(context)
    }
}
