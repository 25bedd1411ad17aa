//! Histograms with fixed bounds, for metrics. Never locks and never allocates while it counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds of durations, in nanoseconds: from a fast fsync to longer than any client waits.
const DURATIONS: [u64; 18] = {
    const MICROSECOND: u64 = 1_000;
    const MILLISECOND: u64 = 1_000_000;
    const SECOND: u64 = 1_000_000_000;
    [
        10 * MICROSECOND,
        25 * MICROSECOND,
        50 * MICROSECOND,
        100 * MICROSECOND,
        250 * MICROSECOND,
        500 * MICROSECOND,
        MILLISECOND,
        2_500 * MICROSECOND,
        5 * MILLISECOND,
        10 * MILLISECOND,
        25 * MILLISECOND,
        50 * MILLISECOND,
        100 * MILLISECOND,
        250 * MILLISECOND,
        500 * MILLISECOND,
        SECOND,
        2_500 * MILLISECOND,
        5 * SECOND,
    ]
};

/// Bounds of counts, such as the size of a group.
const SIZES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

/// A histogram: the number of values up to each bound, and the sum of all.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// Values up to each bound and above the one before; the last one is without a bound.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    /// The largest value since it was taken.
    peak: AtomicU64,
}

/// A histogram's counts, at about one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// Upper bounds, ascending: nanoseconds or numbers.
    pub bounds: &'static [u64],
    /// The number of values up to each bound; one more for all of them.
    pub at_most: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// For durations, in nanoseconds.
    pub fn of_durations() -> Self {
        Self::new(&DURATIONS)
    }

    /// For counts.
    pub fn of_sizes() -> Self {
        Self::new(&SIZES)
    }

    fn new(bounds: &'static [u64]) -> Self {
        let zeros = std::iter::repeat_with(AtomicU64::default);
        Self {
            bounds,
            counts: zeros.take(bounds.len() + 1).collect(),
            sum: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        }
    }

    /// Counts a value `times` times.
    pub fn count(&self, value: u64, times: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.counts[at].fetch_add(times, Ordering::Relaxed);
        let sum = value.saturating_mul(times);
        self.sum.fetch_add(sum, Ordering::Relaxed);
        if value > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(value, Ordering::Relaxed);
        }
    }

    /// The largest value since the last call; 0 if there was none.
    pub fn take_peak(&self) -> u64 {
        self.peak.swap(0, Ordering::Relaxed)
    }

    /// Counts a duration `times` times.
    pub fn count_duration(&self, duration: Duration, times: u64) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.count(nanos, times);
    }

    /// The counts so far.
    pub fn counted(&self) -> Counted {
        let mut total = 0;
        let at_most = self.counts.iter().map(|count| {
            total += count.load(Ordering::Relaxed);
            total
        });
        Counted {
            bounds: self.bounds,
            at_most: at_most.collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl Counted {
    /// A value that about this share of the values does not exceed, out of 1,000: between two bounds by
    /// proportion, as Prometheus's `histogram_quantile` has it. 0 without values; the last bound if it is above.
    pub fn quantile(&self, permille: u64) -> u64 {
        let total = self.at_most.last().copied().unwrap_or(0);
        let rank = total.saturating_mul(permille).div_ceil(1_000).max(1);
        let found = self.at_most.iter().position(|at_most| *at_most >= rank);
        let last = self.bounds.last().copied().unwrap_or(0);
        let Some(at) = found else { return 0 };
        let Some(high) = self.bounds.get(at).copied() else {
            return last;
        };
        let (low, before) = match at.checked_sub(1) {
            Some(before) => (self.bounds[before], self.at_most[before]),
            None => (0, 0),
        };
        let within = u128::from(rank - before) * u128::from(high - low);
        let within = within / u128::from((self.at_most[at] - before).max(1));
        low + u64::try_from(within).unwrap_or(high - low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_two_bounds() {
        let sizes = Histogram::of_sizes();
        assert_eq!(sizes.counted().quantile(990), 0);
        sizes.count(3, 10);
        let counted = sizes.counted();
        assert_eq!(counted.quantile(1000), 4);
        assert_eq!(counted.quantile(500), 3);
        sizes.count(5_000, 90);
        assert_eq!(sizes.counted().quantile(990), 1024, "the last bound");
    }

    #[test]
    fn a_value_counts_for_every_bound_that_it_does_not_exceed() {
        let sizes = Histogram::of_sizes();
        for (value, times) in [(1, 1), (2, 1), (3, 2), (1024, 1), (1025, 1)] {
            sizes.count(value, times);
        }
        let counted = sizes.counted();
        assert_eq!(counted.at_most, [1, 2, 4, 4, 4, 4, 4, 4, 4, 4, 5, 6]);
        assert_eq!(counted.sum, 1 + 2 + 6 + 1024 + 1025);
        assert_eq!((sizes.take_peak(), sizes.take_peak()), (1025, 0));
        let durations = Histogram::of_durations();
        durations.count_duration(Duration::MAX, 1);
        assert_eq!(durations.counted().at_most.last(), Some(&1));
        assert!(DURATIONS.is_sorted() && SIZES.is_sorted());
    }
}
