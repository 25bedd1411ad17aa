//! What `apply` promises, one claim per test.

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Condition, ExpireIf, Expiry, Guard, MAX_KEY_BYTES, Member, Query,
    Refusal, Rejected, Reply, ReplyError, ReplyValue, Seen, SetIf, Step, Store, SystemOp,
    SystemOutcome,
};

use crate::support::{Event, apply, del, group, open, set, store_with, system};

fn ok(revision: u64) -> Reply {
    Reply {
        revision,
        value: ReplyValue::Ok,
    }
}

fn form(ids: &[u64]) -> SystemOp {
    let member = |id: &u64| Member {
        id: *id,
        name: format!("n{id}"),
        addr: format!("host{id}:1"),
        pending: false,
    };
    let members = ids.iter().map(member).collect();
    SystemOp::Form {
        cluster: [9; 16],
        durability_sync: true,
        level: 1,
        members,
    }
}

fn refused(why: Refusal) -> Vec<Event> {
    vec![Event::System(0, SystemOutcome::Refused { why })]
}

#[test]
fn every_write_takes_a_revision_and_keys_remember_theirs() {
    let (mut store, s) = store_with(&[set(b"a", b"1"), set(b"b", b""), set(b"a", b"22")]);
    let a = store.get(b"a").unwrap();
    assert_eq!(
        (a.value, a.create_revision, a.mod_revision),
        (&b"22"[..], 1, 3)
    );
    let b = store.get(b"b").unwrap();
    assert_eq!(
        (b.value, b.create_revision, b.mod_revision),
        (&b""[..], 2, 2)
    );
    let events = apply(
        &mut store,
        &group(s, 4, 3, &[del(&[b"a", b"a", b"x"]), del(&[b"x"])]),
    );
    let count = |revision, n| Reply {
        revision,
        value: ReplyValue::Integer(n),
    };
    assert_eq!(
        events,
        [
            Event::Reply(s, 4, count(4, 1)),
            Event::Reply(s, 5, count(5, 0))
        ]
    );
    assert!(!store.exists(b"a") && store.exists(b"b"));
    apply(&mut store, &group(s, 6, 5, &[set(b"a", b"3")]));
    let a = store.get(b"a").unwrap();
    assert_eq!(
        (a.create_revision, a.mod_revision),
        (6, 6),
        "a deleted key starts anew"
    );
    assert_eq!((store.revision(), store.len()), (6, 2));
}

#[test]
fn what_writes_nothing_takes_no_revision() {
    let long = vec![b'k'; MAX_KEY_BYTES + 1];
    let (mut store, s) = store_with(&[set(b"a", b"1")]);
    let commands = [Command::Noop.encode(), set(&long, b""), del(&[b"a", &long])];
    let events = apply(&mut store, &group(s, 2, 1, &commands));
    let too_long = Reply {
        revision: 1,
        value: ReplyValue::Error(ReplyError::KeyTooLong),
    };
    let expected = [ok(1), too_long.clone(), too_long];
    let replies = (2..)
        .zip(expected)
        .map(|(seq, reply)| Event::Reply(s, seq, reply));
    assert_eq!(events, replies.collect::<Vec<_>>());
    assert!(
        store.exists(b"a"),
        "a command that fails has changed nothing"
    );
    assert_eq!(store.revision(), 1);
}

#[test]
fn keys_and_values_are_any_bytes_and_may_be_empty() {
    let key = vec![0xff; MAX_KEY_BYTES];
    let value = vec![0; 3 << 20];
    let (store, _) = store_with(&[set(b"", b""), set(&key, &value), set(b"\0\r\n", b"\xff\0")]);
    assert_eq!(store.get(b"").unwrap().value, b"");
    assert_eq!(store.get(b"\0\r\n").unwrap().value, b"\xff\0");
    assert_eq!(store.get(&key).unwrap().to_bytes(), value);
}

#[test]
fn a_value_handed_out_does_not_change_when_the_key_does() {
    for len in [10, 100_000] {
        let (mut store, s) = store_with(&[set(b"k", &vec![1; len])]);
        let held = store.get(b"k").unwrap().to_bytes();
        apply(&mut store, &group(s, 2, 1, &[set(b"k", &vec![2; len])]));
        assert_eq!(held, vec![1; len]);
        assert_eq!(store.get(b"k").unwrap().to_bytes(), vec![2; len]);
    }
}

#[test]
fn a_resent_group_executes_only_what_is_new() {
    let (mut store, s) = store_with(&[set(b"a", b"1"), set(b"b", b"1"), set(b"c", b"1")]);
    let resent = [set(b"b", b"no"), set(b"c", b"no"), set(b"d", b"new")];
    let events = apply(&mut store, &group(s, 2, 2, &resent));
    let expected = [
        Event::Duplicate(s, 2, None),
        Event::Duplicate(s, 3, Some(ok(3))),
        Event::Reply(s, 4, ok(4)),
    ];
    assert_eq!(
        events, expected,
        "2 was acknowledged, 3 is answered from the cache"
    );
    assert_eq!(store.get(b"c").unwrap().value, b"1");
    assert_eq!(store.session(s).map(|session| session.last_seq()), Some(4));
}

#[test]
fn a_gap_and_an_unknown_session_are_fenced_and_change_nothing() {
    let (mut store, s) = store_with(&[set(b"a", b"1")]);
    let digest = store.digest();
    let commands = [set(b"a", b"2"), set(b"b", b"2")];
    let gap = Rejected::Gap { expected: 2 };
    let events = apply(&mut store, &group(s, 3, 1, &commands));
    assert_eq!(events, [Event::Rejected(s, 3, 2, gap)]);
    for unknown in [0, s + 1, u64::MAX] {
        let events = apply(&mut store, &group(unknown, 1, 0, &commands));
        assert_eq!(
            events,
            [Event::Rejected(unknown, 1, 2, Rejected::UnknownSession)]
        );
    }
    assert_eq!(
        store.digest(),
        digest,
        "not even the acknowledgement counts"
    );
    assert!(store.session(s).unwrap().reply(1).is_some());
}

#[test]
fn a_session_ends_by_a_log_entry_or_by_a_later_boot() {
    let (mut store, old) = store_with(&[set(b"a", b"1")]);
    let open_again = system(&[SystemOp::OpenSession {
        node: 1,
        boot: 1,
        highest: 1,
    }]);
    let events = apply(&mut store, &open_again);
    assert_eq!(
        events,
        refused(Refusal::BootNotHigher {
            session: old,
            boot: 1
        })
    );
    let new = open(&mut store, 1, 2);
    assert_eq!(
        (new, store.session_of_node(1)),
        (store.applied_index(), Some(new))
    );
    let events = apply(&mut store, &group(old, 2, 1, &[set(b"a", b"late")]));
    assert_eq!(
        events,
        [Event::Rejected(old, 2, 1, Rejected::UnknownSession)]
    );
    apply(
        &mut store,
        &system(&[SystemOp::CloseSession { session: new }]),
    );
    assert_eq!(store.session_of_node(1), None);
    let events = apply(
        &mut store,
        &system(&[SystemOp::CloseSession { session: new }]),
    );
    assert_eq!(events, refused(Refusal::UnknownSession { session: new }));
}

#[test]
fn one_entry_gives_its_index_to_one_session_only() {
    let mut store = Store::new();
    let own = SystemOp::CloseSession { session: 1 };
    let open = |node| SystemOp::OpenSession {
        node,
        boot: 1,
        highest: 1,
    };
    let events = apply(&mut store, &system(&[open(1), open(2), own, open(3)]));
    let retry = |ordinal| {
        Event::System(
            ordinal,
            SystemOutcome::Refused {
                why: Refusal::Retry,
            },
        )
    };
    let opened = Event::System(0, SystemOutcome::SessionOpened { id: 1 });
    let expected = [
        opened,
        retry(1),
        Event::System(2, SystemOutcome::Done),
        retry(3),
    ];
    assert_eq!(events, expected);
}

#[test]
fn formation_comes_first_and_once() {
    let mut store = Store::new();
    assert_eq!(
        apply(&mut store, &system(&[form(&[1, 2])])),
        [Event::System(0, SystemOutcome::Done)]
    );
    assert_eq!(store.member_table().cluster(), Some([9; 16]));
    assert_eq!(
        apply(&mut store, &system(&[form(&[1])])),
        refused(Refusal::AlreadyFormed)
    );
    let (mut store, _) = store_with(&[set(b"a", b"1")]);
    assert_eq!(
        apply(&mut store, &system(&[form(&[1])])),
        refused(Refusal::AlreadyFormed)
    );
    assert_eq!(
        (store.member_table().cluster(), store.exists(b"a")),
        (None, true)
    );
}

#[test]
fn a_snapshot_in_progress_does_not_change_what_formation_does() {
    let (mut plain, mut busy) = (Store::new(), Store::new());
    let head = busy.begin_snapshot().unwrap();
    let batch = system(&[form(&[1])]);
    assert_eq!(apply(&mut plain, &batch), apply(&mut busy, &batch));
    for store in [&mut plain, &mut busy] {
        let s = open(store, 1, 1);
        apply(store, &group(s, 1, 0, &[set(b"a", b"1")]));
        assert!(store.exists(b"a"));
    }
    assert_eq!(plain.digest(), busy.digest());
    let images: Vec<_> = std::iter::from_fn(|| busy.next_shard()).collect();
    let loaded = crate::support::load(&crate::support::encode(&head, &images, 1000)).unwrap();
    assert_eq!(loaded.digest(), Store::new().digest());
}

#[test]
fn nodes_that_leave_the_book_lose_their_sessions() {
    let mut store = Store::new();
    apply(&mut store, &system(&[form(&[1, 2, 3])]));
    let unknown = apply(
        &mut store,
        &system(&[SystemOp::OpenSession {
            node: 9,
            boot: 1,
            highest: 1,
        }]),
    );
    assert_eq!(unknown, refused(Refusal::UnknownNode { node: 9 }));
    let sessions = [1, 2, 3].map(|node| open(&mut store, node, 1));
    let admit = |nonce| SystemOp::AdmitNode {
        name: "n1".into(),
        addr: "new:1".into(),
        nonce,
        highest: 1,
    };
    let admitted = |store: &Store| {
        let id = store.applied_index();
        [Event::System(0, SystemOutcome::NodeAdmitted { id })]
    };
    assert_eq!(apply(&mut store, &system(&[admit(1)])), admitted(&store));
    let first = store.applied_index();
    let pending_session = open(&mut store, first, 1);
    assert_eq!(apply(&mut store, &system(&[admit(2)])), admitted(&store));
    assert_eq!(
        store.session(pending_session).map(|_| ()),
        None,
        "its node was replaced"
    );
    let second = store.applied_index();
    let pending_session = open(&mut store, second, 1);
    let gives_up = SystemOp::GiveUpSeat { node: second };
    let done = [Event::System(0, SystemOutcome::Done)];
    assert_eq!(apply(&mut store, &system(&[gives_up])), done);
    assert_eq!(
        store.session(pending_session).map(|_| ()),
        None,
        "its node has no seat"
    );
    assert_eq!(apply(&mut store, &system(&[admit(3)])), admitted(&store));
    let new = store.member_table().pending_by_name("n1").unwrap().id;
    let swap = [
        SystemOp::ReplaceNode { old: 1, new },
        SystemOp::RemoveNode { node: 2 },
    ];
    let done = [0, 1].map(|ordinal| Event::System(ordinal, SystemOutcome::Done));
    assert_eq!(apply(&mut store, &system(&swap)), done);
    let open = sessions.map(|session| store.session(session).is_some());
    assert_eq!(open, [false, false, true]);
    assert_eq!(
        store
            .member_table()
            .members()
            .map(|m| m.id)
            .collect::<Vec<_>>(),
        [3, new]
    );
}

#[test]
fn log_time_never_goes_back() {
    let mut store = Store::new();
    for (stamp, expected) in [(100, 100), (50, 100), (101, 101), (0, 101)] {
        apply(&mut store, &BatchBuilder::new(stamp).finish());
        assert_eq!(store.stamp_ms(), expected);
    }
}

#[test]
fn an_entry_is_applied_once() {
    let (mut store, s) = store_with(&[set(b"a", b"1")]);
    let mut recorder = crate::support::Recorder::default();
    let batch = system(&[SystemOp::CloseSession { session: s }]);
    for index in 0..=store.applied_index() {
        store.apply(index, &batch, &mut recorder);
    }
    assert_eq!(recorder.0, []);
    store.mark_applied(10);
    store.mark_applied(4);
    store.apply(10, &batch, &mut recorder);
    assert!(store.session(s).is_some());
    assert_eq!(store.applied_index(), 10);
    store.apply(12, &batch, &mut recorder);
    assert!(store.session(s).is_none());
}

/// A batch with everything in it.
fn full_batch(session: u64) -> Bytes {
    let mut builder = BatchBuilder::new(1_000);
    builder.system(&SystemOp::OpenSession {
        node: 7,
        boot: 1,
        highest: 1,
    });
    builder.group(session, 2, 1, [set(b"a", b"2"), del(&[b"a", b"b"])].iter());
    builder.system(&form(&[1, 2]));
    builder.system(&SystemOp::AdmitNode {
        name: "x".into(),
        addr: "y:1".into(),
        nonce: 1,
        highest: 1,
    });
    builder.group(
        session,
        4,
        3,
        [Command::Noop.encode(), set(b"", b""), rich()].iter(),
    );
    builder.finish()
}

/// A transaction with terms of every kind.
fn rich() -> Bytes {
    let key = || Bytes::from_static(b"a");
    let with = Command::SetWith {
        key: key(),
        value: key(),
        condition: SetIf::Differs(key()),
        expiry: Expiry::In { ms: 1 },
        get: true,
    };
    let expire = Command::Expire {
        key: key(),
        expiry: Expiry::At { ms: 5000 },
        condition: ExpireIf::Sooner,
    };
    let float = Command::IncrByFloat {
        key: Bytes::from_static(b"f"),
        by: Bytes::from_static(b"0x1.8p-3"),
    };
    let copy = Command::Copy {
        from: key(),
        to: key(),
        to_database: 3,
        replace: true,
    };
    let range = Query::prefix(b"a", None, 9, false).in_database(3);
    let seen = Seen::Absent { at: 9 };
    let transaction = Command::Transaction {
        guards: vec![Guard {
            database: 2,
            key: key(),
            holds: Condition::Unchanged(seen),
        }],
        operations: vec![
            Step::Write(with),
            Step::Write(expire.in_database(1)),
            Step::Write(float),
            Step::Write(copy),
            Step::Read(range),
            Step::Write(Command::FlushAll),
        ],
        otherwise: vec![Step::Read(Query::Scan {
            cursor: 0,
            count: 1,
        })],
    };
    transaction.encode()
}

#[test]
fn a_batch_cut_anywhere_is_a_no_op_or_ends_at_a_part() {
    let mut boundaries = 0;
    let whole = full_batch(1);
    for len in 0..whole.len() {
        let (mut store, _) = store_with(&[set(b"a", b"1")]);
        let (digest, index) = (store.digest(), store.applied_index());
        let events = apply(&mut store, &whole.slice(..len));
        if events == [Event::Malformed] {
            assert_eq!(store.digest(), digest, "cut at {len}");
            assert_eq!(store.applied_index(), index, "cut at {len}");
        } else {
            assert_eq!(store.applied_index(), index + 1, "cut at {len}");
            boundaries += 1;
        }
    }
    assert_eq!(
        boundaries, 5,
        "after the stamp and after each part but the last"
    );
}

#[test]
fn no_bytes_make_apply_panic() {
    let whole = full_batch(1);
    for at in 0..whole.len() {
        for xor in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut bytes = whole.to_vec();
            bytes[at] ^= xor;
            let (mut one, _) = store_with(&[set(b"a", b"1")]);
            let (mut two, _) = store_with(&[set(b"a", b"1")]);
            let bytes = Bytes::from(bytes);
            assert_eq!(apply(&mut one, &bytes), apply(&mut two, &bytes));
            assert_eq!(one.digest(), two.digest());
        }
    }
}

#[test]
fn memory_is_accounted_for() {
    let mut store = Store::new();
    let s = open(&mut store, 1, 1);
    let empty = store.memory_bytes();
    let value = vec![0; 100_000];
    apply(
        &mut store,
        &group(s, 1, 0, &[set(b"a", &value), set(b"b", b"")]),
    );
    let full = store.memory_bytes();
    assert!((empty + 100_000..empty + 101_000).contains(&full), "{full}");
    apply(
        &mut store,
        &group(s, 3, 2, &[set(b"a", b""), del(&[b"a", b"b"])]),
    );
    apply(&mut store, &group(s, 5, 4, &[]));
    assert_eq!(
        store.memory_bytes(),
        empty,
        "keys and acknowledged replies are gone"
    );
}
