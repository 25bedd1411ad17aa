//! What a run of many seeds must have done at least, so that it cannot pass by doing nothing.
//! Never judges a single seed, nor short ones.
//!
//! Two floors for each counter of `measured`: how often it was counted in all, from its mean and
//! dispersion, and in how many seeds it was counted, from the share of those that did. The second one
//! holds where a few seeds do most. Chance misses any of them less than once in a million runs.

use std::collections::BTreeMap;

use memkv_check::chance;

use crate::measured::{FLOORS, Measured, RARE};
use crate::trace::Counts;

/// Simulated seconds under faults per seed, from which on floors are held.
pub const SECONDS: u64 = 30;

/// Seeds from which on floors are held, and what the test command runs: two minutes of processor time.
/// Fewer may miss something by chance.
pub const SEEDS: u64 = 300;

/// The same for what is rare.
const RARE_SEEDS: u64 = 2_000;

/// How much of what was measured is expected: a change of code moves shares, and each new kind of fault
/// takes some from the others.
const KEPT: f64 = 0.7;

/// What many seeds have counted of one kind of event.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// How often.
    pub total: u64,
    /// In how many seeds.
    pub seeds: u64,
    squares: u128,
}

/// The same of all kinds, by name.
pub type Tallies = BTreeMap<&'static str, Tally>;

/// Adds what one seed has counted.
pub fn add(tallies: &mut Tallies, counts: &Counts) {
    for (name, count) in counts {
        let tally = tallies.entry(name).or_default();
        tally.total += count;
        tally.seeds += u64::from(*count > 0);
        tally.squares += u128::from(*count) * u128::from(*count);
    }
}

/// The table's row for a counter.
pub fn measured(name: &str, tally: &Tally, seeds: u64) -> String {
    let seeds = seeds as f64;
    let mean = tally.total as f64 / seeds;
    let variance = tally.squares as f64 / seeds - mean * mean;
    let share = tally.seeds as f64 / seeds;
    let dispersion = variance / mean;
    format!("(\"{name}\", {mean:.3}, {dispersion:.1}, {share:.3}),")
}

/// The floors of a counter over so many seeds: in all, and of seeds with it.
fn floors((_, mean, dispersion, share): &Measured, seeds: u64) -> (u64, u64) {
    let expected = mean * seeds as f64 * KEPT;
    let total = chance::floor(expected, dispersion.max(1.0));
    (total, chance::floor_of_trials(seeds, share * KEPT))
}

/// The counters that are below a floor.
pub fn missed(tallies: &Tallies, seeds: u64) -> Vec<String> {
    let held = |table: &'static [Measured], from| table.iter().filter(move |_| seeds >= from);
    let missed = |row: &Measured| {
        let tally = tallies.get(row.0).copied().unwrap_or_default();
        let (total, with) = floors(row, seeds);
        let is_missed = tally.total < total || tally.seeds < with;
        is_missed.then(|| {
            format!(
                "{}: {} in {} seeds, at least {total} in {with} expected",
                row.0, tally.total, tally.seeds
            )
        })
    };
    let rows = held(FLOORS, SEEDS).chain(held(RARE, RARE_SEEDS));
    rows.filter_map(missed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doing_nothing_is_too_little() {
        assert_eq!(missed(&Tallies::new(), SEEDS).len(), FLOORS.len());
        let all = FLOORS.len() + RARE.len();
        assert_eq!(missed(&Tallies::new(), RARE_SEEDS).len(), all);
        let few = missed(&Tallies::new(), SEEDS - 1);
        assert!(few.is_empty(), "so few seeds are no sample");
    }

    #[test]
    fn no_floor_is_nothing_at_the_seeds_from_which_it_is_held() {
        for row in FLOORS {
            assert!(floors(row, SEEDS).1 > 0, "{row:?}");
        }
        for row in RARE {
            assert!(floors(row, RARE_SEEDS).1 > 0, "{row:?}");
        }
    }

    #[test]
    fn what_was_measured_is_above_the_floors() {
        for row in FLOORS.iter().chain(RARE) {
            let (total, with) = floors(row, 10_000);
            assert!((total as f64) < row.1 * 10_000.0, "{row:?}: {total}");
            assert!((with as f64) < row.3 * 10_000.0, "{row:?}: {with}");
        }
    }

    #[test]
    fn a_row_tells_mean_dispersion_and_share() {
        let mut tallies = Tallies::new();
        add(&mut tallies, &Counts::from([("a", 3)]));
        add(&mut tallies, &Counts::from([("a", 1), ("b", 7)]));
        assert_eq!(
            measured("a", &tallies["a"], 4),
            r#"("a", 1.000, 1.5, 0.500),"#
        );
        assert_eq!(tallies["b"].seeds, 1);
    }

    #[test]
    fn many_from_one_seed_are_not_enough() {
        let (name, ..) = FLOORS[0];
        let mut tallies = Tallies::new();
        add(&mut tallies, &Counts::from([(name, u64::from(u32::MAX))]));
        assert_eq!(missed(&tallies, SEEDS).len(), FLOORS.len());
    }
}
