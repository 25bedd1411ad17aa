//! Rounds: many who wait for the same kind of answer share one asking.
//!
//! Whoever joins is served by a round that starts after it joined, never by one under way; that is
//! what makes a shared ReadIndex confirmation linearizable (Raft dissertation, section 6.4). A later
//! round serves as well as the next one, so only the last outcome is kept, and to wait costs no
//! memory of its own.

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
    /// How many have joined it.
    joined: u64,
    /// Whom to wake when it has ended.
    waiting: Vec<Waker>,
    /// The same for the round under way: at its end, the next one takes whoever has joined by then.
    served: Vec<Waker>,
    under_way: bool,
    /// The last round that has ended, and what came of it.
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
                waiting: Vec::new(),
                served: Vec::new(),
                under_way: false,
                ended: 0,
                outcome: Ok(0),
                closed: false,
            }),
            wakeup: Notify::new(),
        }
    }
}

/// A place in a round; ends with its outcome or a later one's.
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
                &mut queue.waiting
            } else {
                &mut queue.served
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
            // Whoever can join from this thread right now, does so first.
            tokio::task::yield_now().await;
            self.wake();
        }
        joined.await
    }

    /// Joins the next round; says whether `wake` must be called soon.
    pub(crate) fn join(&self) -> (Joined<'_>, bool) {
        let mut queue = self.queue.lock();
        queue.joined += 1;
        let joined = Joined {
            rounds: self,
            round: queue.next,
            waker: None,
        };
        (joined, !queue.under_way)
    }

    /// Starts a round, unless one is under way or nobody waits.
    pub(crate) fn wake(&self) {
        let due = {
            let queue = self.queue.lock();
            !queue.under_way && queue.joined > 0
        };
        if due {
            self.wakeup.notify_one();
        }
    }

    /// Starts the next round; how many have joined it. If nobody has, the rounds end for the moment.
    fn start(&self) -> u64 {
        let mut queue = self.queue.lock();
        let queue = &mut *queue;
        let joined = mem::take(&mut queue.joined);
        queue.under_way = joined > 0;
        if queue.under_way {
            queue.next += 1;
            mem::swap(&mut queue.waiting, &mut queue.served);
        }
        joined
    }

    /// Ends the round under way; `woken` is empty before and after.
    fn end(&self, outcome: Outcome, woken: &mut Vec<Waker>) {
        let mut queue = self.queue.lock();
        queue.ended = queue.next - 1;
        queue.outcome = outcome;
        mem::swap(&mut queue.served, woken);
        drop(queue);
        woken.drain(..).for_each(Waker::wake);
    }

    /// Lets more join the next round, after one that served so many: those who have been read from
    /// their sockets, and if they are fewer than were served, those who have arrived there.
    ///
    /// Clients that wait for their answers fall into parties: served, waiting, and on the way. Where
    /// each round leaves at once there are three, and with two of them a third fewer rounds. Never
    /// waits for anybody who has not arrived.
    pub(crate) async fn gather(&self, served: u64) {
        yield_to_ready_tasks().await;
        let waiting = self.queue.lock().joined;
        if (1..served).contains(&waiting) {
            tokio::task::yield_now().await;
            yield_to_ready_tasks().await;
        }
    }

    /// Runs rounds of `ask` for ever, one after the other: a round costs as much CPU time
    /// as several reads, so the longer one takes, the more share the next.
    /// Each round is counted in `sizes` by how many share it; `pause` is between two, and is told
    /// how many the first of them has served.
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

/// However the rounds end, nobody waits for one that does not come.
struct Close<'a>(&'a Rounds);

impl Drop for Close<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.queue.lock();
        queue.closed = true;
        let mut woken = mem::take(&mut queue.waiting);
        woken.append(&mut queue.served);
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
    async fn those_who_wait_share_a_round_that_starts_after_they_joined() {
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
            "a round under way is too old for a late caller"
        );
        assert_eq!(started.load(Ordering::Relaxed), 2);
        assert_eq!(sizes.counted().sum, 101);
        task.abort();
    }

    #[tokio::test]
    async fn the_smaller_party_takes_along_who_has_arrived() {
        for (served, together) in [(1, 1), (2, 2)] {
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
            rounds.gather(served).await;
            assert_eq!(rounds.start(), together, "after a round of {served}");
            task.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_is_told_when_there_will_be_no_more_rounds() {
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
