//! Watches the engine: which node leads, and whether the engine still runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::Phase;
use crate::engine::handle::Engine;
use crate::leadership::known::Leadership;
use crate::leadership::leader::Leader;
use crate::lifecycle::Lifecycle;
use crate::peer::client::Peers;
use crate::replica::Replica;
use crate::report::counters::Counters;
use crate::report::event::Event;
use crate::report::seldom::Lines;
use crate::report::status::Role;
use crate::report::timeline::Timeline;

/// Follows the engine.
pub(crate) struct Tracker {
    pub(crate) replica: Arc<Replica>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) lines: Arc<Lines>,
}

/// Passes on what the engine says of itself: which node leads, and whether it still runs.
pub(crate) async fn run(tracker: Tracker, engine: Engine) {
    // Not all metrics, which are new in each of the engine's turns.
    let mut changes = engine.changes();
    let mut applied = tracker.replica.subscribe();
    let mut last_leader = None;
    let mut stood_in = 0;
    let mut leaderless_since = None;
    loop {
        let (named, leads) = {
            let now = changes.now();
            let term = now.term;
            if now.role == Role::Candidate && term != stood_in {
                stood_in = term;
                leaderless_since.get_or_insert_with(Instant::now);
                tracker.tell_candidate(term);
            }
            let leader = now.leader.map(|id| Leader { term, id });
            (leader, now.leads())
        };
        tracker.leadership.note_leading(leads);
        let (leader, lost_at) = shown(named, leads, tracker.leadership.lost_at());
        let before = tracker.leadership.leader();
        tracker.count_leaderless(&mut leaderless_since, leader.is_some());
        if tracker.leadership.show(leader) {
            tracker.tell(before, leader);
            // A leader that was lost and is there again in the same term is no other.
            if leader.is_some() && leader != last_leader {
                last_leader = leader;
                tracker
                    .counters
                    .leader_changes
                    .fetch_add(1, Ordering::Relaxed);
            }
            tracker.log(leader);
        }
        let is_formed = tracker.replica.is_formed();
        if leader.is_some() && is_formed {
            tracker.lifecycle.set_phase(Phase::Serving, String::new());
        }
        let heard_or_lost = async {
            match lost_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => tracker.leadership.heard_again().await,
            }
        };
        let runs = tokio::select! {
            biased;
            runs = changes.changed() => runs,
            () = heard_or_lost => true,
            // The first leader is there before the first entry. The sender lives as long as `replica`.
            _ = applied.changed(), if !is_formed => true,
        };
        if !runs {
            // The engine has ended, and said why before.
            if let Some(why) = engine
                .fatal()
                .and_then(|error| tracker.replica.why_ended(error))
            {
                tracker.lifecycle.fail(why);
            }
            return;
        }
    }
}

/// The leader to show, and when it counts as lost. The engine names a leader until there is another, and
/// after a restart the one that it had voted for; clients need to know that it is there, so only one that
/// was heard lately is shown.
fn shown(
    named: Option<Leader>,
    leads: bool,
    lost_at: Option<Instant>,
) -> (Option<Leader>, Option<Instant>) {
    if leads || named.is_none() {
        return (named, None);
    }
    let lost_at = lost_at.filter(|at| *at > Instant::now());
    (named.filter(|_| lost_at.is_some()), lost_at)
}

impl Tracker {
    /// Notes a change of the leader with its reason.
    fn tell(&self, before: Option<Leader>, now: Option<Leader>) {
        let why = self.why(before);
        self.timeline().note(&match now {
            None => Event::NoLeader { why },
            Some(Leader { term, id }) if id == self.peers.my_id() => Event::Leads { term, why },
            Some(Leader { term, id }) => Event::Follows {
                term,
                leader: self.peers.name_of(id),
                why,
            },
        });
        if now.is_some() {
            self.leadership.causes.clear();
        }
    }

    fn tell_candidate(&self, term: u64) {
        let why = self.why(self.leadership.leader());
        self.timeline().note(&Event::Stands { term, why });
    }

    /// Counts the time without a leader once it is over.
    fn count_leaderless(&self, since: &mut Option<Instant>, has_leader: bool) {
        if !has_leader {
            since.get_or_insert_with(Instant::now);
        } else if let Some(since) = since.take() {
            let nanos = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let longest = &self.counters.leaderless;
            longest.fetch_max(nanos, Ordering::Relaxed);
        }
    }

    fn timeline(&self) -> &Timeline {
        &self.replica.timeline
    }

    /// Why there is another leader than before, or none, as far as this node knows.
    fn why(&self, before: Option<Leader>) -> String {
        let name = |id| self.peers.name_of(id);
        if let Some(why) = self.leadership.causes.explain(name) {
            return why;
        }
        match (before, self.leadership.heard_at()) {
            (Some(before), _) if before.id == self.peers.my_id() => {
                "a majority has gone on without it".to_owned()
            }
            (Some(before), Some(at)) if Some(Instant::now()) >= self.leadership.lost_at() => {
                let silent = at.elapsed();
                format!("{} was not heard for {silent:.1?}", name(before.id))
            }
            (None, Some(at)) => {
                let silent = at.elapsed();
                format!("there was no leader, and none was heard for {silent:.1?}")
            }
            (None, None) => "it is the first that this process hears of".to_owned(),
            (Some(_), _) => "it was elected in a later term".to_owned(),
        }
    }

    /// Logs one line per change, for the operator, unless there are too many of them.
    fn log(&self, leader: Option<Leader>) {
        let Some(left_out) = self.lines.leaders.say() else {
            return;
        };
        let node = &self.peers.me.name;
        match leader {
            Some(Leader { term, id }) if id == self.peers.my_id() => {
                tracing::info!(%node, term, left_out, "leads");
            }
            Some(Leader { term, id }) => {
                tracing::info!(%node, term, leader = %self.peers.name_of(id), left_out, "follows");
            }
            None => tracing::info!(%node, left_out, "has no leader"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LEADER: Leader = Leader { term: 4, id: 2 };

    #[tokio::test(start_paused = true)]
    async fn only_a_leader_that_was_heard_lately_is_shown() {
        let later = Some(Instant::now() + Duration::from_secs(1));
        assert_eq!(shown(Some(LEADER), false, later), (Some(LEADER), later));
        assert_eq!(
            shown(Some(LEADER), false, None),
            (None, None),
            "never heard"
        );
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(shown(Some(LEADER), false, later), (None, None), "silent");
        assert_eq!(
            shown(Some(LEADER), true, None),
            (Some(LEADER), None),
            "itself"
        );
        assert_eq!(shown(None, false, later), (None, None));
    }
}
