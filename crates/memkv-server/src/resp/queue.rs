//! A queue to a task, bounded by bytes. Never waits: an item that does not fit is given back.
//! Invariant: the item in work counts until the next is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The end where things are put in.
pub(super) struct Queue<T> {
    sender: UnboundedSender<(T, usize)>,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// The end where they are taken out.
pub(super) struct Taker<T> {
    receiver: UnboundedReceiver<(T, usize)>,
    waiting: Arc<AtomicUsize>,
    /// Bytes of what was taken last.
    in_hand: usize,
}

/// A queue in which things of `most` bytes wait. One is always taken, however large.
pub(super) fn queue<T>(most: usize) -> (Queue<T>, Taker<T>) {
    let (sender, receiver) = unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let queue = Queue {
        sender,
        waiting: waiting.clone(),
        most,
    };
    let taker = Taker {
        receiver,
        waiting,
        in_hand: 0,
    };
    (queue, taker)
}

impl<T> Queue<T> {
    /// Puts something of `bytes` in; gives it back if too much waits already.
    pub(super) fn put(&self, thing: T, bytes: usize) -> Result<(), T> {
        let before = self.waiting.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before.saturating_add(bytes) > self.most {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            return Err(thing);
        }
        let sent = self.sender.send((thing, bytes));
        // Fails only while the process ends.
        sent.map_err(|unsent| unsent.0.0)
    }

    /// Bytes that wait or are being worked on.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl<T> Taker<T> {
    /// The next thing; nothing once the other end is gone.
    pub(super) async fn take(&mut self) -> Option<T> {
        self.waiting.fetch_sub(self.in_hand, Ordering::Relaxed);
        self.in_hand = 0;
        let (thing, bytes) = self.receiver.recv().await?;
        self.in_hand = bytes;
        Some(thing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_and_one_thing_always_fits() {
        let (queue, mut taker) = queue(10);
        assert_eq!(queue.put('a', 100), Ok(()));
        assert_eq!(queue.put('b', 1), Err('b'));
        assert_eq!(taker.take().await, Some('a'));
        // It is still in hand.
        assert_eq!(queue.put('b', 1), Err('b'));
        drop(tokio::time::timeout(std::time::Duration::ZERO, taker.take()).await);
        assert_eq!(queue.put('c', 6), Ok(()));
        assert_eq!(queue.put('d', 4), Ok(()));
        assert_eq!(queue.put('e', 1), Err('e'));
        assert_eq!(taker.take().await, Some('c'));
        assert_eq!(taker.take().await, Some('d'));
        assert_eq!(queue.waiting(), 4);
    }
}
