//! Stands in for the crate of this name (`[patch.crates-io]` in the workspace): the histograms in
//! which the engine counts the sizes of its batches.
//!
//! Nothing reads them: memkv has counters of its own, and the engine shows these only with its
//! feature `runtime-stats`. The original makes tables for sixteen resolutions with the first
//! histogram, which took 26 MB of each process and 100 ms of each start. Here is what the engine
//! compiles against, and it counts nothing. Where another version of the engine wants another version
//! of it, `cargo xtask check` says so.

use std::fmt;
use std::marker::PhantomData;

/// Counts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty one, as it will stay.
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// Does nothing.
    pub fn record(&mut self, _value: u64) {}

    /// Does nothing.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// That of no samples.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// Zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not counted")
    }
}

/// Shows nothing.
#[derive(Debug, Clone, Default)]
pub struct AsciiChart<T = ()>(PhantomData<T>);

impl<T> AsciiChart<T> {
    /// An empty one, as it will stay.
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// Does nothing.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram<T>) -> Self {
        self
    }
}
