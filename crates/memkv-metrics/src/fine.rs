//! Histograms of durations with many bounds, for quantiles: a value is told at most an eighth too high.
//! Never locks and never allocates while it counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The first bound (1.024 µs), as in Redis: what is shorter is not told apart.
const FIRST_BITS: u32 = 10;

/// Each doubling is divided into eight.
const PART_BITS: u32 = 3;

const PARTS: usize = 1 << PART_BITS;

/// Doublings that are told apart: up to 17 seconds, longer than any client waits.
const DOUBLINGS: usize = 24;

/// Buckets: one below the first bound, and the parts of each doubling. Longer values count in the last one.
const BUCKETS: usize = 1 + DOUBLINGS * PARTS;

/// How many durations were so long, and their sum: 1.5 KiB.
#[derive(Debug)]
pub struct FineHistogram {
    counts: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

/// A histogram's counts, at about one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FineCounted {
    counts: Vec<u64>,
    /// The number of all values.
    pub total: u64,
    /// Their sum in nanoseconds.
    pub nanos: u64,
}

impl Default for FineHistogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            nanos: AtomicU64::new(0),
        }
    }
}

/// The bucket of a value.
fn bucket(nanos: u64) -> usize {
    let Some(bits) = nanos.checked_ilog2().filter(|bits| *bits >= FIRST_BITS) else {
        return 0;
    };
    let part = (nanos >> (bits - PART_BITS)) as usize & (PARTS - 1);
    let doubling = (bits - FIRST_BITS) as usize;
    (1 + doubling * PARTS + part).min(BUCKETS - 1)
}

/// The largest value of a bucket that is not the last one.
fn largest(bucket: usize) -> u64 {
    let Some(at) = bucket.checked_sub(1) else {
        return (1 << FIRST_BITS) - 1;
    };
    let (doubling, part) = ((at / PARTS) as u32, (at % PARTS) as u64);
    ((PARTS as u64 + part + 1) << (FIRST_BITS + doubling - PART_BITS)) - 1
}

impl FineHistogram {
    /// Counts a duration `times` times.
    pub fn count(&self, duration: Duration, times: u64) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)].fetch_add(times, Ordering::Relaxed);
        let sum = nanos.saturating_mul(times);
        self.nanos.fetch_add(sum, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn counted(&self) -> FineCounted {
        let counts: Vec<u64> = self.counts.iter().map(load).collect();
        FineCounted {
            total: counts.iter().sum(),
            counts,
            nanos: load(&self.nanos),
        }
    }

    /// Forgets what was counted.
    pub fn reset(&self) {
        for count in self.counts.iter().chain([&self.nanos]) {
            count.store(0, Ordering::Relaxed);
        }
    }
}

fn load(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

impl FineCounted {
    /// Takes the counts of another one.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.nanos = self.nanos.saturating_add(other.nanos);
    }

    /// A duration in nanoseconds that this share of the values does not exceed, out of 1,000; 0 without values.
    pub fn quantile(&self, permille: u64) -> u64 {
        let rank = self.total.saturating_mul(permille).div_ceil(1_000).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, largest)
    }

    /// For each doubling of a microsecond (1,024 ns) at which there are values: the bound in nanoseconds, and how
    /// many values are at most so long.
    pub fn doublings(&self) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        let (mut seen, mut told) = (0, 0);
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if at % PARTS == 0 && seen > told {
                told = seen;
                found.push((largest(at) + 1, seen));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_told_at_most_an_eighth_too_high() {
        for nanos in (0..40).flat_map(|bits| [(1_u64 << bits) - 1, 1 << bits, (5 << bits) / 3]) {
            let histogram = FineHistogram::default();
            histogram.count(Duration::from_nanos(nanos), 1);
            let told = histogram.counted().quantile(500);
            let is_told_apart = (1 << FIRST_BITS..1 << 34).contains(&nanos);
            assert!(
                !is_told_apart || (told >= nanos && told - nanos <= nanos / 8),
                "{nanos}: {told}"
            );
        }
    }

    #[test]
    fn quantiles_and_doublings_count_all_values() {
        let histogram = FineHistogram::default();
        assert_eq!(histogram.counted().quantile(990), 0);
        assert_eq!(histogram.counted().doublings(), []);
        histogram.count(Duration::from_micros(3), 98);
        histogram.count(Duration::from_millis(5), 1);
        histogram.count(Duration::MAX, 1);
        let counted = histogram.counted();
        assert_eq!(counted.total, 100);
        assert_eq!(counted.quantile(500), 3_071);
        assert!((5_000_000..5_625_000).contains(&counted.quantile(990)));
        assert!(counted.quantile(999) > 15_000_000_000);
        let most = 1024 << DOUBLINGS;
        assert_eq!(
            counted.doublings(),
            [(4_096, 98), (8_192 << 10, 99), (most, 100)]
        );
        histogram.reset();
        assert_eq!(
            (histogram.counted().total, histogram.counted().nanos),
            (0, 0)
        );
    }
}
