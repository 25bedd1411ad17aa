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
//! by nobody but the leader that this node follows, unless it shows hearsay itself; a clock that has
//! become sure is written down before anything is stamped or acknowledged by it, so that a restart
//! goes on with that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use memkv_storage::{ClockFile, ClockReading};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use crate::env::blocking;
use crate::node::{Inner, Leader};
use crate::{ClockInspection, Env};

/// A leader corrects its clock by at most this part of the time that has passed: 0.5 %, ten times
/// what `adjtime` allows, so that an hour of error is gone in a week and no deadline is off by more
/// than that share.
const SLEW_DIVISOR: u64 = 200;

/// Longest time for which a leader corrects at once, in milliseconds: one that was idle for an hour
/// must not step by 18 s.
const SLEW_FOR_AT_MOST_MS: u64 = 1_000;

/// A follower's clock is set back by at most this part of the time that has passed: twice the slew
/// of a leader, so that it keeps up with one that slows down.
const FOLLOW_BACK_DIVISOR: u64 = 100;

/// How often the reading is written down again. However old, it is exact on a machine that has
/// stayed up, but for the slew until the next would have been written: 50 ms.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// A reading that is ahead of what was written down by more than this, in milliseconds, is written
/// down at once. A leader slews by less until the next time.
const SET_MS: u64 = 60;

/// A reading may be behind what was written down by the slew and by this, in milliseconds: so a
/// follower that is set back a little does not write all the time. A restart sets the clock back by
/// both, and is never ahead.
const MARGIN_MS: u64 = 5;

/// A new leader's first message sets a follower back by at most this, in milliseconds: what a leader
/// that was restarted may be behind. What is behind further was late.
const BEHIND_MS: u64 = 60;

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
    /// Which leader was followed last, and when backwards.
    followed: Option<Leader>,
    followed_at: Instant,
    /// Up to when the reading was corrected by the wall clock, or needs no correction.
    slewed_at: Instant,
    /// A sure reading is neither this node's own nor did it lead with it: it comes from messages, and
    /// all of them may have been late.
    is_hearsay: bool,
    /// What was written down last, and when.
    written: Option<(u64, Instant)>,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// How far a clock may have been set back since it was written down so long ago, in milliseconds.
fn set_back_ms(elapsed_ms: u64) -> u64 {
    elapsed_ms.min(millis(SAVE_EVERY)) / SLEW_DIVISOR + MARGIN_MS
}

impl State {
    /// Moves on to now.
    fn run(&mut self) {
        let elapsed = millis(self.at.elapsed());
        // What is below a millisecond stays for the next time.
        self.at += Duration::from_millis(elapsed);
        self.reading.log_ms = self.reading.log_ms.saturating_add(elapsed);
    }

    /// Corrects the reading towards the wall clock, however often it was read in between.
    fn slew(&mut self, wall_ms: u64) {
        let passed = millis(self.at.saturating_duration_since(self.slewed_at));
        let most = passed.min(SLEW_FOR_AT_MOST_MS) / SLEW_DIVISOR;
        if most == 0 {
            return;
        }
        self.slewed_at = self.at - Duration::from_millis(passed % SLEW_DIVISOR);
        let log_ms = self.reading.log_ms;
        self.reading.log_ms = wall_ms.clamp(log_ms - most.min(log_ms), log_ms.saturating_add(most));
    }

    /// Takes over a sure reading.
    fn set(&mut self, log_ms: u64) {
        self.reading = Reading {
            log_ms: log_ms.max(self.floor),
            sure: true,
        };
        self.at = Instant::now();
    }

    /// Whether a restart would go on from about here.
    fn is_written(&self) -> bool {
        self.written.is_some_and(|(log_ms, at)| {
            let elapsed = millis(self.at.saturating_duration_since(at));
            let expected = log_ms.saturating_add(elapsed);
            let least = expected - set_back_ms(elapsed).min(expected);
            (least..=expected.saturating_add(SET_MS)).contains(&self.reading.log_ms)
        })
    }
}

/// A node's log clock.
pub(crate) struct LogClock {
    env: Env,
    file: Option<ClockFile>,
    state: Mutex<State>,
    /// A reading of this process is written down.
    saved: AtomicBool,
}

impl LogClock {
    /// Goes on from what this node wrote down on the same run of the machine, else from the wall
    /// clock. It is written down in `file` from then on.
    pub(crate) fn resume(env: Env, saved: Option<ClockReading>, file: Option<ClockFile>) -> Self {
        #[cfg(memkv_bugs)]
        let saved = saved.filter(|_| !crate::bugs::active(crate::bugs::Bug::ForgetClock));
        let own = saved
            .zip((env.boot_clock)())
            .filter(|(saved, (boot_id, _))| saved.boot_id == *boot_id)
            .map(|(saved, (_, now))| {
                let elapsed = now.saturating_sub(saved.boot_ms);
                // The process before may have been set back since it wrote. Late is allowed, early
                // is not.
                (saved.log_ms + elapsed).saturating_sub(set_back_ms(elapsed))
            });
        let reading = Reading {
            log_ms: own.unwrap_or_else(|| (env.wall_clock_ms)()),
            sure: own.is_some(),
        };
        let state = State {
            reading,
            at: Instant::now(),
            floor: 0,
            followed: None,
            followed_at: Instant::now(),
            slewed_at: Instant::now(),
            is_hearsay: false,
            written: None,
        };
        Self {
            env,
            file,
            state: Mutex::new(state),
            saved: AtomicBool::new(false),
        }
    }

    /// What the clock shows.
    pub(crate) fn read(&self) -> Reading {
        let mut state = self.state.lock();
        state.run();
        state.reading
    }

    /// The same for the simulator, which must not disturb the clock.
    pub(crate) fn inspect(&self) -> ClockInspection {
        let state = self.state.lock();
        let elapsed = millis(state.at.elapsed());
        ClockInspection {
            log_ms: state.reading.log_ms.saturating_add(elapsed),
            sure: state.reading.sure,
            saved: self.saved.load(Ordering::Relaxed),
        }
    }

    /// The leader's time for the next entry.
    pub(crate) fn stamp(&self) -> u64 {
        let wall = (self.env.wall_clock_ms)();
        let mut state = self.state.lock();
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::StampWallClock) {
            state.set(wall);
        }
        state.run();
        state.slew(wall);
        // Set back by less than what has passed, but that may have been counted before.
        state.reading.log_ms = state.reading.log_ms.max(state.floor);
        state.is_hearsay = false;
        state.reading.sure = true;
        let stamp = state.reading.log_ms;
        self.keep(state);
        stamp
    }

    /// Takes note of a stamp that was applied here: time is not before it.
    pub(crate) fn applied(&self, stamp_ms: u64) {
        let mut state = self.state.lock();
        state.floor = state.floor.max(stamp_ms);
        state.run();
        state.reading.log_ms = state.reading.log_ms.max(stamp_ms);
        self.keep(state);
    }

    /// Takes over the reading of the leader that this node follows, once it has one: a new leader
    /// is sure from its first stamp on. `arrived` is when its message came in.
    ///
    /// Messages are late and never early, so a reading that is ahead is right. One that is behind
    /// mostly tells of a slow message; a leader that really runs slower does so by its slew. Only the
    /// first message of a new leader may tell that it is behind: it then counts, since keys that this
    /// leader sets must not go early if this node leads next.
    pub(crate) fn follow(&self, leader: Leader, reading: Reading, arrived: Instant) {
        if !reading.sure {
            return;
        }
        let mut state = self.state.lock();
        state.run();
        state.slewed_at = state.at;
        let waited = millis(state.at.saturating_duration_since(arrived));
        let log_ms = reading.log_ms.saturating_add(waited);
        let is_new = state.followed.replace(leader) != Some(leader);
        if !state.reading.sure || log_ms >= state.reading.log_ms {
            return self.take_over(state, log_ms);
        }
        let since = state.at.saturating_duration_since(state.followed_at);
        let most = match is_new {
            true => BEHIND_MS,
            false => millis(since) / FOLLOW_BACK_DIVISOR,
        };
        if most > 0 {
            state.followed_at = state.at;
            let behind = state.reading.log_ms - log_ms;
            let log_ms = state.reading.log_ms - behind.min(most);
            state.reading.log_ms = log_ms.max(state.floor);
            self.keep(state);
        }
    }

    /// Takes over a peer's reading if this node has none that is sure, or has its own from messages
    /// and this one is ahead: the others were late. Every sure clock runs at most 0.5 % fast, so the
    /// one that is ahead of all does too.
    pub(crate) fn learn(&self, peer: Reading) {
        let mut state = self.state.lock();
        if !peer.sure || (state.reading.sure && !state.is_hearsay) {
            return;
        }
        state.run();
        if !state.reading.sure || peer.log_ms > state.reading.log_ms {
            self.take_over(state, peer.log_ms);
        }
    }

    /// Goes by another node's reading from now on.
    fn take_over(&self, mut state: MutexGuard<'_, State>, log_ms: u64) {
        state.is_hearsay |= !state.reading.sure;
        state.set(log_ms);
        self.keep(state);
    }

    /// Writes the reading down unless what is written still tells it.
    fn keep(&self, state: MutexGuard<'_, State>) {
        if state.reading.sure && !state.is_written() {
            self.write_down(state);
        }
    }

    /// Writes a sure reading down. It waits for no disk: the file is never synced.
    fn write_down(&self, mut state: MutexGuard<'_, State>) {
        let (Some(file), Some((boot_id, boot_ms))) = (&self.file, (self.env.boot_clock)()) else {
            return;
        };
        state.run();
        let log_ms = state.reading.log_ms;
        // Also if it fails: a disk that takes nothing must not be asked with every stamp.
        state.written = Some((log_ms, state.at));
        drop(state);
        let reading = ClockReading {
            boot_id,
            boot_ms,
            log_ms,
        };
        match file.save(&reading) {
            Ok(()) => self.saved.store(true, Ordering::Relaxed),
            Err(error) => {
                tracing::debug!(%error, "cannot write the clock down; a restart will ask the peers");
            }
        }
    }
}

/// Writes the reading down from time to time.
pub(crate) async fn save(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(SAVE_EVERY).await;
        let clock = inner.clock.clone();
        let save = move || {
            let state = clock.state.lock();
            if state.reading.sure {
                clock.write_down(state);
            }
        };
        // Fails only when the node stops.
        drop(blocking(&inner.env, save).await);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

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
    const A: Leader = Leader { term: 1, id: 1 };
    const B: Leader = Leader { term: 2, id: 2 };
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
    async fn a_clock_that_is_read_all_the_time_is_slewed_all_the_same() {
        for (jump, expected) in [(HOUR, 10_050), (-HOUR, 9_950)] {
            let wall = Arc::new(AtomicU64::new(START.saturating_add_signed(jump)));
            let clock = clock(&wall, None);
            clock.follow(
                A,
                Reading {
                    log_ms: START,
                    sure: true,
                },
                Instant::now(),
            );
            for _ in 0..1_000 {
                tokio::time::advance(Duration::from_millis(10)).await;
                clock.read();
                clock.applied(clock.stamp());
            }
            assert_eq!(clock.read().log_ms, START + expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_was_idle_does_not_step() {
        let wall = Arc::new(AtomicU64::new(START.saturating_add_signed(2 * HOUR)));
        let clock = clock(&wall, None);
        clock.follow(
            A,
            Reading {
                log_ms: START,
                sure: true,
            },
            Instant::now(),
        );
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert_eq!(clock.stamp(), START + 3_600_000 + 5);
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
        clock.follow(A, late, Instant::now());
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
        assert_eq!(
            same.read(),
            sure(1_294),
            "300 ms later, less the slew and the margin"
        );
        same.learn(sure(9));
        assert_eq!(
            same.read(),
            sure(1_294),
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
        rebooted.learn(sure(1_200));
        assert_eq!(rebooted.read(), sure(1_300), "that was late");
        rebooted.learn(sure(1_400));
        assert_eq!(rebooted.read(), sure(1_400), "the one before was late");
        rebooted.follow(A, sure(1_500), Instant::now());
        rebooted.learn(sure(1_600));
        assert_eq!(rebooted.read(), sure(1_600), "the leader's was late");
        rebooted.stamp();
        rebooted.learn(sure(9_000));
        assert_eq!(rebooted.read(), sure(1_600), "what it led with is its own");
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
            |clock, sure| clock.follow(A, sure, Instant::now()),
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
            assert_eq!(restarted.read().log_ms, START - MARGIN_MS);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_in_small_steps_is_written_down_too() {
        let wall = Arc::new(AtomicU64::new(START));
        let disk = SimDisk::new(1);
        let layout = Layout::under(std::path::Path::new("/memkv"));
        disk.create_dir_all(&layout.metadata).unwrap();
        let open = || ClockFile::open(&disk, &layout).unwrap();
        let clock = clock_with(&wall, None, Some(open().0));
        let sure = |log_ms| Reading { log_ms, sure: true };
        clock.learn(sure(START));
        for step in 1..=10 {
            clock.follow(A, sure(START + step * SET_MS / 2), Instant::now());
        }
        clock.applied(START + 1_000);
        let (_, saved) = open();
        let restarted = LogClock::resume(clock.env.clone(), saved, None);
        assert_eq!(restarted.read(), sure(START + 1_000 - MARGIN_MS));
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_process_is_not_ahead_of_the_one_before() {
        let wall = Arc::new(AtomicU64::new(START.saturating_add_signed(-HOUR)));
        let before = clock(&wall, None);
        before.follow(
            A,
            Reading {
                log_ms: START,
                sure: true,
            },
            Instant::now(),
        );
        let saved = ClockReading {
            boot_id: 7,
            boot_ms: 500,
            log_ms: before.read().log_ms,
        };
        for _ in 0..100 {
            tokio::time::advance(Duration::from_millis(100)).await;
            before.stamp();
        }
        let env = Env {
            boot_clock: Arc::new(|| Some((7, 10_500))),
            ..Env::real()
        };
        let after = LogClock::resume(env, Some(saved), None);
        assert!(after.read().log_ms <= before.read().log_ms);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_starts_again_does_not_undo_what_set_it_back() {
        let wall = Arc::new(AtomicU64::new(START));
        let disk = SimDisk::new(1);
        let layout = Layout::under(std::path::Path::new("/memkv"));
        disk.create_dir_all(&layout.metadata).unwrap();
        let open = || ClockFile::open(&disk, &layout).unwrap();
        let clock = clock_with(&wall, None, Some(open().0));
        let sure = |log_ms| Reading { log_ms, sure: true };
        clock.learn(sure(START + 30));
        clock.follow(A, sure(START), Instant::now());
        assert_eq!(clock.read(), sure(START));
        let (_, saved) = open();
        let restarted = LogClock::resume(clock.env.clone(), saved, None);
        assert!(restarted.read().log_ms <= START);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_is_followed_backwards_too() {
        let wall = Arc::new(AtomicU64::new(START));
        let follower = clock(&wall, None);
        let sure = |log_ms| Reading { log_ms, sure: true };
        follower.follow(A, sure(5_000), Instant::now());
        follower.follow(A, sure(4_970), Instant::now());
        assert_eq!(follower.read(), sure(5_000), "that was late");
        // B was behind when it was elected; keys that it sets must not go early if this node leads
        // next.
        follower.follow(B, sure(4_970), Instant::now());
        assert_eq!(follower.read(), sure(4_970));
        follower.follow(A, sure(1_000), Instant::now());
        let least = 4_970 - BEHIND_MS;
        assert_eq!(follower.read(), sure(least), "no leader is so far behind");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_request_waits_for_here_does_not_make_its_reading_late() {
        let wall = Arc::new(AtomicU64::new(START));
        let follower = clock(&wall, None);
        let sure = |log_ms| Reading { log_ms, sure: true };
        let arrived = Instant::now();
        tokio::time::advance(Duration::from_millis(300)).await;
        follower.follow(A, sure(5_000), arrived);
        assert_eq!(follower.read(), sure(5_300));
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_was_late_hardly_sets_a_follower_back() {
        let wall = Arc::new(AtomicU64::new(START));
        let follower = clock(&wall, None);
        let leader = |log_ms| Reading { log_ms, sure: true };
        follower.follow(A, leader(5_000), Instant::now());
        tokio::time::advance(Duration::from_secs(10)).await;
        follower.follow(A, leader(13_000), Instant::now());
        assert_eq!(
            follower.read().log_ms,
            14_900,
            "2 s late, a hundredth of 10 s back"
        );
        follower.follow(A, leader(13_000), Instant::now());
        assert_eq!(follower.read().log_ms, 14_900, "once in a while only");
        follower.follow(A, leader(15_000), Instant::now());
        assert_eq!(follower.read().log_ms, 15_000, "ahead is right");
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_shows_what_its_leader_shows() {
        let walls = [START, START + 3_600_000].map(|wall| Arc::new(AtomicU64::new(wall)));
        let [leader, follower] = walls.each_ref().map(|wall| clock(wall, None));
        leader.stamp();
        follower.follow(A, leader.read(), Instant::now());
        tokio::time::advance(Duration::from_secs(100)).await;
        let (old, new) = (leader.read().log_ms, follower.stamp());
        assert!(new.abs_diff(old) <= 500, "{new} after {old}");
    }
}
