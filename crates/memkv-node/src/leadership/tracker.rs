//! Watches the engine: which node leads, and whether the engine still runs.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::engine::handle::Engine;
use crate::node::{Inner, Leader};
use crate::{FatalError, Phase};

/// Passes on what the engine says of itself: which node leads, and whether it still runs.
pub(crate) async fn run(inner: Arc<Inner>, engine: Engine) {
    // Not all metrics, which are new in each of the engine's turns.
    let mut changes = engine.changes();
    let mut applied = inner.replica.subscribe();
    let mut last_leader = None;
    loop {
        let (mut leader, leads) = {
            let now = changes.now();
            let term = now.term;
            let leader = now.leader.map(|id| Leader { term, id });
            (leader, now.leads())
        };
        {
            let mut since = inner.led_since.lock();
            *since = leads.then(|| since.unwrap_or_else(Instant::now));
        }
        // The engine names a leader until there is another, and after a restart the one that it
        // had voted for; clients need to know that it is there.
        let mut lost_at = None;
        if !leads && leader.is_some() {
            lost_at = inner.leader_lost_at().filter(|at| *at > Instant::now());
            leader = leader.filter(|_| lost_at.is_some());
        }
        let changed = inner.leader.send_if_modified(|current| {
            let changed = *current != leader;
            *current = leader;
            changed
        });
        if changed {
            // A leader that was lost and is there again in the same term is no other.
            if leader.is_some() && leader != last_leader {
                last_leader = leader;
                inner
                    .counters
                    .leader_changes
                    .fetch_add(1, Ordering::Relaxed);
            }
            log_leader(&inner, leader);
        }
        let is_formed = inner.is_formed();
        if leader.is_some() && is_formed {
            inner.set_phase(Phase::Serving, String::new());
        }
        let heard_or_lost = async {
            match lost_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => inner.heard.notified().await,
            }
        };
        let runs = tokio::select! {
            biased;
            runs = changes.changed() => runs,
            () = heard_or_lost => true,
            // The first leader is there before the first entry. The sender lives as long as `inner`.
            _ = applied.changed(), if !is_formed => true,
        };
        if !runs {
            // The engine has ended, and said why before.
            if let Some(why) = engine.fatal() {
                match inner.replica.halted().cloned() {
                    // The task that found that out marks the directory first.
                    Some(FatalError::Diverged(_)) => {}
                    halted => inner.fail(halted.unwrap_or(why)),
                }
            }
            return;
        }
    }
}

/// One line per change, for the operator, unless there is no end of them.
fn log_leader(inner: &Inner, leader: Option<Leader>) {
    let Some(left_out) = inner.lines.leaders.say() else {
        return;
    };
    let node = &inner.peers.me.name;
    match leader {
        Some(Leader { term, id }) if id == inner.peers.my_id() => {
            tracing::info!(%node, term, left_out, "leads");
        }
        Some(Leader { term, id }) => {
            tracing::info!(%node, term, leader = %inner.peers.name_of(id), left_out, "follows");
        }
        None => tracing::info!(%node, left_out, "has no leader"),
    }
}
