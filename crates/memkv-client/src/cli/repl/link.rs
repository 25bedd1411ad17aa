//! One connection to one node at a time, in Redis's protocol, and the way to the next node.
//!
//! Never sends anything a second time. Invariant: there is a connection only while its next frame
//! answers the next command; whatever goes wrong closes it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use memkv_client::{Tls, tls_failure};
use memkv_resp::{Frame, FrameParser, encode_command};

use super::stream::Stream;

/// A host that does not answer within this is taken for dead while others can be tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Pause before all endpoints are tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// How much is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// The nodes of a cluster, and the connection to one of them.
pub(crate) struct Link {
    addrs: Vec<String>,
    /// Place of the node that is, or is to be, connected.
    at: usize,
    timeout: Duration,
    /// How connections are made, if that is over TLS.
    tls: Option<Tls>,
    open: Option<Open>,
}

struct Open {
    stream: Stream,
    parser: FrameParser,
    buf: BytesMut,
}

impl Link {
    /// To the first of these that accepts a connection; none is made yet.
    pub(crate) fn new(addrs: Vec<String>, tls: Option<Tls>, timeout: Duration) -> Self {
        Self {
            addrs,
            tls,
            at: 0,
            timeout,
            open: None,
        }
    }

    /// The node that is, or is to be, connected.
    pub(super) fn addr(&self) -> &str {
        self.addrs.get(self.at).map_or("", String::as_str)
    }

    /// How many nodes there are.
    pub(super) fn nodes(&self) -> usize {
        self.addrs.len()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.open.is_some()
    }

    /// Closes the connection if the node has closed it, or sent bytes without a request.
    pub(super) fn look(&mut self) {
        let quiet =
            |open: &mut Open| Ok::<_, io::Error>(open.stream.is_quiet()? && open.buf.is_empty());
        if !self
            .open
            .as_mut()
            .is_some_and(|open| quiet(open).unwrap_or(false))
        {
            self.close();
        }
    }

    /// Closes the connection; the next one goes to the next node.
    pub(super) fn close(&mut self) {
        if self.open.take().is_some() {
            self.at = (self.at + 1) % self.addrs.len().max(1);
        }
    }

    /// Connects to the first node that accepts it, beginning with the next one, for as long as the
    /// timeout allows; `waits` is told once that none did.
    ///
    /// # Errors
    /// The reason of each node.
    pub(super) fn connect(&mut self, waits: &mut dyn FnMut(&str)) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + self.timeout;
        let mut said = false;
        loop {
            let mut reasons = Vec::new();
            for _ in 0..self.addrs.len() {
                match open(self.addr(), self.tls.as_ref(), deadline) {
                    Ok(open) => {
                        self.open = Some(open);
                        return Ok(());
                    }
                    Err(err) => reasons.push(format!("{}: {}", self.addr(), words(&err))),
                }
                self.at = (self.at + 1) % self.addrs.len();
            }
            if Instant::now() + PAUSE >= deadline {
                return Err(reasons);
            }
            if let (false, Some(reason)) = (said, reasons.first()) {
                waits(reason);
                said = true;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Sends a command.
    ///
    /// # Errors
    /// The node cannot have it completely, so it does not execute it.
    pub(super) fn send(&mut self, words: &[Vec<u8>]) -> Result<(), String> {
        let timeout = self.timeout;
        let mut command = BytesMut::new();
        encode_command(&mut command, words);
        self.with(|open| {
            open.stream.tcp().set_write_timeout(Some(timeout))?;
            open.stream.write_all(&command)?;
            open.stream.flush()
        })
    }

    /// The next frame, within the timeout.
    ///
    /// # Errors
    /// Why there is none. Whether the command was executed is open.
    pub(super) fn receive(&mut self) -> Result<Frame, String> {
        let deadline = Instant::now() + self.timeout;
        self.with(|open| open.frame(Some(deadline)))
    }

    /// The next frame, whenever it comes.
    ///
    /// # Errors
    /// Why there will be none.
    pub(super) fn wait(&mut self) -> Result<Frame, String> {
        self.with(|open| open.frame(None))
    }

    fn with<T>(&mut self, act: impl FnOnce(&mut Open) -> io::Result<T>) -> Result<T, String> {
        let Some(open) = &mut self.open else {
            return Err("not connected".to_owned());
        };
        act(open).map_err(|err| {
            let reason = format!("{}: {}", self.addr(), self::words(&err));
            self.close();
            reason
        })
    }
}

impl Open {
    fn frame(&mut self, deadline: Option<Instant>) -> io::Result<Frame> {
        let mut chunk = vec![0; READ_BYTES];
        loop {
            let parsed = self.parser.parse(&mut self.buf);
            if let Some(frame) =
                parsed.map_err(|err| io::Error::new(ErrorKind::InvalidData, err))?
            {
                return Ok(frame);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.tcp().set_read_timeout(left)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.buf.extend_from_slice(&chunk[..read]),
                Err(err) if err.kind() == ErrorKind::Interrupted => {}
                Err(err) => return Err(err),
            }
        }
    }
}

/// A connection to `addr`, on any of the addresses that its name has.
fn open(addr: &str, tls: Option<&Tls>, deadline: Instant) -> io::Result<Open> {
    let mut failed = io::Error::other("the name has no address");
    for resolved in addr.to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.clamp(Duration::from_millis(1), CONNECT_TIMEOUT);
        match TcpStream::connect_timeout(&resolved, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(Open {
                    stream: Stream::new(stream, addr, tls, timeout)?,
                    parser: FrameParser::new(),
                    buf: BytesMut::new(),
                });
            }
            Err(err) => failed = err,
        }
    }
    Err(failed)
}

/// The end of a connection, as text for an operator.
fn words(err: &io::Error) -> String {
    if let Some(sentence) = tls_failure(err) {
        return sentence;
    }
    match err.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "connection reset".to_owned(),
        ErrorKind::UnexpectedEof => "the connection was closed without an answer".to_owned(),
        // A read that times out is WouldBlock on Unix.
        ErrorKind::TimedOut | ErrorKind::WouldBlock => "no answer in time".to_owned(),
        _ => err.to_string(),
    }
}
