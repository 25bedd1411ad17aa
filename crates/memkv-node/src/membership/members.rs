//! A membership: the voters and learners that one entry of the log names.
//!
//! Decides nothing. Invariant: two sets of voters mean a joint membership (Raft dissertation, section 4.3).

use std::collections::BTreeSet;

use memkv_disk::LogId;

/// The voters and learners of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// The voters; two sets while the membership is joint.
    pub(crate) configs: Vec<BTreeSet<u64>>,
    /// The nodes that are sent the log and have no vote.
    pub(crate) learners: BTreeSet<u64>,
    /// The entry that made it; none before the first.
    pub(crate) at: Option<LogId>,
}

impl Members {
    /// Index of the entry that made it; 0 for none.
    pub(crate) fn index(&self) -> u64 {
        self.at.map_or(0, |at| at.index)
    }

    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        self.configs.iter().flatten().copied().collect()
    }

    /// Whether the log is sent to this node.
    pub(crate) fn holds(&self, id: u64) -> bool {
        self.learners.contains(&id) || self.configs.iter().any(|voters| voters.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_joint_membership_counts_the_voters_of_both_sides() {
        let members = Members {
            configs: vec![[1, 2, 3].into(), [1, 2, 4].into()],
            learners: [5].into(),
            at: None,
        };
        assert_eq!(members.voters(), [1, 2, 3, 4].into());
        assert!((1..=5).all(|id| members.holds(id)) && !members.holds(6));
        assert_eq!(members.index(), 0);
    }
}
