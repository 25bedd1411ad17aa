//! A stop that others hardly notice: leadership goes to a peer that has everything, and clients
//! that wait get their answers.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::handle::Engine;
use crate::node::Inner;

/// Longest wait for a peer to be caught up and to take over. An operator's stop must not hang.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for clients' answers.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the two are looked at.
const PAUSE: Duration = Duration::from_millis(10);

/// Hands over and drains.
pub(crate) async fn gracefully(inner: &Arc<Inner>) {
    if let Some(engine) = inner.engine.get() {
        hand_over(inner, engine, |_| true).await;
    }
    let drained = async {
        while !inner.session.is_idle() {
            tokio::time::sleep(PAUSE).await;
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
    crate::disk::memory::save(inner, true).await;
}

/// Transfers leadership to a voter that `fits`, for as long as an operator can wait; after that the
/// peers elect a leader by themselves when this one is gone.
pub(crate) async fn hand_over(inner: &Inner, engine: &Engine, fits: impl Fn(&u64) -> bool) {
    let _ = tokio::time::timeout(TRANSFER_TIMEOUT, transfer(inner, engine, fits)).await;
}

/// Transfers leadership to the voter that has all of the log. One that lags must not get it: a
/// failed transfer has no undo and suppresses heartbeats (`raft_core.rs:708` of alpha.37).
async fn transfer(inner: &Inner, engine: &Engine, fits: impl Fn(&u64) -> bool) {
    while inner.leads() {
        let me = inner.peers.my_id();
        let report = engine.report();
        let (voters, matched) = (report.members.voters(), report.matched);
        let others = voters.iter().copied();
        let candidate = others
            .filter(|id| *id != me && fits(id))
            .find(|id| matched.of_member(*id) == matched.last);
        match candidate {
            Some(to) => {
                if let Some(left_out) = inner.lines.handing_over.say() {
                    let to = inner.peers.name_of(to);
                    tracing::info!(%to, left_out, "handing leadership over");
                }
                if engine.transfer_to(to).await.is_err() {
                    return;
                }
                let mut changes = engine.changes();
                while changes.now().leads() {
                    if !changes.changed().await {
                        return;
                    }
                }
                return;
            }
            None if voters.len() < 2 => return,
            None => tokio::time::sleep(PAUSE).await,
        }
    }
}
