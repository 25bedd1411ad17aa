//! The text of `LATENCY DOCTOR`: what was measured, and what to do next, in sentences for an operator.
//! Never guesses: without a measurement it says that there is none.

use std::fmt::{self, Write};
use std::time::Duration;

use memkv_metrics::FineCounted;
use memkv_node::{NodeStats, NodeStatus, Role};

use super::calls::Seen;
use super::spikes::{Kind, Spikes};

/// An fsync of more is slow: an alert of the metrics begins there, too.
const SLOW_FSYNC: Duration = Duration::from_millis(10);

/// A command of more is slow, as in the slow log by default.
const SLOW_COMMAND: Duration = Duration::from_millis(10);

/// A member that lacks more entries is behind.
const MUCH_LAG: u64 = 1_000;

/// Commands that are named.
const NAMED: usize = 3;

/// What was measured.
pub(crate) struct Findings<'a> {
    pub(crate) status: &'a NodeStatus,
    pub(crate) stats: &'a NodeStats,
    pub(crate) writes: FineCounted,
    pub(crate) reads: FineCounted,
    pub(crate) calls: Vec<Seen>,
    pub(crate) spikes: &'a Spikes,
    /// Entries of the slow log, and from how many microseconds on there is one.
    pub(crate) slow: (usize, i64),
}

/// A duration as people read it.
struct Shown(Duration);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        match micros {
            0..1_000 => write!(f, "{micros} us"),
            1_000..100_000 => write!(f, "{:.1} ms", micros as f64 / 1e3),
            100_000..10_000_000 => write!(f, "{} ms", micros / 1_000),
            _ => write!(f, "{} s", micros / 1_000_000),
        }
    }
}

fn nanos(nanos: u64) -> Shown {
    Shown(Duration::from_nanos(nanos))
}

/// The text, in lines of at most 80 columns.
pub(crate) fn advice(findings: &Findings<'_>) -> String {
    let mut text = format!(
        "{}, {}: times since its process began or CONFIG RESETSTAT.\n\n",
        findings.status.name,
        match findings.status.role {
            Role::Leader => "which leads",
            Role::Follower => "a follower",
            Role::Candidate => "which asks for votes",
            Role::Learner => "a replica",
        }
    );
    let mut steps = Vec::new();
    tell_clients(&mut text, findings);
    tell_disk(&mut text, &mut steps, findings);
    tell_members(&mut text, &mut steps, findings);
    tell_commands(&mut text, &mut steps, findings);
    tell_spikes(&mut text, &mut steps, findings);
    text.push('\n');
    match steps.is_empty() {
        true => text.push_str("Nothing is slow.\n"),
        false => text.push_str("What to do:\n"),
    }
    for (number, step) in (1..).zip(steps) {
        let _ = writeln!(text, "{number}. {step}");
    }
    text
}

fn tell_clients(text: &mut String, findings: &Findings<'_>) {
    for (name, took) in [("writes", &findings.writes), ("reads", &findings.reads)] {
        let _ = match took.total {
            0 => writeln!(text, "No {name} of Redis clients."),
            total => writeln!(
                text,
                "{total} {name}: half took at most {}, 99 % at most {}.",
                nanos(took.quantile(500)),
                nanos(took.quantile(990))
            ),
        };
    }
}

fn tell_disk(text: &mut String, steps: &mut Vec<&'static str>, findings: &Findings<'_>) {
    let fsync = &findings.stats.fsync;
    let total = fsync.at_most.last().copied().unwrap_or(0);
    if total == 0 {
        text.push_str("No fsyncs of the log.\n");
        return;
    }
    let most = fsync.quantile(990);
    let _ = writeln!(
        text,
        "{total} fsyncs of the log since the start: half took about {},\n99 % at most about {}.",
        nanos(fsync.quantile(500)),
        nanos(most)
    );
    if Duration::from_nanos(most) > SLOW_FSYNC {
        steps.push(
            "Every write waits for the disk of the log, and it is slow. Measure it with\n   \
             `memkv_server doctor --data DIR`; give the log a disk of its own.",
        );
    }
}

fn tell_members(text: &mut String, steps: &mut Vec<&'static str>, findings: &Findings<'_>) {
    let (status, stats) = (findings.status, findings.stats);
    for (name, lag) in &stats.peer_lag {
        let _ = writeln!(text, "{name} lacks {lag} entries of this leader.");
    }
    if stats.peer_lag.iter().any(|(_, lag)| *lag > MUCH_LAG) {
        steps.push(
            "A member is behind. Look at its disk and at the network to it: LATENCY DOCTOR\n   \
             there, and INFO peers here.",
        );
    }
    match (&status.leader, status.role) {
        (Some(_), Role::Leader) => {}
        (Some(leader), _) => {
            let _ = writeln!(text, "{leader} leads, and knows how far the others are.");
        }
        (None, _) => {
            text.push_str("No leader is known: reads and writes wait.\n");
            steps.push("Find out why there is no leader: `memkv_client status` says it.");
        }
    }
    if stats.leader_changes > 1 {
        let changes = stats.leader_changes - 1;
        let times = if changes == 1 { "once" } else { "times" };
        let number = match changes {
            1 => String::new(),
            changes => format!("{changes} "),
        };
        let _ = writeln!(
            text,
            "The leader has changed {number}{times}: `memkv_client events` says why."
        );
    }
}

fn tell_commands(text: &mut String, steps: &mut Vec<&'static str>, findings: &Findings<'_>) {
    let calls = findings.calls.iter();
    let slowest = calls.map(|seen| (seen.took.quantile(990), seen));
    let is_slow = |(most, _): &(u64, &Seen)| Duration::from_nanos(*most) > SLOW_COMMAND;
    let mut slowest: Vec<(u64, &Seen)> = slowest.filter(is_slow).collect();
    slowest.sort_by_key(|(most, _)| std::cmp::Reverse(*most));
    for (most, seen) in slowest.into_iter().take(NAMED) {
        let _ = writeln!(
            text,
            "{} calls of {}: 99 % took at most {}.",
            seen.took.total,
            seen.spec.name.to_uppercase().replace('|', " "),
            nanos(most)
        );
    }
    let (entries, least) = findings.slow;
    if entries > 0 {
        let least = Shown(Duration::from_micros(least.unsigned_abs()));
        let _ = writeln!(
            text,
            "{entries} commands of {least} or more are in the slow log."
        );
        steps.push(
            "MEMKV.SLOWLOG says which commands were slow, and where each spent its time:\n   \
             queue, fsync, replicate, apply, send.",
        );
    }
}

fn tell_spikes(text: &mut String, steps: &mut Vec<&'static str>, findings: &Findings<'_>) {
    let least = findings.spikes.least_ms();
    if least == 0 {
        text.push_str(
            "Spikes are not recorded; CONFIG SET latency-monitor-threshold 100 records\nthose of \
             100 ms or more.\n",
        );
        return;
    }
    let before = steps.len();
    for kind in Kind::ALL {
        let (samples, longest) = findings.spikes.of(kind);
        if samples.is_empty() {
            continue;
        }
        let name = kind.name();
        let _ = writeln!(
            text,
            "Spikes of {name} from {least} ms on: {}, the longest {longest} ms.",
            samples.len()
        );
        if steps.len() == before {
            steps.push("LATENCY HISTORY and LATENCY GRAPH of each event say when it was slow.");
        }
    }
}
