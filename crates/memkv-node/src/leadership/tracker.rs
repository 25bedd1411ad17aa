//! Watches the engine: which node leads, and whether the engine still runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::engine::handle::Engine;
use crate::leadership::known::Leadership;
use crate::leadership::leader::Leader;
use crate::lifecycle::Lifecycle;
use crate::peer::client::Peers;
use crate::replica::Replica;
use crate::report::counters::Counters;
use crate::report::seldom::Lines;
use crate::{FatalError, Phase};

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
    loop {
        let (mut leader, leads) = {
            let now = changes.now();
            let term = now.term;
            let leader = now.leader.map(|id| Leader { term, id });
            (leader, now.leads())
        };
        tracker.leadership.note_leading(leads);
        // The engine names a leader until there is another, and after a restart the one that it
        // had voted for; clients need to know that it is there.
        let mut lost_at = None;
        if !leads && leader.is_some() {
            lost_at = tracker
                .leadership
                .lost_at()
                .filter(|at| *at > Instant::now());
            leader = leader.filter(|_| lost_at.is_some());
        }
        if tracker.leadership.show(leader) {
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
            if let Some(why) = engine.fatal() {
                match tracker.replica.halted().cloned() {
                    // The task that found that out marks the directory first.
                    Some(FatalError::Diverged(_)) => {}
                    halted => tracker.lifecycle.fail(halted.unwrap_or(why)),
                }
            }
            return;
        }
    }
}

impl Tracker {
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
