//! Linearizable reads: one ReadIndex confirmation for everything that waits (Raft dissertation,
//! section 6.4), then the read waits until this node has applied that far and runs here.
//!
//! No lease is ever used: a leader's quorum is asked after the read arrived. A process that was
//! paused in between has only waited longer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::ReadPolicy;
use tokio::time::Instant;

use crate::node::Inner;
use crate::rounds::RoundFailed;
use crate::wire::Kind;
use crate::{Frame, Lane, RequestError};

/// Pause before a read asks again: an election takes much longer, a stale view of it less.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// A leader that does not answer for this long is asked again.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits until whatever was acknowledged before this call is applied here.
pub(crate) async fn barrier(inner: &Arc<Inner>) -> Result<(), RequestError> {
    let deadline = Instant::now() + inner.config.hold;
    let mut leader_changed = inner.leader.subscribe();
    loop {
        leader_changed.mark_unchanged();
        let attempt = async {
            let index = read_index(inner).await?;
            inner.replica.wait_applied(index).await;
            Ok::<(), RoundFailed>(())
        };
        match tokio::time::timeout_at(deadline, attempt).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failed)) => tracing::trace!(why = %failed.0, "read not confirmed yet"),
            Err(_) => {
                return Err(RequestError::NoLeader {
                    detail: inner.no_leader(),
                });
            }
        }
        tokio::select! {
            biased;
            _ = leader_changed.changed() => {}
            () = tokio::time::sleep(RETRY_PAUSE) => {}
        }
        if Instant::now() >= deadline {
            return Err(RequestError::NoLeader {
                detail: inner.no_leader(),
            });
        }
    }
}

async fn read_index(inner: &Arc<Inner>) -> Result<u64, RoundFailed> {
    let Some(leader) = inner.leader_id() else {
        return Err(RoundFailed("no leader is known".to_owned()));
    };
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::ReadWithoutQuorum) {
        return Ok(inner.replica.applied_index());
    }
    let rounds = if leader == inner.peers.my_id() {
        &inner.led_reads
    } else {
        &inner.sent_reads
    };
    rounds.index().await
}

/// Ends a round when another leader is known: those who wait for the next one must not wait for a
/// leader that is gone.
async fn under_one_leader(
    inner: &Inner,
    round: impl Future<Output = Result<u64, RoundFailed>>,
) -> Result<u64, RoundFailed> {
    let mut leader_changed = inner.leader.subscribe();
    tokio::select! {
        biased;
        outcome = round => outcome,
        _ = leader_changed.changed() => Err(RoundFailed("the leader changed".to_owned())),
    }
}

/// Serves the rounds of reads that this node confirms as the leader.
pub(crate) async fn run_led(inner: Arc<Inner>) {
    let confirm = || {
        let raft = inner.raft.get().cloned();
        under_one_leader(&inner, async move {
            let raft = raft.ok_or_else(|| RoundFailed("no cluster yet".to_owned()))?;
            raft.get_read_linearizer(ReadPolicy::ReadIndex)
                .await
                .map(|linearizer| linearizer.read_log_id().index())
                .map_err(|error| RoundFailed(error.to_string()))
        })
    };
    inner
        .led_reads
        .run(&inner.counters.read_batch, confirm)
        .await;
}

/// Serves the rounds of reads that another leader confirms.
pub(crate) async fn run_sent(inner: Arc<Inner>) {
    let confirm = || {
        let call = inner.leader_id().map(|leader| {
            let request = inner.peers.envelope(Kind::ReadIndex, leader).freeze();
            inner
                .peers
                .call(leader, Lane::Forward, Frame(vec![request]), CONFIRM_TIMEOUT)
        });
        under_one_leader(&inner, async move {
            let call = call.ok_or_else(|| RoundFailed("no leader is known".to_owned()))?;
            let mut body = call.await.map_err(|error| RoundFailed(error.to_string()))?;
            body.u64("read index")
                .map_err(|error| RoundFailed(error.to_string()))
        })
    };
    inner
        .sent_reads
        .run(&inner.counters.read_batch, confirm)
        .await;
}
