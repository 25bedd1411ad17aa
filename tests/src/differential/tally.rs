//! What a run did, so that an empty proof can be told from a real one. Counts what the oracle
//! answered: it is the one that is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::resp::Frame;

use super::rules::{Rules, Way};
use super::templates::TEMPLATES;

/// Commands over which the floors below are stated; others are scaled.
const SCALE: usize = 100_000;

/// Executions without an error of each command of the templates. The rarest have a weight of one in
/// about 700.
const EACH_COMMAND: usize = 30;

/// Errors in all.
const ERRORS: usize = 5_000;

/// Transactions of each kind: executed, with an error inside, not executed because of a watched
/// key, refused because of an error before.
const TRANSACTIONS: usize = 100;

/// Keys that expired.
const EXPIRED: usize = 500;

/// Whole iterations.
const SCANS: usize = 100;

/// Replies in each protocol.
const PER_PROTOCOL: usize = 20_000;

/// Commands that only ever fail: unknown, for Redis's own clusters, forbidden, or sent in forms that
/// do nothing.
const NEVER_SUCCEEDS: &[&str] = &[
    "DEBUG",
    "NOSUCHCOMMAND",
    "READONLY",
    "READWRITE",
    "SHUTDOWN",
];

/// What happened.
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

    /// Everything of which there was too little.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut demand = |what: &str, count: usize, floor: usize| {
            let floor = floor * self.commands / SCALE;
            if count < floor {
                missing.push(format!("{what}: {count}, the floor is {floor}"));
            }
        };
        let words = TEMPLATES.iter().map(|(_, template)| {
            let word = template.split(' ').next().unwrap_or_default();
            word.trim_start_matches('!')
        });
        let names: BTreeSet<&str> = words
            .filter(|name| !NEVER_SUCCEEDS.contains(name))
            .collect();
        for name in names {
            let count = self.executed.get(name).copied().unwrap_or_default();
            demand(name, count, EACH_COMMAND);
        }
        demand("errors", self.errors.values().sum(), ERRORS);
        demand("transactions", self.transactions, TRANSACTIONS);
        demand("errors inside", self.failed_inside, TRANSACTIONS);
        demand("aborted by WATCH", self.aborted, TRANSACTIONS);
        demand("EXECABORT", self.refused, TRANSACTIONS);
        demand("expired keys", self.expired, EXPIRED);
        demand("iterations", self.scans, SCANS);
        demand("RESP3", self.resp3, PER_PROTOCOL);
        demand("RESP2", self.commands - self.resp3, PER_PROTOCOL);
        missing
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
