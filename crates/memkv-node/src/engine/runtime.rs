//! The async runtime that the engine runs on: tokio's, with three differences.
//!
//! Randomness can be seeded per thread, so that a simulation draws the same election timeouts every
//! time. Its state is shown through [`LatestWatch`], which costs less. And a sleep below a millisecond
//! yields once instead: tokio rounds it up to a timer tick, and the engine's
//! `io_completion_forwarder` sleeps 1 us between completions that arrive back to back, which would delay commits by 1 ms at the median (`raft/mod.rs:395-424` of alpha.37).

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio as rt;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::watch::LatestWatch;

thread_local! {
    /// State of the original sequence of this thread; `None`: ask the operating system.
    static ORIGINAL: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes the engine's randomness on this thread a function of `seed`. For simulations only.
pub fn seed_engine_randomness(seed: u64) {
    ORIGINAL.with(|cell| cell.set(Some(seed)));
}

/// Sleeps shorter than this are a yield: they ask for less than tokio's timer can resolve.
const TIMER_RESOLUTION: Duration = Duration::from_millis(1);

/// tokio, wrapped. Never constructed: the engine uses its associated functions only.
#[derive(Debug)]
pub(crate) struct Runtime(rt::TokioRuntime);

/// A sleep, or one yield for a sleep that is shorter than the timer can resolve.
pub(crate) enum Sleep {
    Timer(Pin<Box<tokio::time::Sleep>>),
    Yield(bool),
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *self {
            Sleep::Timer(timer) => timer.as_mut().poll(cx),
            Sleep::Yield(true) => Poll::Ready(()),
            Sleep::Yield(yielded) => {
                *yielded = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = Sleep;
    type Instant = rt::TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = StdRng;
    type Mpsc = rt::TokioMpsc;
    type Watch = LatestWatch;
    type Oneshot = rt::TokioOneshot;
    type Mutex<T: OptionalSend + 'static> = rt::TokioMutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        if duration < TIMER_RESOLUTION {
            Sleep::Yield(false)
        } else {
            Sleep::Timer(Box::pin(tokio::time::sleep(duration)))
        }
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Sleep::Timer(Box::pin(<rt::TokioRuntime as AsyncRuntime>::sleep_until(
            deadline,
        )))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        tokio::time::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        <rt::TokioRuntime as AsyncRuntime>::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        join_error.is_panic()
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        ORIGINAL.with(|cell| match cell.get() {
            Some(seed) => {
                // Weyl sequence (golden ratio increment); StdRng's seeding mixes it.
                let next = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                cell.set(Some(next));
                StdRng::seed_from_u64(next)
            }
            None => StdRng::from_rng(&mut rand::rng()),
        })
    }

    fn new(threads: usize) -> Self {
        Self(<rt::TokioRuntime as AsyncRuntime>::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_the_engines_randomness() {
        use rand::Rng;
        let draw = || {
            seed_engine_randomness(7);
            [
                Runtime::thread_rng().next_u64(),
                Runtime::thread_rng().next_u64(),
            ]
        };
        let first = draw();
        assert_eq!(first, draw());
        assert_ne!(first[0], first[1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_below_a_tick_takes_no_time() {
        let before = tokio::time::Instant::now();
        Runtime::sleep(Duration::from_micros(1)).await;
        assert_eq!(before.elapsed(), Duration::ZERO);
        Runtime::sleep(Duration::from_millis(2)).await;
        assert!(before.elapsed() >= Duration::from_millis(2));
    }
}
