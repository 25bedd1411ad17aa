//! What the table accepts and refuses, operation by operation.

use super::*;

fn member(id: u64, name: &str) -> Member {
    Member {
        id,
        name: name.to_owned(),
        addr: format!("{name}:1"),
        pending: false,
    }
}

fn formed() -> MemberTable {
    let mut table = MemberTable::default();
    let members = vec![member(3, "c"), member(1, "a"), member(2, "b")];
    assert_eq!(table.form([7; 16], false, 1, members), Ok(()));
    table
}

fn admit(table: &mut MemberTable, index: u64, name: &str, nonce: u64) -> Result<u64, Refusal> {
    table
        .admit(index, name.to_owned(), format!("{name}:2"), nonce, 1)
        .map(|(id, _)| id)
}

#[test]
fn formation_takes_a_valid_list_once() {
    let mut table = MemberTable::default();
    let pending = Member {
        pending: true,
        ..member(2, "b")
    };
    let invalid = [
        vec![],
        vec![member(0, "a")],
        vec![member(1, "a"), member(1, "b")],
        vec![member(1, "a"), member(2, "a")],
        vec![member(1, "a"), pending],
        (1..=MAX_MEMBERS as u64 + 1)
            .map(|id| member(id, &id.to_string()))
            .collect(),
    ];
    for members in invalid {
        let refused = table.form([1; 16], true, 1, members);
        assert!(matches!(refused, Err(Refusal::InvalidMembers { .. })));
        assert_eq!(table, MemberTable::default());
    }
    let mut table = formed();
    assert_eq!(
        table.form([1; 16], true, 1, vec![member(1, "a")]),
        Err(Refusal::AlreadyFormed)
    );
    assert_eq!(
        (table.cluster(), table.durability_sync()),
        (Some([7; 16]), false)
    );
    assert_eq!(table.members().map(|m| m.id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn admission_is_idempotent_per_name_and_nonce() {
    assert_eq!(
        admit(&mut MemberTable::default(), 9, "a", 1),
        Err(Refusal::NotFormed)
    );
    let mut table = formed();
    assert_eq!(
        admit(&mut table, 3, "a", 1),
        Err(Refusal::Retry),
        "3 was a node id"
    );
    assert_eq!(admit(&mut table, 10, "a", 1), Ok(10));
    assert_eq!(
        admit(&mut table, 10, "b", 1),
        Err(Refusal::Retry),
        "one id per entry"
    );
    assert_eq!(admit(&mut table, 11, "a", 1), Ok(10));
    assert_eq!(
        table.admit(12, "a".into(), "a:3".into(), 2, 1),
        Ok((12, Some(10)))
    );
    assert_eq!(table.member(10), None);
    assert_eq!(
        table.by_name("a").map(|m| m.id),
        Some(1),
        "the current member"
    );
    assert_eq!(table.pending_by_name("a").map(|m| m.id), Some(12));
    assert_eq!(admit(&mut table, 13, "new", 5), Ok(13));
    assert_eq!(table.by_name("new").map(|m| m.id), Some(13));
    assert_eq!(table.replace(1, 12), Ok(()));
    assert_eq!(
        admit(&mut table, 14, "a", 2),
        Ok(12),
        "also after it became a member"
    );
}

#[test]
fn requests_to_join_cannot_fill_the_memory() {
    let mut table = formed();
    for index in 4..=MAX_MEMBERS as u64 {
        assert_eq!(admit(&mut table, index, &index.to_string(), 0), Ok(index));
    }
    assert_eq!(admit(&mut table, 100, "new", 0), Err(Refusal::TableFull));
    assert_eq!(
        admit(&mut table, 100, "4", 1),
        Ok(100),
        "in place of its own earlier request"
    );
    assert_eq!(table.members().count(), MAX_MEMBERS);
}

#[test]
fn only_a_pending_node_replaces_a_current_member() {
    let mut table = formed();
    assert_eq!(admit(&mut table, 10, "a", 1), Ok(10));
    assert_eq!(admit(&mut table, 11, "b", 1), Ok(11));
    assert_eq!(table.replace(1, 9), Err(Refusal::UnknownNode { node: 9 }));
    assert_eq!(table.replace(9, 10), Err(Refusal::UnknownNode { node: 9 }));
    assert_eq!(table.replace(1, 2), Err(Refusal::WrongStanding { node: 2 }));
    assert_eq!(
        table.replace(11, 10),
        Err(Refusal::WrongStanding { node: 11 })
    );
    assert_eq!(table.replace(1, 11), Err(Refusal::NameTaken { by: 2 }));
    let before = table.clone();
    assert_eq!(table.replace(1, 10), Ok(()));
    assert_ne!(table, before);
    assert_eq!(table.member(1), None);
    assert_eq!(table.member(10).map(|m| m.pending), Some(false));
    let after = table.clone();
    assert_eq!(table.replace(1, 10), Ok(()), "repeated");
    assert_eq!(table, after);
}

#[test]
fn only_a_pending_node_gives_its_seat_up() {
    let mut table = formed();
    assert_eq!(admit(&mut table, 10, "a", 1), Ok(10));
    assert_eq!(table.give_up(1), Err(Refusal::WrongStanding { node: 1 }));
    assert_eq!(table.give_up(11), Err(Refusal::UnknownNode { node: 11 }));
    assert_eq!(table.give_up(10), Ok(()));
    assert_eq!(table.give_up(10), Err(Refusal::UnknownNode { node: 10 }));
    assert_eq!((table.pending_by_name("a"), table.highest_id()), (None, 10));
    // The same newcomer gets another id when it asks again.
    assert_eq!(admit(&mut table, 12, "a", 1), Ok(12));
    assert_eq!(table.replace(1, 12), Ok(()));
    assert_eq!(table.give_up(12), Err(Refusal::WrongStanding { node: 12 }));
}

#[test]
fn ids_never_come_back_and_the_last_member_stays() {
    let mut table = formed();
    assert_eq!(admit(&mut table, 10, "x", 1), Ok(10));
    for node in [10, 3, 2] {
        assert_eq!(table.remove(99, node), Ok(()));
        assert_eq!(table.remove(99, node), Err(Refusal::UnknownNode { node }));
    }
    assert_eq!(table.remove(99, 1), Err(Refusal::LastMember { node: 1 }));
    assert_eq!(admit(&mut table, 10, "y", 1), Err(Refusal::Retry));
    assert_eq!(table.set_address(1, "moved:1".into()), Ok(()));
    assert_eq!(table.member(1).map(|m| m.addr.as_str()), Some("moved:1"));
    let unknown = table.set_address(2, "x".into());
    assert_eq!(unknown, Err(Refusal::UnknownNode { node: 2 }));
}

fn advertise(table: &mut MemberTable, node: u64, boot: u64, highest: u32) {
    table.advertise(node, Advertised { boot, highest });
}

#[test]
fn the_level_is_raised_once_exactly_those_in_the_table_advertise_it() {
    let not_formed = MemberTable::default().raise(2, &[]);
    assert_eq!(not_formed, Err(Refusal::NotFormed));
    let mut table = formed();
    let refused = |table: &mut MemberTable, ids: &[u64], why| {
        let before = table.clone();
        assert_eq!(table.raise(2, ids), Err(why));
        assert_eq!(*table, before);
    };
    let silent = |node| Refusal::NotAdvertised {
        node,
        advertised: 0,
    };
    refused(&mut table, &[1, 2, 3], silent(1));
    (1..=3).for_each(|node| advertise(&mut table, node, 1, 2));
    for ids in [&[1, 2][..], &[1, 2, 3, 4], &[3, 2, 1], &[1, 1, 2, 3]] {
        refused(&mut table, ids, Refusal::OtherMembers);
    }
    // It came back with an older build.
    advertise(&mut table, 2, 2, 1);
    let older = Refusal::NotAdvertised {
        node: 2,
        advertised: 1,
    };
    refused(&mut table, &[1, 2, 3], older);
    advertise(&mut table, 2, 3, 3);
    assert_eq!(admit(&mut table, 10, "a", 1), Ok(10));
    refused(&mut table, &[1, 2, 3], Refusal::OtherMembers);
    refused(&mut table, &[1, 2, 3, 10], silent(10));
    advertise(&mut table, 10, 1, 2);
    assert_eq!(table.raise(2, &[1, 2, 3, 10]), Ok(()));
    assert_eq!(table.level(), 2);
    for to in [1, 2] {
        let refused = table.raise(to, &[1, 2, 3, 10]);
        assert_eq!(refused, Err(Refusal::LevelNotHigher { level: 2 }));
    }
}

#[test]
fn an_older_build_is_not_admitted() {
    let mut table = formed();
    (1..=3).for_each(|node| advertise(&mut table, node, 1, 2));
    assert_eq!(table.raise(2, &[1, 2, 3]), Ok(()));
    let refused = admit(&mut table, 10, "a", 1);
    let too_old = Refusal::TooOld {
        level: 2,
        highest: 1,
    };
    assert_eq!(refused, Err(too_old));
    assert_eq!(
        table.admit(10, "a".into(), "a:1".into(), 1, 2),
        Ok((10, None))
    );
}
