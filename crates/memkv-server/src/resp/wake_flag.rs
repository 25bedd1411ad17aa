//! Wakes the one task that serves a connection: there is a message for it, or its end has come.
//! A wake-up that comes while no task listens is kept for the next one that does.
//!
//! Each connection listens before each request, so this is a flag and a waker, where tokio's `Notify`
//! keeps a list of listeners under a lock.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use futures_util::task::AtomicWaker;

#[derive(Debug, Default)]
pub(super) struct WakeFlag {
    is_woken: AtomicBool,
    listener: AtomicWaker,
}

impl WakeFlag {
    /// Any number of wake-ups before one is taken are one.
    pub(super) fn wake(&self) {
        self.is_woken.store(true, Ordering::Release);
        self.listener.wake();
    }

    /// Waits for a wake-up. Only one task may listen at a time.
    pub(super) async fn woken(&self) {
        poll_fn(|context| {
            // First, so that a wake-up in between finds a listener.
            self.listener.register(context.waker());
            // A plain load first: it costs less, and nearly always it was not woken.
            if self.is_woken.load(Ordering::Relaxed) && self.is_woken.swap(false, Ordering::AcqRel)
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
    async fn a_wake_up_without_a_listener_is_kept_and_taken_once() {
        let flag = WakeFlag::default();
        assert_eq!(flag.woken().now_or_never(), None);
        flag.wake();
        flag.wake();
        assert_eq!(flag.woken().now_or_never(), Some(()));
        assert_eq!(flag.woken().now_or_never(), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_between_threads() {
        let (there, back) = (Arc::new(WakeFlag::default()), Arc::new(WakeFlag::default()));
        let (woken_here, answers) = (there.clone(), back.clone());
        let task = tokio::spawn(async move {
            for _ in 0..10_000 {
                woken_here.woken().await;
                answers.wake();
            }
        });
        let wakes = async {
            for _ in 0..10_000 {
                there.wake();
                back.woken().await;
            }
        };
        let limit = std::time::Duration::from_secs(60);
        tokio::time::timeout(limit, wakes).await.unwrap();
        task.await.unwrap();
    }
}
