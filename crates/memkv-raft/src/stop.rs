//! A stop that others hardly notice: leadership goes to a peer that has everything, and clients
//! that wait get their answers.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use crate::engine::Raft;
use crate::node::Inner;

/// Longest wait for a peer to be caught up and to take over. An operator's stop must not hang.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for clients' answers.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the two are looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Hands over and drains.
pub(crate) async fn gracefully(inner: &Arc<Inner>) {
    if let Some(raft) = inner.raft.get() {
        hand_over(inner, raft, |_| true).await;
    }
    let drained = async {
        while !inner.session.is_idle() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    crate::memory::save(inner, true).await;
}

/// Transfers leadership to a voter that `fits`, for as long as an operator can wait; after that the
/// peers elect a leader by themselves when this one is gone.
pub(crate) async fn hand_over(inner: &Inner, raft: &Raft, fits: impl Fn(&u64) -> bool) {
    let _ = tokio::time::timeout(TRANSFER_TIMEOUT, transfer(inner, raft, fits)).await;
}

/// Transfers leadership to the voter that has all of the log. One that lags must not get it: a
/// failed transfer has no undo and suppresses heartbeats (`raft_core.rs:708` of alpha.37).
async fn transfer(inner: &Inner, raft: &Raft, fits: impl Fn(&u64) -> bool) {
    while inner.leads() {
        let candidate = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let me = inner.peers.my_id();
            let matched = |id: &u64| metrics.replication.as_ref()?.get(id)?.as_ref();
            metrics
                .membership_config
                .voter_ids()
                .filter(|id| *id != me && fits(id))
                .find(|id| matched(id).map(|m| m.index) == metrics.last_log_index)
        };
        let voters = raft.voter_ids().count();
        match candidate {
            Some(to) => {
                if let Some(left_out) = inner.lines.handing_over.say() {
                    let to = inner.peers.name_of(to);
                    tracing::info!(%to, left_out, "handing leadership over");
                }
                if raft.trigger().transfer_leader(to).await.is_err() {
                    return;
                }
                let mut metrics = raft.server_metrics();
                while metrics.borrow_watched().state.is_leader() {
                    if metrics.changed().await.is_err() {
                        return;
                    }
                }
                return;
            }
            None if voters < 2 => return,
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}
