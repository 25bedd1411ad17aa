//! A histogram of latencies in the layout of HdrHistogram: each power of two is divided into equal
//! parts, so a value is known to 1 in 128 (0.8 %) at any size, and adding one is a few instructions.
//!
//! Never allocates after it was made, and never refuses a value: a value beyond the end counts as the
//! end.

use std::time::Duration;

/// Parts of each power of two.
const PARTS_BITS: u32 = 7;
const PARTS: usize = 1 << PARTS_BITS;

/// The largest exponent: 2^40 ns are 18 minutes, longer than any run.
const MAX_BITS: u32 = 40;
const BUCKETS: usize = (MAX_BITS - PARTS_BITS + 1) as usize * PARTS;

/// How often each latency was seen.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            counts: vec![0; BUCKETS],
            total: 0,
        }
    }
}

impl Histogram {
    /// Adds one latency.
    pub(crate) fn add(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// Adds those of another run.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// The number of latencies.
    pub(crate) fn count(&self) -> u64 {
        self.total
    }

    /// The latency that this share of all did not exceed; zero if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let wanted = ((self.total as f64 * share).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(middle(bucket));
            }
        }
        Duration::ZERO
    }
}

/// Bucket of a value.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.min((1 << MAX_BITS) - 1);
    // Values below PARTS have a bucket each; above, the leading bits name the bucket.
    let power = (u64::BITS - nanos.leading_zeros()).saturating_sub(PARTS_BITS + 1);
    power as usize * PARTS + (nanos >> power) as usize
}

/// The middle of a bucket's values.
fn middle(bucket: usize) -> u64 {
    let power = (bucket / PARTS).saturating_sub(1) as u32;
    let first = (bucket - power as usize * PARTS) as u64;
    (first << power) + (1 << power) / 2
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, bucket, middle};
    use std::time::Duration;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut last = 0;
        for nanos in (0..100_000).chain((100_000..1 << 40).step_by(1 << 27)) {
            let index = bucket(nanos);
            assert!(index >= last && index < BUCKETS, "{nanos}");
            assert!(nanos > 100_000 || index <= last + 1, "a gap at {nanos}");
            last = index;
            let error = middle(index).abs_diff(nanos);
            assert!(
                error <= nanos / 128,
                "{nanos} is taken for {}",
                middle(index)
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_all_values() {
        let (mut low, mut high) = (Histogram::default(), Histogram::default());
        for micros in 1..=900 {
            low.add(Duration::from_micros(micros));
        }
        for micros in 901..=1000 {
            high.add(Duration::from_micros(micros));
        }
        low.merge(&high);
        assert_eq!(low.count(), 1000);
        for (share, micros) in [(0.001, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let found = low.quantile(share).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.01, "{share}: {found}");
        }
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
