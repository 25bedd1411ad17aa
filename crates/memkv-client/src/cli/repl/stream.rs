//! A connection of the prompt, with or without TLS. Blocks, within the socket's time limits.
//! Never falls back to one without TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use memkv_client::{Tls, server_name};
use rustls::{ClientConnection, StreamOwned};

/// See the module's documentation.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Shakes hands with `addr`, if that is to be, each step within `timeout`.
    pub(super) fn new(
        tcp: TcpStream,
        addr: &str,
        tls: Option<&Tls>,
        timeout: Duration,
    ) -> io::Result<Self> {
        let Some(tls) = tls else {
            return Ok(Self::Plain(tcp));
        };
        let mut session =
            ClientConnection::new(tls.config(), server_name(addr)?).map_err(io::Error::other)?;
        tcp.set_read_timeout(Some(timeout))?;
        tcp.set_write_timeout(Some(timeout))?;
        let mut tcp = tcp;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(session, tcp))))
    }

    /// The socket, for its options.
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }

    /// Whether the connection is open and has nothing to read.
    pub(super) fn is_quiet(&mut self) -> io::Result<bool> {
        self.tcp().set_nonblocking(true)?;
        let quiet = match self {
            Self::Plain(tcp) => {
                let peeked = tcp.peek(&mut [0]);
                Ok(matches!(peeked, Err(err) if err.kind() == ErrorKind::WouldBlock))
            }
            Self::Tls(tls) => is_quiet(tls),
        };
        self.tcp().set_nonblocking(false)?;
        quiet
    }
}

/// A node may send records that are for TLS alone, such as tickets.
fn is_quiet(tls: &mut StreamOwned<ClientConnection, TcpStream>) -> io::Result<bool> {
    loop {
        match tls.conn.read_tls(&mut tls.sock) {
            Ok(0) => return Ok(false),
            Ok(_) => {
                let state = tls.conn.process_new_packets().map_err(io::Error::other)?;
                if state.plaintext_bytes_to_read() > 0 || state.peer_has_closed() {
                    return Ok(false);
                }
            }
            Err(err) if err.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(err) => return Err(err),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into),
            Self::Tls(tls) => tls.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
