//! The rolling hash of effects: the same for the same log, however a store has come to it, and another
//! after any difference.

use std::collections::BTreeSet;

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Expiry, Progress, SetIf, Step, Store, SystemOp, SystemOutcome,
};

use crate::support::{Event, apply, del, group, load, open, set, snapshot, system};

fn key(number: u64) -> Bytes {
    format!("key {}", number % 23).into()
}

/// A command of every way to change keys.
fn command(number: u64) -> Command {
    let value: Bytes = vec![number as u8; (number % 40) as usize].into();
    match number % 9 {
        0 => Command::Del {
            keys: vec![key(number), key(number + 1)],
        },
        1 => Command::SetWith {
            key: key(number),
            value,
            condition: SetIf::Always,
            expiry: Expiry::At {
                ms: 1_000 + 7 * number as i64,
            },
            get: true,
        },
        2 => Command::Copy {
            from: key(number),
            to: key(number + 3),
            to_database: (number % 3) as u8,
            replace: true,
        },
        3 => Command::Rename {
            from: key(number),
            to: key(number + 5),
            if_absent: false,
        },
        4 => Command::Append {
            key: key(number),
            suffix: value,
        },
        5 => Command::Transaction {
            guards: Vec::new(),
            operations: (0..3)
                .map(|at| {
                    Step::Write(Command::IncrBy {
                        key: format!("counter {at}").into(),
                        by: number as i64,
                    })
                })
                .collect(),
            otherwise: Vec::new(),
        },
        _ => Command::Set {
            key: key(number),
            value,
        },
    }
}

/// Entries as a busy cluster makes them: groups, deadlines, and a session that is opened anew.
fn entries(count: u64) -> Vec<Bytes> {
    let mut entries = vec![system(&[SystemOp::OpenSession {
        node: 1,
        boot: 1,
        highest: 1,
    }])];
    let (mut session, mut seq) = (1, 1);
    for number in 0..count {
        let mut batch = BatchBuilder::new(1_000 + 10 * number);
        if number % 50 == 49 {
            let boot = 2 + number;
            batch.system(&SystemOp::OpenSession {
                node: 1,
                boot,
                highest: 1,
            });
            (session, seq) = (number + 2, 1);
        } else {
            let commands: Vec<Bytes> = (0..5).map(|at| command(5 * number + at).encode()).collect();
            batch.group(session, seq, seq.saturating_sub(4), commands.iter());
            seq += 5;
        }
        entries.push(batch.finish());
    }
    entries
}

#[test]
fn equal_logs_make_equal_hashes_by_any_way_of_applying_them() {
    let entries = entries(300);
    let mut whole = Store::new();
    let mut pieces = Store::new();
    let mut restored = Store::new();
    let mut hashes = BTreeSet::new();
    for (at, entry) in entries.iter().enumerate() {
        let index = at as u64 + 1;
        whole.apply(index, entry, &mut ());
        let mut applying = pieces.begin_apply(index, entry, &mut ()).unwrap();
        let mut room = 1;
        while let Progress::Paused { next } = pieces.resume(&mut applying, &mut room, &mut ()) {
            room = next;
        }
        restored.apply(index, entry, &mut ());
        if at % 20 == 0 {
            restored = load(&snapshot(&mut restored, 100)).unwrap();
        }
        assert!(whole.effects().is_some());
        assert_eq!(whole.effects(), pieces.effects(), "in pieces, at {index}");
        assert_eq!(whole.effects(), restored.effects(), "restored, at {index}");
        // An applied entry is skipped, and an entry without a batch changes nothing.
        whole.apply(index, entry, &mut ());
        whole.mark_applied(index);
        assert_eq!(whole.effects(), pieces.effects());
        hashes.insert(whole.effects());
    }
    assert!(!whole.is_empty() && whole.expired_total() > 0);
    assert_eq!(hashes.len(), entries.len(), "each entry shows");
}

#[test]
fn one_difference_shows_at_once_and_for_ever_after() {
    let one = set(b"a", b"1");
    let others = [
        set(b"a", b"2"),
        set(b"b", b"1"),
        set(b"a", b"11"),
        del(&[b"a"]),
        Command::Noop.encode(),
        Command::SetWith {
            key: Bytes::from_static(b"a"),
            value: Bytes::from_static(b"1"),
            condition: SetIf::Always,
            expiry: Expiry::At { ms: 99_999_999 },
            get: false,
        }
        .encode(),
    ];
    for other in others {
        let (mut left, mut right) = (Store::new(), Store::new());
        let session = open(&mut left, 1, 1);
        open(&mut right, 1, 1);
        assert_eq!(left.effects(), right.effects());
        apply(&mut left, &group(session, 1, 0, std::slice::from_ref(&one)));
        apply(&mut right, &group(session, 1, 0, &[other]));
        for seq in 2..100 {
            assert_ne!(left.effects(), right.effects());
            let same = group(session, seq, seq - 1, &[set(b"a", b"same"), del(&[b"b"])]);
            if seq % 2 == 0 {
                (left, right) = [left, right]
                    .map(|mut store| load(&snapshot(&mut store, 100)).unwrap())
                    .into();
            }
            for store in [&mut left, &mut right] {
                apply(store, &same);
            }
        }
    }
}

#[test]
fn system_operations_change_the_hash() {
    let admit = |nonce| {
        let (name, addr) = ("n9".to_owned(), "a:1".to_owned());
        SystemOp::AdmitNode {
            name,
            addr,
            nonce,
            highest: 1,
        }
    };
    let form = SystemOp::Form {
        cluster: [7; 16],
        durability_sync: true,
        level: 1,
        members: vec![memkv_store::Member {
            id: 1,
            name: "n1".to_owned(),
            addr: "a:0".to_owned(),
            pending: false,
        }],
        users: vec![],
    };
    let hash = |last: SystemOp| {
        let mut store = Store::new();
        apply(&mut store, &system(std::slice::from_ref(&form)));
        let events = apply(&mut store, &system(&[last]));
        let admitted = matches!(
            events[..],
            [Event::System(0, SystemOutcome::NodeAdmitted { .. })]
        );
        assert!(admitted, "{events:?}");
        store.effects()
    };
    // Both answer the same, and leave another table.
    assert_ne!(hash(admit(1)), hash(admit(2)));
}
