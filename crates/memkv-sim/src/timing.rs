//! Whether keys expire when they should: never early, and not late while there is a leader.
//!
//! *Never early* is real time, and holds under any fault and with any wall clocks: no client sees a
//! key absent before its time to live, less the 0.5 % by which log time may run fast, has passed
//! since the command was sent that set it. The exception is documented: log time is the wall clock's
//! where so many machines have lost power that a majority is left of which none can say what log time
//! was.
//!
//! *Not late* is log time: the entry that removes a key is stamped at most 100 ms after its deadline,
//! or after its leader was first seen to lead, while that leader serves. A leader serves at a look if
//! it commits and applies what is in its log within [`COMMITS_WITHIN`], a quorum follows it, and there
//! is space on their disks. That log time is real time is looked at separately: under one leader it
//! never falls behind by more than 0.5 %, and a change of leader loses at most 100 ms of it, and 55 ms
//! more for each process that was restarted before it.

use std::collections::BTreeMap;
use std::time::Duration;

use memkv_check::order::Expiry;
use memkv_node::Inspection;

use crate::cluster::{Cluster, name};
use crate::committed_log::Entry;
use crate::nemesis::disks::SLOWEST_READ;
use crate::promise::Promise;
use crate::settle::{Held, Rest};

/// Most that a key may outlive its deadline in log time, in milliseconds.
const LATE_MS: u64 = 100;
/// A leader that takes longer to commit is not one that serves, in microseconds: three looks.
const COMMITS_WITHIN: u64 = 60_000;
/// A leader that no quorum has followed for this long is about to refuse commands, as it does after
/// three fifths of `election_timeout_ms`, 600 ms: another may lead soon.
const HEARD_WITHIN: Duration = Duration::from_millis(500);
/// A process that knows log time has written it down, and goes by it, after so many microseconds in
/// which its disk neither was slow nor stalled. An operation takes ten times the largest mean at most,
/// 80 ms; the one that writes may come after another, which waits for a read of up to a second. The
/// rest is two looks and roundings.
const WRITTEN_WITHIN: u64 = 1_250_000;
const _: () = assert!(WRITTEN_WITHIN > 2 * 80_000 + SLOWEST_READ.as_micros() as u64 + 40_000);
/// Log time runs fast or slow by at most one part in so many.
const SLEW_DIVISOR: u64 = 200;
/// Most that a leader corrects its clock by at once, in milliseconds, and roundings.
const AT_ONCE_MS: u64 = 5 + ROUNDING_MS;
/// A restarted process may win an election before it has heard from a leader, so that nothing has
/// corrected what its restart set back: within so many microseconds of the death before it.
const UNHEARD_WITHIN: u64 = 5_000_000;
/// Most that a restart sets a clock back, in milliseconds: what a leader may have been slewed back
/// since its clock was written down, 0.5 % of 10 s, and a margin.
const RESTART_MS: u64 = 55;
/// Milliseconds that roundings of clocks amount to.
const ROUNDING_MS: u64 = 2;

/// The observations of time.
#[derive(Default)]
pub(crate) struct Timing {
    hosts: Vec<SeenClock>,
    /// By vote.
    leaders_times: BTreeMap<(u64, u64), LeadersTime>,
    /// The newest leader's vote, and microseconds and log time when it was last looked at.
    newest: Option<((u64, u64), u64, u64)>,
    /// When there was a majority of which no node knew log time, in microseconds: from, to.
    lost: Vec<(u64, Option<u64>)>,
    /// When processes ended, in microseconds.
    deaths: Vec<u64>,
}

#[derive(Default, Clone)]
struct SeenClock {
    /// A process of this machine knows log time, or saved it.
    carries: bool,
    /// Whether it is written down since the machine was booted.
    saved: bool,
    /// Since when this process knows it, has not written it down, and could have, in microseconds.
    owes_since: Option<u64>,
    /// What its disk had refused at the last look.
    refused: u64,
    /// The disk has refused something since, which may have been this.
    is_excused: bool,
    /// What the last process showed in the end, and when, in microseconds; nothing once it was compared.
    last: Option<(u64, u64)>,
    /// When entries that are not applied were first seen in its log, by index.
    waiting: BTreeMap<u64, u64>,
}

impl SeenClock {
    /// Whether a process that knows log time has written it down, where the disk lets it.
    fn writes_it_down(
        &mut self,
        slot: usize,
        now: &Inspection,
        micros: u64,
        cluster: &Cluster,
    ) -> Verdict {
        let (is_as_usual, disk) = {
            let host = cluster.hosts[slot].lock();
            (host.disk_is_as_usual(), host.disk.clone())
        };
        let stats = disk.stats();
        let refused = stats.errors + stats.full;
        self.is_excused |= refused != self.refused || !disk.is_powered();
        self.refused = refused;
        if !now.clock.synchronized || now.clock.saved || self.is_excused || !is_as_usual {
            self.owes_since = None;
            return Ok(());
        }
        let owes_for = micros - *self.owes_since.get_or_insert(micros);
        if owes_for > WRITTEN_WITHIN {
            let seen = format!("{} knows it for {owes_for} us and has not", name(slot));
            return Err((Promise::LogTimeIsWritten, seen));
        }
        Ok(())
    }

    /// Whether a process went on with a time that is not ahead of the one before: it may have been
    /// slewed back since it wrote it down, and keys that it set must not go early.
    fn goes_on(
        &mut self,
        slot: usize,
        now: &Inspection,
        micros: u64,
        cluster: &Cluster,
    ) -> Verdict {
        let (Some((showed, at)), Some(shows)) = (self.last.take(), now.clock.went_on_ms) else {
            return Ok(());
        };
        cluster.trace.count("clocks that went on");
        let most = showed + (micros - at) / 1000 + ROUNDING_MS;
        if shows > most {
            let seen = format!("{} goes on with {shows}, and would show {most}", name(slot));
            return Err((Promise::ClockGoesOnBehind, seen));
        }
        Ok(())
    }
}

/// A leader's time.
struct LeadersTime {
    /// Microseconds and log time at the first look.
    began: (u64, u64),
    /// Log time at looks at which it did not serve.
    idle: Vec<u64>,
}

type Verdict = Result<(), (Promise, String)>;

impl Timing {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            hosts: vec![SeenClock::default(); nodes],
            ..Self::default()
        }
    }

    /// What a process shows at its end, if it may have gone by that.
    pub(crate) fn note_last(&mut self, slot: usize, now: &Inspection, micros: u64) {
        let clock = now.clock;
        let went_by_it = clock.synchronized && !clock.is_due;
        self.hosts[slot].last = went_by_it.then_some((clock.log_ms, micros));
    }

    /// A process is gone, and perhaps what it wrote down as well.
    pub(crate) fn note_death(&mut self, slot: usize, forgets: bool, now: u64) {
        self.deaths.push(now);
        let host = &mut self.hosts[slot];
        host.owes_since = None;
        host.is_excused = false;
        host.saved &= !forgets;
        host.last = host.last.filter(|_| !forgets);
        host.carries &= host.saved;
        host.waiting.clear();
        if self.is_lost() && self.lost.last().is_none_or(|(_, to)| to.is_some()) {
            self.lost.push((now, None));
        }
    }

    /// Whether there is a majority of which no node knows log time: it may elect a leader.
    fn is_lost(&self) -> bool {
        let unaware = self.hosts.iter().filter(|host| !host.carries).count();
        unaware > self.hosts.len() / 2
    }

    /// Looks at a node.
    pub(crate) fn look(&mut self, slot: usize, now: &Inspection, cluster: &Cluster) -> Verdict {
        let micros = cluster.trace.micros();
        let clock = now.clock;
        let host = &mut self.hosts[slot];
        host.saved |= clock.saved;
        host.carries |= clock.synchronized;
        host.writes_it_down(slot, now, micros, cluster)?;
        host.goes_on(slot, now, micros, cluster)?;
        if !self.is_lost()
            && let Some((_, to @ None)) = self.lost.last_mut()
        {
            *to = Some(micros);
            cluster.trace.count("times that log time was lost");
        }
        let host = &mut self.hosts[slot];
        let applied = now.applied;
        let last = now.log.last().map_or(0, |id| id.index);
        host.waiting
            .retain(|index, _| *index > applied && *index <= last);
        let known = host
            .waiting
            .last_key_value()
            .map_or(applied, |(index, _)| *index);
        let news = (known + 1..=last).map(|index| (index, micros));
        host.waiting.extend(news);
        // A leader uses its clock from the moment at which it has settled the time of the one before.
        let Some(vote) = now.leads.filter(|_| clock.synchronized && !clock.goes_back) else {
            return Ok(());
        };
        let since = host.waiting.first_key_value().map(|(_, since)| *since);
        let serves = since.is_none_or(|since| micros - since <= COMMITS_WITHIN)
            && !now.refuses_for_space
            && now
                .quorum_silent_for
                .is_some_and(|silent| silent <= HEARD_WITHIN);
        let leaders_time = self.leaders_times.entry(vote).or_insert(LeadersTime {
            began: (micros, clock.log_ms),
            idle: Vec::new(),
        });
        if !serves {
            leaders_time.idle.push(clock.log_ms);
        }
        self.hands_over(vote, micros, clock.log_ms, cluster)?;
        let leaders_time = &self.leaders_times[&vote];
        let real_ms = (micros - leaders_time.began.0) / 1000;
        let least = leaders_time.began.1 + real_ms - real_ms / SLEW_DIVISOR;
        if clock.log_ms + AT_ONCE_MS < least {
            let seen = format!(
                "{} led for {real_ms} ms from log time {}, and shows {}",
                name(slot),
                leaders_time.began.1,
                clock.log_ms
            );
            return Err((Promise::LogTimeKeepsUp, seen));
        }
        Ok(())
    }

    /// A new leader's log time is not behind what the last one's would be by now.
    fn hands_over(
        &mut self,
        vote: (u64, u64),
        micros: u64,
        log_ms: u64,
        cluster: &Cluster,
    ) -> Verdict {
        let (newest, at, showed) = self.newest.unwrap_or((vote, micros, log_ms));
        if newest > vote {
            return Ok(());
        }
        self.newest = Some((vote, micros, log_ms));
        let is_lost = |(_, to): &(u64, Option<u64>)| to.is_none_or(|to| to >= at);
        if newest == vote || self.lost.iter().any(is_lost) {
            return Ok(());
        }
        let real_ms = (micros - at) / 1000;
        let least = showed + real_ms - real_ms / SLEW_DIVISOR;
        cluster.trace.count("changes of leader");
        let has_died = |death: &&u64| **death + UNHEARD_WITHIN >= at;
        let restarts = self.deaths.iter().filter(has_died).count() as u64;
        if log_ms + LATE_MS + RESTART_MS * restarts < least {
            let seen = format!(
                "a new leader shows {log_ms}; {real_ms} ms before, the last one showed {showed}"
            );
            return Err((Promise::LogTimeSurvives, seen));
        }
        Ok(())
    }

    /// Judges all expiries of a run.
    pub(crate) fn check(&self, expiries: &[Expiry], log: &[Entry], cluster: &Cluster) -> Verdict {
        for expiry in expiries {
            cluster.trace.count("expiries");
            self.never_early(expiry, log, cluster)?;
            self.not_late(expiry, log, cluster)?;
            survived(expiry, log, cluster);
        }
        Ok(())
    }

    /// What is left in the end, when the cluster has had time, is not due.
    pub(crate) fn check_rest(&self, rest: &Rest) -> Verdict {
        let overdue = |held: &&Held| {
            held.deadline_ms
                .is_some_and(|at| at + LATE_MS + COMMITS_WITHIN / 1000 < rest.log_ms)
        };
        match rest.held.iter().find(overdue) {
            None => Ok(()),
            Some(held) => {
                let seen = format!("{held:?} is there at {} in log time", rest.log_ms);
                Err((Promise::NotLate, seen))
            }
        }
    }

    fn never_early(&self, expiry: &Expiry, log: &[Entry], cluster: &Cluster) -> Verdict {
        let seen_at = log[expiry.removed_in].seen_at * 1000;
        let shown_at = expiry.shown_at.map_or(seen_at, |shown| shown.min(seen_at));
        let (from, to) = (expiry.set_invoked_at / 1000, shown_at / 1000);
        let overlaps = |(lost, found): &(u64, Option<u64>)| {
            *lost <= to && found.is_none_or(|found| found >= from)
        };
        if self.lost.iter().any(overlaps) {
            cluster.trace.count("expiries while log time was lost");
            return Ok(());
        }
        let ttl_ms = expiry.what.deadline.ttl_ms;
        let lived_ms = (to - from) / 1000;
        let least = ttl_ms - ttl_ms / SLEW_DIVISOR;
        if lived_ms + ROUNDING_MS < least {
            let seen = format!(
                "{:?}, to live for {ttl_ms} ms, was set {from} us after the start at the earliest, \
                 and was absent {lived_ms} ms later; its entries are {:?} and {:?}",
                expiry.what.key, log[expiry.set_in].id, log[expiry.removed_in].id
            );
            return Err((Promise::NeverEarly, seen));
        }
        Ok(())
    }

    fn not_late(&self, expiry: &Expiry, log: &[Entry], cluster: &Cluster) -> Verdict {
        let removed = &log[expiry.removed_in];
        let Some(leaders_time) = self
            .leaders_times
            .get(&(removed.id.term, removed.id.leader))
        else {
            return Ok(());
        };
        let due = expiry.what.deadline.at_ms.max(leaders_time.began.1);
        let late = removed.stamp_ms.saturating_sub(due);
        if leaders_time
            .idle
            .iter()
            .any(|at| (due..=removed.stamp_ms + COMMITS_WITHIN / 1000).contains(at))
        {
            cluster
                .trace
                .count("expiries under a leader that did not serve");
            return Ok(());
        }
        cluster.trace.count("expiries in time");
        if late > LATE_MS {
            let seen = format!(
                "{:?} was due at {due} in log time, and went {late} ms later, by {:?}",
                expiry.what.key, removed.id
            );
            return Err((Promise::NotLate, seen));
        }
        Ok(())
    }
}

/// Counts what a deadline has lived through.
fn survived(expiry: &Expiry, log: &[Entry], cluster: &Cluster) {
    let trace = &cluster.trace;
    let (set, removed) = (&log[expiry.set_in], &log[expiry.removed_in]);
    if (set.id.term, set.id.leader) != (removed.id.term, removed.id.leader) {
        trace.count("expiries after a change of leader");
    }
    let from = expiry.set_invoked_at / 1000;
    for (event, counter) in [
        ("processes started", "expiries after a restart"),
        ("power losses of all", "expiries after a power loss of all"),
        ("clock jumps", "expiries after a clock jump"),
        ("snapshots installed", "expiries after a snapshot installed"),
    ] {
        if trace.happened(event, from, removed.seen_at) {
            trace.count(counter);
        }
    }
}
