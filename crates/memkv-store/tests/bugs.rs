//! The deliberate bugs do what they say. Alone in this file, because a bug is switched on for the
//! whole process, and empty in a build without them.
#![cfg(memkv_bugs)]

use bytes::Bytes;
use memkv_store::bugs::{Bug, active, set};
use memkv_store::{
    BatchBuilder, Command, EDGE_LEVEL, EvictionPolicy, Expiry, Member, SetIf, Store, SystemOp,
};

/// An entry that opens session 1.
fn with_session() -> BatchBuilder {
    let mut builder = BatchBuilder::new(0);
    builder.system(&SystemOp::OpenSession {
        node: 1,
        boot: 1,
        highest: 1,
    });
    builder
}

/// The revision after a command that was sent twice.
fn revision_after_resending() -> u64 {
    let mut store = Store::new();
    let mut builder = with_session();
    let key = Bytes::from_static(b"key");
    let command = Command::Set {
        key: key.clone(),
        value: key,
    }
    .encode();
    for _ in 0..2 {
        builder.group(1, 1, 0, [&command].into_iter());
    }
    store.apply(1, &builder.finish(), &mut ());
    assert_eq!(store.session(1).map(|session| session.last_seq()), Some(1));
    store.revision()
}

/// The result of a group that begins with the third number, where the first is next.
fn revision_after_a_gap() -> u64 {
    let mut store = Store::new();
    let mut builder = with_session();
    let key = Bytes::from_static(b"key");
    let command = Command::Del {
        keys: vec![key.clone()],
    };
    let set = Command::Set {
        key: key.clone(),
        value: key,
    };
    builder.group(1, 3, 0, [&set.encode(), &command.encode()].into_iter());
    store.apply(1, &builder.finish(), &mut ());
    store.revision()
}

/// One test, since the switch is global.
#[test]
fn the_bugs_are_seen() {
    set(Some(Bug::SkipGap));
    assert!(revision_after_a_gap() > 0);
    set(None);
    assert_eq!(revision_after_a_gap(), 0);
    dropping_dedup_executes_again();
    set(Some(Bug::EvictByLocalOrder));
    assert_ne!(left_after_eviction(true), left_after_eviction(false));
    set(None);
    assert_eq!(left_after_eviction(true), left_after_eviction(false));
}

/// Which of two keys, in two databases, is left where one is evicted, perhaps while a snapshot is taken.
fn left_after_eviction(with_snapshot: bool) -> [bool; 2] {
    let mut store = Store::new();
    let mut builder = BatchBuilder::new(0);
    builder.system(&SystemOp::Form {
        cluster: [7; 16],
        durability_sync: true,
        level: EDGE_LEVEL,
        members: vec![Member {
            id: 1,
            name: "n1".to_owned(),
            addr: "h:1".to_owned(),
            pending: false,
        }],
        users: Vec::new(),
    });
    builder.system(&SystemOp::OpenSession {
        node: 1,
        boot: 1,
        highest: EDGE_LEVEL,
    });
    let keys = [&b"near"[..], b"late"].map(Bytes::from_static);
    let until = |key: &Bytes, ms| Command::SetWith {
        key: key.clone(),
        value: Bytes::new(),
        condition: SetIf::Always,
        expiry: Expiry::At { ms },
        get: false,
    };
    let commands = [until(&keys[0], 100), until(&keys[1], 200).in_database(1)];
    let commands = commands.map(|command| command.encode());
    builder.group(1, 1, 0, commands.iter());
    store.apply(1, &builder.finish(), &mut ());
    if with_snapshot {
        store.begin_snapshot().expect("no other is under way");
    }
    let cap = Command::SetMemory {
        cap: Some(store.memory().cost),
        policy: Some(EvictionPolicy::VolatileTtl),
    };
    let mut builder = BatchBuilder::new(0);
    builder.group(1, 3, 2, [cap.encode()].iter());
    store.apply(2, &builder.finish(), &mut ());
    store.apply(3, &BatchBuilder::new(0).finish(), &mut ());
    [store.exists(&keys[0]), store.get_in(1, &keys[1]).is_some()]
}

fn dropping_dedup_executes_again() {
    assert_eq!(revision_after_resending(), 1);
    set(Some(Bug::DropDedup));
    assert!(active(Bug::DropDedup));
    assert_eq!(revision_after_resending(), 2);
    set(None);
    assert_eq!(revision_after_resending(), 1);
}
