//! Linearizable reads: one ReadIndex confirmation for everything that waits (Raft dissertation,
//! section 6.4), then the read waits until this node has applied that far and runs here.
//!
//! No lease is ever used: a leader's quorum is asked after the read arrived. A process that was
//! paused in between has only waited longer.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::node::Inner;
use crate::peer::message::Kind;
use crate::read::leadership_check::{Confirmer, LONGEST};
use crate::read::rounds::RoundFailed;
use crate::{Frame, Lane, RequestError};

/// Pause before a read asks again: an election takes much longer, a stale view of it less.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// A round that has no answer by then has failed: those who wait for the next one must not wait
/// long, and a disk that stalls for longer than this is rare.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(500);

/// How long after `hold` a read has ended at the latest: the round under way and the next one, each
/// by the peers and then by the engine.
pub(crate) const OVERTIME: Duration = CONFIRM_TIMEOUT.saturating_add(LONGEST).saturating_mul(2);

/// Waits until whatever was acknowledged before this call is applied here. Ends at most
/// [`OVERTIME`] after the node's `hold`.
pub(crate) async fn wait(inner: &Arc<Inner>) -> Result<(), RequestError> {
    let deadline = Instant::now() + inner.config.hold;
    loop {
        match read_index(inner).await {
            // Nearly always: the leader has applied what it has committed.
            Ok(index) if inner.replica.has_applied(index) => return Ok(()),
            Ok(index) => {
                let applied = inner.replica.wait_applied(index);
                if tokio::time::timeout_at(deadline, applied).await.is_ok() {
                    return Ok(());
                }
            }
            Err(failed) => tracing::trace!(why = %failed.0, "read not confirmed yet"),
        }
        if Instant::now() + RETRY_PAUSE >= deadline {
            return Err(RequestError::NoLeader {
                detail: inner.no_leader(),
            });
        }
        tokio::time::sleep(RETRY_PAUSE).await;
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
        &inner.leader_reads
    } else {
        &inner.forwarded_reads
    };
    rounds.index().await
}

/// Ends a round that takes too long, or when another leader is known.
async fn under_one_leader(
    inner: &Inner,
    round: impl Future<Output = Result<u64, RoundFailed>>,
) -> Result<u64, RoundFailed> {
    let mut leader_changed = inner.leader.subscribe();
    tokio::select! {
        biased;
        outcome = round => outcome,
        _ = leader_changed.changed() => Err(RoundFailed("the leader changed".to_owned())),
        () = tokio::time::sleep(CONFIRM_TIMEOUT) => {
            Err(RoundFailed(format!("no answer within {CONFIRM_TIMEOUT:?}")))
        }
    }
}

/// Serves the rounds of reads that this node confirms as the leader.
pub(crate) async fn run_leader_reads(inner: Arc<Inner>) {
    let confirmer = Confirmer::default();
    let confirm = || async {
        #[cfg(memkv_bugs)]
        memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Round);
        // Ends soon by itself, so it needs no timer for each round.
        match confirmer.ask_peers(&inner).await {
            Some(index) => Ok(index),
            None => under_one_leader(&inner, ask_engine(&inner, &confirmer)).await,
        }
    };
    let reads = &inner.leader_reads;
    let gather = |served| reads.gather(served);
    reads.run(&inner.counters.read_batch, confirm, gather).await;
}

async fn ask_engine(inner: &Inner, confirmer: &Confirmer) -> Result<u64, RoundFailed> {
    let engine = inner.engine.get();
    let engine = engine.ok_or_else(|| RoundFailed("no cluster yet".to_owned()))?;
    let before = inner.published.vote();
    let index = engine.read_index().await;
    let index = index.map_err(|error| RoundFailed(error.to_string()))?;
    confirmer.note(before, inner.published.vote(), index);
    Ok(index)
}

/// Serves the rounds of reads that another leader confirms.
pub(crate) async fn run_forwarded_reads(inner: Arc<Inner>) {
    let confirm = || {
        let call = inner.leader_id().map(|leader| {
            let request = inner.peers.envelope(Kind::ReadIndex, leader).freeze();
            inner
                .peers
                .call(leader, Lane::Read, Frame(vec![request]), CONFIRM_TIMEOUT)
        });
        under_one_leader(&inner, async move {
            let call = call.ok_or_else(|| RoundFailed("no leader is known".to_owned()))?;
            let mut body = call.await.map_err(|error| RoundFailed(error.to_string()))?;
            body.u64("read index")
                .map_err(|error| RoundFailed(error.to_string()))
        })
    };
    inner
        .forwarded_reads
        .run(&inner.counters.read_batch, confirm, |_| ready(()))
        .await;
}
