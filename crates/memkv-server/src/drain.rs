//! How a node ends its service to clients: step by step, so that no request that was received goes without an
//! answer. It counts the connections that are open, and tells them how far the end has come.
//!
//! Never waits and never closes anything: connections look here, and `run` goes through the steps. Invariant:
//! steps only go forward.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The words for a request that a node does not execute any more.
pub(crate) const STOPPING: &str = "this node is stopping; nothing was executed; use another node, or this one once it has started again";

/// Steps of the end, in order; before the first the node serves.
const BEGUN: u8 = 1;
const REFUSES: u8 = 2;
const ENDS: u8 = 3;
const CLOSED: u8 = 4;

/// How far the end of the service has come, and how many connections are open.
#[derive(Debug, Default)]
pub struct Drain {
    step: AtomicU8,
    /// Connections from before the end began.
    early: AtomicUsize,
    /// Those that came later.
    late: AtomicUsize,
    stepped: Notify,
}

impl Drain {
    /// From now on balancers are told to choose another node, HTTP connections end with their next answer, and
    /// what new connections ask for is refused. Others are served: leadership is handed over meanwhile.
    pub fn begin(&self) {
        self.go(BEGUN);
    }

    /// From now on each request over RESP is refused, with the words, and ends its connection. One over HTTP is
    /// executed, since its answer can say that the connection ends.
    pub fn refuse(&self) {
        self.go(REFUSES);
    }

    /// From now on a connection ends once it has answered what it has received.
    pub fn end(&self) {
        self.go(ENDS);
    }

    /// From now on no connection is accepted, and no address is listened on.
    pub fn close(&self) {
        self.go(CLOSED);
    }

    fn go(&self, step: u8) {
        self.step.fetch_max(step, Ordering::AcqRel);
        self.stepped.notify_waiters();
    }

    fn is_at(&self, step: u8) -> bool {
        self.step.load(Ordering::Acquire) >= step
    }

    /// Whether the node is about to stop.
    pub(crate) fn has_begun(&self) -> bool {
        self.is_at(BEGUN)
    }

    /// Whether requests over RESP are refused.
    pub(crate) fn refuses(&self) -> bool {
        self.is_at(REFUSES)
    }

    /// Whether connections without a request end.
    pub(crate) fn ends(&self) -> bool {
        self.is_at(ENDS)
    }

    /// Resolves once connections without a request are to end.
    pub(crate) async fn ending(&self) {
        self.reached(ENDS).await;
    }

    /// Resolves once no connection is to be accepted.
    pub(crate) async fn closed(&self) {
        self.reached(CLOSED).await;
    }

    async fn reached(&self, step: u8) {
        loop {
            // First, so that a step in between is not missed.
            let stepped = self.stepped.notified();
            if self.is_at(step) {
                return;
            }
            stepped.await;
        }
    }

    /// Connections from before the end began that are still open.
    pub fn early(&self) -> usize {
        self.early.load(Ordering::Acquire)
    }

    /// All connections that are open.
    pub fn open(&self) -> usize {
        self.early() + self.late.load(Ordering::Acquire)
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Open {
        let open = Open {
            drain: self.clone(),
            is_late: self.has_begun(),
        };
        open.count().fetch_add(1, Ordering::AcqRel);
        open
    }
}

/// A connection that is open.
pub(crate) struct Open {
    drain: Arc<Drain>,
    is_late: bool,
}

impl Open {
    fn count(&self) -> &AtomicUsize {
        match self.is_late {
            false => &self.drain.early,
            true => &self.drain.late,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count().fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn steps(drain: &Drain) -> [bool; 3] {
        [drain.has_begun(), drain.refuses(), drain.ends()]
    }

    #[tokio::test]
    async fn steps_go_forward_only_and_waiting_connections_learn_of_the_last() {
        let drain = Drain::default();
        assert_eq!(steps(&drain), [false; 3]);
        drain.begin();
        assert_eq!(steps(&drain), [true, false, false]);
        drain.refuse();
        drain.begin();
        assert_eq!(steps(&drain), [true, true, false]);
        let mut waiting = Box::pin(drain.ending());
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drain.end();
        waiting.await;
        drain.ending().await;
        assert_eq!(steps(&drain), [true; 3]);
        assert_eq!(drain.closed().now_or_never(), None);
        drain.close();
        drain.closed().await;
    }

    #[test]
    fn a_connection_is_open_until_it_ends_and_a_late_one_delays_no_step() {
        let drain = Arc::new(Drain::default());
        let early = drain.enter();
        drain.begin();
        let late = drain.enter();
        assert_eq!((drain.early(), drain.open()), (1, 2));
        drop(early);
        assert_eq!((drain.early(), drain.open()), (0, 1));
        drop(late);
        assert_eq!(drain.open(), 0);
    }
}
