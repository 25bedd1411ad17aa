//! The work of a run, so that an empty proof can be told from a real one. Counts what the oracle
//! answered: it is the one that is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use memkv_check::chance;

use crate::resp::Frame;

use super::generate;
use super::rules::{Rules, Way};
use super::templates::TEMPLATES;

/// Commands over which the expected counts below are stated; others are scaled.
const SCALE: f64 = 100_000.0;

/// The least share of a command's calls that succeed. `DISCARD` has the smallest,
/// because most of them come outside of a transaction.
const SUCCEEDS: f64 = 0.2;

/// The share of the measured number that is expected, so that a change of the generator that moves a share a
/// little is no failure.
const KEPT: f64 = 0.5;

/// Commands that fail or succeed together, at most: a transaction, or an iteration over keys.
const CLUSTER: f64 = 10.0;

/// Errors in all, as measured.
const ERRORS: f64 = 18_000.0;

/// Transactions of each kind, as measured: executed, with an error inside, not executed because of a
/// watched key, refused because of an error before.
const EXECUTED: f64 = 2_700.0;
const FAILED_INSIDE: f64 = 900.0;
const ABORTED: f64 = 225.0;
const REFUSED: f64 = 670.0;

/// Keys that expired, as measured.
const EXPIRED: f64 = 1_400.0;

/// Whole iterations, as measured.
const SCANS: f64 = 260.0;

/// Commands in the protocol that fewer connections speak, as measured. A round of up to 500 commands
/// belongs to one connection.
const PER_PROTOCOL: f64 = 40_000.0;
const ROUND: f64 = 500.0;

/// Commands that only ever fail: unknown, for Redis's own clusters, forbidden, or sent in forms that
/// do nothing.
const NEVER_SUCCEEDS: &[&str] = &[
    "DEBUG",
    "NOSUCHCOMMAND",
    "READONLY",
    "READWRITE",
    "SHUTDOWN",
];

/// The counts of a run.
#[derive(Debug, Default)]
pub struct Tally {
    commands: usize,
    executed: BTreeMap<String, usize>,
    errors: BTreeMap<String, usize>,
    texts: BTreeSet<Vec<u8>>,
    transactions: usize,
    failed_inside: usize,
    aborted: usize,
    refused: usize,
    expired: usize,
    scans: usize,
    resp3: usize,
    excused: BTreeMap<String, usize>,
}

impl Tally {
    /// Commands that were sent to each server.
    pub fn commands(&self) -> usize {
        self.commands
    }

    pub(crate) fn sent(&mut self, count: usize, resp3: bool) {
        self.commands += count;
        self.resp3 += if resp3 { count } else { 0 };
    }

    pub(crate) fn reply(&mut self, name: &str, reply: &Frame) {
        if reply.is_error() {
            *self.errors.entry(name.to_owned()).or_default() += 1;
            self.texts.insert(reply.text().to_vec());
            if reply.text().starts_with(b"EXECABORT") {
                self.refused += 1;
            }
        } else {
            *self.executed.entry(name.to_owned()).or_default() += 1;
        }
    }

    pub(crate) fn transaction(&mut self, reply: &Frame) {
        if reply.is_null() {
            self.aborted += 1;
        } else {
            self.transactions += 1;
            if reply.items.iter().any(Frame::is_error) {
                self.failed_inside += 1;
            }
        }
    }

    pub(crate) fn expired(&mut self, keys: usize) {
        self.expired += keys;
    }

    pub(crate) fn scanned(&mut self) {
        self.scans += 1;
    }

    pub(crate) fn excused(&mut self, rule: &str) {
        *self.excused.entry(rule.to_owned()).or_default() += 1;
    }

    /// Everything of which there was too little: less than chance explains.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (what, count, floor) in self.floors() {
            if count < floor {
                missing.push(format!("{what}: {count}, the floor is {floor}"));
            }
        }
        missing
    }

    /// Each required event, its count, and its floor.
    fn floors(&self) -> Vec<(String, u64, u64)> {
        let shares = generate::shares();
        let words = TEMPLATES.iter().map(|(_, template)| {
            let word = template.split(' ').next().unwrap_or_default();
            word.trim_start_matches('!')
        });
        let names: BTreeSet<&str> = words
            .filter(|name| !NEVER_SUCCEEDS.contains(name))
            .collect();
        let commands = self.commands as f64;
        let mut floors = Vec::new();
        for name in names {
            let count = self.executed.get(name).copied().unwrap_or_default();
            let share = shares.get(name).copied().unwrap_or_default();
            let floor = chance::floor(share * commands * SUCCEEDS, 1.0);
            floors.push((name.to_owned(), count as u64, floor));
        }
        for (what, count, measured, cluster) in [
            ("errors", self.errors.values().sum(), ERRORS, CLUSTER),
            ("transactions", self.transactions, EXECUTED, 1.0),
            ("errors inside", self.failed_inside, FAILED_INSIDE, 1.0),
            ("aborted by WATCH", self.aborted, ABORTED, 1.0),
            ("EXECABORT", self.refused, REFUSED, 1.0),
            ("expired keys", self.expired, EXPIRED, CLUSTER),
            ("iterations", self.scans, SCANS, 1.0),
            ("RESP3", self.resp3, PER_PROTOCOL, ROUND),
            ("RESP2", self.commands - self.resp3, PER_PROTOCOL, ROUND),
        ] {
            let expected = measured * KEPT * commands / SCALE;
            let floor = chance::floor(expected, cluster);
            floors.push((what.to_owned(), count as u64, floor));
        }
        floors
    }

    /// Rules of the table that excused nothing: they promise less than what holds. Whether a second
    /// has begun between two replies is chance, so one command that tells times stands for all.
    pub fn unused_rules(&self, rules: &Rules) -> Vec<String> {
        let is_used = |name: &str| self.excused.contains_key(name);
        let times = || rules.rows().filter(|(_, way)| *way == Way::About);
        let unused = rules.rows().filter(|(name, way)| match way {
            Way::About => !times().any(|(name, _)| is_used(name)),
            _ => !is_used(name),
        });
        unused.map(|(name, _)| name.to_owned()).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let executed: usize = self.executed.values().sum();
        let errors: usize = self.errors.values().sum();
        writeln!(
            f,
            "{} commands ({} in RESP3): {executed} replies, {errors} errors of {} texts",
            self.commands,
            self.resp3,
            self.texts.len()
        )?;
        writeln!(
            f,
            "transactions: {} executed, {} of them with an error inside, {} aborted by WATCH, {} refused",
            self.transactions, self.failed_inside, self.aborted, self.refused
        )?;
        writeln!(
            f,
            "{} keys expired, {} whole iterations",
            self.expired, self.scans
        )?;
        writeln!(f, "excused differences: {:?}", self.excused)?;
        write!(
            f,
            "executed: {:?}\nerrors: {:?}",
            self.executed, self.errors
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands of one run without a setting, in `tests/tests/differential.rs`.
    const COMMANDS: usize = 100_000;

    #[test]
    fn doing_nothing_is_too_little_of_everything() {
        let nothing = Tally {
            commands: COMMANDS,
            ..Tally::default()
        };
        let floors = nothing.floors();
        let zero: Vec<_> = floors.iter().filter(|(.., floor)| *floor == 0).collect();
        assert!(zero.is_empty(), "no floor: {zero:?}");
        // Without a command in RESP3, all were in RESP2.
        assert_eq!(nothing.missing().len(), floors.len() - 1);
    }
}
