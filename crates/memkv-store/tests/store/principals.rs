//! Groups that list the principals of their commands: which are refused once a right was taken away.

use memkv_store::{
    BY_CERTIFICATE, BatchBuilder, Command, EDGE_LEVEL, GroupRights, MAX_GROUP_PRINCIPALS,
    NO_CREDENTIAL, Principal, Rejected, Standing, SystemOp, check_group, encode_group_of,
};

use crate::support::{Event, apply, set};
use crate::users::{Cluster, name, secret, spec};

#[test]
fn a_group_is_refused_once_a_right_of_its_user_was_taken() {
    let mut cluster = Cluster::with_users();
    let by_secret = cluster.principal("ada", secret(1).id());
    let other = cluster.principal("default", NO_CREDENTIAL);
    assert!(cluster.allows(by_secret) && cluster.allows(other));
    // An addition takes nothing.
    cluster.set_user("ada", spec(&[1, 2, 3]), false);
    assert!(cluster.allows(by_secret));
    cluster.set_user("ada", spec(&[1, 2, 3]), true);
    assert!(!cluster.allows(by_secret) && cluster.allows(other));
    let anew = cluster.principal("ada", secret(1).id());
    assert!(cluster.allows(anew));
    // Disabling takes all, also what was judged before it was enabled again.
    let mut off = spec(&[1]);
    off.enabled = false;
    cluster.set_user("ada", off, false);
    assert!(!cluster.allows(anew));
    cluster.set_user("ada", spec(&[1]), false);
    assert!(!cluster.allows(anew));
    assert!(cluster.allows(Principal {
        revision: cluster.revision(),
        ..anew
    }));
}

#[test]
fn a_credential_that_is_gone_takes_its_own_commands_only() {
    let mut cluster = Cluster::with_users();
    let of = |cluster: &Cluster, number| cluster.principal("ada", secret(number).id());
    let (one, two) = (of(&cluster, 1), of(&cluster, 2));
    let certificate = cluster.principal("ada", BY_CERTIFICATE);
    assert!(!cluster.allows(cluster.principal("ada", NO_CREDENTIAL)));
    cluster.set_user("ada", spec(&[2]), false);
    assert!(!cluster.allows(one) && cluster.allows(two) && cluster.allows(certificate));
    // The secret is back, but what it had allowed before is not.
    cluster.set_user("ada", spec(&[1, 2]), false);
    assert!(!cluster.allows(one) && cluster.allows(two));
    assert!(cluster.allows(of(&cluster, 1)));
    let open = cluster.principal("default", NO_CREDENTIAL);
    cluster.set_user("default", spec(&[9]), false);
    assert!(!cluster.allows(open));
    cluster.set_user("default", spec(&[]), false);
    assert!(!cluster.allows(open));
    assert!(cluster.allows(cluster.principal("default", NO_CREDENTIAL)));
}

#[test]
fn a_principal_that_lost_its_standing_never_stands_again() {
    let mut cluster = Cluster::with_users();
    let mut off = spec(&[1]);
    off.enabled = false;
    let changes = [
        (spec(&[1]), false),
        (spec(&[2]), false),
        (spec(&[1, 2]), true),
        (spec(&[]), false),
        (off, false),
    ];
    let mut seen: Vec<(Principal, bool)> = Vec::new();
    // Each change after each other one.
    for step in 0..50 {
        let users = cluster.store.users().expect("a table");
        for credential in [
            secret(1).id(),
            secret(2).id(),
            NO_CREDENTIAL,
            BY_CERTIFICATE,
        ] {
            let principal = cluster.principal("ada", credential);
            if users.standing(principal) == Standing::Stands {
                seen.push((principal, true));
            }
        }
        let (user, narrows) = changes[(step * step + step / 5) % changes.len()].clone();
        cluster.set_user("ada", user, narrows);
        let users = cluster.store.users().expect("a table");
        for (principal, stood) in &mut seen {
            let stands = users.standing(*principal) == Standing::Stands;
            assert!(*stood || !stands, "{principal:?} at {}", users.revision());
            *stood &= stands;
        }
    }
}

#[test]
fn numbers_that_were_executed_are_answered_before_a_refusal() {
    let mut cluster = Cluster::with_users();
    let ada = cluster.principal("ada", secret(1).id());
    let commands = [set(b"a", b"1"), set(b"b", b"2"), set(b"c", b"3")];
    let first = cluster.next();
    let done = cluster.send(first, &[ada], &commands[..2]);
    let replies = done.iter().map(|event| match event {
        Event::Reply(session, seq, reply) => Event::Duplicate(*session, *seq, Some(reply.clone())),
        other => panic!("{other:?}"),
    });
    let mut expected: Vec<Event> = replies.collect();
    cluster.del_without_number("ada");
    assert_eq!(
        cluster.send(first, &[ada], &commands[..2]),
        expected,
        "all were executed"
    );
    let revision = cluster.revision();
    let why = Rejected::Rights { revision };
    expected.push(Event::Rejected(cluster.session, first + 2, 1, why));
    assert_eq!(cluster.send(first, &[ada], &commands), expected);
    assert_eq!(cluster.next(), first + 2);
    // What follows has a gap before it, and the same numbers can be used for something else.
    let gap = cluster.send(first + 3, &[], &commands[..1]);
    let why = Rejected::Gap {
        expected: first + 2,
    };
    assert_eq!(gap, [Event::Rejected(cluster.session, first + 3, 1, why)]);
    let noop = [Command::Noop.encode()];
    assert!(matches!(
        cluster.send(first + 2, &[], &noop)[..],
        [Event::Reply(..)]
    ));
}

#[test]
fn one_principal_that_fell_refuses_its_whole_group() {
    let mut cluster = Cluster::with_users();
    let ada = cluster.principal("ada", secret(1).id());
    let open = cluster.principal("default", NO_CREDENTIAL);
    cluster.del(&["ada"]);
    let first = cluster.next();
    let commands = [set(b"a", b"1"), set(b"b", b"2")];
    let refused = cluster.send(first, &[open, ada], &commands);
    assert!(
        matches!(refused[..], [Event::Rejected(_, from, 2, Rejected::Rights { .. })] if from == first)
    );
    assert_eq!(cluster.send(first, &[open, open], &commands).len(), 2);
}

#[test]
fn the_smallest_revision_counts() {
    let mut cluster = Cluster::with_users();
    let old = cluster.principal("default", NO_CREDENTIAL);
    cluster.set_user("default", spec(&[]), true);
    let new = cluster.principal("default", NO_CREDENTIAL);
    let first = cluster.next();
    let commands = [set(b"a", b"1"), set(b"b", b"2")];
    assert!(matches!(
        cluster.send(first, &[new, old], &commands)[..],
        [Event::Rejected(..)]
    ));
    assert_eq!(cluster.send(first, &[new, new], &commands).len(), 2);
}

#[test]
fn a_group_with_principals_is_refused_where_there_are_no_users() {
    let mut cluster = Cluster::new(EDGE_LEVEL, &[]);
    let nobody = Principal {
        user: 1,
        credential: NO_CREDENTIAL,
        revision: 1,
    };
    assert!(!cluster.allows(nobody));
}

#[test]
fn the_principals_of_a_group_are_bounded_and_their_bytes_are_pinned() {
    let principal = |user, credential, revision| Principal {
        user,
        credential,
        revision,
    };
    let mut rights = GroupRights::default();
    assert!(rights.add(principal(5, 6, 9)) && rights.add(principal(5, 6, 8)));
    let noop = Command::Noop.encode();
    let group = encode_group_of(3, 4, 2, &rights, [&noop].into_iter());
    let expected = [
        &[
            3, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
        ][..],
        &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[8, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        &[5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0],
        &[1, 0],
    ];
    assert_eq!(group, expected.concat());
    let info = check_group(&group).expect("a group");
    assert_eq!(
        (info.level, info.count, info.bytes),
        (EDGE_LEVEL, 1, group.len())
    );
    for len in 0..group.len() {
        assert!(check_group(&group[..len]).is_err(), "cut at {len}");
    }
    let mut many = GroupRights::default();
    for user in 1..=MAX_GROUP_PRINCIPALS as u64 {
        assert!(many.add(principal(user, 0, 1)));
    }
    assert!(!many.add(principal(0, 0, 1)) && many.add(principal(1, 0, 1)));
    let full = encode_group_of(3, 4, 2, &many, [&noop].into_iter());
    assert!(check_group(&full).is_ok());
    // One more, or none, is refused.
    let count_at = 1 + 5 * 8 + 8;
    for count in [MAX_GROUP_PRINCIPALS as u16 + 1, 0] {
        let mut wrong = full.to_vec();
        wrong[count_at..count_at + 2].copy_from_slice(&count.to_le_bytes());
        wrong.extend([0; 16]);
        assert!(check_group(&wrong).is_err());
    }
}

impl Cluster {
    /// Another node's session removes the user.
    fn del_without_number(&mut self, of: &str) {
        let mut batch = BatchBuilder::new(0);
        batch.system(&SystemOp::AdmitNode {
            name: "n2".to_owned(),
            addr: "h:2".to_owned(),
            nonce: 1,
            highest: 9,
        });
        apply(&mut self.store, &batch.finish());
        let node = self.store.applied_index();
        let mut batch = BatchBuilder::new(0);
        batch.system(&SystemOp::OpenSession {
            node,
            boot: 1,
            highest: 9,
        });
        apply(&mut self.store, &batch.finish());
        let session = self.store.session_of_node(node).expect("a session");
        let names = vec![name(of)];
        let mut batch = BatchBuilder::new(0);
        let mut rights = GroupRights::default();
        assert!(rights.add(self.principal("default", NO_CREDENTIAL)));
        let command = [Command::DelUsers { names }.encode()];
        batch.raw_group(&encode_group_of(session, 1, 0, &rights, command.iter()));
        apply(&mut self.store, &batch.finish());
    }
}

/// A node that knows of no table sends its clients' commands without principals.
#[test]
fn commands_without_a_principal_are_executed_only_while_there_is_no_table() {
    let mut cluster = Cluster::new(EDGE_LEVEL, &[]);
    let first = cluster.next();
    let commands = [set(b"k", b"v"), Command::Noop.encode()];
    assert_eq!(cluster.send(first, &[], &commands).len(), 2);
    let users = vec![(name("default"), spec(&[]))];
    cluster.run(Command::InitUsers { users });
    let next = cluster.next();
    let revision = cluster.revision();
    let refused = cluster.send(next, &[], &commands);
    let session = cluster.session;
    let why = Rejected::Rights { revision };
    assert_eq!(refused, [Event::Rejected(session, next, 2, why)]);
    // What was executed before keeps its answer, and a number can still be filled.
    assert_eq!(cluster.send(first, &[], &commands).len(), 2);
    assert_eq!(cluster.next(), next);
    let filler = [Command::Noop.encode()];
    assert!(matches!(
        cluster.send(next, &[], &filler)[..],
        [Event::Reply(..)]
    ));
}
