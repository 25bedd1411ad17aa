//! The load generator: the parameters of a run, and its measurements.
//!
//! One thread and one event loop for every protocol, so that its cost per operation is about the
//! same for all of them. A run counts what was answered within the measured time; a connection that
//! breaks ends it, because a run without it would no longer measure the server.

mod connection;
mod engine;
mod histogram;
#[cfg(test)]
mod tests;
mod timer;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use engine::run;
pub(crate) use histogram::Histogram;

/// The parameters of a run.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// Connections go to these in turn.
    pub(crate) targets: Vec<SocketAddr>,
    /// How many connections.
    pub(crate) connections: usize,
    /// Requests in flight on each connection at most.
    pub(crate) depth: usize,
    /// When the next request goes out.
    pub(crate) pace: Pace,
    /// The keys of the requests.
    pub(crate) keys: Keys,
    /// How many of a hundred requests read.
    pub(crate) reads_percent: usize,
    /// Time before the measured time.
    pub(crate) warm_up: Duration,
    /// The measured time.
    pub(crate) duration: Duration,
}

/// When the next request goes out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// `depth` requests in one write, and the next ones when all are answered. With a depth of one
    /// this is the closed loop.
    Batch,
    /// As many as were answered, so that `depth` are always in flight.
    Window,
    /// So many in a second over all connections, whether or not the server keeps up. Latency counts
    /// from the time at which the request was due.
    Rate(f64),
}

/// The keys of the requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keys {
    /// Random ones out of so many, until the time is over.
    Random(usize),
    /// Each of so many once, in order, however long that takes.
    Each(u64),
}

/// The measurements of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measured {
    /// The measured time.
    pub(crate) seconds: f64,
    /// Latencies of the writes that succeeded.
    pub(crate) writes: Histogram,
    /// Latencies of the reads that succeeded.
    pub(crate) reads: Histogram,
    /// The longest time without any answer.
    pub(crate) longest_gap: Duration,
    /// Of an open loop, those that had no answer two seconds after its end; they count among the
    /// writes with the time that they had waited.
    pub(crate) unanswered: u64,
    /// Requests that were answered with an error.
    pub(crate) failed: u64,
    /// The first of these errors.
    pub(crate) complaint: Option<String>,
}

/// Why a run ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("there is no such node: with one node there is no follower")]
    NoTarget,
    #[error("cannot connect to {addr}; does the server listen there?")]
    Connect {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the connection to {addr} failed")]
    Socket {
        addr: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("{addr} closed a connection with {in_flight} requests in flight")]
    Closed { addr: SocketAddr, in_flight: usize },
    #[error("{addr} broke the protocol: {what}")]
    Broken { addr: SocketAddr, what: String },
    #[error("no answer within {limit:?}, with {in_flight} requests in flight")]
    Silent { limit: Duration, in_flight: usize },
    #[error("cannot wait for events")]
    Events(#[source] io::Error),
}
