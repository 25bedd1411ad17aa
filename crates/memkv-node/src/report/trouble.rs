//! Looks once a second for trouble that no other part notices, and notes it in the timeline: a log whose fsyncs
//! are slow, and a wall clock that jumps.
//!
//! Never changes anything, and never notes more than one event of a kind in [`PERIOD`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memkv_disk::WalHandle;
use memkv_metrics::Counted;
use tokio::time::Instant;

use crate::Env;
use crate::report::counters::Counters;
use crate::report::event::Event;
use crate::report::timeline::Timeline;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A sync that takes longer is slow: every write of the moment waits for it, and a heartbeat comes in between.
/// It is a bound of the histogram.
const SLOW_SYNC: Duration = Duration::from_millis(100);

/// Least time between two events of a kind.
const PERIOD: Duration = Duration::from_secs(10);

/// A wall clock that is off by more within one look has jumped: none drifts so fast, and a busy machine may
/// read one clock some time after the other.
const STEP: Duration = Duration::from_millis(500);

/// Looks for trouble of this node.
pub(crate) struct Trouble {
    pub(crate) env: Env,
    pub(crate) wal: WalHandle,
    pub(crate) counters: Arc<Counters>,
    pub(crate) timeline: Arc<Timeline>,
}

/// Looks until the node stops.
pub(crate) async fn run(trouble: Trouble) {
    let mut syncs = SlowSyncs::new(slow(&trouble.wal.fsync_durations()));
    let mut clock = Clock::new((trouble.env.wall_clock_ms)());
    loop {
        tokio::time::sleep(INTERVAL).await;
        if let Some(event) = syncs.look(slow(&trouble.wal.fsync_durations())) {
            trouble.timeline.note(&event);
        }
        if let Some(by_ms) = clock.look((trouble.env.wall_clock_ms)()) {
            let steps = &trouble.counters.clock_steps;
            steps.fetch_add(1, Ordering::Relaxed);
            trouble.timeline.note(&Event::ClockStepped { by_ms });
        }
    }
}

/// How many of the durations were slow.
fn slow(counted: &Counted) -> u64 {
    let limit = u64::try_from(SLOW_SYNC.as_nanos()).unwrap_or(u64::MAX);
    let all = counted.at_most.last().copied().unwrap_or(0);
    let at = counted.bounds.iter().position(|bound| *bound >= limit);
    let fast = at.and_then(|at| counted.at_most.get(at)).copied();
    all.saturating_sub(fast.unwrap_or(0))
}

/// The slow syncs that were told.
struct SlowSyncs {
    told: u64,
    told_at: Option<Instant>,
    since: Instant,
}

impl SlowSyncs {
    fn new(told: u64) -> Self {
        Self {
            told,
            told_at: None,
            since: Instant::now(),
        }
    }

    /// An event, if there were more since the last one.
    fn look(&mut self, slow: u64) -> Option<Event> {
        let now = Instant::now();
        let syncs = slow.saturating_sub(self.told);
        if syncs == 0 {
            self.since = now;
            return None;
        }
        let is_soon = |at: Instant| now.saturating_duration_since(at) < PERIOD;
        if self.told_at.is_some_and(is_soon) {
            return None;
        }
        let within = now.saturating_duration_since(self.since);
        (self.told, self.told_at, self.since) = (slow, Some(now), now);
        Some(Event::SlowDisk {
            syncs,
            above: SLOW_SYNC,
            within,
        })
    }
}

/// The wall clock against one that only runs.
struct Clock {
    wall_ms: u64,
    at: Instant,
}

impl Clock {
    fn new(wall_ms: u64) -> Self {
        let at = Instant::now();
        Self { wall_ms, at }
    }

    /// By how much the wall clock has jumped since the last look, in milliseconds, if it has.
    fn look(&mut self, wall_ms: u64) -> Option<i64> {
        let now = Instant::now();
        let ran = i128::try_from(now.saturating_duration_since(self.at).as_millis()).unwrap_or(0);
        let by = i128::from(wall_ms) - i128::from(self.wall_ms) - ran;
        (self.wall_ms, self.at) = (wall_ms, now);
        let has_jumped = by.unsigned_abs() > STEP.as_millis();
        has_jumped.then(|| i64::try_from(by).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use memkv_metrics::Histogram;

    use super::*;

    #[test]
    fn a_sync_of_more_than_a_tenth_of_a_second_is_slow() {
        let syncs = Histogram::of_durations();
        for ms in [1, 100, 101, 6_000] {
            syncs.count_duration(Duration::from_millis(ms), 1);
        }
        assert_eq!(slow(&syncs.counted()), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_syncs_are_told_once_in_a_period_with_their_number() {
        let mut syncs = SlowSyncs::new(4);
        let second = Duration::from_secs(1);
        let mut told = Vec::new();
        for (at, slow) in (0..30).zip([4, 5, 5, 9].into_iter().chain(std::iter::repeat(9))) {
            tokio::time::advance(second).await;
            if let Some(Event::SlowDisk { syncs, .. }) = syncs.look(slow) {
                told.push((at, syncs));
            }
        }
        assert_eq!(told, [(1, 1), (11, 4)]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_jump_of_the_wall_clock_is_told() {
        let mut clock = Clock::new(1_000_000);
        tokio::time::advance(INTERVAL).await;
        assert_eq!(clock.look(1_001_400), None, "a late look");
        tokio::time::advance(INTERVAL).await;
        assert_eq!(clock.look(1_032_400), Some(30_000));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(clock.look(1_003_400), Some(-30_000));
        tokio::time::advance(INTERVAL).await;
        assert_eq!(clock.look(1_004_400), None);
    }
}
