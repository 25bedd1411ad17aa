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

/// The largest floor that the number of trials with an event misses with a probability of at most
/// [`MISSES`], if each of so many independent trials has it with the probability `share`.
///
/// Zero: none at all may be chance.
pub fn floor_of_trials(trials: u64, share: f64) -> u64 {
    if share.is_nan() || share <= 0.0 {
        return 0;
    }
    let share = share.min(1.0);
    let odds = (share / (1.0 - share)).ln();
    // ln P(X = 0), then ln P(X = k) from one k to the next.
    let mut logarithm = trials as f64 * (1.0 - share).ln();
    let mut below = 0.0;
    for count in 0..trials {
        below += logarithm.exp();
        if below > MISSES {
            return count;
        }
        logarithm += ((trials - count) as f64 / (count + 1) as f64).ln() + odds;
    }
    trials
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

    /// P(X < floor) for a binomial distribution, from the definition.
    fn fewer(trials: u64, share: f64, floor: u64) -> f64 {
        let mut ways = 1.0;
        let mut sum = 0.0;
        for count in 0..floor {
            let without = (trials - count) as i32;
            sum += ways * share.powi(count as i32) * (1.0 - share).powi(without);
            ways *= (trials - count) as f64 / (count + 1) as f64;
        }
        sum
    }

    #[test]
    fn the_floor_of_trials_is_the_largest_that_chance_spares() {
        for trials in [50, 200] {
            for share in [0.05, 0.1, 0.34, 0.35, 0.5, 0.9] {
                let floor = floor_of_trials(trials, share);
                assert!(fewer(trials, share, floor) <= MISSES, "{share}: {floor}");
                assert!(fewer(trials, share, floor + 1) > MISSES, "{share}: {floor}");
            }
        }
        assert_eq!(
            floor_of_trials(50, 0.3),
            0,
            "three of four seeds without it"
        );
        assert_eq!(floor_of_trials(50, 0.35), 1);
        assert_eq!(floor_of_trials(50, 1.0), 50);
        assert_eq!(floor_of_trials(50, 0.0), 0);
        assert_eq!(floor_of_trials(50, f64::NAN), 0);
        assert_eq!(floor_of_trials(0, 0.5), 0);
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
