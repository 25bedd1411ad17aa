//! Seeded randomness. Never asks the operating system, and never depends on another crate's idea
//! of a random generator, so that a seed means the same run for ever.
//! Invariant: streams with different labels are independent, so that a draw more in one part of a
//! run does not change the draws of another.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// A stream of random numbers; clones continue the same stream.
#[derive(Clone)]
pub struct Rng(Arc<Mutex<u64>>);

/// SplitMix64's increment: 2^64 divided by the golden ratio (Steele, Lea, Flood, OOPSLA 2014).
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    /// The stream of `seed` for one purpose.
    pub fn new(seed: u64, label: &str) -> Self {
        // FNV-1a over the label: any mixing will do, since the output function mixes again.
        let label = label
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        let rng = Self(Arc::new(Mutex::new(seed.wrapping_mul(GAMMA) ^ label)));
        rng.next();
        rng
    }

    /// 64 random bits (SplitMix64).
    pub fn next(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(GAMMA);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0. Its bias is below `end` / 2^64.
    pub fn below(&self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below((high.saturating_sub(low)).saturating_add(1))
    }

    /// An index of something with `len` elements, which must not be empty.
    pub fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&self, items: &'a [T]) -> &'a T {
        &items[self.index(items.len())]
    }

    /// Whether an event of this many chances in a million happens.
    pub fn chance(&self, per_million: u64) -> bool {
        per_million > 0 && self.below(1_000_000) < per_million
    }

    /// Heads or tails.
    pub fn coin(&self) -> bool {
        self.next() & 1 == 1
    }

    /// A time from `low` to `high` milliseconds.
    pub fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// A waiting time with this mean: exponential, and at most ten times the mean.
    pub fn wait(&self, mean: Duration) -> Duration {
        // 53 bits fill a double's fraction; the 1 keeps the logarithm finite.
        let uniform = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
        mean.mul_f64((-uniform.ln()).min(10.0))
    }

    /// `time` as whole milliseconds, which is what tokio's timers resolve: up or down by chance,
    /// so that it stays the same on average and most short times are none.
    pub fn rounded(&self, time: Duration) -> Duration {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let up = self.below(1000) < micros % 1000;
        Duration::from_millis(micros / 1000 + u64::from(up))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, label| {
            let rng = Rng::new(seed, label);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(draw(1, "net"), draw(1, "net"));
        assert_ne!(draw(1, "net"), draw(2, "net"));
        assert_ne!(draw(1, "net"), draw(1, "disk"));
    }

    #[test]
    fn bounds_hold() {
        let rng = Rng::new(3, "bounds");
        assert_eq!(rng.below(0), 0);
        for _ in 0..1000 {
            assert!((5..=7).contains(&rng.between(5, 7)));
            assert!(rng.wait(Duration::from_secs(1)) <= Duration::from_secs(10));
        }
        let hits = (0..10_000).filter(|_| rng.chance(250_000)).count();
        assert!(
            (2_000..3_000).contains(&hits),
            "a quarter of 10,000 was {hits}"
        );
    }
}
