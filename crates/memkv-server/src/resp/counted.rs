//! What a connection counts of its commands: calls, errors, and those that were slow.
//! Never delays a command: a slow one costs a copy of its first words, any other one some counters.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memkv_resp::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::conn::Conn;
use super::server::Stats;
use crate::backend::Backend;
use crate::commands::{ErrorReply, Spec, flag};
use crate::report::{Kind, Slow, cut, shown};

/// Slow commands of one turn that are kept until their answers have been sent: their number is what a connection
/// may hold, and more than a slow turn has.
const MAX_UNSENT: usize = 16;

/// When a command began, and what its connection had counted then.
pub(super) struct Since {
    started: Instant,
    failures: u64,
}

impl Since {
    /// A command that began then and ends now, and has written nothing.
    pub(super) fn executed(&self) -> Executed {
        Executed {
            started: self.started,
            took: self.started.elapsed(),
            revision: 0,
            more: 0,
        }
    }
}

/// How the execution of a batch went.
pub(super) struct Executed {
    pub(super) started: Instant,
    pub(super) took: Duration,
    /// The revision of its last write; 0 without one.
    pub(super) revision: u64,
    /// Commands besides the first.
    pub(super) more: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Conn<'_, S, B> {
    /// Counts an error that is answered.
    pub(super) fn note_error(&mut self, error: &ErrorReply) {
        self.failures += 1;
        let server = &self.resp.server;
        Stats::add(&server.stats.errors, 1);
        server.errors.count(error.as_bytes());
    }

    /// Counts a call that was not executed. As in Redis, one whose arguments are wrong was called and has failed.
    pub(super) fn count_refused(&self, spec: &'static Spec, error: &ErrorReply) {
        let calls = &self.resp.server.calls;
        match error.is_rejection() {
            true => calls.reject(spec),
            false => calls.count(spec, Duration::ZERO, 1, 1),
        }
    }

    pub(super) fn since(&self) -> Since {
        Since {
            started: Instant::now(),
            failures: self.failures,
        }
    }

    /// Counts a command that was executed outside of a batch. Without its request it may be slow by design.
    pub(super) fn executed(
        &mut self,
        spec: &'static Spec,
        request: Option<&Request>,
        since: &Since,
    ) {
        let executed = since.executed();
        let failed = u64::from(self.failures > since.failures);
        let calls = &self.resp.server.calls;
        calls.count(spec, executed.took, 1, failed);
        if let Some(request) = request {
            self.note_slow(spec, request, &executed);
        }
    }

    /// Keeps what was slow until it has been sent.
    pub(super) fn note_slow(
        &mut self,
        spec: &'static Spec,
        request: &Request,
        executed: &Executed,
    ) {
        let server = &self.resp.server;
        let took = executed.took;
        if server.spikes.takes(took) {
            let kind = match spec.has(flag::FAST) {
                true => Kind::FastCommand,
                false => Kind::Command,
            };
            server.spikes.add(kind, unix_seconds(), took);
        }
        if !server.slow_log.takes(took) {
            return;
        }
        if self.slow.len() >= MAX_UNSENT {
            self.slow_sent();
        }
        let backend = self.resp.service.backend();
        let stages = backend.and_then(|backend| {
            let started = executed.started.into_std();
            backend.stages(executed.revision, started)
        });
        let slow = Slow {
            at: unix_seconds(),
            took,
            words: shown(spec, request),
            more: executed.more,
            client: self.session.client.addr,
            // A client may give itself a name as long as a value.
            client_name: cut(&self.session.client.shown.lock().name),
            user: self.session.user_name(),
            stages,
            send: Duration::ZERO,
        };
        self.slow.push((Instant::now(), slow));
    }

    /// The answers have been sent, or never will be.
    #[inline]
    pub(super) fn slow_sent(&mut self) {
        if self.slow.is_empty() {
            return;
        }
        for (answered, mut slow) in self.slow.drain(..) {
            slow.send = answered.elapsed();
            self.resp.server.slow_log.add(slow);
        }
        self.slow = Vec::new();
    }
}

/// Seconds since the Unix epoch, by the wall clock.
pub(crate) fn unix_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
