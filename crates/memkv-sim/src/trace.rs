//! The events of a run, as lines: always hashed, written to a file on demand, and counted by kind.
//! Never influences the run.
//! Invariant: two runs of one seed give the same lines, so equal digests prove determinism.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::Write as _;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How often things happened, by name.
pub type Counts = BTreeMap<&'static str, u64>;

/// Kinds of events whose moments are kept.
const MOMENTOUS: [&str; 4] = [
    "clock jumps",
    "power losses of all",
    "processes started",
    "snapshots installed",
];

/// The record of one run.
pub struct Trace {
    start: Instant,
    state: Mutex<State>,
}

struct State {
    crc: crc32fast::Hasher,
    lines: u64,
    line: String,
    file: Option<std::io::BufWriter<std::fs::File>>,
    counts: Counts,
    /// Of momentous events: their microseconds.
    moments: BTreeMap<&'static str, Vec<u64>>,
}

impl Trace {
    /// Starts the clock. Must be called inside the run's runtime.
    pub fn new(file: Option<std::fs::File>) -> Self {
        let state = State {
            crc: crc32fast::Hasher::new(),
            lines: 0,
            line: String::new(),
            file: file.map(std::io::BufWriter::new),
            counts: Counts::new(),
            moments: BTreeMap::new(),
        };
        Self {
            start: Instant::now(),
            state: Mutex::new(state),
        }
    }

    /// Simulated time since the start, in microseconds.
    pub fn micros(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Adds a line.
    pub fn line(&self, event: fmt::Arguments<'_>) {
        let micros = self.micros();
        let mut state = self.state.lock();
        let State {
            crc,
            lines,
            line,
            file,
            ..
        } = &mut *state;
        line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(line, "{:>6}.{:03} {event}", micros / 1000, micros % 1000);
        crc.update(line.as_bytes());
        *lines += 1;
        if let Some(out) = file
            && out.write_all(line.as_bytes()).is_err()
        {
            *file = None;
        }
    }

    /// Counts an event of this kind.
    pub fn count(&self, kind: &'static str) {
        let mut state = self.state.lock();
        *state.counts.entry(kind).or_default() += 1;
        if MOMENTOUS.contains(&kind) {
            let micros = self.micros();
            state.moments.entry(kind).or_default().push(micros);
        }
    }

    /// Whether a momentous event of this kind was counted between two moments, in microseconds.
    pub fn happened(&self, kind: &str, from: u64, to: u64) -> bool {
        debug_assert!(MOMENTOUS.contains(&kind), "{kind} is not kept");
        let state = self.state.lock();
        let moments = state.moments.get(kind).map_or(&[][..], Vec::as_slice);
        moments
            .get(moments.partition_point(|at| *at < from))
            .is_some_and(|at| *at <= to)
    }

    /// How often an event of this kind was counted so far.
    pub fn times(&self, kind: &str) -> u64 {
        self.state.lock().counts.get(kind).copied().unwrap_or(0)
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts.clone()
    }

    /// The digest over all lines so far, and their number.
    pub fn digest(&self) -> (u32, u64) {
        let mut state = self.state.lock();
        if let Some(file) = &mut state.file {
            // The file is an aid for people; the digest does not depend on it.
            let _ = file.flush();
        }
        (state.crc.clone().finalize(), state.lines)
    }
}
