//! Values that keys hold in common: COPY, RENAME and a new deadline copy no large value, cost the same
//! whatever its length, and what is counted never says whether keys share.

use bytes::Bytes;
use memkv_store::{Command, Expiry, MAX_TRANSACTION_STEPS, Step, Store};

use crate::pieces::work;
use crate::support::{load, snapshot, store_with};

const BIG: usize = 8 << 20;

/// The work that is applied in one piece, in units of work.
const PIECE: u64 = 100_000;

fn key(name: impl AsRef<str>) -> Bytes {
    Bytes::copy_from_slice(name.as_ref().as_bytes())
}

fn copy(from: &str, to: impl AsRef<str>) -> Command {
    Command::Copy {
        from: key(from),
        to: key(to),
        to_database: 0,
        replace: true,
    }
}

fn rename(from: &str, to: &str) -> Command {
    Command::Rename {
        from: key(from),
        to: key(to),
        if_absent: false,
    }
}

fn exec(commands: impl Iterator<Item = Command>) -> Command {
    Command::Transaction {
        guards: vec![],
        operations: commands.map(Step::Write).collect(),
        otherwise: vec![],
    }
}

fn with_value(name: &str, len: usize) -> Store {
    let set = Command::Set {
        key: key(name),
        value: vec![b'v'; len].into(),
    };
    store_with(&[set.encode()]).0
}

/// Where the value of a key lies, and how long it is.
fn location(store: &Store, name: &str) -> Option<(*const u8, usize)> {
    let found = store.get(name.as_bytes())?;
    Some((found.value.as_ptr(), found.value.len()))
}

#[test]
fn a_large_value_stays_where_it_is() {
    let mut store = with_value("big", BIG);
    let first = location(&store, "big");
    let expire = |key| Command::Expire {
        key,
        expiry: Expiry::In { ms: 1_000 },
        condition: memkv_store::ExpireIf::Always,
    };
    for command in [
        copy("big", "x"),
        copy("x", "y"),
        rename("x", "z"),
        expire(key("z")),
        copy("z", "big"),
        Command::GetEx {
            key: key("y"),
            expiry: Expiry::In { ms: 5_000 },
        },
        Command::Persist { key: key("z") },
        exec((0..64).map(|n| copy("y", format!("of{n}")))),
    ] {
        let units = work(&mut store, &command);
        assert!(units < 4_096, "{units} for {command:?}");
    }
    for name in ["big", "y", "z", "of0", "of63"] {
        assert_eq!(location(&store, name), first, "{name}");
    }
    assert_eq!(location(&store, "x"), None);
    // Writes and appends to one of them are not visible in another.
    let set = Command::Set {
        key: key("big"),
        value: vec![b'w'; BIG].into(),
    };
    work(&mut store, &set);
    let append = Command::Append {
        key: key("of0"),
        suffix: key("more"),
    };
    work(&mut store, &append);
    assert_eq!(location(&store, "y"), first);
    assert!(store.get(b"of63").is_some_and(|of| of.value[0] == b'v'));
    assert!(store.get(b"big").is_some_and(|big| big.value[0] == b'w'));
}

#[test]
fn a_transaction_of_copies_is_less_than_a_piece_and_copies_nothing() {
    let mut store = with_value("big", BIG);
    let copies = (0..MAX_TRANSACTION_STEPS).map(|n| copy("big", format!("x{n}")));
    let units = work(&mut store, &exec(copies));
    assert!(units < PIECE, "{units}");
    let onto_one = (0..MAX_TRANSACTION_STEPS).map(|_| copy("big", "x"));
    let units = work(&mut store, &exec(onto_one));
    assert!(units < PIECE, "{units}");
    assert_eq!(store.len(), MAX_TRANSACTION_STEPS + 2);
    for name in ["x0", "x1023", "x"] {
        assert_eq!(location(&store, name), location(&store, "big"), "{name}");
    }
    // Small values are copied, and bounded by what copies them.
    let mut small = with_value("small", 4_000);
    let copies = (0..MAX_TRANSACTION_STEPS).map(|n| copy("small", format!("x{n}")));
    let units = work(&mut small, &exec(copies));
    assert!(units > 4_000 / 64 * 1_024, "{units}");
}

#[test]
fn costs_do_not_depend_on_sharing() {
    for len in [100, 3_000, 4_095, 4_096, 70_000, BIG] {
        let mut store = with_value("big", len);
        let alone = store.memory_bytes();
        work(&mut store, &copy("big", "cop"));
        let with_copy = store.memory_bytes() - alone;
        assert!(with_copy as usize >= len, "{with_copy} for {len}");
        work(&mut store, &rename("big", "gib"));
        work(&mut store, &exec([copy("gib", "gib2")].into_iter()));
        let mut loaded = load(&snapshot(&mut store, 64 << 10)).expect("a snapshot");
        let own = |name: &str| location(&loaded, name).map(|(at, _)| at);
        assert_ne!(own("gib"), own("cop"));
        let keys = |store: &mut Store| {
            let removed = ["gib", "cop", "gib2"].map(|name| {
                let before = store.memory_bytes();
                let del = Command::Del {
                    keys: vec![key(name)],
                };
                work(store, &del);
                before - store.memory_bytes()
            });
            assert_eq!(store.len(), 0);
            removed
        };
        assert_eq!(loaded.digest(), store.digest(), "{len}");
        assert_eq!(loaded.memory_bytes(), store.memory_bytes(), "{len}");
        assert_eq!(keys(&mut loaded), keys(&mut store), "{len}");
    }
}

#[test]
fn a_key_that_is_longer_than_its_value_is_not_kept_for_it() {
    let long = "k".repeat(60_000);
    let mut store = with_value(&long, 5_000);
    work(&mut store, &copy(&long, "x"));
    assert_ne!(location(&store, "x"), location(&store, &long));
    let mut store = with_value(&long, 60_100);
    work(&mut store, &copy(&long, "x"));
    assert_eq!(location(&store, "x"), location(&store, &long));
}

#[test]
fn large_memory_is_freed_with_the_garbage() {
    let mut store = with_value("big", BIG);
    assert!(store.take_garbage().is_none());
    let shorter = Command::Set {
        key: key("big"),
        value: key("v"),
    };
    work(&mut store, &shorter);
    assert!(store.take_garbage().is_some());
    assert!(store.take_garbage().is_none());
    let mut store = with_value("small", 4_096);
    work(&mut store, &shorter);
    work(
        &mut store,
        &Command::Del {
            keys: vec![key("small")],
        },
    );
    assert!(store.take_garbage().is_none());
}
