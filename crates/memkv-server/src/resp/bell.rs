//! Wakes the one task that serves a connection: there is a message for it, or its end has come.
//! A ring that nobody hears is kept for who listens next.
//!
//! Each connection listens before each request, so this is a flag and a waker, where tokio's `Notify`
//! keeps a list of listeners under a lock.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

#[derive(Debug, Default)]
pub(super) struct Bell {
    has_rung: AtomicBool,
    listener: AtomicWaker,
}

impl Bell {
    /// Any number of rings before it is heard are one.
    pub(super) fn ring(&self) {
        self.has_rung.store(true, Ordering::Release);
        self.listener.wake();
    }

    /// Waits for a ring. Only one task may listen at a time.
    pub(super) async fn heard(&self) {
        poll_fn(|context| {
            // First, so that a ring in between finds a listener.
            self.listener.register(context.waker());
            // A plain load first: it costs less, and nearly always nobody has rung.
            if self.has_rung.load(Ordering::Relaxed) && self.has_rung.swap(false, Ordering::AcqRel)
            {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_ring_that_nobody_hears_is_kept_and_heard_once() {
        let bell = Bell::default();
        assert_eq!(bell.heard().now_or_never(), None);
        bell.ring();
        bell.ring();
        assert_eq!(bell.heard().now_or_never(), Some(()));
        assert_eq!(bell.heard().now_or_never(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_ring_is_lost_between_threads() {
        let (there, back) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let (hears, answers) = (there.clone(), back.clone());
        let task = tokio::spawn(async move {
            for _ in 0..10_000 {
                hears.heard().await;
                answers.ring();
            }
        });
        let rings = async {
            for _ in 0..10_000 {
                there.ring();
                back.heard().await;
            }
        };
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, rings).await.unwrap();
        task.await.unwrap();
    }
}
