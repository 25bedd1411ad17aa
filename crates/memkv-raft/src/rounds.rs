//! Rounds: many who wait for the same kind of answer share one asking.
//!
//! Whoever joins is served by a round that starts after it joined, never by one under way; that is
//! what makes a shared ReadIndex confirmation linearizable (Raft dissertation, section 6.4).

use std::future::Future;

use memkv_storage::Histogram;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// Why a round gave no index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoundFailed(pub(crate) String);

type Outcome = Result<u64, RoundFailed>;

#[derive(Default)]
struct Queue {
    waiting: Vec<oneshot::Sender<Outcome>>,
    /// Whether a round is under way: at its end, the next one takes whoever waits by then.
    under_way: bool,
}

/// A queue of callers that wait for an index.
#[derive(Default)]
pub(crate) struct Rounds {
    queue: Mutex<Queue>,
    wakeup: Notify,
}

impl Rounds {
    /// Joins the next round and waits for it.
    pub(crate) async fn index(&self) -> Outcome {
        let (receiver, must_ring) = self.join();
        if must_ring {
            // Whoever can join from this thread right now, does so first.
            tokio::task::yield_now().await;
            self.ring();
        }
        let outcome = receiver.await;
        outcome.unwrap_or_else(|_| Err(RoundFailed("the node is stopping".to_owned())))
    }

    /// Joins the next round; says whether `ring` must be called soon.
    pub(crate) fn join(&self) -> (oneshot::Receiver<Outcome>, bool) {
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.queue.lock();
        queue.waiting.push(answer);
        (receiver, !queue.under_way)
    }

    /// Starts a round, unless one is under way or nobody waits.
    pub(crate) fn ring(&self) {
        let due = {
            let queue = self.queue.lock();
            !queue.under_way && !queue.waiting.is_empty()
        };
        if due {
            self.wakeup.notify_one();
        }
    }

    /// Whoever waits, for the round that starts now; nobody ends the rounds for the moment.
    fn start(&self) -> Vec<oneshot::Sender<Outcome>> {
        let mut queue = self.queue.lock();
        queue.under_way = !queue.waiting.is_empty();
        std::mem::take(&mut queue.waiting)
    }

    /// Runs rounds of `ask` for ever, one after the other: a round costs as much CPU time
    /// as thirty reads, so the longer one takes, the more share the next.
    /// Each round is counted in `sizes` by how many share it.
    pub(crate) async fn run<F: Future<Output = Outcome>>(
        &self,
        sizes: &Histogram,
        ask: impl Fn() -> F,
    ) {
        loop {
            let joined = self.start();
            if joined.is_empty() {
                self.wakeup.notified().await;
                continue;
            }
            sizes.count(joined.len() as u64, 1);
            let outcome = ask().await;
            for answer in joined {
                // A caller that gave up needs no answer.
                let _ = answer.send(outcome.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_share_a_round_that_starts_after_they_joined() {
        let rounds = Arc::new(Rounds::default());
        let started = Arc::new(AtomicU64::new(0));
        let sizes = Arc::new(Histogram::of_sizes());
        let (driver, counter, counted) = (rounds.clone(), started.clone(), sizes.clone());
        let task = tokio::spawn(async move {
            driver
                .run(&counted, || {
                    let round = counter.fetch_add(1, Ordering::Relaxed) + 1;
                    async move {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        Ok(round)
                    }
                })
                .await;
        });
        let first: Vec<_> = (0..100).map(|_| rounds.join().0).collect();
        rounds.ring();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (late, must_ring) = rounds.join();
        assert!(!must_ring, "the end of a round starts the next");
        for waiting in first {
            assert_eq!(waiting.await.unwrap(), Ok(1));
        }
        assert_eq!(
            late.await.unwrap(),
            Ok(2),
            "a round under way is too old for a late caller"
        );
        assert_eq!(started.load(Ordering::Relaxed), 2);
        assert_eq!(sizes.counted().sum, 101);
        task.abort();
    }
}
