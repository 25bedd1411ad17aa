//! Taking turns with the other tasks of a thread, without waiting for its sockets.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;
use std::time::Duration;

/// Lets the tasks run that can run now, and then goes on. A task that is woken together with many others can
/// so do something after each of them has had its turn. Unlike `tokio::task::yield_now` it does not
/// wait until the thread has looked at its sockets again.
pub async fn yield_to_ready_tasks() {
    let mut waited = false;
    poll_fn(|context| {
        if mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Lets everything else of the thread go on, sockets too, between two pieces of work. In simulated time
/// nothing takes time, and a pause stands for it.
pub(crate) async fn yield_to_all_tasks() {
    match cfg!(memkv_bugs) {
        true => tokio::time::sleep(Duration::from_millis(1)).await,
        false => tokio::task::yield_now().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::sync::lock::Mutex;

    use super::*;

    #[tokio::test]
    async fn all_have_had_their_turn_before_one_goes_on() {
        let turns = Arc::<Mutex<Vec<char>>>::default();
        let task = |before, after| {
            let turns = turns.clone();
            tokio::spawn(async move {
                turns.lock().push(before);
                yield_to_ready_tasks().await;
                turns.lock().push(after);
            })
        };
        let tasks = [task('a', 'A'), task('b', 'B'), task('c', 'C')];
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*turns.lock(), ['a', 'b', 'c', 'A', 'B', 'C']);
    }
}
