//! How long a connection waits for outcomes: one timer for all of its waits.
//! Never cuts a wait short, and never lets one go on once its deadline has come.
//!
//! A timer that is set and given up for each command is a sixteenth of the instructions that a write
//! takes on its connection's thread. This one stays as it is while commands come and go, and is moved
//! when it goes off too early: once in as long as a command may wait.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug, Default)]
pub(super) struct DeadlineTimer {
    timer: Option<Pin<Box<Sleep>>>,
}

impl DeadlineTimer {
    /// What becomes of `future`; none if nothing has by the deadline, if there is one.
    pub(super) async fn wait<F: Future>(
        &mut self,
        deadline: impl Into<Option<Instant>>,
        future: F,
    ) -> Option<F::Output> {
        let deadline = deadline.into();
        let mut future = pin!(future);
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            let Some(deadline) = deadline else {
                return Poll::Pending;
            };
            let set = || Box::pin(sleep_until(deadline));
            let timer = self.timer.get_or_insert_with(set);
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            while timer.as_mut().poll(context).is_ready() {
                if Instant::now() >= deadline {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_all_of_its_time() {
        let mut deadline_timer = DeadlineTimer::default();
        for _ in 0..3 {
            let begun = Instant::now();
            assert_eq!(deadline_timer.wait(begun + WAIT, ready(1)).await, Some(1));
            let late = sleep(WAIT - Duration::from_millis(10));
            assert_eq!(deadline_timer.wait(begun + WAIT, late).await, Some(()));
            assert_eq!(
                deadline_timer.wait(begun + WAIT, pending::<()>()).await,
                None
            );
            assert_eq!(begun.elapsed(), WAIT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_is_earlier_than_the_one_before_holds() {
        let mut deadline_timer = DeadlineTimer::default();
        let begun = Instant::now();
        let soon = begun + Duration::from_millis(100);
        assert_eq!(
            deadline_timer.wait(begun + WAIT, sleep(WAIT / 100)).await,
            Some(())
        );
        assert_eq!(deadline_timer.wait(soon, pending::<()>()).await, None);
        assert_eq!(begun.elapsed(), Duration::from_millis(100));
        assert_eq!(
            deadline_timer.wait(begun, pending::<()>()).await,
            None,
            "past"
        );
    }
}
