//! The log clock: the time that the leader stamps on entries, the only time the store knows.
//!
//! Invariant: a stamp is never smaller than the one before it in the log. It starts at the wall
//! clock and then runs on the monotonic clock, slewed towards the wall clock and never stepped, so
//! a wall clock that jumps changes nothing at once and little per second.

use tokio::time::Instant;

/// Most milliseconds of correction per second of running: 0.5 %, ten times what `adjtime` allows,
/// so that an hour of error is gone in a week and no deadline is off by more than that share.
const SLEW_PER_SECOND_MS: i64 = 5;

/// The log clock of one leadership.
#[derive(Debug)]
pub(crate) struct LogClock {
    stamp_ms: u64,
    at: Instant,
}

impl LogClock {
    /// Goes on from `last_stamp_ms`, the last stamp in the log; in an empty log, or one that stood
    /// still while nobody led, from the wall clock.
    pub(crate) fn resume(last_stamp_ms: u64, wall_ms: u64) -> Self {
        Self {
            stamp_ms: last_stamp_ms.max(wall_ms),
            at: Instant::now(),
        }
    }

    /// The time now.
    pub(crate) fn stamp(&mut self, wall_ms: u64) -> u64 {
        let now = Instant::now();
        let elapsed = u64::try_from((now - self.at).as_millis()).unwrap_or(u64::MAX);
        if elapsed == 0 {
            return self.stamp_ms;
        }
        // What is below a millisecond stays for the next stamp.
        self.at += std::time::Duration::from_millis(elapsed);
        let running = self.stamp_ms.saturating_add(elapsed);
        let most = i64::try_from(elapsed).unwrap_or(i64::MAX) / (1000 / SLEW_PER_SECOND_MS);
        let error = i64::try_from(i128::from(wall_ms) - i128::from(running)).unwrap_or(0);
        self.stamp_ms = running.saturating_add_signed(error.clamp(-most, most));
        self.stamp_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_jumps_an_hour_moves_stamps_by_the_slew_only() {
        for jump in [3_600_000i64, -3_600_000] {
            let mut clock = LogClock::resume(0, 10_000_000);
            let mut last = 10_000_000;
            for second in 1..=10u64 {
                tokio::time::advance(Duration::from_secs(1)).await;
                let wall = (10_000_000 + second * 1000).saturating_add_signed(jump);
                let stamp = clock.stamp(wall);
                assert!(stamp > last, "stamps go forward");
                let step = stamp - last;
                assert!((995..=1005).contains(&step), "a second took {step} ms");
                last = stamp;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_never_goes_back() {
        let mut clock = LogClock::resume(5_000, 1_000);
        assert_eq!(clock.stamp(1_000), 5_000);
    }
}
