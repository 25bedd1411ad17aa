//! Which peers have asked this leader for something a moment ago, and so wait to hear what is
//! committed: their clients' writes and reads are answered when they have applied it.
//!
//! It only decides when a message leaves, never what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::sync::lock::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a peer that has asked is taken to wait: most commits take less, and what a slower disk
/// makes of one is much more than what the message to it waits.
const WAITS: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(crate) struct CommitInterest {
    asked_at: Mutex<BTreeMap<u64, Instant>>,
    /// Notified each time one asks.
    asked: Notify,
}

impl CommitInterest {
    /// This peer asks now.
    pub(crate) fn note(&self, peer: u64) {
        self.asked_at.lock().insert(peer, Instant::now());
        self.asked.notify_waiters();
    }

    fn waits(&self, peer: u64) -> bool {
        let asked_at = self.asked_at.lock().get(&peer).copied();
        asked_at.is_some_and(|at| at.elapsed() < WAITS)
    }

    /// Ends when this peer waits, and at `until` in any case.
    pub(crate) async fn shown_or(&self, peer: u64, until: Instant) {
        let asked = async {
            loop {
                let asked = self.asked.notified();
                if self.waits(peer) {
                    break;
                }
                asked.await;
            }
        };
        // When the time is up is all the same an end.
        drop(tokio::time::timeout_at(until, asked).await);
    }
}
