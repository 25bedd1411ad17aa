//! The log clock: the time that the leader stamps on entries, the only time the store knows.
//!
//! It runs on the monotonic clock and is slewed towards the wall clock by the leader alone, never
//! stepped, so a wall clock that jumps changes nothing at once and little per second. Every message
//! carries its sender's reading: a follower's clock shows what its leader's shows, so that the next
//! leader goes on where the last one was.
//!
//! A clock is *synchronized* if its reading comes from the cluster: from a leader, from a synchronized peer's vote, or
//! from this node's own past on a machine that has stayed up (`memkv_disk::ClockFile`). Only a
//! node whose machine was rebooted and that has heard no other node starts from the wall clock.
//!
//! Log time never runs ahead: a leader's clock is not ahead of the clocks of the leaders before it by
//! more than the slew, so no key that they set goes early. By induction over the leaders: a leader's
//! first stamp is this node's reading, which is what the last leader's messages told when they arrived
//! (they are late, so it is that leader's time or earlier), or an older leader's, whose time the last
//! leader may not have known (its process was restarted, and that set it back). In the second case
//! every message of the last leader tells that this node is ahead. If there were enough of them to
//! tell lateness from that, this node was set back when it heard them; if it leads before, or yet
//! another leader comes before, the doubt counts as if it were so: late is allowed, early is not. Each
//! leader in turn may be behind the one before it, so each adds to how far this node goes back. It goes
//! back before it tells its time as the leader: no follower may be ahead of its stamps. What a node writes
//! down for its next process, and what it tells a candidate, is less the doubt as well. A candidate counts the
//! terms of its own log that a peer has heard nothing of as leaders that the peer may be ahead of.
//!
//! Invariants: a stamp is never smaller than the highest one applied here; only the leader that this node follows steps a
//! synchronized clock, unless its own reading is second-hand; a clock that has
//! become synchronized is written down before anything is stamped or acknowledged by it, so that a restart
//! goes on with that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::sync::lock::{Mutex, MutexGuard};
use memkv_disk::{ClockFile, ClockReading};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Env;
use crate::env::blocking;
use crate::leadership::leader::Leader;

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

/// After so many messages of a new leader, and so long after the first, a follower goes by what they
/// told, even if that is behind: a link that was stuck delivers several late ones at once, and then
/// others.
const HEARD_ENOUGH: u32 = 4;
const HEARD_FOR: Duration = Duration::from_millis(500);

/// Most that a follower is set back by that, in milliseconds, for each term since that of the leader that it was set
/// back by or was not ahead of: a leader that was restarted is behind by less. What is behind further was
/// late.
const BEHIND_MS: u64 = 100;

/// The reading of a clock, as messages carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Log time in milliseconds since the Unix epoch.
    pub(crate) log_ms: u64,
    /// Whether it comes from the cluster.
    pub(crate) synchronized: bool,
}

#[derive(Debug)]
struct State {
    reading: Reading,
    /// When `reading` was that.
    at: Instant,
    /// The highest stamp applied here.
    floor: u64,
    /// The first messages of the leader that was followed last.
    heard: Option<Heard>,
    /// When a leader was last followed backwards.
    followed_at: Instant,
    /// Up to when the reading was corrected by the wall clock, or needs no correction.
    slewed_at: Instant,
    /// A synchronized reading is neither this node's own nor did it lead with it: it comes from messages, and
    /// all of them may have been late.
    is_second_hand: bool,
    /// The reading that was persisted last, and when.
    persisted: Option<(u64, Instant)>,
}

/// The first messages of a leader.
#[derive(Debug)]
struct Heard {
    leader: Leader,
    /// When the first one was heard; none once they have counted, or need not.
    since: Option<Instant>,
    messages: u32,
    /// How far this clock is ahead of the leader's, in milliseconds, by the message that was the least
    /// late.
    ahead_ms: u64,
    /// Most of that which counts.
    most_ms: u64,
}

impl Heard {
    /// How far this clock goes back by what was heard.
    fn back_ms(&self) -> u64 {
        self.ahead_ms.min(self.most_ms)
    }

    fn is_undecided(&self) -> bool {
        self.since.is_some()
    }
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
        // The rest below a millisecond stays for the next time.
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

    /// Takes over a synchronized reading.
    fn set(&mut self, log_ms: u64) {
        self.reading = Reading {
            log_ms: log_ms.max(self.floor),
            synchronized: true,
        };
        self.at = Instant::now();
    }

    /// Takes note of a leader's message that tells that this clock is ahead. Once there are enough, how
    /// far it goes back.
    fn hear(&mut self, leader: Leader, ahead_ms: u64) -> Option<u64> {
        let (same, before) = match self.heard.take() {
            Some(heard) if heard.leader == leader => (Some(heard), None),
            before => (None, before),
        };
        // Each term between may have had a leader that was set back, of which nothing was heard here.
        let leaders = before.as_ref().map_or(1, |before| {
            leader.term.saturating_sub(before.leader.term).max(1)
        });
        let undecided_ms = before
            .filter(Heard::is_undecided)
            .map_or(0, |before| before.most_ms);
        let mut heard = same.unwrap_or(Heard {
            leader,
            since: Some(self.at),
            messages: 0,
            ahead_ms,
            most_ms: undecided_ms.saturating_add(BEHIND_MS.saturating_mul(leaders)),
        });
        heard.messages = heard.messages.saturating_add(1);
        heard.ahead_ms = heard.ahead_ms.min(ahead_ms);
        let is_enough = heard.messages >= HEARD_ENOUGH
            && heard
                .since
                .is_some_and(|since| self.at.saturating_duration_since(since) >= HEARD_FOR);
        let told = is_enough.then(|| heard.back_ms());
        if is_enough {
            heard.since = None;
        }
        self.heard = Some(heard);
        told
    }

    /// Goes back by what was heard and has not counted yet.
    fn settle(&mut self) {
        if self.heard.as_ref().is_some_and(Heard::is_undecided) {
            self.reading.log_ms = self.sure_ms();
        }
        self.heard = None;
    }

    /// What another node, or the next process here, may go by: the reading, less what was heard and has not
    /// counted yet.
    fn sure_ms(&self) -> u64 {
        let doubt = self.heard.as_ref().filter(|heard| heard.is_undecided());
        let doubt_ms = doubt.map_or(0, Heard::back_ms);
        let sure_ms = self.reading.log_ms.saturating_sub(doubt_ms);
        sure_ms.max(self.floor)
    }

    /// Whether a restart would go on from about here.
    fn is_persisted(&self) -> bool {
        self.persisted.is_some_and(|(log_ms, at)| {
            let elapsed = millis(self.at.saturating_duration_since(at));
            let expected = log_ms.saturating_add(elapsed);
            let least = expected - set_back_ms(elapsed).min(expected);
            (least..=expected.saturating_add(SET_MS)).contains(&self.sure_ms())
        })
    }
}

/// A node's log clock, at one moment.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct ClockInspection {
    /// Milliseconds since the Unix epoch.
    pub log_ms: u64,
    /// Whether the reading comes from the cluster.
    pub synchronized: bool,
    /// Whether the next process on this machine will know it.
    pub saved: bool,
    /// Whether what it shows is to be written down before anything goes by it.
    pub is_due: bool,
    /// Whether it is set back before it is told or stamped by a leader.
    pub goes_back: bool,
    /// The reading that it would have if this process had heard no other node, where it went on from the one before.
    pub went_on_ms: Option<u64>,
}

/// A node's log clock.
pub(crate) struct LogClock {
    env: Env,
    file: Option<ClockFile>,
    state: Mutex<State>,
    /// The reading that it took over from the process before, and when.
    went_on: Option<(u64, Instant)>,
    /// A reading of this process is written down.
    saved: AtomicBool,
    writing: watch::Sender<Writing>,
}

/// What is to be persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    Nothing,
    /// The reading, before anything goes by it.
    Due,
    /// Nothing any more.
    Ended,
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
                let set_back_ms = set_back_ms(elapsed);
                #[cfg(memkv_bugs)]
                let set_back_ms = match crate::bugs::active(crate::bugs::Bug::TrustPersistedClock) {
                    true => 0,
                    false => set_back_ms,
                };
                let log_ms = (saved.log_ms + elapsed).saturating_sub(set_back_ms);
                (log_ms, saved.is_second_hand)
            });
        let reading = Reading {
            log_ms: own.map_or_else(|| (env.wall_clock_ms)(), |(log_ms, _)| log_ms),
            synchronized: own.is_some(),
        };
        let state = State {
            reading,
            at: Instant::now(),
            floor: 0,
            heard: None,
            followed_at: Instant::now(),
            slewed_at: Instant::now(),
            is_second_hand: own.is_some_and(|(_, is_second_hand)| is_second_hand),
            persisted: None,
        };
        Self {
            env,
            file,
            state: Mutex::new(state),
            went_on: own.map(|(log_ms, _)| (log_ms, Instant::now())),
            saved: AtomicBool::new(false),
            writing: watch::Sender::new(Writing::Nothing),
        }
    }

    /// The reading of the clock.
    pub(crate) fn read(&self) -> Reading {
        let mut state = self.state.lock();
        state.run();
        state.reading
    }

    /// The reading that a candidate may go by, if it comes to lead.
    pub(crate) fn answer(&self) -> Reading {
        let mut state = self.state.lock();
        state.run();
        Reading {
            log_ms: state.sure_ms(),
            ..state.reading
        }
    }

    /// The same for the simulator, which must not disturb the clock.
    pub(crate) fn inspect(&self) -> ClockInspection {
        let state = self.state.lock();
        let elapsed = millis(state.at.elapsed());
        ClockInspection {
            log_ms: state.reading.log_ms.saturating_add(elapsed),
            synchronized: state.reading.synchronized,
            saved: self.saved.load(Ordering::Relaxed),
            is_due: *self.writing.borrow() == Writing::Due,
            goes_back: state.heard.as_ref().is_some_and(Heard::is_undecided),
            went_on_ms: self
                .went_on
                .map(|(log_ms, at)| log_ms.saturating_add(millis(at.elapsed()))),
        }
    }

    /// This node leads in this term and is about to tell its time. Keys that the leader before has set
    /// must not go early, if this node was ahead of it.
    pub(crate) fn lead(&self, term: u64) {
        let mut state = self.state.lock();
        // A leader that was deposed may have something left to send.
        if state
            .heard
            .as_ref()
            .is_some_and(|heard| heard.leader.term < term)
        {
            state.run();
            state.settle();
            self.keep(state);
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
        state.settle();
        state.slew(wall);
        // Set back by less than what has passed, but that may have been counted before.
        state.reading.log_ms = state.reading.log_ms.max(state.floor);
        state.is_second_hand = false;
        state.reading.synchronized = true;
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
    /// is synchronized from its first stamp on. `arrived` is when its message came in.
    ///
    /// Messages are late and never early, so a reading that is ahead is right. One that is behind
    /// mostly tells of a slow message; a leader that really runs slower does so by its slew. Only the
    /// first messages of a new leader together may tell that it is behind, and then they count: keys
    /// that this leader sets must not go early if this node leads next.
    pub(crate) fn follow(&self, leader: Leader, reading: Reading, arrived: Instant) {
        if !reading.synchronized {
            return;
        }
        let mut state = self.state.lock();
        state.run();
        state.slewed_at = state.at;
        let waited = millis(state.at.saturating_duration_since(arrived));
        let log_ms = reading.log_ms.saturating_add(waited);
        if !state.reading.synchronized || log_ms >= state.reading.log_ms {
            state.heard = Some(Heard {
                leader,
                since: None,
                messages: 0,
                ahead_ms: 0,
                most_ms: 0,
            });
            return self.take_over(state, log_ms);
        }
        let ahead_ms = state.reading.log_ms - log_ms;
        let back_ms = match state.hear(leader, ahead_ms) {
            Some(back_ms) => back_ms,
            None => {
                let since = state.at.saturating_duration_since(state.followed_at);
                ahead_ms.min(millis(since) / FOLLOW_BACK_DIVISOR)
            }
        };
        if back_ms > 0 {
            state.followed_at = state.at;
            let log_ms = state.reading.log_ms - back_ms;
            state.reading.log_ms = log_ms.max(state.floor);
        }
        self.keep(state);
    }

    /// Takes over the reading in a peer's answer if this node has none that is synchronized, or has its own
    /// from messages and this one is ahead: the others were late. Every synchronized clock runs at most 0.5 %
    /// fast, so the one that is ahead of all does too.
    ///
    /// `missed` is the number of terms of this node's log that the peer has heard nothing of. Each may have had a
    /// leader that was behind the one before it, and set keys.
    pub(crate) fn learn(&self, peer: Reading, missed: u64) {
        let mut state = self.state.lock();
        if !peer.synchronized || (state.reading.synchronized && !state.is_second_hand) {
            return;
        }
        state.run();
        let log_ms = peer.log_ms.saturating_sub(missed.saturating_mul(BEHIND_MS));
        if !state.reading.synchronized || log_ms > state.reading.log_ms {
            self.take_over(state, log_ms);
        }
    }

    /// Goes by another node's reading from now on.
    fn take_over(&self, mut state: MutexGuard<'_, State>, log_ms: u64) {
        state.is_second_hand |= !state.reading.synchronized;
        state.set(log_ms);
        self.keep(state);
    }

    /// Lets the reading be written down unless what is written still tells it. The task that stamps or
    /// acknowledges by it waits for [`Self::written`] first.
    fn keep(&self, state: MutexGuard<'_, State>) {
        if self.file.is_some() && state.reading.synchronized && !state.is_persisted() {
            self.writing.send_if_modified(|writing| {
                let begins = *writing == Writing::Nothing;
                if begins {
                    *writing = Writing::Due;
                }
                begins
            });
        }
    }

    /// Resolves when what this clock shows is written down, or cannot be: at once, but for the moments
    /// after it has become synchronized or was set ahead.
    pub(crate) async fn persisted(&self) {
        if *self.writing.borrow() == Writing::Due {
            let mut writing = self.writing.subscribe();
            // The sender lives as long as `self`.
            let _ = writing.wait_for(|now| *now != Writing::Due).await;
        }
    }

    /// Writes a synchronized reading down. May wait for the disk, though the file is never synced: so this is
    /// not for the thread of consensus.
    fn write_down(&self) {
        let Some(file) = &self.file else { return };
        loop {
            let mut state = self.state.lock();
            if !state.reading.synchronized {
                return;
            }
            state.run();
            let (log_ms, is_second_hand) = (state.sure_ms(), state.is_second_hand);
            // Also if it fails: a disk that takes nothing must not be asked with every stamp.
            state.persisted = Some((log_ms, state.at));
            drop(state);
            // The machine's clock is read last: if this thread is paused in between, a restart is late
            // and not early.
            if let Some((boot_id, boot_ms)) = (self.env.boot_clock)() {
                let reading = ClockReading {
                    boot_id,
                    boot_ms,
                    log_ms,
                    is_second_hand,
                };
                match file.save(&reading) {
                    Ok(()) => self.saved.store(true, Ordering::Relaxed),
                    Err(error) => {
                        tracing::debug!(%error, "cannot write the clock down; a restart will ask the peers");
                    }
                }
            }
            // It may have been set ahead meanwhile.
            let state = self.state.lock();
            if state.is_persisted() {
                self.writing.send_if_modified(|writing| {
                    let ends = *writing == Writing::Due;
                    if ends {
                        *writing = Writing::Nothing;
                    }
                    ends
                });
                return;
            }
        }
    }
}

/// Writes the reading down when it is due, and from time to time.
pub(crate) async fn save(clock: Arc<LogClock>, env: Env) {
    /// Ends the waits for a clock that is not written down any more.
    struct End(Arc<LogClock>);
    impl Drop for End {
        fn drop(&mut self) {
            self.0.writing.send_replace(Writing::Ended);
        }
    }
    let end = End(clock);
    let mut writing = end.0.writing.subscribe();
    loop {
        let due = writing.wait_for(|writing| *writing == Writing::Due);
        // Either way it is time.
        drop(tokio::time::timeout(SAVE_EVERY, due).await);
        let clock = end.0.clone();
        // Fails only when the node stops.
        drop(blocking(&env, move || clock.write_down()).await);
    }
}

#[cfg(test)]
mod tests;
