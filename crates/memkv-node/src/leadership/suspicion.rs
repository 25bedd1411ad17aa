//! The suspicion that the watched leader's process is dead, and what clears it.
//!
//! Never decides anything: the failure detector raises it, and votes are withheld while this node owes
//! the leader a lease. Invariant: a leader that is heard after the alarm has its lease again.

use std::time::Duration;

use tokio::time::Instant;

use crate::leadership::leader::Leader;
use crate::sync::lock::Mutex;

/// Messages that a dead process had sent are read within this, also on a busy machine. Later ones were sent
/// by one that lives.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The suspicion of this node about the leader that it follows.
#[derive(Default)]
pub(crate) struct Suspicion(Mutex<Option<Suspected>>);

#[derive(Clone, Copy)]
struct Suspected {
    leader: Leader,
    /// When its process first seemed dead,
    first: Instant,
    /// and last.
    last: Instant,
}

impl Suspicion {
    /// The leader's process seems dead. Whether that is news.
    pub(super) fn raise(&self, leader: Leader) -> bool {
        let now = Instant::now();
        let mut suspected = self.0.lock();
        let before = suspected.filter(|suspected| suspected.leader == leader);
        *suspected = Some(Suspected {
            leader,
            first: before.map_or(now, |before| before.first),
            last: now,
        });
        before.is_none()
    }

    /// Whether this leader was heard after it last seemed dead.
    pub(super) fn is_over(&self, leader: Leader, heard_at: Option<Instant>) -> bool {
        let suspected = *self.0.lock();
        suspected.is_some_and(|suspected| {
            suspected.leader == leader && heard_at.is_some_and(|at| at > suspected.last)
        })
    }

    /// Whether this leader was heard so long after it seemed dead that its process lives.
    pub(super) fn is_contradicted(&self, leader: Leader, heard_at: Option<Instant>) -> bool {
        let suspected = *self.0.lock();
        suspected.is_some_and(|suspected| {
            suspected.leader == leader
                && heard_at.is_some_and(|at| at > suspected.first + LAST_WORDS)
        })
    }

    /// Whether this node owes `leader` the lease that its engine has forgotten: the alarm was false,
    /// and the leader was heard within `lease`.
    pub(super) fn owes_lease(
        &self,
        leader: Option<Leader>,
        heard_at: Option<Instant>,
        lease: Duration,
    ) -> bool {
        leader.is_some_and(|leader| self.is_over(leader, heard_at))
            && heard_at.is_some_and(|at| at.elapsed() < lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEADER: Leader = Leader { term: 3, id: 2 };
    const LEASE: Duration = Duration::from_millis(600);
    const MOMENT: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_heard_after_a_false_alarm_has_its_lease_again() {
        let suspicion = Suspicion::default();
        let heard = Some(Instant::now());
        let owes = |leader, heard| suspicion.owes_lease(leader, heard, LEASE);
        assert!(!owes(Some(LEADER), heard), "without an alarm, the engine's");
        tokio::time::advance(MOMENT).await;
        assert!(suspicion.raise(LEADER));
        assert!(!owes(Some(LEADER), heard), "it was heard before the alarm");
        tokio::time::advance(MOMENT).await;
        let heard = Some(Instant::now());
        assert!(owes(Some(LEADER), heard));
        assert!(!owes(Some(Leader { term: 4, id: 1 }), heard), "another one");
        assert!(!owes(None, heard), "no leader any more");
        tokio::time::advance(LEASE).await;
        assert!(!owes(Some(LEADER), heard), "it is silent for its lease");
        tokio::time::advance(MOMENT).await;
        let heard = Some(Instant::now());
        tokio::time::advance(MOMENT).await;
        assert!(!suspicion.raise(LEADER), "told once");
        assert!(!owes(Some(LEADER), heard), "dead after all");
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_comes_long_after_an_alarm_was_sent_by_a_living_process() {
        let suspicion = Suspicion::default();
        suspicion.raise(LEADER);
        tokio::time::advance(LAST_WORDS).await;
        let last_words = Some(Instant::now());
        assert!(suspicion.is_over(LEADER, last_words));
        assert!(!suspicion.is_contradicted(LEADER, last_words));
        suspicion.raise(LEADER);
        tokio::time::advance(MOMENT).await;
        assert!(suspicion.is_contradicted(LEADER, Some(Instant::now())));
    }
}
