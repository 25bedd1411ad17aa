//! The channel by which the engine shows its latest state: one value, a version, and the waiters.
//! Never keeps a value that was overwritten, never wakes a receiver that does not wait.
//!
//! The engine announces its progress and all of its metrics in each of its turns, some five for an
//! entry, and nine of ten times no receiver waits; the replication to a follower begins and ends three
//! waits in each of its own. tokio's channel keeps eight lists of waiters under locks for that, and
//! takes a seventh of a leader's instructions per entry. Here a waiter is one waker per receiver.
//!
//! Invariants: versions only grow; a receiver that has not seen the newest version, or whose senders
//! are gone, does not go to sleep.

use std::future::poll_fn;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use crate::sync::lock::{Mutex, RwLock, RwLockReadGuard};
use futures_util::task::AtomicWaker;
use openraft::OptionalSend;
use openraft::async_runtime::watch::{RecvError, SendError, Watch, WatchReceiver, WatchSender};
use openraft_rt::OptionalSync;

/// The kind of channel.
#[derive(Debug)]
pub(crate) struct LatestWatch;

struct Shared<T> {
    value: RwLock<T>,
    /// Grows with each value, while it is locked.
    version: AtomicU64,
    senders: AtomicUsize,
    receivers: AtomicUsize,
    /// The wakers of receivers that have waited before.
    waiting: Mutex<Vec<Arc<AtomicWaker>>>,
}

impl<T> Shared<T> {
    fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    fn wake_all(&self) {
        // Not woken under the lock: a task that ends by it may drop its receiver.
        let wakers: Vec<Waker> = {
            let waiting = self.waiting.lock();
            waiting.iter().filter_map(|waker| waker.take()).collect()
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// A borrowed value: no sender can send while it is borrowed. Borrowing it twice is allowed.
pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, T>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A sender.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        // A receiver that sees that the last sender has gone sees its last value too.
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake_all();
        }
    }
}

/// A receiver.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
    /// In `waiting` of the channel, from the first wait on.
    waker: Option<Arc<AtomicWaker>>,
}

impl<T> Receiver<T> {
    fn new(shared: &Arc<Shared<T>>, seen: u64) -> Self {
        shared.receivers.fetch_add(1, Ordering::Relaxed);
        Self {
            shared: shared.clone(),
            seen,
            waker: None,
        }
    }

    /// Whether there is something new, which is then seen; an error if nothing new will come.
    fn look(&mut self) -> Poll<Result<(), RecvError>> {
        // In this order: the last value may come just before its sender goes.
        let is_closed = self.shared.senders.load(Ordering::Acquire) == 0;
        let version = self.shared.version();
        if version != self.seen {
            self.seen = version;
            Poll::Ready(Ok(()))
        } else if is_closed {
            Poll::Ready(Err(RecvError(())))
        } else {
            Poll::Pending
        }
    }

    fn listen(&mut self, waker: &Waker) {
        let shared = &self.shared;
        let own = self.waker.get_or_insert_with(|| {
            let own = Arc::<AtomicWaker>::default();
            shared.waiting.lock().push(own.clone());
            own
        });
        own.register(waker);
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self::new(&self.shared, self.seen)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receivers.fetch_sub(1, Ordering::Release);
        if let Some(own) = &self.waker {
            let mut waiting = self.shared.waiting.lock();
            waiting.retain(|waker| !Arc::ptr_eq(waker, own));
        }
    }
}

impl Watch for LatestWatch {
    type Sender<T: OptionalSend + OptionalSync> = Sender<T>;
    type Receiver<T: OptionalSend + OptionalSync> = Receiver<T>;
    type Ref<'a, T: OptionalSend + 'a> = Ref<'a, T>;

    fn channel<T: OptionalSend + OptionalSync>(init: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Shared {
            value: RwLock::new(init),
            version: AtomicU64::new(0),
            senders: AtomicUsize::new(1),
            receivers: AtomicUsize::new(0),
            waiting: Mutex::default(),
        });
        let receiver = Receiver::new(&shared, 0);
        (Sender(shared), receiver)
    }
}

impl<T: OptionalSend + OptionalSync> WatchSender<LatestWatch, T> for Sender<T> {
    fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.0.receivers.load(Ordering::Acquire) == 0 {
            return Err(SendError(value));
        }
        self.send_if_modified(|current| {
            *current = value;
            true
        });
        Ok(())
    }

    fn send_if_modified<F>(&self, modify: F) -> bool
    where
        F: FnOnce(&mut T) -> bool,
    {
        {
            let mut value = self.0.value.write();
            if !modify(&mut value) {
                return false;
            }
            self.0.version.fetch_add(1, Ordering::Release);
        }
        self.0.wake_all();
        true
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.0.value.read_recursive())
    }

    fn subscribe(&self) -> Receiver<T> {
        Receiver::new(&self.0, self.0.version())
    }
}

impl<T: OptionalSend + OptionalSync> WatchReceiver<LatestWatch, T> for Receiver<T> {
    async fn changed(&mut self) -> Result<(), RecvError> {
        poll_fn(|context| {
            let looked = self.look();
            if looked.is_ready() {
                return looked;
            }
            self.listen(context.waker());
            // A value from before the first wait wakes no receiver.
            self.look()
        })
        .await
    }

    fn borrow_watched(&self) -> Ref<'_, T> {
        Ref(self.shared.value.read_recursive())
    }

    fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.version();
        Ref(value)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use openraft_rt::testing::Suite;

    use super::*;
    use crate::engine::runtime::Runtime;

    type Pair = (Sender<u64>, Receiver<u64>);

    fn channel() -> Pair {
        LatestWatch::channel(0)
    }

    #[tokio::test]
    async fn it_passes_the_engines_own_tests() {
        Suite::<Runtime>::test_watch_init_value().await;
        Suite::<Runtime>::test_watch_overwrite_init_value().await;
        Suite::<Runtime>::test_watch_send_error_no_receiver().await;
        Suite::<Runtime>::test_watch_send_if_modified().await;
        Suite::<Runtime>::test_watch_wait_until_ge().await;
        Suite::<Runtime>::test_watch_wait_until().await;
        Suite::<Runtime>::test_watch_changed_marks_as_seen().await;
        Suite::<Runtime>::test_watch_borrow_and_update_marks_seen().await;
        Suite::<Runtime>::test_watch_changed_returns_immediately_when_unseen().await;
        Suite::<Runtime>::test_watch_multiple_borrow_then_changed().await;
        Suite::<Runtime>::test_watch_wait_loop_pattern().await;
        Suite::<Runtime>::test_watch_multiple_receivers().await;
        Suite::<Runtime>::test_watch_subscribe().await;
        Suite::<Runtime>::test_watch_send_if_different().await;
        Suite::<Runtime>::test_watch_send_if_greater().await;
    }

    #[test]
    fn the_last_value_is_seen_before_the_end() {
        let (sender, mut receiver) = channel();
        let second = sender.clone();
        drop(sender);
        assert!(receiver.changed().now_or_never().is_none());
        second.send(7).unwrap();
        drop(second);
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert_eq!(*receiver.borrow_watched(), 7);
        assert_eq!(receiver.changed().now_or_never(), Some(Err(RecvError(()))));
    }

    #[test]
    fn a_receiver_that_gave_up_waiting_misses_nothing() {
        let (sender, mut receiver) = channel();
        assert!(receiver.changed().now_or_never().is_none());
        assert!(receiver.changed().now_or_never().is_none());
        assert_eq!(receiver.shared.waiting.lock().len(), 1, "one waker each");
        sender.send(1).unwrap();
        assert_eq!(receiver.changed().now_or_never(), Some(Ok(())));
        assert!(receiver.changed().now_or_never().is_none());
        let shared = receiver.shared.clone();
        drop(receiver);
        assert!(shared.waiting.lock().is_empty());
    }

    #[test]
    fn a_value_may_be_borrowed_while_a_sender_waits_for_it() {
        let (sender, receiver) = channel();
        let first = receiver.borrow_watched();
        let thread = std::thread::spawn(move || sender.send(1));
        while receiver.shared.value.try_read().is_some() {
            std::thread::yield_now();
        }
        assert_eq!((*first, *receiver.borrow_watched()), (0, 0));
        drop(first);
        thread.join().unwrap().unwrap();
        assert_eq!(*receiver.borrow_watched(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_value_is_slept_through() {
        let (sender, mut receiver) = channel();
        let (answers, mut answered) = channel();
        let echo = tokio::spawn(async move {
            while receiver.changed().await.is_ok() {
                let seen = *receiver.borrow_and_update();
                answers.send(seen).unwrap();
            }
        });
        for value in 1..=20_000 {
            sender.send(value).unwrap();
            // Hangs if the other side sleeps although there is a value, or this one does.
            answered.wait_until_ge(&value).await.unwrap();
        }
        drop(sender);
        echo.await.unwrap();
        // Waiting for a value does not mark as seen what was there already.
        assert_eq!(*answered.borrow_and_update(), 20_000);
        assert_eq!(answered.changed().await, Err(RecvError(())));
    }
}
