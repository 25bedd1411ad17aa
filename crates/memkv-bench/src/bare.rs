//! `memkv-bench bare`: a server that answers every HTTP request with the same small body and does
//! nothing else. It shows what the machine's sockets and HTTP cost by themselves, the floor of any
//! server on it. One thread; of a request it reads only the end.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::protocol::{content_length, find};

/// The reply of the original's interface to a write.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}";

const LISTENER: Token = Token(usize::MAX);
const READ_BYTES: usize = 64 * 1024;

#[derive(Args)]
pub(crate) struct Options {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a request whose rest has not arrived.
    partial: Vec<u8>,
    out: Vec<u8>,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    serve(options.listen).map_err(|error| format!("{}: {error}", options.listen))
}

/// Serves until the listener fails.
pub(crate) fn serve(addr: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(addr)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            outcome => outcome?,
        }
        for event in &events {
            if event.token() == LISTENER {
                accept(&listener, &poll, &mut connections)?;
                continue;
            }
            let Some(slot) = connections.get_mut(event.token().0) else {
                continue;
            };
            if let Some(connection) = slot
                && connection.serve(&mut buffer).is_err()
            {
                *slot = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    poll: &Poll,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry()
            .register(&mut stream, Token(connections.len()), interest)?;
        connections.push(Some(Connection {
            stream,
            partial: Vec::new(),
            out: Vec::new(),
        }));
    }
}

impl Connection {
    /// Answers the requests that have arrived; an error ends the connection.
    fn serve(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            if self.partial.is_empty() {
                let taken = answer(&buffer[..read], &mut self.out)?;
                self.partial.extend_from_slice(&buffer[taken..read]);
            } else {
                self.partial.extend_from_slice(&buffer[..read]);
                let taken = answer(&self.partial, &mut self.out)?;
                self.partial.drain(..taken);
            }
            if read < buffer.len() {
                break;
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..sent);
        Ok(())
    }
}

/// Writes an answer for each whole request at the start of `bytes`, and returns their total length.
fn answer(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(end) = find(&bytes[taken..], b"\r\n\r\n") {
        let head = &bytes[taken..taken + end + 4];
        let length = content_length(head).map_err(io::Error::other)?;
        if bytes.len() < taken + head.len() + length {
            break;
        }
        taken += head.len() + length;
        out.extend_from_slice(ANSWER);
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::{ANSWER, answer};

    #[test]
    fn each_whole_request_has_one_answer() {
        let mut out = Vec::new();
        let bytes = b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nabPOST / \
            HTTP/1.1\r\nContent-Length: 2\r\n\r\na";
        let taken = answer(bytes, &mut out).unwrap();
        assert!(bytes[taken..].starts_with(b"POST") && bytes[taken..].ends_with(b"\na"));
        assert_eq!(out, [ANSWER, ANSWER].concat());
        assert!(answer(b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n", &mut out).is_err());
    }
}
