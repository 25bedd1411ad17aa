//! Long work for one client, done aside so that the other clients of its thread do not wait: one such
//! work at a time. Never runs on the consensus thread.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// Most steps that are done in place, about a millisecond: to go aside costs a thread.
const STEPS_IN_PLACE: usize = 1024 * 1024;

/// Steps for each argument of a request, to understand, check or encode it.
const STEPS_OF_ARGUMENT: usize = 16;

/// Bytes that are copied in one step.
const BYTES_OF_STEP: usize = 2;

/// Steps to understand a request, to check it or to encode it.
pub(crate) fn steps_of(arguments: usize, bytes: usize) -> usize {
    arguments * STEPS_OF_ARGUMENT + bytes / BYTES_OF_STEP
}

/// Whether work of so many steps is done aside.
pub(crate) fn is_long(steps: usize) -> bool {
    steps > STEPS_IN_PLACE
}

/// The turn of the works that are done aside.
#[derive(Debug)]
pub(crate) struct Aside {
    turns: Semaphore,
    /// Number of works that were done.
    #[cfg(test)]
    pub(crate) works: std::sync::atomic::AtomicUsize,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(1),
            #[cfg(test)]
            works: std::sync::atomic::AtomicUsize::new(0),
        }
    }
}

impl Aside {
    /// Does work of so many steps of some nanoseconds.
    pub(crate) async fn run<T>(&self, steps: usize, work: impl FnOnce() -> T) -> T {
        if !is_long(steps) {
            return work();
        }
        // It is never closed, so this cannot fail.
        let _turn = self.turns.acquire().await;
        #[cfg(test)]
        self.works
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        step_aside(steps, work)
    }
}

/// The same for a caller that cannot wait for its turn.
pub(crate) fn step_aside<T>(steps: usize, work: impl FnOnce() -> T) -> T {
    let has_threads = |handle: Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
    if is_long(steps) && Handle::try_current().is_ok_and(has_threads) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn others_on_the_thread_go_on_meanwhile() {
        let aside = Arc::new(Aside::default());
        let (done, waits) = channel();
        let work = tokio::spawn(async move {
            let wait = move || waits.recv().is_ok();
            aside.run(STEPS_IN_PLACE + 1, wait).await
        });
        // There is one worker thread, and the work does not end before this task has run on it.
        let other = tokio::spawn(async move { done.send(()).is_ok() });
        assert!(other.await.unwrap());
        assert!(work.await.unwrap());
    }

    #[tokio::test]
    async fn where_there_is_one_thread_it_is_done_in_place() {
        assert_eq!(Aside::default().run(usize::MAX, || 7).await, 7);
    }
}
