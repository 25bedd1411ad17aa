//! What a run of many seeds must have done at least, so that it cannot pass by doing nothing.
//! Never judges a single seed, nor short ones.

use memkv_check::chance;

use crate::trace::Counts;

/// Simulated seconds under faults per seed, from which on floors are held.
pub const SECONDS: u64 = 30;

/// Seeds from which on floors are held: fewer may miss something by chance.
pub const SEEDS: u64 = 50;

/// How much of what was measured is expected: a change of code moves shares, and each new kind of fault
/// takes some from the others.
const KEPT: f64 = 0.5;

/// Events that come together: a seed either draws a kind of fault, and inflicts it several times, or
/// does not.
const CLUSTER: f64 = 3.0;

/// Counter, and a third of what 1,000 seeds do. What is demanded is the same in proportion, but no
/// more than what chance could not explain: what is rare is demanded of long runs only.
const FLOORS: &[(&str, u64)] = &[
    ("admissions that need another id", 15),
    ("changes of leader", 700),
    ("changes that nobody hears of", 80),
    ("changes without a majority", 25),
    ("clock jumps", 280),
    ("clusters formed at a higher level", 120),
    ("clusters formed at the first level", 150),
    ("clusters formed from corrected lists", 46),
    ("commands fenced off", 10),
    ("commands forwarded", 75_000),
    ("commands not executed", 1_700),
    ("commands of many keys asked", 2_000),
    ("commands of the next level executed", 1_500),
    ("commands of the next level refused", 1_300),
    ("commands of unknown outcome that ran", 1_600),
    ("commands of unknown outcome", 1_100),
    ("commands", 55_000),
    ("comparisons of stores", 40_000),
    (
        "confirmations asked for while a newcomer has no vote",
        1_500,
    ),
    ("crashes at Append", 75),
    ("crashes at Hello", 140),
    ("crashes at Join", 30),
    ("crashes at OpenSession", 19),
    ("crashes at Prepare", 50),
    ("crashes at SnapshotChunk", 10),
    ("crashes at SnapshotInstall", 6),
    ("crashes at TransferLeader", 20),
    ("crashes at Vote", 40),
    ("crashes at a raise", 35),
    ("crashes inside disk operations", 630),
    ("crashes", 1_300),
    ("deviating stores found", 70),
    ("directories emptied during formation", 94),
    ("disk errors", 290),
    ("disk stalls", 180),
    ("disks of leaders used up", 9),
    ("disks put back", 90),
    ("disks that stop during formation", 200),
    ("disks used up", 33),
    ("divergence alarms", 40),
    ("downgrades on an empty directory", 10),
    ("downgrades", 90),
    ("duplicates answered from the session", 1_000),
    ("elections", 1_600),
    ("expiries after a change of leader", 1_100),
    ("expiries after a clock jump", 150),
    ("expiries after a power loss of all", 60),
    ("expiries after a restart", 1_400),
    ("expiries after a snapshot installed", 40),
    ("expiries in time", 4_300),
    ("expiries", 5_300),
    ("false reports", 110),
    ("flapping links", 200),
    ("flipped bits", 100),
    ("floods", 220),
    ("followers away at the end", 270),
    ("followers without entries", 50),
    ("founders emptied before the first leader", 7),
    ("founders that died before the first leader", 13),
    ("full disks", 260),
    ("leader crashes", 310),
    ("leaders made to deviate", 30),
    ("leaders slow to apply", 160),
    ("leaders that ran out of space", 15),
    ("levels raised", 35),
    ("lists corrected between starts", 260),
    ("lists that stay unequal", 14),
    ("logs compacted", 8_800),
    ("looks at a change that is not settled", 2_500),
    ("looks at a commit told before it is applied", 5_000),
    ("looks at entries refused for lack of space", 65),
    ("looks at keys that are alike", 8_000),
    ("looks within a command", 7_000),
    ("old builds that stopped", 55),
    ("old builds that were not admitted", 4),
    ("old disks found", 90),
    ("orderly stops", 290),
    ("partition asymmetric", 130),
    ("partition bridge", 120),
    ("partition deaf", 120),
    ("partition isolated", 110),
    ("partition mute", 120),
    ("partition random", 120),
    ("partition ring", 120),
    ("partition symmetric", 120),
    ("partitions that spare reads", 170),
    ("partitions", 1_000),
    ("power losses after direct writes", 1_000),
    ("power losses at the end", 130),
    ("power losses inside the metadata", 150),
    ("power losses of all", 300),
    ("power losses that lost names", 95),
    ("power losses that lost sectors", 260),
    ("power losses that tore writes", 130),
    ("processes ended by their disk", 510),
    ("processes ended inside a disk operation", 400),
    ("quarantines", 8),
    ("reads confirmed by a peer", 220_000),
    ("reads in pieces with writes in between", 2_000),
    ("reads in pieces", 15_000),
    ("reads not confirmed by a peer", 4_300),
    ("reads of many keys", 27_000),
    ("reads without an answer", 1_000),
    ("reads", 95_000),
    ("replacements", 270),
    ("sessions asked for twice", 30),
    ("slow disks", 180),
    ("slow reads", 900),
    ("snapshots installed", 240),
    ("spells of slow reads", 260),
    ("starts with a wrong list", 390),
    ("storms", 430),
    ("sums of all accounts", 10_000),
    ("transactions committed", 12_000),
    ("transactions stopped by a guard", 1_800),
    ("two nodes lost together", 50),
    ("upgrades", 140),
    ("wipes", 260),
    ("writes not executed", 1_000),
    ("writes of unknown outcome", 2_700),
    ("writes refused for lack of space", 1_000),
    ("writes", 130_000),
];

/// The floor of a counter over so many seeds; `third` is a third of what 1,000 do.
fn floor(third: u64, seeds: u64) -> u64 {
    let third = third * seeds / 1_000;
    third.min(chance::floor(third as f64 * 3.0 * KEPT, CLUSTER))
}

/// The counters that are below their floor.
pub fn missed(counts: &Counts, seeds: u64) -> Vec<String> {
    if seeds < SEEDS {
        return Vec::new();
    }
    let missed = |(name, least): &(&str, u64)| {
        let (count, least) = (counts.get(name).copied().unwrap_or(0), floor(*least, seeds));
        (count < least).then(|| format!("{name}: {count}, at least {least} expected"))
    };
    FLOORS.iter().filter_map(missed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doing_nothing_is_too_little() {
        assert_eq!(missed(&Counts::new(), 20_000).len(), FLOORS.len());
        let common = missed(&Counts::new(), SEEDS).len();
        assert!(
            common * 4 > FLOORS.len(),
            "{common} floors at {SEEDS} seeds"
        );
        assert!(
            missed(&Counts::new(), 1).is_empty(),
            "one seed is no sample"
        );
    }
}
