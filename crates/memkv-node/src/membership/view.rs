//! The members as their leader sees them, and what is left to be done until the engine's membership is what the
//! member table wants.
//!
//! Decides nothing. Invariant: nothing is left to be done only if the engine's membership has all that the table
//! wants and may have now, and no change of it is under way.

use memkv_store::{MAX_VOTERS, MemberState, MemberTable, Role, Row};

use crate::membership::members::Members;

/// A node as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its name.
    pub name: String,
    /// Its node id.
    pub id: u64,
    /// Where it listens.
    pub addr: String,
    /// The role that it is to have.
    pub role: Role,
    /// Where it is between admission and removal; nothing for a name that is expected.
    pub state: Option<MemberState>,
    /// Whether it votes now.
    pub votes: bool,
    /// Whether it leads.
    pub leads: bool,
    /// Entries that it lacks; nothing if that is not known.
    pub lag: Option<u64>,
    /// How long ago it answered, in milliseconds; nothing if it has not answered this leader.
    pub heard_ms: Option<u64>,
    /// The highest feature level that it has announced; 0 before it has announced any.
    pub highest_level: u32,
}

/// All members, and the names that are expected, as the leader sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberList {
    /// In the order of their names.
    pub members: Vec<MemberView>,
    /// What is left to be done, in words; empty if nothing is. Nothing from a leader whose version does not say.
    pub left_to_do: Option<String>,
}

/// What is left to be done, in words; empty if nothing is. `settled` is the engine's membership, if the leader has
/// applied an entry of its own term and no change is uncommitted.
pub(crate) fn left_to_do(table: &MemberTable, settled: Option<&Members>) -> String {
    let Some(members) = settled else {
        return "the leader or the membership changes".to_owned();
    };
    if members.configs.len() > 1 {
        return "the voters change".to_owned();
    }
    let voters = members.voters();
    let mut left: Vec<String> = table
        .rows()
        .filter_map(|row| left_of(row, members, voters.contains(&row.member.id)))
        .collect();
    let mut known = voters.iter().chain(&members.learners);
    if known.any(|id| table.member(*id).is_none()) {
        left.push("a node that was removed is still sent the log".to_owned());
    }
    let waiting: Vec<&str> = table
        .rows()
        .filter(|row| row.role == Role::Voter && row.state == MemberState::Member)
        .filter(|row| !voters.contains(&row.member.id) && members.holds(row.member.id))
        .map(|row| &*row.member.name)
        .collect();
    // One that would make the number even waits for another one, see `plan`.
    let pair = 2 - usize::from(voters.len().is_multiple_of(2));
    if waiting.len() >= pair && voters.len() + pair <= MAX_VOTERS {
        left.push(format!("to vote: {}", waiting.join(", ")));
    }
    left.join("; ")
}

fn left_of(row: Row<'_>, members: &Members, votes: bool) -> Option<String> {
    let name = &row.member.name;
    match (row.state, row.role) {
        (MemberState::Joining, _) => Some(format!("{name} joins")),
        (MemberState::Leaving, _) => Some(format!("{name} leaves")),
        (MemberState::Member, _) if !members.holds(row.member.id) => {
            Some(format!("{name} is not sent the log yet"))
        }
        (MemberState::Member, Role::Replica) if votes => Some(format!("{name} loses its vote")),
        (MemberState::Member, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use memkv_store::{BatchBuilder, MEMBERS_LEVEL, MemberChange, Store, SystemOp};

    use super::*;
    use crate::peer::fake::form_at;

    /// n1 to n5 are in the table and are to vote, but for what these changes say.
    fn table(changes: &[MemberChange]) -> MemberTable {
        let mut store = Store::new();
        let changes = changes.iter().cloned().map(SystemOp::Members);
        for (index, op) in (1..).zip([form_at(5, MEMBERS_LEVEL)].into_iter().chain(changes)) {
            let mut batch = BatchBuilder::new(index);
            batch.system(&op);
            store.apply(index, &batch.finish(), &mut ());
        }
        store.member_table().clone()
    }

    #[track_caller]
    fn left(changes: &[MemberChange], configs: &[&[u64]], learners: &[u64], words: &str) {
        let members = Members {
            configs: configs
                .iter()
                .map(|ids| ids.iter().copied().collect())
                .collect(),
            learners: learners.iter().copied().collect(),
            at: None,
        };
        assert_eq!(left_to_do(&table(changes), Some(&members)), words);
    }

    #[test]
    fn nothing_is_left_to_do_only_if_the_engine_has_all_that_the_table_wants() {
        let replica = |node| MemberChange::SetRole {
            node,
            role: Role::Replica,
        };
        left(&[], &[&[1, 2, 3, 4, 5]], &[], "");
        left(&[], &[&[1, 2, 3]], &[4, 5], "to vote: n4, n5");
        left(&[], &[&[1, 2, 3, 4]], &[5], "to vote: n5");
        left(&[replica(5)], &[&[1, 2, 3]], &[4, 5], "");
        left(&[replica(5)], &[&[1, 2, 3, 4, 5]], &[], "n5 loses its vote");
        left(&[], &[&[1, 2, 3], &[1, 2]], &[4, 5], "the voters change");
        left(
            &[replica(4), replica(5)],
            &[&[1, 2, 3]],
            &[4],
            "n5 is not sent the log yet",
        );
        left(
            &[MemberChange::Leave { node: 5 }],
            &[&[1, 2, 3, 4, 5]],
            &[],
            "n5 leaves",
        );
        left(
            &[],
            &[&[1, 2, 3, 4, 5]],
            &[9],
            "a node that was removed is still sent the log",
        );
        assert_eq!(
            left_to_do(&table(&[]), None),
            "the leader or the membership changes"
        );
    }
}
