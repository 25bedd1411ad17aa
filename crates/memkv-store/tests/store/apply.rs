//! What `apply` promises and a script does not show: any bytes, cut batches, memory, snapshots in
//! progress. The behaviour of commands, sessions and system operations is in `tests/scripts/`.

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Condition, ExpireIf, Expiry, Guard, MAX_KEY_BYTES, Member, Query, Seen,
    SetIf, Step, Store, SystemOp,
};

use crate::support::{Event, apply, del, group, open, set, store_with, system};

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
        users: vec![],
    }
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
fn a_snapshot_in_progress_does_not_change_formation() {
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
