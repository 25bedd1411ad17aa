//! Expiry: when the earliest deadline is due and nothing else is proposed, the leader proposes an
//! entry with nothing in it but its stamp, which makes what is due absent on every node at once.
//!
//! Never removes a key by itself: only an applied stamp does. Never proposes early: the log clock
//! has reached the deadline by then, and no stamp is before it.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::handle::Engine;
use crate::replica::Replica;
use crate::time::log_clock::LogClock;
use crate::write::batcher::Batcher;

/// How soon a deadline that is due is looked at again: after a tick that was lost with a leadership,
/// or by a node that does not lead. Half of the 100 ms by which a key may be late.
const RETRY: Duration = Duration::from_millis(50);

/// Longest wait for a deadline. The log clock is slewed by up to 0.5 %, so a far deadline must be
/// looked at again before it is due.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Proposes ticks while this node leads.
pub(crate) async fn run(
    replica: Arc<Replica>,
    clock: Arc<LogClock>,
    batcher: Arc<Batcher>,
    engine: Engine,
) {
    let mut applied = replica.subscribe();
    loop {
        applied.mark_unchanged();
        let deadline = replica.applied_state().next_deadline;
        let wait = deadline.map(|deadline| wait_until_due(deadline, clock.read().log_ms));
        let wait = wait.map(|wait| {
            wait.unwrap_or_else(|| {
                if engine.is_leader() {
                    batcher.tick();
                }
                RETRY
            })
        });
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = due => {}
        }
    }
}

/// How long to wait before the deadline is compared with log time again; nothing if it is due.
fn wait_until_due(deadline_ms: u64, log_ms: u64) -> Option<Duration> {
    match deadline_ms.saturating_sub(log_ms) {
        0 => None,
        left => Some(Duration::from_millis(left).min(LONGEST_WAIT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_due_when_log_time_has_reached_it_and_never_before() {
        assert_eq!(wait_until_due(100, 99), Some(Duration::from_millis(1)));
        assert_eq!(wait_until_due(100, 100), None);
        assert_eq!(wait_until_due(100, 101), None);
        let far = wait_until_due(u64::MAX, 0);
        assert_eq!(far, Some(LONGEST_WAIT), "the clock may be slewed meanwhile");
    }
}
