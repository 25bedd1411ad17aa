//! Linearizable reads: one ReadIndex confirmation for all reads that wait (Raft dissertation,
//! section 6.4), then each read waits until this node has applied that far and runs here.
//!
//! No lease is ever used: a leader's quorum is asked after the read arrived. A process that was
//! paused in between has only waited longer.

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::engine::handle::EngineSlot;
use crate::leadership::known::Leadership;
use crate::lifecycle::Lifecycle;
use crate::peer::client::Peers;
use crate::peer::message::Kind;
use crate::read::leadership_check::{Confirmer, LONGEST};
use crate::read::published::Published;
use crate::read::rounds::{RoundFailed, Rounds};
use crate::replica::Replica;
use crate::report::counters::Counters;
use crate::{Frame, Lane, RequestError};

/// Pause before a read asks again: an election takes much longer, a stale view of it less.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// A round that has no answer by then has failed: reads that are queued for the next one must not wait
/// long, and a disk that stalls for longer than this is rare.
const CONFIRM_TIMEOUT: Duration = Duration::from_millis(500);

/// How long after `hold` a read has ended at the latest: the round under way and the next one, each
/// by the peers and then by the engine.
pub(crate) const OVERTIME: Duration = CONFIRM_TIMEOUT.saturating_add(LONGEST).saturating_mul(2);

/// The barrier that every linearizable read of a node passes.
pub(crate) struct Barrier {
    /// How long a read waits for a leader.
    pub(crate) hold: Duration,
    pub(crate) replica: Arc<Replica>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) engine: EngineSlot,
    pub(crate) published: Arc<Published>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) counters: Arc<Counters>,
    /// Reads that this node confirms as the leader, for itself and for others.
    pub(crate) leader_reads: Rounds,
    /// Reads that another leader confirms for this node.
    pub(crate) forwarded_reads: Rounds,
}

impl Barrier {
    /// Waits until every write that was acknowledged before this call is applied here. Ends at most
    /// [`OVERTIME`] after the node's `hold`.
    ///
    /// # Errors
    ///
    /// [`RequestError::NoLeader`] if no leader has confirmed the read by then.
    pub(crate) async fn wait(&self) -> Result<(), RequestError> {
        let deadline = Instant::now() + self.hold;
        loop {
            match self.read_index().await {
                // Nearly always: the leader has applied what it has committed.
                Ok(index) if self.replica.has_applied(index) => return Ok(()),
                Ok(index) => {
                    let applied = self.replica.wait_applied(index);
                    if tokio::time::timeout_at(deadline, applied).await.is_ok() {
                        return Ok(());
                    }
                }
                Err(failed) => tracing::trace!(why = %failed.0, "read not confirmed yet"),
            }
            if Instant::now() + RETRY_PAUSE >= deadline {
                return Err(RequestError::NoLeader {
                    detail: self
                        .lifecycle
                        .no_leader(self.leadership.leader_name(&self.peers)),
                });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn read_index(&self) -> Result<u64, RoundFailed> {
        let Some(leader) = self.leadership.leader_id() else {
            return Err(RoundFailed("no leader is known".to_owned()));
        };
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::ReadWithoutQuorum) {
            return Ok(self.replica.applied_index());
        }
        let rounds = if leader == self.peers.my_id() {
            &self.leader_reads
        } else {
            &self.forwarded_reads
        };
        rounds.index().await
    }

    /// Ends a round that takes too long, or when another leader is known.
    async fn under_one_leader(
        &self,
        round: impl Future<Output = Result<u64, RoundFailed>>,
    ) -> Result<u64, RoundFailed> {
        let mut leader_changed = self.leadership.subscribe();
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
    pub(crate) async fn run_leader_reads(self: Arc<Self>) {
        let confirmer = Confirmer::default();
        let confirm = || async {
            #[cfg(memkv_bugs)]
            memkv_disk::bugs::pass(memkv_disk::bugs::PanicPoint::Round);
            // Ends soon by itself, so it needs no timer for each round.
            match confirmer
                .ask_peers(&self.peers, &self.replica, &self.published)
                .await
            {
                Some(index) => Ok(index),
                None => self.under_one_leader(self.ask_engine(&confirmer)).await,
            }
        };
        let reads = &self.leader_reads;
        let let_join = |answered| reads.let_join(answered);
        reads
            .run(&self.counters.read_batch, confirm, let_join)
            .await;
    }

    async fn ask_engine(&self, confirmer: &Confirmer) -> Result<u64, RoundFailed> {
        let engine = self.engine.get();
        let engine = engine.ok_or_else(|| RoundFailed("no cluster yet".to_owned()))?;
        let before = self.published.vote();
        let index = engine.read_index().await;
        let index = index.map_err(|error| RoundFailed(error.to_string()))?;
        confirmer.note(before, self.published.vote(), index);
        Ok(index)
    }

    /// Serves the rounds of reads that another leader confirms.
    pub(crate) async fn run_forwarded_reads(self: Arc<Self>) {
        let confirm = || {
            let call = self.leadership.leader_id().map(|leader| {
                let request = self.peers.envelope(Kind::ReadIndex, leader).freeze();
                self.peers
                    .call(leader, Lane::Read, Frame(vec![request]), CONFIRM_TIMEOUT)
            });
            self.under_one_leader(async move {
                let call = call.ok_or_else(|| RoundFailed("no leader is known".to_owned()))?;
                let mut body = call.await.map_err(|error| RoundFailed(error.to_string()))?;
                body.u64("read index")
                    .map_err(|error| RoundFailed(error.to_string()))
            })
        };
        self.forwarded_reads
            .run(&self.counters.read_batch, confirm, |_| ready(()))
            .await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leadership::leader::Leader;
    use crate::membership::life::Life;
    use crate::peer::fake::{Fakes, Script, config};

    const HOLD: Duration = Duration::from_secs(3);

    /// The barrier of node n1, whose peers answer so.
    fn barrier(script: Script) -> (Fakes, Arc<Barrier>) {
        let fakes = Fakes::new(script);
        let life = Arc::new(Life::resume(bytes::Bytes::new(), [1; 16]).unwrap());
        let lifecycle = Lifecycle::new("n1".to_owned(), life, fakes.session.clone());
        let barrier = Barrier {
            hold: HOLD,
            replica: fakes.replica.clone(),
            leadership: Arc::new(Leadership::new(&config())),
            peers: fakes.peers.clone(),
            engine: EngineSlot::default(),
            published: Arc::default(),
            lifecycle: Arc::new(lifecycle),
            counters: Arc::default(),
            leader_reads: Rounds::default(),
            forwarded_reads: Rounds::default(),
        };
        (fakes, Arc::new(barrier))
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_without_a_leader_ends_after_the_hold_and_says_why() {
        let (_fakes, barrier) = barrier(Script::Silence);
        let began = Instant::now();
        let refused = barrier.wait().await.unwrap_err();
        let took = began.elapsed();
        assert!(took <= HOLD && took + RETRY_PAUSE >= HOLD, "{took:?}");
        let detail = "an election is under way".to_owned();
        assert_eq!(refused, RequestError::NoLeader { detail });
    }

    #[tokio::test(start_paused = true)]
    async fn a_forwarded_read_waits_until_the_leaders_index_is_applied_here() {
        let (fakes, barrier) = barrier(Script::Body(5_u64.to_le_bytes().to_vec()));
        barrier.leadership.show(Some(Leader { term: 1, id: 2 }));
        tokio::spawn(barrier.clone().run_forwarded_reads());
        let reading = barrier.clone();
        let read = tokio::spawn(async move { reading.wait().await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!read.is_finished(), "nothing is applied");
        assert_eq!(*fakes.transport.called.lock(), ["n2"]);
        fakes.replica.publish_applied(4);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!read.is_finished(), "an entry is missing");
        fakes.replica.publish_applied(5);
        assert_eq!(read.await.unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_does_not_answer_holds_a_read_no_longer_than_promised() {
        let (_fakes, barrier) = barrier(Script::Silence);
        barrier.leadership.show(Some(Leader { term: 1, id: 2 }));
        tokio::spawn(barrier.clone().run_forwarded_reads());
        let began = Instant::now();
        let refused = barrier.wait().await.unwrap_err();
        assert!(began.elapsed() <= HOLD + OVERTIME, "{:?}", began.elapsed());
        let detail = "n2 leads and cannot reach a majority".to_owned();
        assert_eq!(refused, RequestError::NoLeader { detail });
    }
}
