//! Rounds: all reads that wait share one ReadIndex confirmation.
//!
//! A read is answered by a round that starts after it joined, never by the one in flight; that makes a
//! shared confirmation linearizable (Raft dissertation, section 6.4). A later round answers it as well as
//! the next one, so only the last outcome is kept, and waiting needs no memory of its own.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::sync::lock::Mutex;
use memkv_metrics::Histogram;
use tokio::sync::Notify;

use crate::sync::yielding::yield_to_ready_tasks;

/// Why a round gave no index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoundFailed(pub(crate) String);

type Outcome = Result<u64, RoundFailed>;

struct Queue {
    /// Number of the round that starts next; the first one is 1.
    next: u64,
    /// Reads that have joined it.
    joined: u64,
    /// The reads that are queued for it.
    queued: Vec<Waker>,
    /// The reads that the round in flight will answer; at its end, the next round starts with those
    /// that are queued by then.
    in_flight: Vec<Waker>,
    is_in_flight: bool,
    /// The last round that has ended, and its outcome.
    ended: u64,
    outcome: Outcome,
    /// There will be no more rounds.
    closed: bool,
}

/// A queue of callers that wait for an index.
pub(crate) struct Rounds {
    queue: Mutex<Queue>,
    wakeup: Notify,
}

impl Default for Rounds {
    fn default() -> Self {
        Self {
            queue: Mutex::new(Queue {
                next: 1,
                joined: 0,
                queued: Vec::new(),
                in_flight: Vec::new(),
                is_in_flight: false,
                ended: 0,
                outcome: Ok(0),
                closed: false,
            }),
            wakeup: Notify::new(),
        }
    }
}

/// A read in a round; ends with its outcome or a later one's.
pub(crate) struct Joined<'a> {
    rounds: &'a Rounds,
    round: u64,
    waker: Option<Waker>,
}

impl Future for Joined<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut queue = self.rounds.queue.lock();
        if queue.ended >= self.round {
            return Poll::Ready(queue.outcome.clone());
        }
        if queue.closed {
            return Poll::Ready(Err(RoundFailed("the node is stopping".to_owned())));
        }
        let waker = context.waker();
        if !self
            .waker
            .as_ref()
            .is_some_and(|known| known.will_wake(waker))
        {
            let list = if queue.next == self.round {
                &mut queue.queued
            } else {
                &mut queue.in_flight
            };
            list.push(waker.clone());
            drop(queue);
            self.waker = Some(waker.clone());
        }
        Poll::Pending
    }
}

impl Rounds {
    /// Joins the next round and waits for it.
    pub(crate) async fn index(&self) -> Outcome {
        let (joined, must_wake) = self.join();
        if must_wake {
            // Reads that are ready on this thread join first.
            tokio::task::yield_now().await;
            self.wake();
        }
        joined.await
    }

    /// Joins the next round. Whether `wake` must be called soon.
    pub(crate) fn join(&self) -> (Joined<'_>, bool) {
        let mut queue = self.queue.lock();
        queue.joined += 1;
        let joined = Joined {
            rounds: self,
            round: queue.next,
            waker: None,
        };
        (joined, !queue.is_in_flight)
    }

    /// Starts a round, unless one is in flight or no read is queued.
    pub(crate) fn wake(&self) {
        let due = {
            let queue = self.queue.lock();
            !queue.is_in_flight && queue.joined > 0
        };
        if due {
            self.wakeup.notify_one();
        }
    }

    /// Starts the next round. Returns how many reads have joined it; with none, the rounds pause.
    fn start(&self) -> u64 {
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        let joined = mem::take(&mut queue.joined);
        queue.is_in_flight = joined > 0;
        if queue.is_in_flight {
            queue.next += 1;
            mem::swap(&mut queue.queued, &mut queue.in_flight);
        }
        joined
    }

    /// Ends the round in flight; `woken` is empty before and after.
    fn end(&self, outcome: Outcome, woken: &mut Vec<Waker>) {
        let mut queue = self.queue.lock();
        queue.ended = queue.next - 1;
        queue.outcome = outcome;
        mem::swap(&mut queue.in_flight, woken);
        drop(queue);
        woken.drain(..).for_each(Waker::wake);
    }

    /// Lets more reads join the next round, after one that answered so many: requests that have been
    /// read from their sockets, and if they are fewer than were answered, those that have arrived there.
    ///
    /// This is group commit for reads. Clients fall into three groups: answered, queued and in flight.
    /// Where each round starts at once there are three groups; with two of them there are a third fewer
    /// rounds. Never waits for a request that has not arrived.
    pub(crate) async fn let_join(&self, answered: u64) {
        yield_to_ready_tasks().await;
        let queued = self.queue.lock().joined;
        if (1..answered).contains(&queued) {
            tokio::task::yield_now().await;
            yield_to_ready_tasks().await;
        }
    }

    /// Runs rounds of `ask` for ever, one after the other: a round costs as much CPU time
    /// as several reads, so the longer one takes, the more reads share the next.
    /// Each round is counted in `sizes` by the number of its reads; `pause` runs between two rounds, with
    /// the number of reads that the first of them has answered.
    pub(crate) async fn run<F: Future<Output = Outcome>, P: Future<Output = ()>>(
        &self,
        sizes: &Histogram,
        ask: impl Fn() -> F,
        pause: impl Fn(u64) -> P,
    ) {
        let _closed_at_the_end = Close(self);
        let mut woken = Vec::new();
        loop {
            let joined = self.start();
            if joined == 0 {
                self.wakeup.notified().await;
                continue;
            }
            sizes.count(joined, 1);
            self.end(ask().await, &mut woken);
            pause(joined).await;
        }
    }
}

/// Ends all waits when there will be no more rounds, however that came about.
struct Close<'a>(&'a Rounds);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.closed = true;
        let mut woken = mem::take(&mut queue.queued);
        woken.append(&mut queue.in_flight);
        drop(queue);
        woken.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use tokio::io::AsyncReadExt;

    #[tokio::test(start_paused = true)]
    async fn reads_share_a_round_that_starts_after_they_joined() {
        let rounds = Arc::new(Rounds::default());
        let started = Arc::new(AtomicU64::new(0));
        let sizes = Arc::new(Histogram::of_sizes());
        let (driver, counter, counted) = (rounds.clone(), started.clone(), sizes.clone());
        let task = tokio::spawn(async move {
            driver
                .run(
                    &counted,
                    || {
                        let round = counter.fetch_add(1, Ordering::Relaxed) + 1;
                        async move {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                            Ok(round)
                        }
                    },
                    |_| ready(()),
                )
                .await;
        });
        let first: Vec<_> = (0..100).map(|_| rounds.join().0).collect();
        rounds.wake();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (late, must_wake) = rounds.join();
        assert!(!must_wake, "the end of a round starts the next");
        for waiting in first {
            assert_eq!(waiting.await, Ok(1));
        }
        assert_eq!(
            late.await,
            Ok(2),
            "a round in flight is too old for a late read"
        );
        assert_eq!(started.load(Ordering::Relaxed), 2);
        assert_eq!(sizes.counted().sum, 101);
        task.abort();
    }

    #[tokio::test]
    async fn a_small_round_waits_for_requests_that_have_arrived() {
        for (answered, together) in [(1, 1), (2, 2)] {
            let rounds = Arc::new(Rounds::default());
            let (client, mut socket) = tokio::net::UnixStream::pair().unwrap();
            client.writable().await.unwrap();
            let reads = rounds.clone();
            let task = tokio::spawn(async move {
                socket.read_u8().await.unwrap();
                reads.join();
            });
            tokio::task::yield_now().await;
            rounds.join();
            assert_eq!(client.try_write(b"?").unwrap(), 1);
            rounds.let_join(answered).await;
            assert_eq!(rounds.start(), together, "after a round of {answered}");
            task.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_read_ends_when_there_will_be_no_more_rounds() {
        let rounds = Arc::new(Rounds::default());
        let driver = rounds.clone();
        let task = tokio::spawn(async move {
            let never = std::future::pending;
            driver
                .run(&Histogram::of_sizes(), never, |_| ready(()))
                .await;
        });
        let served = rounds.join().0;
        rounds.wake();
        tokio::task::yield_now().await;
        let (next, must_wake) = rounds.join();
        assert!(!must_wake, "a round is under way");
        let abort = async {
            tokio::task::yield_now().await;
            task.abort();
        };
        let (served, next, ()) = tokio::join!(served, next, abort);
        let stopping = Err(RoundFailed("the node is stopping".to_owned()));
        assert_eq!((&served, &next), (&stopping, &stopping));
        assert_eq!(rounds.join().0.await, stopping);
    }
}
