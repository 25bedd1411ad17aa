//! How often each command was called, how long it took, and how often it failed or was rejected.
//!
//! Never locks. A command that is never called takes a word and two counters; one that was called takes a
//! histogram for as long as the process lives.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memkv_metrics::{FineCounted, FineHistogram};

use crate::commands::{Spec, TABLE};

/// The counters of all commands, by their place in the table.
pub(crate) struct Calls {
    each: Box<[Counters]>,
}

#[derive(Default)]
struct Counters {
    /// One for each call.
    took: OnceLock<Box<FineHistogram>>,
    /// Calls that were executed and answered with an error.
    failed: AtomicU64,
    /// Calls that were not executed: wrong number of arguments, no right, no memory.
    rejected: AtomicU64,
}

/// What was counted of one command.
pub(crate) struct Seen {
    pub(crate) spec: &'static Spec,
    pub(crate) took: FineCounted,
    pub(crate) failed: u64,
    pub(crate) rejected: u64,
}

impl Default for Calls {
    fn default() -> Self {
        let counters = TABLE.iter().map(|_| Counters::default());
        Self {
            each: counters.collect(),
        }
    }
}

impl Calls {
    /// Counts calls that were executed, and how many of them failed.
    pub(crate) fn count(&self, spec: &'static Spec, took: Duration, calls: u64, failed: u64) {
        let Some(counters) = self.each.get(spec.index()) else {
            return;
        };
        let histogram = counters.took.get_or_init(Box::default);
        histogram.count(took, calls);
        if failed > 0 {
            counters.failed.fetch_add(failed, Ordering::Relaxed);
        }
    }

    /// Counts a call that was not executed.
    pub(crate) fn reject(&self, spec: &'static Spec) {
        if let Some(counters) = self.each.get(spec.index()) {
            counters.rejected.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was counted of this command; nothing if it was neither called nor rejected.
    pub(crate) fn of(&self, spec: &'static Spec) -> Option<Seen> {
        let counters = self.each.get(spec.index())?;
        let took = match counters.took.get() {
            Some(histogram) => histogram.counted(),
            None => FineHistogram::default().counted(),
        };
        let seen = Seen {
            spec,
            took,
            failed: counters.failed.load(Ordering::Relaxed),
            rejected: counters.rejected.load(Ordering::Relaxed),
        };
        (seen.took.total > 0 || seen.rejected > 0).then_some(seen)
    }

    /// Every command that was called or rejected, in the order of the table.
    pub(crate) fn seen(&self) -> impl Iterator<Item = Seen> {
        TABLE.iter().filter_map(|spec| self.of(spec))
    }

    /// How long the calls of all commands with one of these flags took.
    pub(crate) fn took_with(&self, flags: u32) -> FineCounted {
        let mut all = FineHistogram::default().counted();
        let with = |seen: &Seen| seen.spec.flags & flags != 0;
        self.seen()
            .filter(with)
            .for_each(|seen| all.add(&seen.took));
        all
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        for counters in &self.each {
            if let Some(histogram) = counters.took.get() {
                histogram.reset();
            }
            counters.failed.store(0, Ordering::Relaxed);
            counters.rejected.store(0, Ordering::Relaxed);
        }
    }
}

/// Calls of one command in a row, which are counted together: those of a pipeline cost a comparison each.
#[derive(Default)]
pub(crate) struct Run {
    spec: Option<&'static Spec>,
    calls: u64,
    failed: u64,
}

impl Run {
    /// Whether a call of this command ends the run.
    pub(crate) fn ends_with(&self, spec: &'static Spec) -> bool {
        self.spec.is_some_and(|own| !std::ptr::eq(own, spec))
    }

    /// Takes a call; the run must have ended if it was of another command.
    pub(crate) fn add(&mut self, spec: &'static Spec, failed: bool) {
        self.spec = Some(spec);
        self.calls += 1;
        self.failed += u64::from(failed);
    }

    /// Counts the run, each call of which took so long.
    pub(crate) fn end(&mut self, calls: &Calls, took: Duration) {
        let run = std::mem::take(self);
        if let Some(spec) = run.spec {
            calls.count(spec, took, run.calls, run.failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::find;

    #[test]
    fn runs_are_counted_by_command() {
        let calls = Calls::default();
        let [get, set] = [&b"get"[..], b"set"].map(|name| find(name).unwrap());
        let mut run = Run::default();
        for (spec, failed) in [(get, false), (get, true), (set, false)] {
            if run.ends_with(spec) {
                run.end(&calls, Duration::from_micros(5));
            }
            run.add(spec, failed);
        }
        run.end(&calls, Duration::from_micros(7));
        run.end(&calls, Duration::from_micros(9));
        calls.reject(set);
        let seen: Vec<_> = calls
            .seen()
            .map(|seen| {
                (
                    seen.spec.name,
                    seen.took.total,
                    seen.took.nanos,
                    seen.failed,
                    seen.rejected,
                )
            })
            .collect();
        assert_eq!(seen, [("get", 2, 10_000, 1, 0), ("set", 1, 7_000, 0, 1)]);
        calls.reset();
        assert_eq!(calls.seen().count(), 0);
    }
}
