//! Which of several backups of one cluster holds the most: the one that Raft would elect.
//! Never looks at anything but heads.
//!
//! A node votes for no candidate whose last entry is of a lower term, or of the same term and a lower index
//! (Raft §5.4.1). So whatever was acknowledged, the higher of two logs holds what the lower one holds of it: the
//! leader that made its last entry had all of it. Length alone says nothing: entries of a leader that reached no
//! majority make a log longer, and are overwritten.

use crate::head::{Head, TermStart};

/// The rank of a backup. The highest of several holds every acknowledged entry that any of them holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// A directory that was marked as one that must not be used is the last choice: its state may be wrong.
    is_sound: bool,
    term: u64,
    index: u64,
}

impl Rank {
    /// The rank of the backup with this head.
    #[must_use]
    pub fn of(head: &Head) -> Self {
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::RankByCommitted) {
            return Self {
                is_sound: head.condemned.is_none(),
                term: 0,
                index: head.committed,
            };
        }
        Self {
            is_sound: head.condemned.is_none(),
            term: head.term,
            index: head.index,
        }
    }
}

/// The highest index up to which two backups of one cluster are known to be of the same entries; they may share more
/// where their heads do not list the terms.
///
/// Two entries of one term and index are the same, and so is everything before them (Raft §5.3). Committed
/// entries are the same everywhere.
#[must_use]
pub fn shared(one: &Head, other: &Head) -> u64 {
    let committed = |head: &Head| head.committed.min(head.index);
    let mut highest = committed(one).min(committed(other));
    for mine in spans(one) {
        for theirs in spans(other).filter(|theirs| theirs.term == mine.term) {
            let (first, last) = (mine.first.max(theirs.first), mine.last.min(theirs.last));
            if first <= last {
                highest = highest.max(last);
            }
        }
    }
    highest
}

/// Entries of one term.
struct Span {
    term: u64,
    first: u64,
    last: u64,
}

/// The terms of a backup, as far as its head lists them.
fn spans(head: &Head) -> impl Iterator<Item = Span> {
    let end = TermStart {
        term: head.term,
        index: head.index.saturating_add(1),
    };
    let own = TermStart {
        term: head.term,
        index: head.index,
    };
    let starts: Vec<TermStart> = match head.terms.is_empty() {
        true => vec![own],
        false => head.terms.clone(),
    };
    let ends: Vec<TermStart> = starts.iter().skip(1).copied().chain([end]).collect();
    let both = starts.into_iter().zip(ends);
    both.map(|(start, end)| Span {
        term: start.term,
        first: start.index,
        last: end.index.saturating_sub(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(terms: &[(u64, u64)], index: u64, committed: u64) -> Head {
        let terms = terms.iter().map(|&(term, index)| TermStart { term, index });
        let terms: Vec<TermStart> = terms.collect();
        Head {
            cluster: "c".to_owned(),
            level: 2,
            revision: 1,
            log_time_ms: 1,
            keys: 1,
            hash_seed: 1,
            term: terms.last().map_or(0, |last| last.term),
            index,
            node: "n".to_owned(),
            written_by: "0.1.0".to_owned(),
            salvaged: true,
            committed,
            terms,
            stopped: None,
            condemned: None,
        }
    }

    #[test]
    fn logs_share_what_is_of_one_term_and_index_or_committed() {
        let long = head(&[(1, 10), (2, 20)], 40, 12);
        let newer = head(&[(1, 5), (3, 25)], 30, 15);
        assert_eq!(
            shared(&long, &newer),
            19,
            "the last index of term 1 in both"
        );
        assert_eq!(shared(&newer, &long), 19);
        assert_eq!(shared(&long, &long), 40);
        let unlisted = head(&[], 40, 15);
        assert_eq!(
            shared(&unlisted, &newer),
            15,
            "what both know to be committed"
        );
        let damaged = head(&[(1, 5)], 8, 30);
        assert_eq!(shared(&damaged, &newer), 8, "no more than what is there");
    }

    #[test]
    fn a_condemned_directory_comes_last() {
        let sound = head(&[(1, 1)], 3, 3);
        let mut condemned = head(&[(9, 1)], 900, 900);
        condemned.condemned = Some("its store differs".to_owned());
        assert!(Rank::of(&sound) > Rank::of(&condemned));
    }

    /// A history of five logs: leaders that some nodes follow and others do not, as Raft lets them.
    struct History {
        logs: [Vec<u64>; 5],
        acknowledged: Vec<u64>,
        random: u64,
    }

    impl History {
        fn new(seed: u64) -> Self {
            Self {
                logs: Default::default(),
                acknowledged: Vec::new(),
                random: seed,
            }
        }

        fn below(&mut self, limit: usize) -> usize {
            let next = self.random.wrapping_mul(6_364_136_223_846_793_005);
            self.random = next.wrapping_add(1_442_695_040_888_963_407);
            (self.random >> 33) as usize % limit
        }

        fn some_nodes(&mut self, leader: usize) -> Vec<usize> {
            let mut nodes = vec![leader];
            for node in 0..5 {
                if node != leader && self.below(2) == 0 {
                    nodes.push(node);
                }
            }
            nodes
        }

        /// One term: an election that may fail, then appends that reach some of the nodes.
        fn term(&mut self, term: u64) {
            let leader = self.below(5);
            let last = |log: &Vec<u64>| (log.last().copied(), log.len());
            let own = last(&self.logs[leader]);
            let voters = self.some_nodes(leader);
            let votes = voters
                .iter()
                .filter(|voter| last(&self.logs[**voter]) <= own)
                .count();
            if votes < 3 {
                return;
            }
            let is_cut_off = self.below(2) == 0;
            for _ in 0..1 + self.below(6) {
                self.logs[leader].push(term);
                let log = self.logs[leader].clone();
                let reached = match is_cut_off {
                    true => vec![leader],
                    false => self.some_nodes(leader),
                };
                for node in &reached {
                    self.logs[*node].clone_from(&log);
                }
                if reached.len() >= 3 {
                    self.acknowledged = log;
                }
            }
        }
    }

    /// In how many histories the log that `key` ranks highest, of two that survive, lacks an acknowledged entry
    /// which the other one holds.
    fn losses<K: Ord>(key: impl Fn(&Head) -> K) -> usize {
        let mut lost = 0;
        for seed in 0..2_000 {
            let mut history = History::new(seed);
            (1..16).for_each(|term| history.term(term));
            let survivors = &history.logs[..2];
            let heads = survivors.iter().map(|log| {
                let start = (log.last().copied().unwrap_or(0), 0);
                (head(&[start], log.len() as u64, 0), log)
            });
            let (_, best) = heads.max_by_key(|(head, _)| key(head)).unwrap();
            let held = |log: &Vec<u64>| {
                let both = log.iter().zip(&history.acknowledged);
                both.take_while(|(one, other)| one == other).count()
            };
            let most = survivors.iter().map(held).max().unwrap();
            lost += usize::from(held(best) < most);
        }
        lost
    }

    #[test]
    fn the_highest_holds_all_that_was_acknowledged_and_the_longest_does_not() {
        assert_eq!(losses(Rank::of), 0);
        let by_length = losses(|head| (head.index, head.term));
        assert!(
            by_length > 10,
            "a rank by length is found {by_length} times"
        );
        let by_term_alone = losses(|head| head.term);
        assert!(
            by_term_alone > 10,
            "so is one by the term, {by_term_alone} times"
        );
    }
}
