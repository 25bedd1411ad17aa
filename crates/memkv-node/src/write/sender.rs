//! Sends the session's commands to the leader, wherever it is, and sends them again after doubt.
//!
//! One hop at most: a node that does not lead refuses commands and never passes them on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BufMut;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use memkv_store::{Refusal, SessionId, SystemOp, SystemOutcome};
use tokio::time::Instant;

use crate::leadership::known::Leadership;
use crate::lifecycle::Lifecycle;
use crate::peer::client::{PeerError, Peers};
use crate::peer::encoding::Reader;
use crate::peer::message::Kind;
use crate::replica::Replica;
use crate::report::counters::Counters;
use crate::time::log_clock::LogClock;
use crate::time::precise_timer::PreciseTimer;
use crate::write::batcher::Batcher;
use crate::write::batcher::ProposeError;
use crate::write::session::{Group, GroupOutcome, Session};
use crate::{Frame, Lane};

/// Most groups in flight.
const GROUPS_IN_FLIGHT: usize = 16;
/// After this long without an answer of the leader, the outcome is "unknown". The session sends
/// again much earlier, when its window makes no progress.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a leader refused a group: it is about to learn that it is none, or waits for its
/// first quorum (the engine's `LeaseExpired`, which comes without a hint).
const REFUSED_PAUSE: Duration = Duration::from_millis(5);
/// Pause before the session is asked for again, where nothing went wrong and yet its opening was not
/// applied here.
const OPEN_PAUSE: Duration = FORWARD_TIMEOUT;

type Sent = BoxFuture<'static, (SessionId, u64, u64, GroupOutcome)>;
/// Whether the session was asked for, so that its effect is to be waited for.
type Opening = BoxFuture<'static, bool>;

/// Sends the session's commands.
pub(crate) struct Sender {
    pub(crate) session: Arc<Session>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) timer: PreciseTimer,
}

impl Sender {
    /// Sends until the node stops.
    pub(crate) async fn run(self) {
        let mut leader_changed = self.leadership.subscribe();
        let mut sent: FuturesUnordered<Sent> = FuturesUnordered::new();
        let mut not_before = Instant::now();
        let mut open_not_before = Instant::now();
        let mut opening: Option<Opening> = None;
        loop {
            self.session.expire(|| self.no_leader());
            // Read before the decision to send: this time may pass between the two, and a single command
            // has nothing else that wakes this task.
            let mut due_at = self.session.waits_for_more_until();
            let now = Instant::now();
            let mut wake_at: Option<Instant> = None;
            if let Some(leader) = self.leadership.leader_id() {
                if self.session.id().is_none() {
                    if now >= open_not_before {
                        // Nothing but the cluster's first entry can be first in its log.
                        let formed = self.replica.is_formed();
                        opening = formed.then(|| self.open_session(leader));
                        open_not_before = now + if formed { OPEN_PAUSE } else { REFUSED_PAUSE };
                    }
                    wake_at = Some(open_not_before);
                } else if now >= not_before {
                    while sent.len() < GROUPS_IN_FLIGHT
                        && let Some(group) = self.session.next_group()
                    {
                        due_at = None;
                        sent.push(self.send(leader, group));
                    }
                } else {
                    wake_at = Some(not_before);
                }
            }
            // After sending: the groups in flight may have to be sent again.
            let wake_at = [wake_at, self.session.next_expiry()]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                biased;
                changed = leader_changed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.session.rewind();
                    not_before = Instant::now();
                    open_not_before = not_before;
                }
                Some((session, first_seq, count, outcome)) = sent.next(), if !sent.is_empty() => {
                    let now_ms = self.clock.read().log_ms;
                    self.session.settle(session, first_seq, count, outcome, now_ms);
                    if outcome != GroupOutcome::Applied {
                        self.counters.failed_proposals.fetch_add(1, Ordering::Relaxed);
                        not_before = Instant::now() + REFUSED_PAUSE;
                    }
                }
                asked = ended(&mut opening) => {
                    opening = None;
                    if !asked {
                        open_not_before = Instant::now() + REFUSED_PAUSE;
                    }
                }
                () = self.session.wakeup.notified() => {}
                () = wait_until(&self.timer, due_at) => {}
                () = sleep_until(wake_at) => {}
            }
        }
    }

    fn no_leader(&self) -> String {
        self.lifecycle
            .no_leader(self.leadership.leader_name(&self.peers))
    }

    fn send(&self, leader: u64, group: Group) -> Sent {
        let (session, first_seq, count) = (group.session, group.first_seq, group.count);
        if leader == self.peers.my_id() {
            let outcome = self.batcher.propose(group.encoded);
            return Box::pin(async move {
                let outcome = match outcome {
                    Ok(outcome) => outcome.await.unwrap_or(GroupOutcome::Unknown),
                    Err(error) => {
                        tracing::error!(%error, "this node's own commands cannot be read");
                        GroupOutcome::NotAppended
                    }
                };
                (session, first_seq, count, outcome)
            });
        }
        self.counters.forwarded.fetch_add(count, Ordering::Relaxed);
        let header = self.peers.envelope(Kind::Propose, leader).freeze();
        let request = Frame(vec![header, group.encoded]);
        let call = self
            .peers
            .call(leader, Lane::Forward, request, FORWARD_TIMEOUT);
        Box::pin(async move {
            let outcome = read_outcome(call.await);
            (session, first_seq, count, outcome)
        })
    }

    /// Asks for this process's session. Its id comes back through apply; asking twice is harmless, since
    /// a boot opens one session only.
    fn open_session(&self, leader: u64) -> Opening {
        let op = SystemOp::OpenSession {
            node: self.peers.my_id(),
            boot: self.session.boot(),
            highest: self.peers.levels.advertised(),
        };
        if leader == self.peers.my_id() {
            let outcome = self.batcher.propose_system(op);
            return Box::pin(
                async move { outcome.await.is_ok_and(|outcome| may_be_open(&outcome)) },
            );
        }
        let mut request = self.peers.envelope(Kind::OpenSession, leader);
        request.put_u32_le(self.peers.levels.advertised());
        let request = request.freeze();
        let call = self
            .peers
            .call(leader, Lane::Forward, Frame(vec![request]), FORWARD_TIMEOUT);
        Box::pin(async move {
            let answer = call.await;
            if let Err(error) = &answer {
                tracing::debug!(%error, "the leader did not open a session");
            }
            answer.is_ok()
        })
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn wait_until(timer: &PreciseTimer, at: Option<Instant>) {
    match at {
        Some(at) => timer.wait_until(at).await,
        None => std::future::pending().await,
    }
}

async fn ended(opening: &mut Option<Opening>) -> bool {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

/// The byte that stands for an outcome in the answer to [`Kind::Propose`].
pub(crate) fn outcome_byte(outcome: GroupOutcome) -> u8 {
    match outcome {
        GroupOutcome::Applied => 0,
        GroupOutcome::NotAppended => 1,
        GroupOutcome::Unknown => 2,
        GroupOutcome::DiskLow => 3,
        GroupOutcome::DiskExhausted => 4,
        GroupOutcome::MemoryLow => 5,
    }
}

/// The outcome that the leader's answer tells.
fn read_outcome(answer: Result<Reader, PeerError>) -> GroupOutcome {
    match answer {
        Ok(mut body) => match body.u8("outcome") {
            Ok(0) => GroupOutcome::Applied,
            Ok(1) => GroupOutcome::NotAppended,
            Ok(3) => GroupOutcome::DiskLow,
            Ok(4) => GroupOutcome::DiskExhausted,
            Ok(5) => GroupOutcome::MemoryLow,
            _ => GroupOutcome::Unknown,
        },
        Err(PeerError::Unreachable(_) | PeerError::NoListener(_) | PeerError::Refused(_)) => {
            GroupOutcome::NotAppended
        }
        Err(PeerError::Lost(_)) => GroupOutcome::Unknown,
    }
}

/// Whether a session need not be asked for again soon. One entry opens one session, and the other
/// nodes that were started together ask at the same time.
pub(crate) fn may_be_open(outcome: &Result<SystemOutcome, ProposeError>) -> bool {
    let retry = SystemOutcome::Refused {
        why: Refusal::Retry,
    };
    outcome.as_ref().is_ok_and(|outcome| *outcome != retry)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_outcome_survives_its_byte() {
        use GroupOutcome::{Applied, DiskExhausted, DiskLow, MemoryLow, NotAppended, Unknown};
        for outcome in [
            Applied,
            NotAppended,
            Unknown,
            DiskLow,
            DiskExhausted,
            MemoryLow,
        ] {
            let body = Reader(Bytes::from(vec![outcome_byte(outcome)]));
            assert_eq!(read_outcome(Ok(body)), outcome);
        }
    }

    #[test]
    fn an_answer_that_is_lost_or_unreadable_leaves_the_outcome_unknown() {
        let unreadable = [Bytes::new(), Bytes::from_static(&[9])];
        for body in unreadable {
            assert_eq!(read_outcome(Ok(Reader(body))), GroupOutcome::Unknown);
        }
        let why = || "why".to_owned();
        let lost = read_outcome(Err(PeerError::Lost(why())));
        assert_eq!(lost, GroupOutcome::Unknown);
        for error in [
            PeerError::Unreachable(why()),
            PeerError::NoListener(why()),
            PeerError::Refused(why()),
        ] {
            assert_eq!(read_outcome(Err(error)), GroupOutcome::NotAppended);
        }
    }

    #[test]
    fn a_session_that_another_entry_has_taken_the_turn_of_is_asked_for_again() {
        let retry = SystemOutcome::Refused {
            why: Refusal::Retry,
        };
        assert!(!may_be_open(&Ok(retry)));
        assert!(!may_be_open(&Err(ProposeError::Unknown)));
        assert!(may_be_open(&Ok(SystemOutcome::Done)));
    }
}
