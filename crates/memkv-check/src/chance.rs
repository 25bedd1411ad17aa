//! How little of something a random test may do before chance cannot explain it.
//!
//! A test that counts what it did holds each count against a floor, so that it cannot pass by doing
//! nothing. A floor that is guessed fails now and then without a reason, or finds nothing. Here a
//! floor follows from the expected count.
//!
//! Model: independent events, so that the count has a Poisson distribution. Events that come
//! together, such as the commands of one transaction, are counted as clusters. Invariants: a floor
//! never exceeds what is expected; nothing here draws a random number.

/// The probability with which a count that is as expected may lie below its floor: a test of a
/// thousand floors then fails without a reason less than once in a million runs.
pub const MISSES: f64 = 1e-9;

/// The largest floor that a count of `expected` events misses with a probability of at most
/// [`MISSES`]. `cluster` is how many events come together at most; one for independent events.
///
/// Zero: so few are expected that none at all may be chance. The test must then do more, or demand
/// less.
pub fn floor(expected: f64, cluster: f64) -> u64 {
    let clusters = expected / cluster;
    if !clusters.is_finite() || clusters <= 0.0 {
        return 0;
    }
    // ln P(X = 0), then ln P(X = k) from one k to the next: the plain numbers underflow from a
    // mean of 745 on.
    let mut logarithm = -clusters;
    let (mut below, mut count) = (0.0, 0_u32);
    loop {
        below += logarithm.exp();
        if below > MISSES {
            break;
        }
        count += 1;
        logarithm += clusters.ln() - f64::from(count).ln();
    }
    // A count of clusters; the last of them may have been a single event.
    (f64::from(count) * cluster).floor().min(expected) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P(X < floor) for a Poisson distribution, from the definition.
    fn below(mean: f64, floor: u64) -> f64 {
        let mut probability = (-mean).exp();
        let mut sum = 0.0;
        for count in 0..floor {
            sum += probability;
            probability *= mean / (count + 1) as f64;
        }
        sum
    }

    #[test]
    fn the_floor_is_the_largest_that_chance_spares() {
        for mean in [1.0, 20.0, 21.0, 50.0, 100.0, 300.0, 700.0] {
            let floor = floor(mean, 1.0);
            assert!(below(mean, floor) <= MISSES, "{mean}: {floor}");
            assert!(below(mean, floor + 1) > MISSES, "{mean}: {floor}");
        }
    }

    #[test]
    fn none_at_all_is_chance_up_to_some_twenty() {
        assert_eq!(floor(20.0, 1.0), 0);
        assert_eq!(floor(21.0, 1.0), 1);
        assert_eq!(floor(0.0, 1.0), 0);
        assert_eq!(floor(f64::NAN, 1.0), 0);
    }

    #[test]
    fn events_that_come_together_are_worth_one() {
        assert_eq!(floor(200.0, 10.0), 0, "twenty clusters");
        assert!(floor(300.0, 10.0) >= 10);
        assert!(floor(300.0, 10.0) < floor(300.0, 1.0));
    }

    #[test]
    fn large_means_neither_underflow_nor_exceed_themselves() {
        let floor = floor(100_000.0, 1.0);
        assert!((97_000..100_000).contains(&floor), "{floor}");
    }
}
