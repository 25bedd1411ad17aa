//! A snapshot that founds another cluster: what comes along, and that nothing that was seen before holds.

use bytes::Bytes;
use memkv_store::{
    Command, Compare, Condition, EDGE_LEVEL, Expiry, Guard, LoadError, Loader, Member, Refounding,
    ReplyValue, Seen, SetIf, Store, SystemOp, Value,
};

use crate::support::{apply, snapshot, system};
use crate::users::{Cluster, name, spec};

const REVISION: u64 = 1 << 40;

fn refounding() -> Refounding {
    Refounding {
        cluster: [9; 16],
        durability_sync: true,
        member: Member {
            id: 1,
            name: "r1".to_owned(),
            addr: "r:1".to_owned(),
            pending: false,
        },
        index: 1,
        revision: REVISION,
        later_ms: 0,
        users: None,
    }
}

fn refound(blocks: &[Vec<u8>], refounding: Refounding) -> Result<Store, LoadError> {
    let mut loader = Loader::refounding(refounding);
    for block in blocks {
        loader.block(block)?;
    }
    loader.finish()
}

fn set(key: &str, ms: Option<i64>) -> Command {
    Command::SetWith {
        key: name(key),
        value: name("v"),
        condition: SetIf::Always,
        expiry: ms.map_or(Expiry::None, |ms| Expiry::At { ms }),
        get: false,
    }
}

/// Keys in two databases, one with a deadline, one that was deleted.
fn filled() -> Cluster {
    let mut cluster = Cluster::with_users();
    for number in 0..500 {
        cluster.run(set(&format!("key {number}"), None));
    }
    cluster.run(set("due", Some(5000)));
    cluster.run(set("gone", None));
    let keys = vec![name("gone")];
    cluster.run(Command::Del { keys });
    cluster.run(Command::InDatabase {
        database: 3,
        command: Box::new(set("elsewhere", None)),
    });
    cluster
}

/// A cluster that goes on with a restored state.
fn goes_on(mut store: Store) -> Cluster {
    apply(
        &mut store,
        &system(&[SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: EDGE_LEVEL,
        }]),
    );
    let session = store.session_of_node(1).expect("a session");
    Cluster { store, session }
}

#[test]
fn keys_users_and_settings_come_along_and_members_and_sessions_do_not() {
    let mut old = filled();
    let maxmemory = Command::SetMemory {
        cap: Some(1 << 30),
        policy: None,
    };
    old.run(maxmemory);
    let blocks = snapshot(&mut old.store, 4096);
    let new = refound(&blocks, refounding()).unwrap();
    assert_eq!(new.len(), old.store.len());
    assert_eq!(new.database_len(3), 1);
    assert_eq!(
        new.get(b"key 7").unwrap().value,
        old.store.get(b"key 7").unwrap().value
    );
    assert_eq!(new.users(), old.store.users());
    assert_eq!(new.memory().operator_cap, Some(1 << 30));
    assert_eq!(new.memory().cost, old.store.memory().cost);
    assert_eq!(new.member_table().cluster(), Some([9; 16]));
    let members: Vec<_> = new
        .member_table()
        .members()
        .map(|it| &it.name[..])
        .collect();
    assert_eq!((members, new.member_table().highest_id()), (vec!["r1"], 1));
    assert_eq!(new.session_of_node(1), None);
    assert_eq!((new.revision(), new.applied_index()), (REVISION, 1));
    assert_eq!(new.stamp_ms(), old.store.stamp_ms());
    let again = snapshot(&mut goes_on(new).store, 4096);
    assert!(
        crate::support::load(&again).is_ok(),
        "its own snapshot loads"
    );
}

#[test]
fn nothing_that_was_seen_before_holds_after() {
    let mut old = filled();
    let present = old.store.seen(0, b"key 7");
    let absent = old.store.seen(0, b"never there");
    let Seen::Present { mod_revision } = present else {
        panic!("{present:?}")
    };
    let blocks = snapshot(&mut old.store, 4096);
    let mut new = goes_on(refound(&blocks, refounding()).unwrap());
    let mut holds = |key: &str, holds: Condition| {
        let guard = Guard {
            database: 0,
            key: name(key),
            holds,
        };
        let transaction = Command::Transaction {
            guards: vec![guard],
            operations: vec![],
            otherwise: vec![],
        };
        new.run(transaction) == ReplyValue::Array(vec![])
    };
    assert!(!holds("key 7", Condition::Unchanged(present)));
    assert!(!holds("never there", Condition::Unchanged(absent)));
    assert!(!holds("gone", Condition::Unchanged(absent)));
    assert!(!holds(
        "key 7",
        Condition::ModRevision(Compare::Equal, mod_revision)
    ));
    assert!(!holds(
        "key 7",
        Condition::CreateRevision(Compare::Equal, mod_revision)
    ));
    assert!(holds(
        "key 7",
        Condition::ModRevision(Compare::Equal, REVISION)
    ));
    let at = REVISION;
    assert!(holds(
        "never there",
        Condition::Unchanged(Seen::Absent { at })
    ));
    let revision = |store: &Store| {
        store
            .get(b"new")
            .map(|Value { mod_revision, .. }| mod_revision)
    };
    new.run(set("new", None));
    assert_eq!(
        revision(&new.store),
        Some(REVISION + 1),
        "revisions go on from there"
    );
}

#[test]
fn deadlines_stay_or_move() {
    let blocks = snapshot(&mut filled().store, 4096);
    let stays = refound(&blocks, refounding()).unwrap();
    assert_eq!(stays.next_deadline(), Some(5000));
    assert_eq!((stays.keys_due(4999), stays.keys_due(5000)), (0, 1));
    let later = Refounding {
        later_ms: 1000,
        ..refounding()
    };
    assert_eq!(refound(&blocks, later).unwrap().next_deadline(), Some(6000));
}

#[test]
fn users_can_be_left_behind() {
    let blocks = snapshot(&mut filled().store, 4096);
    let users = |users: Vec<(Bytes, _)>| Refounding {
        users: Some(users),
        ..refounding()
    };
    let none = refound(&blocks, users(vec![])).unwrap();
    assert_eq!(none.users(), None);
    let one = refound(&blocks, users(vec![(name("default"), spec(&[]))])).unwrap();
    let table = one.users().unwrap();
    assert!(table.get(b"default").is_some() && table.get(b"ada").is_none());
}

#[test]
fn a_revision_that_was_given_out_is_refused() {
    let mut old = filled();
    let reached = old.store.revision();
    let blocks = snapshot(&mut old.store, 4096);
    for (revision, is_taken) in [(0, false), (reached, false), (reached + 1, true)] {
        let refounding = Refounding {
            revision,
            ..refounding()
        };
        assert_eq!(refound(&blocks, refounding).is_ok(), is_taken, "{revision}");
    }
}
