//! Whether this node's users are the cluster's: a node that is cut off does not hear that a right was taken
//! away. What it does by itself for clients (old reads, messages, commands about the node) it does only for
//! [`MAX_AGE`] after a majority has confirmed a read here.
//!
//! Never asks a majority while the last answer is young. Invariant: at most one question is under way.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use memkv_node::lock::Mutex;
use tokio::time::Instant;

/// How old rights may be by which a node acts alone: what the documentation promises.
pub(super) const MAX_AGE: Duration = Duration::from_secs(10);

/// After a question without an answer, until the next one.
const RETRY: Duration = Duration::from_secs(1);

/// Asks a majority; whether it has answered.
pub(crate) type Confirm = Box<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Freshness {
    confirm: OnceLock<Confirm>,
    /// When the last question that was answered was asked.
    confirmed: Mutex<Option<Instant>>,
    /// Held while one is under way: when the last one failed.
    failed: tokio::sync::Mutex<Option<Instant>>,
}

impl Freshness {
    pub(super) fn confirm_with(&self, confirm: Confirm) {
        let _ = self.confirm.set(confirm);
    }

    /// Whether the last answer is young enough. True where there is no node to ask.
    pub(super) fn is_recent(&self) -> bool {
        let confirmed = *self.confirmed.lock();
        self.confirm.get().is_none() || confirmed.is_some_and(|at| at.elapsed() < MAX_AGE)
    }

    /// The same, and asks if it is not.
    pub(super) async fn is_fresh(&self) -> bool {
        if self.is_recent() {
            return true;
        }
        let mut failed = self.failed.lock().await;
        let Some(confirm) = self.confirm.get().filter(|_| !self.is_recent()) else {
            return true;
        };
        if failed.is_some_and(|at| at.elapsed() < RETRY) {
            return false;
        }
        let asked = Instant::now();
        let is_confirmed = confirm().await;
        match is_confirmed {
            true => *self.confirmed.lock() = Some(asked),
            false => *failed = Some(Instant::now()),
        }
        is_confirmed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_majority_is_asked_when_the_last_answer_is_old_and_seldom_in_vain() {
        let freshness = Freshness::default();
        assert!(freshness.is_fresh().await);
        let (asked, answers) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicBool::new(true)),
        );
        let (counter, answer) = (asked.clone(), answers.clone());
        freshness.confirm_with(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            let answer = answer.load(Ordering::Relaxed);
            async move { answer }.boxed()
        }));
        for _ in 0..3 {
            assert!(freshness.is_fresh().await);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        answers.store(false, Ordering::Relaxed);
        tokio::time::advance(MAX_AGE - Duration::from_millis(1)).await;
        assert!(freshness.is_fresh().await);
        tokio::time::advance(Duration::from_millis(1)).await;
        for _ in 0..3 {
            assert!(!freshness.is_fresh().await && !freshness.is_recent());
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        answers.store(true, Ordering::Relaxed);
        tokio::time::advance(RETRY).await;
        assert!(freshness.is_fresh().await && freshness.is_recent());
    }
}
