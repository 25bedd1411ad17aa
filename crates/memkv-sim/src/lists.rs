//! The lists of nodes that hosts are configured with: right, or wrong at first and corrected between
//! starts.
//!
//! Invariant: a wrong list names a host that never has the same list, or one that does not exist. So
//! no cluster may come of it, and that of the right list is the only one.

use parking_lot::Mutex;

use crate::rng::Rng;

/// The change of a host's list at a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was right and is right.
    None,
    /// It is wrong now.
    Wrong,
    /// It was wrong and is right.
    Corrected,
}

/// The lists of all hosts.
pub(crate) struct Lists {
    rng: Rng,
    nodes: usize,
    /// Has no list that could form a cluster but the right one.
    anchor: usize,
    /// A wrong list that several hosts may have at once; it names the anchor.
    common: Vec<usize>,
    state: Mutex<State>,
}

struct State {
    may_be_wrong: bool,
    /// Of each host's last start.
    lists: Vec<Vec<usize>>,
    /// Of each host's next starts, where that is decided.
    given: Vec<Option<Vec<usize>>>,
}

impl Lists {
    /// Right lists, or such as are drawn at each start.
    pub(crate) fn new(seed: u64, nodes: usize, may_be_wrong: bool) -> Self {
        let rng = Rng::new(seed, "lists");
        let right: Vec<usize> = (0..nodes).collect();
        let mut lists = Self {
            anchor: rng.index(nodes),
            rng,
            nodes,
            common: Vec::new(),
            state: Mutex::new(State {
                may_be_wrong,
                lists: vec![right; nodes],
                given: vec![None; nodes],
            }),
        };
        lists.common = lists.subset(lists.anchor);
        lists
    }

    /// The hosts on a host's list, itself included.
    pub(crate) fn of(&self, slot: usize) -> Vec<usize> {
        self.state.lock().lists[slot].clone()
    }

    /// Whether a host's last start was with the right list.
    pub(crate) fn is_right(&self, slot: usize) -> bool {
        self.of(slot) == self.right()
    }

    /// The same for all hosts from now on.
    pub(crate) fn correct_all(&self) {
        self.state.lock().may_be_wrong = false;
    }

    /// Decides the list of a host's next starts.
    pub(crate) fn give(&self, slot: usize, list: Vec<usize>) {
        self.state.lock().given[slot] = Some(list);
    }

    /// Gives a host the list of its next start.
    pub(crate) fn draw(&self, slot: usize) -> Change {
        let (may_be_wrong, given) = {
            let state = self.state.lock();
            (state.may_be_wrong, state.given[slot].clone())
        };
        let list = if let Some(given) = given {
            given
        } else if may_be_wrong && self.rng.coin() {
            self.wrong(slot)
        } else {
            self.right()
        };
        let mut state = self.state.lock();
        let was_right = state.lists[slot] == self.right();
        let is_right = list == self.right();
        state.lists[slot] = list;
        match (was_right, is_right) {
            (_, false) => Change::Wrong,
            (false, true) => Change::Corrected,
            (true, true) => Change::None,
        }
    }

    fn right(&self) -> Vec<usize> {
        (0..self.nodes).collect()
    }

    /// Some hosts, the anchor and this one among them.
    fn subset(&self, slot: usize) -> Vec<usize> {
        (0..self.nodes)
            .filter(|host| *host == self.anchor || *host == slot || self.rng.coin())
            .collect()
    }

    fn wrong(&self, slot: usize) -> Vec<usize> {
        let with_stranger = slot == self.anchor || self.rng.below(4) == 0;
        if with_stranger {
            let mut list = self.subset(slot);
            list.push(self.nodes);
            return list;
        }
        if self.common.contains(&slot) && self.rng.coin() {
            return self.common.clone();
        }
        self.subset(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_wrong_list_is_ever_that_of_all_its_hosts() {
        let mut shared = 0;
        for seed in 0..200 {
            let nodes = 2 + (seed % 4) as usize;
            let lists = Lists::new(seed, nodes, true);
            let mut had = vec![BTreeSet::new(); nodes];
            for _ in 0..100 {
                for (slot, had) in had.iter_mut().enumerate() {
                    lists.draw(slot);
                    let list = lists.of(slot);
                    assert!(list.contains(&slot) && list.len() > 1);
                    had.insert(list);
                }
            }
            let right: Vec<usize> = (0..nodes).collect();
            for list in had.iter().flatten().filter(|list| **list != right) {
                let hosts = list.iter().filter_map(|host| had.get(*host));
                let holders = hosts.filter(|had| had.contains(list)).count();
                assert!(holders < list.len(), "{list:?}");
                shared += usize::from(holders > 1);
            }
        }
        assert!(shared > 0, "several hosts have one wrong list");
    }

    #[test]
    fn corrected_lists_stay_right() {
        let lists = Lists::new(1, 3, true);
        let wrong = |slot: &usize| lists.draw(*slot) == Change::Wrong;
        assert!((0..3).cycle().take(100).any(|slot| wrong(&slot)));
        lists.correct_all();
        for slot in 0..3 {
            assert_ne!(lists.draw(slot), Change::Wrong);
            assert!(lists.is_right(slot));
        }
    }
}
