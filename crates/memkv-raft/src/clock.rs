//! The log clock: the time that the leader stamps on entries, the only time the store knows.
//!
//! It runs on the monotonic clock and is slewed towards the wall clock by the leader alone, never
//! stepped, so a wall clock that jumps changes nothing at once and little per second. Every message
//! carries its sender's reading: a follower's clock shows what its leader's shows, so that the next
//! leader goes on where the last one was.
//!
//! A clock is *sure* if its reading comes from the cluster: from a leader, from a sure peer, or
//! from this node's own past on a machine that has stayed up (`memkv_storage::ClockFile`). Only a
//! node whose machine was rebooted and that has heard nobody starts from the wall clock.
//!
//! Invariants: a stamp is never smaller than the highest one applied here; a sure clock is stepped
//! by nobody but the leader that this node follows; a clock that has become sure is written down
//! before anything is stamped or acknowledged by it, so that a restart goes on with that time.

use std::sync::Arc;
use std::time::Duration;

use memkv_storage::{ClockFile, ClockReading};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Env;
use crate::env::blocking;
use crate::node::Inner;

/// Most milliseconds of correction per second of running: 0.5 %, ten times what `adjtime` allows,
/// so that an hour of error is gone in a week and no deadline is off by more than that share.
const SLEW_PER_SECOND_MS: i64 = 5;

/// A follower's clock is set back by at most this part of the time that has passed: twice the slew
/// of a leader, so that it keeps up with one that slows down.
const FOLLOW_BACK_DIVISOR: u64 = 100;

/// How often the reading is written down again. However old, it is exact on a machine that has
/// stayed up, but for the slew since.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// What a node says of its clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Log time in milliseconds since the Unix epoch.
    pub(crate) log_ms: u64,
    /// Whether it comes from the cluster.
    pub(crate) sure: bool,
}

#[derive(Debug)]
struct State {
    reading: Reading,
    /// When `reading` was that.
    at: Instant,
    /// The highest stamp applied here.
    floor: u64,
    /// When the leader was last followed backwards.
    followed_at: Instant,
}

impl State {
    /// Moves on to now; how many milliseconds that took.
    fn run(&mut self) -> u64 {
        let elapsed = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        // What is below a millisecond stays for the next time.
        self.at += Duration::from_millis(elapsed);
        self.reading.log_ms = self.reading.log_ms.saturating_add(elapsed);
        elapsed
    }

    /// Takes over a sure reading.
    fn set(&mut self, log_ms: u64) {
        self.reading = Reading {
            log_ms: log_ms.max(self.floor),
            sure: true,
        };
        self.at = Instant::now();
    }
}

/// A node's log clock.
pub(crate) struct LogClock {
    env: Env,
    file: Option<ClockFile>,
    state: Mutex<State>,
}

impl LogClock {
    /// Goes on from what this node wrote down on the same run of the machine, else from the wall
    /// clock. It is written down in `file` from then on.
    pub(crate) fn resume(env: Env, saved: Option<ClockReading>, file: Option<ClockFile>) -> Self {
        let own = saved
            .zip((env.boot_clock)())
            .filter(|(saved, (boot_id, _))| saved.boot_id == *boot_id)
            .map(|(saved, (_, now))| saved.log_ms + now.saturating_sub(saved.boot_ms));
        let reading = Reading {
            log_ms: own.unwrap_or_else(|| (env.wall_clock_ms)()),
            sure: own.is_some(),
        };
        let state = State {
            reading,
            at: Instant::now(),
            floor: 0,
            followed_at: Instant::now(),
        };
        Self {
            env,
            file,
            state: Mutex::new(state),
        }
    }

    /// What the clock shows.
    pub(crate) fn read(&self) -> Reading {
        let mut state = self.state.lock();
        state.run();
        state.reading
    }

    /// The leader's time for the next entry.
    pub(crate) fn stamp(&self) -> u64 {
        let wall = (self.env.wall_clock_ms)();
        let mut state = self.state.lock();
        let elapsed = i64::try_from(state.run()).unwrap_or(i64::MAX);
        let most = elapsed / (1000 / SLEW_PER_SECOND_MS);
        let error = i128::from(wall) - i128::from(state.reading.log_ms);
        let error = i64::try_from(error).unwrap_or(0).clamp(-most, most);
        state.reading.log_ms = state.reading.log_ms.saturating_add_signed(error);
        let was_sure = std::mem::replace(&mut state.reading.sure, true);
        let reading = state.reading;
        drop(state);
        if !was_sure {
            self.write_down(reading);
        }
        reading.log_ms
    }

    /// Takes note of a stamp that was applied here: time is not before it.
    pub(crate) fn applied(&self, stamp_ms: u64) {
        let mut state = self.state.lock();
        state.floor = state.floor.max(stamp_ms);
        state.run();
        state.reading.log_ms = state.reading.log_ms.max(stamp_ms);
    }

    /// Takes over the reading of the leader that this node follows, once it has one: a new leader
    /// is sure from its first stamp on.
    ///
    /// Messages are late and never early, so a reading that is ahead is right. One that is behind
    /// mostly tells of a slow message; a leader that really runs slower does so by its slew.
    pub(crate) fn follow(&self, leader: Reading) {
        if !leader.sure {
            return;
        }
        let mut state = self.state.lock();
        state.run();
        if !state.reading.sure {
            drop(state);
            return self.learn(leader);
        }
        if leader.log_ms >= state.reading.log_ms {
            return state.set(leader.log_ms);
        }
        let since = state.at.saturating_duration_since(state.followed_at);
        let most = u64::try_from(since.as_millis()).unwrap_or(u64::MAX) / FOLLOW_BACK_DIVISOR;
        if most > 0 {
            state.followed_at = state.at;
            let behind = state.reading.log_ms - leader.log_ms;
            let log_ms = state.reading.log_ms - behind.min(most);
            state.reading.log_ms = log_ms.max(state.floor);
        }
    }

    /// Takes over a peer's reading if this node has none that is sure.
    pub(crate) fn learn(&self, peer: Reading) {
        let mut state = self.state.lock();
        if peer.sure && !state.reading.sure {
            state.set(peer.log_ms);
            let reading = state.reading;
            drop(state);
            self.write_down(reading);
        }
    }

    /// Writes a reading of now down, if it is sure. It waits for no disk: the file is never synced.
    fn write_down(&self, reading: Reading) {
        let (true, Some(file), Some((boot_id, boot_ms))) =
            (reading.sure, &self.file, (self.env.boot_clock)())
        else {
            return;
        };
        let reading = ClockReading {
            boot_id,
            boot_ms,
            log_ms: reading.log_ms,
        };
        if let Err(error) = file.save(&reading) {
            tracing::debug!(%error, "cannot write the clock down; a restart will ask the peers");
        }
    }
}

/// Writes the reading down from time to time.
pub(crate) async fn save(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(SAVE_EVERY).await;
        let clock = inner.clock.clone();
        // Fails only when the node stops.
        drop(blocking(&inner.env, move || clock.write_down(clock.read())).await);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use memkv_storage::Layout;
    use memkv_storage::disk::Disk;
    use memkv_storage::disk::sim::SimDisk;

    use super::*;

    /// A clock on a machine with this wall clock, and a boot clock of 500 ms.
    fn clock(wall: &Arc<AtomicU64>, saved: Option<ClockReading>) -> LogClock {
        clock_with(wall, saved, None)
    }

    fn clock_with(
        wall: &Arc<AtomicU64>,
        saved: Option<ClockReading>,
        file: Option<ClockFile>,
    ) -> LogClock {
        let wall = wall.clone();
        let env = Env {
            wall_clock_ms: Arc::new(move || wall.load(Ordering::Relaxed)),
            boot_clock: Arc::new(|| Some((7, 500))),
            ..Env::real()
        };
        LogClock::resume(env, saved, file)
    }

    const START: u64 = 10_000_000;
    const HOUR: i64 = 3_600_000;

    #[tokio::test(start_paused = true)]
    async fn a_wall_clock_that_jumps_an_hour_moves_stamps_by_the_slew_only() {
        for jump in [HOUR, -HOUR] {
            let wall = Arc::new(AtomicU64::new(START));
            let clock = clock(&wall, None);
            let mut last = clock.stamp();
            assert_eq!(last, START);
            for second in 1..=10u64 {
                tokio::time::advance(Duration::from_secs(1)).await;
                let now = (START + second * 1000).saturating_add_signed(jump);
                wall.store(now, Ordering::Relaxed);
                let stamp = clock.stamp();
                let step = stamp - last;
                assert!((995..=1005).contains(&step), "a second took {step} ms");
                last = stamp;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_is_never_before_an_applied_stamp() {
        let wall = Arc::new(AtomicU64::new(1_000));
        let clock = clock(&wall, None);
        clock.applied(5_000);
        assert_eq!(clock.stamp(), 5_000);
        let late = Reading {
            log_ms: 2_000,
            sure: true,
        };
        clock.follow(late);
        assert_eq!(clock.stamp(), 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_process_goes_on_and_a_rebooted_machine_asks_its_peers() {
        let wall = Arc::new(AtomicU64::new(START));
        let saved = |boot_id| {
            Some(ClockReading {
                boot_id,
                boot_ms: 200,
                log_ms: 1_000,
            })
        };
        let sure = |log_ms| Reading { log_ms, sure: true };
        let same = clock(&wall, saved(7));
        assert_eq!(same.read(), sure(1_300));
        same.learn(sure(9));
        assert_eq!(
            same.read(),
            sure(1_300),
            "a peer does not step a sure clock"
        );

        let rebooted = clock(&wall, saved(8));
        let unsure = Reading {
            log_ms: START,
            sure: false,
        };
        assert_eq!(rebooted.read(), unsure);
        rebooted.learn(unsure);
        assert_eq!(rebooted.read(), unsure);
        rebooted.learn(sure(1_300));
        assert_eq!(rebooted.read(), sure(1_300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_written_down_before_anybody_goes_by_it() {
        let wall = Arc::new(AtomicU64::new(START));
        let sure = Reading {
            log_ms: START,
            sure: true,
        };
        let become_sure: [fn(&LogClock, Reading); 3] = [
            |clock, _| {
                clock.stamp();
            },
            LogClock::learn,
            LogClock::follow,
        ];
        for act in become_sure {
            let disk = SimDisk::new(1);
            let layout = Layout::under(std::path::Path::new("/memkv"));
            disk.create_dir_all(&layout.metadata).unwrap();
            let open = || ClockFile::open(&disk, &layout).unwrap();
            let (file, none) = open();
            assert_eq!(none, None);
            act(&clock_with(&wall, None, Some(file)), sure);
            let (_, saved) = open();
            let restarted = clock(&Arc::new(AtomicU64::new(2 * START)), saved);
            assert_eq!(restarted.read(), sure);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_was_late_hardly_sets_a_follower_back() {
        let wall = Arc::new(AtomicU64::new(START));
        let follower = clock(&wall, None);
        let leader = |log_ms| Reading { log_ms, sure: true };
        follower.follow(leader(5_000));
        tokio::time::advance(Duration::from_secs(10)).await;
        follower.follow(leader(13_000));
        assert_eq!(
            follower.read().log_ms,
            14_900,
            "2 s late, a hundredth of 10 s back"
        );
        follower.follow(leader(13_000));
        assert_eq!(follower.read().log_ms, 14_900, "once in a while only");
        follower.follow(leader(15_000));
        assert_eq!(follower.read().log_ms, 15_000, "ahead is right");
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_shows_what_its_leader_shows() {
        let walls = [START, START + 3_600_000].map(|wall| Arc::new(AtomicU64::new(wall)));
        let [leader, follower] = walls.each_ref().map(|wall| clock(wall, None));
        leader.stamp();
        follower.follow(leader.read());
        tokio::time::advance(Duration::from_secs(100)).await;
        let (old, new) = (leader.read().log_ms, follower.stamp());
        assert!(new.abs_diff(old) <= 500, "{new} after {old}");
    }
}
