//! The one demanding client, which repeats its request on a thread and a blocking socket of its own.
//!
//! Requests are built in advance, and all bytes of each reply are known. The client compares them: it
//! notices a server that refuses, and a server that answers costs it almost nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::protocol::value;

/// Keys of MSET and MGET, and bytes of each value.
const KEYS: usize = 100_000;
const VALUE_BYTES: usize = 64;
/// Bytes of the large value.
const BIG_BYTES: usize = 8 << 20;
/// Copies of the large value in a transaction.
const COPIES: usize = 64;

/// Longer than any of these requests takes beside others on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const CHUNK_BYTES: usize = 256 * 1024;

/// The request of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mset,
    Mget,
    SetBig,
    GetBig,
    Copies,
}

impl Kind {
    pub(super) const ALL: [Kind; 5] = [
        Kind::Mset,
        Kind::Mget,
        Kind::SetBig,
        Kind::GetBig,
        Kind::Copies,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Mset => "MSET of 100,000 keys",
            Kind::Mget => "MGET of 100,000 keys",
            Kind::SetBig => "SET of 8 MiB",
            Kind::GetBig => "GET of 8 MiB",
            Kind::Copies => "EXEC of 64 COPYs of 8 MiB",
        }
    }

    fn writes(self) -> bool {
        !matches!(self, Kind::Mget | Kind::GetBig)
    }

    /// The request, and its reply.
    fn round(self) -> (Vec<u8>, Vec<u8>) {
        let keys: Vec<Vec<u8>> = match self {
            Kind::Mset | Kind::Mget => (0..KEYS)
                .map(|n| format!("neighbour:{n:06}").into_bytes())
                .collect(),
            _ => Vec::new(),
        };
        let (small, big) = (value(VALUE_BYTES), || value(BIG_BYTES));
        let ok = || b"+OK\r\n".to_vec();
        match self {
            Kind::Mset => {
                let pairs = keys.iter().flat_map(|key| [&key[..], &small]);
                (request([&b"MSET"[..]].into_iter().chain(pairs)), ok())
            }
            Kind::Mget => {
                let names = keys.iter().map(|key| &key[..]);
                let asked = request([&b"MGET"[..]].into_iter().chain(names));
                (asked, request(keys.iter().map(|_| &small[..])))
            }
            Kind::SetBig => (request([b"SET", &b"neighbour:big"[..], &big()]), ok()),
            Kind::GetBig => {
                let mut reply = format!("${BIG_BYTES}\r\n").into_bytes();
                reply.extend(big());
                reply.extend(b"\r\n");
                (request([b"GET", &b"neighbour:big"[..]]), reply)
            }
            Kind::Copies => {
                let words: [&[u8]; 4] = [b"COPY", b"neighbour:big", b"neighbour:copy", b"REPLACE"];
                let mut asked = request([&b"MULTI"[..]]);
                let mut reply = ok();
                for _ in 0..COPIES {
                    asked.extend(request(words));
                    reply.extend(b"+QUEUED\r\n");
                }
                asked.extend(request([&b"EXEC"[..]]));
                reply.extend(format!("*{COPIES}\r\n").into_bytes());
                reply.extend(b":1\r\n".repeat(COPIES));
                (asked, reply)
            }
        }
    }
}

fn request<'a>(words: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut count = 0_usize;
    for word in words {
        out.extend(format!("${}\r\n", word.len()).into_bytes());
        out.extend(word);
        out.extend(b"\r\n");
        count += 1;
    }
    [format!("*{count}\r\n").into_bytes(), out].concat()
}

/// A connection and its request.
pub(super) struct Client {
    stream: TcpStream,
    wait: bool,
    buffer: Vec<u8>,
}

impl Client {
    /// Connects. With `wait`, writes are followed by `WAIT 1` and are done when a replica has them.
    pub(super) fn connect(addr: SocketAddr, wait: bool) -> Result<Client, String> {
        let connect = || {
            let stream = TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            stream.set_write_timeout(Some(ANSWER_LIMIT))?;
            Ok(stream)
        };
        let stream = connect().map_err(|error: std::io::Error| format!("{addr}: {error}"))?;
        Ok(Client {
            stream,
            wait,
            buffer: vec![0; CHUNK_BYTES],
        })
    }

    /// Writes the keys that the reads need.
    pub(super) fn prepare(&mut self) -> Result<(), String> {
        for kind in [Kind::Mset, Kind::SetBig] {
            let (request, reply) = kind.round();
            self.ask(kind, &request, &reply)?;
        }
        Ok(())
    }

    /// Sends requests until `stop`, and counts each reply in `done`.
    fn repeat(&mut self, kind: Kind, stop: &AtomicBool, done: &AtomicU64) -> Result<(), String> {
        let (request, reply) = kind.round();
        while !stop.load(Ordering::Relaxed) {
            self.ask(kind, &request, &reply)?;
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn ask(&mut self, kind: Kind, request: &[u8], reply: &[u8]) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: {error}", kind.name());
        self.stream.write_all(request).map_err(failed)?;
        let mut rest = reply;
        while !rest.is_empty() {
            let room = rest.len().min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..room]).map_err(failed)?;
            let (expected, later) = rest.split_at(read);
            if read == 0 || self.buffer[..read] != *expected {
                let shown = self.buffer[..read.min(120)].escape_ascii();
                return Err(format!("{} was answered with {shown}", kind.name()));
            }
            rest = later;
        }
        if self.wait && kind.writes() {
            let request = b"*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$5\r\n60000\r\n";
            self.stream.write_all(request).map_err(failed)?;
            let mut reply = [0; 4];
            self.stream.read_exact(&mut reply).map_err(failed)?;
            if !matches!(&reply, b":1\r\n" | b":2\r\n") {
                let shown = reply.escape_ascii();
                return Err(format!("{}: WAIT was answered with {shown}", kind.name()));
            }
        }
        Ok(())
    }
}

/// A client that sends its requests on a thread of its own.
pub(super) struct Running<'scope> {
    thread: ScopedJoinHandle<'scope, Result<(), String>>,
}

impl<'scope> Running<'scope> {
    pub(super) fn start<'env: 'scope>(
        scope: &'scope Scope<'scope, 'env>,
        client: &'env mut Client,
        kind: Kind,
        stop: &'env AtomicBool,
        done: &'env AtomicU64,
    ) -> Running<'scope> {
        let thread = scope.spawn(move || client.repeat(kind, stop, done));
        Running { thread }
    }

    /// Whether it has ended; before it is stopped, only a failure ends it.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the last answer.
    pub(super) fn end(self) -> Result<(), String> {
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err("the neighbour's thread panicked".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_whole_and_replies_are_what_redis_answers() {
        assert_eq!(
            request([&b"GET"[..], b"k"]),
            b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
        );
        let (asked, reply) = Kind::Mget.round();
        assert!(asked.starts_with(b"*100001\r\n$4\r\nMGET\r\n$16\r\nneighbour:000000\r\n"));
        assert!(reply.starts_with(b"*100000\r\n$64\r\n"));
        let (asked, reply) = Kind::Copies.round();
        assert!(asked.ends_with(b"*1\r\n$4\r\nEXEC\r\n"));
        assert!(reply.ends_with(b"+QUEUED\r\n*64\r\n") || reply.ends_with(b":1\r\n"));
        let (asked, reply) = Kind::GetBig.round();
        assert_eq!((asked.len(), reply.len()), (33, BIG_BYTES + 12));
    }
}
