//! Which panic may cost one task alone. By default none: where consensus, the log, apply or any other
//! task of the node has panicked, its unfinished work is unknown, so the process must end; the
//! log is safe at any moment. Only the task of a client's connection may be marked as one that can go
//! without harm, and not while it holds a [`lock`](super::lock) for writing. A panic while it only
//! reads must not end the process: a query that causes it would be retried at every node.
//!
//! The mark holds while the task is polled and not for what it spawns, so a new kind of task is not
//! marked by accident. The server's panic hook asks [`is_contained`].

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;

use crate::sync::lock;

thread_local! {
    static MARKED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a client's connection: a panic in it ends that connection alone, if the hook lets it
/// unwind. What it holds must come back when it is dropped.
///
/// It is made in here because a future that were handed over would be kept twice: as the argument,
/// and where it is pinned.
pub async fn contained<F: Future>(connection: impl FnOnce() -> F) -> F::Output {
    let mut connection = pin!(connection());
    poll_fn(move |context| {
        let _mark = Mark::set();
        connection.as_mut().poll(context)
    })
    .await
}

/// Whether a panic on this thread, now, may unwind.
pub fn is_contained() -> bool {
    MARKED.get() && !lock::is_changing()
}

/// The thread polls a client's connection until this is dropped.
struct Mark(bool);

impl Mark {
    fn set() -> Self {
        Self(MARKED.replace(true))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        MARKED.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::lock::{Mutex, RwLock};

    #[tokio::test]
    async fn only_the_marked_task_is_contained_and_not_under_a_lock_for_writing() {
        assert!(!is_contained());
        contained(|| async {
            assert!(is_contained());
            // Tasks that it spawns run while it waits, and are not marked.
            tokio::spawn(async { assert!(!is_contained()) })
                .await
                .unwrap();
            assert!(is_contained());
            let (mutex, lock) = (Mutex::new(()), RwLock::new(()));
            {
                let _reading = lock.read();
                assert!(is_contained());
            }
            {
                let _writing = lock.write();
                assert!(!is_contained());
            }
            let _held = mutex.lock();
            assert!(!is_contained());
        })
        .await;
        assert!(!is_contained());
    }

    #[tokio::test]
    async fn the_mark_goes_with_a_task_that_panics() {
        let task = tokio::spawn(contained(|| async { panic!("as a test") }));
        assert!(task.await.is_err_and(|error| error.is_panic()));
        assert!(!is_contained());
    }
}
