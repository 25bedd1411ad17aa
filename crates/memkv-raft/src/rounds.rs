//! Rounds: many who wait for the same kind of answer share one asking.
//!
//! Whoever joins is served by a round that starts after it joined, never by one under way; that is
//! what makes a shared ReadIndex confirmation linearizable (Raft dissertation, section 6.4).

use std::future::Future;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use memkv_storage::Histogram;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

/// Rounds under way at once. Two: the next can start while the last is confirmed, and everyone who
/// joins meanwhile shares it.
const CONCURRENT: usize = 2;

/// Why a round gave no index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoundFailed(pub(crate) String);

type Outcome = Result<u64, RoundFailed>;

/// A queue of callers that wait for an index.
#[derive(Default)]
pub(crate) struct Rounds {
    waiting: Mutex<Vec<oneshot::Sender<Outcome>>>,
    wakeup: Notify,
}

impl Rounds {
    /// Joins the next round.
    pub(crate) fn join(&self) -> oneshot::Receiver<Outcome> {
        let (answer, receiver) = oneshot::channel();
        self.waiting.lock().push(answer);
        self.wakeup.notify_one();
        receiver
    }

    /// Runs rounds of `ask` for ever.
    /// Each round is counted in `sizes` by how many share it.
    pub(crate) async fn run<F: Future<Output = Outcome>>(
        &self,
        sizes: &Histogram,
        ask: impl Fn() -> F,
    ) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                () = self.wakeup.notified(), if under_way.len() < CONCURRENT => {}
            }
            while under_way.len() < CONCURRENT {
                let joined = std::mem::take(&mut *self.waiting.lock());
                if joined.is_empty() {
                    break;
                }
                sizes.count(joined.len() as u64, 1);
                let round = ask();
                under_way.push(async move {
                    let outcome = round.await;
                    for answer in joined {
                        // A caller that gave up needs no answer.
                        let _ = answer.send(outcome.clone());
                    }
                });
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
        let first: Vec<_> = (0..100).map(|_| rounds.join()).collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let late = rounds.join();
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
