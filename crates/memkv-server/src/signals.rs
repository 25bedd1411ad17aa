//! SIGTERM and SIGINT, and SIGHUP where nothing is read again at it. Never acts on a signal: the caller that
//! waits decides.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Requests to stop, from an operator or a supervisor.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    /// Never waited for: while TLS is off there is nothing to read again. A supervisor's reload, or the end of
    /// the terminal, must not end the node without a hand-over.
    _hangup: Signal,
}

impl StopSignals {
    /// From now on the signals do not end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal's name and its exit code (128 and its number, as shells say it).
    pub async fn next(&mut self) -> (&'static str, u8) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 128 + 15),
            _ = self.interrupt.recv() => ("SIGINT", 128 + 2),
        }
    }
}
