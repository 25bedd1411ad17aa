//! SIGTERM and SIGINT, and SIGHUP where nothing is read again at it. Never acts on a signal: the caller that
//! waits decides.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Requests to stop, from an operator or a supervisor.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on the signals do not end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The same, and SIGHUP does not end the process either: a supervisor's reload must not end a node without
    /// a hand-over. While TLS is off nothing is read again at it.
    pub fn listen_as_node() -> io::Result<Self> {
        // The handler stays when what waits for the signal is dropped.
        drop(signal(SignalKind::hangup())?);
        Self::listen()
    }

    /// The next signal's name and its exit code (128 and its number, as shells say it).
    pub async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + 15),
            _ = self.interrupt.recv() => ("SIGINT", 128 + 2),
        }
    }
}
