//! The events between two states of a cluster's members, for the timeline of each node that applies them.
//! Never decides anything.

use std::collections::BTreeSet;

use memkv_store::{MemberState, MemberTable, Row};

use crate::report::event::Event;

/// What has happened between two member tables.
pub(crate) fn between(before: &MemberTable, after: &MemberTable) -> Vec<Event> {
    let name = |row: Row<'_>| row.member.name.clone();
    if before.cluster().is_none() && after.cluster().is_some() {
        let names: Vec<&str> = after.members().map(|member| &*member.name).collect();
        let members = names.join(", ");
        return vec![Event::Formed { members }];
    }
    let mut events = Vec::new();
    for row in after.rows() {
        match before.row(row.member.id) {
            None => events.push(Event::Admitted {
                name: name(row),
                addr: row.member.addr.clone(),
                role: row.role.name(),
            }),
            Some(old) => events.extend(changes(old, row)),
        }
    }
    let gone = before
        .rows()
        .filter(|row| after.row(row.member.id).is_none());
    events.extend(gone.map(|row| Event::Removed { name: name(row) }));
    if after.level() > before.level() {
        let level = after.level();
        events.push(Event::Level { level });
    }
    events
}

/// What has happened to one member.
fn changes(old: Row<'_>, new: Row<'_>) -> Vec<Event> {
    let name = || new.member.name.clone();
    let mut events = Vec::new();
    if old.member.addr != new.member.addr {
        let addr = new.member.addr.clone();
        events.push(Event::Moved { name: name(), addr });
    }
    if old.role != new.role {
        let role = new.role.name();
        events.push(Event::Role { name: name(), role });
    }
    if old.state != new.state {
        match new.state {
            MemberState::Member => events.push(Event::Joined { name: name() }),
            MemberState::Leaving => events.push(Event::Leaving { name: name() }),
            MemberState::Joining => {}
        }
    }
    events
}

/// The voters of a membership that is no step between two others, if they are others than before.
pub(crate) fn voters(
    before: &[BTreeSet<u64>],
    after: &[BTreeSet<u64>],
    table: &MemberTable,
) -> Option<Event> {
    let [voters] = after else { return None };
    if before.is_empty() || before == after {
        return None;
    }
    let name = |id: &u64| match table.member(*id) {
        Some(member) => member.name.clone(),
        None => format!("node {id}"),
    };
    let names: Vec<String> = voters.iter().map(name).collect();
    let voters = names.join(", ");
    Some(Event::Voters { voters })
}

#[cfg(test)]
mod tests {
    use memkv_store::{BatchBuilder, MEMBERS_LEVEL, MemberChange, Role, Store, SystemOp};

    use super::*;
    use crate::peer::fake::{form, form_at};

    /// The tables before and after each system operation.
    fn tables(ops: &[SystemOp]) -> Vec<MemberTable> {
        let mut store = Store::new();
        let mut tables = vec![store.member_table().clone()];
        for (index, op) in (1..).zip(ops) {
            let mut batch = BatchBuilder::new(index);
            batch.system(op);
            store.apply(index, &batch.finish(), &mut ());
            tables.push(store.member_table().clone());
        }
        tables
    }

    fn admit(role: Role) -> SystemOp {
        SystemOp::Members(MemberChange::Admit {
            name: "n9".to_owned(),
            addr: "h:9".to_owned(),
            nonce: 5,
            highest: MEMBERS_LEVEL,
            role,
            listed: false,
        })
    }

    #[test]
    fn each_change_of_the_table_is_an_event() {
        // The index of the entry that admits it.
        let node = 9;
        let mut ops = vec![form_at(2, MEMBERS_LEVEL)];
        ops.resize(8, SystemOp::CloseSession { session: 99 });
        ops.extend([
            admit(Role::Replica),
            SystemOp::Members(MemberChange::Settle { node }),
            SystemOp::SetAddress {
                node,
                addr: "h:10".to_owned(),
            },
            SystemOp::Members(MemberChange::SetRole {
                node,
                role: Role::Voter,
            }),
            SystemOp::Members(MemberChange::Leave { node }),
            SystemOp::RemoveNode { node },
        ]);
        let tables = tables(&ops);
        let pairs = tables.windows(2);
        let told: Vec<String> = pairs
            .flat_map(|pair| between(&pair[0], &pair[1]))
            .map(|event| format!("{}: {event}", event.kind()))
            .collect();
        assert_eq!(
            told,
            [
                "formed: the cluster is formed by n1, n2",
                "member_admitted: n9 at h:9 is to join as replica",
                "member_joined: n9 has joined",
                "member_moved: n9 listens at h:10 now",
                "member_role: n9 is to be a voter",
                "member_leaving: n9 is to leave",
                "member_removed: n9 has left",
            ]
        );
    }

    #[test]
    fn only_a_settled_membership_is_told() {
        let table = tables(&[form(2)]).pop().unwrap();
        let one = || BTreeSet::from([1]);
        let two = || BTreeSet::from([1, 2]);
        assert_eq!(voters(&[], &[one()], &table), None, "the first one");
        assert_eq!(voters(&[one()], &[one()], &table), None);
        assert_eq!(voters(&[one()], &[one(), two()], &table), None, "joint");
        let told = voters(&[one(), two()], &[two()], &table);
        let Some(Event::Voters { voters }) = told else {
            panic!("{told:?}");
        };
        assert_eq!(voters.split(", ").count(), 2);
    }
}
