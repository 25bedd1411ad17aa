//! One connection: its socket, the bytes that wait in both directions, and when each request that
//! is in flight was sent. Never blocks, and makes one write per batch.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::LoadError;
use crate::protocol::{Client, Key};

/// A request in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    /// When it was sent, or was due.
    pub(super) since: Instant,
    pub(super) write: bool,
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Landed {
    pub(super) flight: Flight,
    pub(super) ok: bool,
}

/// A connection.
pub(super) struct Connection<C> {
    addr: SocketAddr,
    stream: TcpStream,
    client: C,
    out: Vec<u8>,
    sent: usize,
    /// The beginning of a reply whose rest has not arrived.
    partial: Vec<u8>,
    flights: Flights,
}

/// The requests in flight, in the order of their numbers; replies may come in any order.
#[derive(Debug, Default)]
struct Flights {
    first: u64,
    flights: VecDeque<Option<Flight>>,
    count: usize,
}

impl Flights {
    fn start(&mut self, flight: Flight) {
        self.flights.push_back(Some(flight));
        self.count += 1;
    }

    fn end(&mut self, number: u64) -> Option<Flight> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let flight = self.flights.get_mut(index)?.take()?;
        self.count -= 1;
        while let Some(None) = self.flights.front() {
            self.flights.pop_front();
            self.first += 1;
        }
        Some(flight)
    }
}

impl<C: Client> Connection<C> {
    /// Connects, and sends the greeting of the protocol.
    pub(super) fn open(
        addr: SocketAddr,
        client: C,
        registry: &Registry,
        token: Token,
    ) -> Result<Connection<C>, LoadError> {
        let connect = || {
            let stream = std::net::TcpStream::connect(addr)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        };
        let stream = connect().map_err(|source| LoadError::Connect { addr, source })?;
        let mut connection = Connection {
            addr,
            stream,
            client,
            out: Vec::new(),
            sent: 0,
            partial: Vec::new(),
            flights: Flights::default(),
        };
        connection.client.hello(&mut connection.out);
        connection.flush()?;
        Ok(connection)
    }

    /// Requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.flights.count
    }

    /// Since when the requests in flight are.
    pub(super) fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.flights.flights.iter().flatten()
    }

    /// The first error that the server answered.
    pub(super) fn complaint(&self) -> Option<String> {
        self.client.complaint().map(str::to_owned)
    }

    /// Writes a request that goes out with the next [`Connection::send`].
    pub(super) fn request(&mut self, key: &Key, flight: Flight) {
        self.client.request(flight.write, key, &mut self.out);
        self.flights.start(flight);
    }

    /// Sends the written requests.
    pub(super) fn send(&mut self) -> Result<(), LoadError> {
        self.client.end_batch(&mut self.out);
        self.flush()
    }

    /// Sends as much as the socket accepts; the rest follows when it is writable again.
    pub(super) fn flush(&mut self) -> Result<(), LoadError> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Reads the bytes that have arrived, and hands over each request that they answer. `buffer` is room that
    /// all connections share; it holds nothing in between.
    pub(super) fn receive(
        &mut self,
        buffer: &mut Vec<u8>,
        landed: &mut Vec<Landed>,
    ) -> Result<(), LoadError> {
        loop {
            let kept = self.partial.len();
            // A reply that is longer than the room makes more of it.
            if buffer.len() < kept * 2 {
                buffer.resize(kept * 2, 0);
            }
            buffer[..kept].copy_from_slice(&self.partial);
            let read = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => {
                    return Err(LoadError::Closed {
                        addr: self.addr,
                        in_flight: self.in_flight(),
                    });
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(self.failed(source)),
            };
            let bytes = &buffer[..kept + read];
            let flights = &mut self.flights;
            let mut unknown = false;
            let taken = self
                .client
                .replies(
                    bytes,
                    &mut self.out,
                    &mut |number, ok| match flights.end(number) {
                        Some(flight) => landed.push(Landed { flight, ok }),
                        None => unknown = true,
                    },
                );
            let taken = taken.map_err(|broken| self.broken(broken.0))?;
            if unknown {
                return Err(self.broken("a reply to a request that is not in flight".to_owned()));
            }
            self.partial.clear();
            self.partial.extend_from_slice(&bytes[taken..]);
            // Fewer bytes than there was room for: the socket is empty, and the next bytes are an
            // event of their own.
            if kept + read < buffer.len() {
                return Ok(());
            }
        }
    }

    fn failed(&self, source: io::Error) -> LoadError {
        LoadError::Socket {
            addr: self.addr,
            source,
        }
    }

    fn broken(&self, what: String) -> LoadError {
        LoadError::Broken {
            addr: self.addr,
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Flight, Flights};
    use std::time::Instant;

    #[test]
    fn replies_may_come_in_any_order_but_only_once() {
        let mut flights = Flights::default();
        for write in [true, false, true] {
            flights.start(Flight {
                since: Instant::now(),
                write,
            });
        }
        assert!(!flights.end(1).unwrap().write);
        assert!(flights.end(1).is_none());
        assert!(flights.end(0).unwrap().write);
        assert_eq!(flights.count, 1);
        assert!(flights.end(2).is_some() && flights.end(3).is_none());
    }
}
