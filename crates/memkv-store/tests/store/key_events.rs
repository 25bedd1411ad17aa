//! KeyEvents of what happens to keys: in the order of the log, for who wants them only, and no part of
//! the state. What each command announces, the tests of the binaries compare with redis-server.

use bytes::Bytes;
use memkv_store::{BatchBuilder, Command, Expiry, KeyEventClasses, SetIf, Store};

use crate::support::{apply, load, open, snapshot};

fn classes(letters: &str) -> KeyEventClasses {
    KeyEventClasses::parse(letters.as_bytes()).expect("known letters")
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn set(key: &'static str) -> Command {
    Command::Set {
        key: bytes(key),
        value: bytes("v"),
    }
}

fn until(key: &'static str, ms: i64) -> Command {
    Command::SetWith {
        key: bytes(key),
        value: bytes("v"),
        condition: SetIf::Always,
        expiry: Expiry::At { ms },
        get: false,
    }
}

/// Applies one entry and tells what is noted of it.
fn noted(store: &mut Store, session: u64, stamp: u64, commands: &[Command]) -> Vec<String> {
    let first = store.session(session).map_or(0, |open| open.last_seq()) + 1;
    let mut builder = BatchBuilder::new(stamp);
    let encoded: Vec<_> = commands.iter().map(Command::encode).collect();
    builder.group(session, first, first - 1, encoded.iter());
    apply(store, &builder.finish());
    let events = store.take_key_events().into_iter();
    events
        .map(|event| {
            let key = String::from_utf8_lossy(&event.key).into_owned();
            format!("{} {} {key}", event.database, event.event)
        })
        .collect()
}

#[test]
fn a_deadline_is_announced_when_it_removes_the_key_and_before_what_follows() {
    let mut store = Store::new();
    let session = open(&mut store, 1, 1);
    store.listen(true, classes("KEAn"));
    let made = noted(
        &mut store,
        session,
        10,
        &[until("b", 30), until("a", 20), set("c").in_database(3)],
    );
    let expected = [
        "0 new b",
        "0 set b",
        "0 expire b",
        "0 new a",
        "0 set a",
        "0 expire a",
        "3 new c",
        "3 set c",
    ];
    assert_eq!(made, expected);
    assert!(noted(&mut store, session, 19, &[Command::Noop]).is_empty());
    let gone = noted(&mut store, session, 30, &[set("a")]);
    assert_eq!(gone, ["0 expired a", "0 expired b", "0 new a", "0 set a"]);
}

#[test]
fn a_key_that_waits_to_be_removed_expires_when_another_takes_its_name() {
    let mut store = Store::new();
    let session = open(&mut store, 1, 1);
    // More than one entry removes; the last deadline is the one that is left.
    let keys: Vec<Command> = (0..=10_000)
        .map(|number| Command::SetWith {
            key: Bytes::from(format!("{number:05}")),
            value: bytes("v"),
            condition: SetIf::Always,
            expiry: Expiry::At { ms: 100 + number },
            get: false,
        })
        .collect();
    noted(&mut store, session, 1, &keys);
    store.listen(true, classes("Exn$"));
    let all = noted(
        &mut store,
        session,
        1_000_000,
        &[set("10000"), set("10000")],
    );
    assert_eq!(all.len(), 10_000 + 4);
    let end = [
        "0 expired 10000",
        "0 new 10000",
        "0 set 10000",
        "0 set 10000",
    ];
    assert_eq!(all[10_000..], end);
}

#[test]
fn the_setting_is_part_of_the_state_and_the_key_events_are_not() {
    let mut quiet = Store::new();
    let mut loud = Store::new();
    let sessions = [open(&mut quiet, 1, 1), open(&mut loud, 1, 1)];
    loud.listen(true, classes("KEA"));
    assert_eq!(noted(&mut loud, sessions[1], 1, &[set("a")]), ["0 set a"]);
    assert!(noted(&mut quiet, sessions[0], 1, &[set("a")]).is_empty());
    assert_eq!(loud.digest(), quiet.digest());

    let announce = |letters| Command::Announce {
        classes: classes(letters),
    };
    let before = loud.revision();
    noted(&mut loud, sessions[1], 2, &[announce("Kx")]);
    assert_eq!(
        (loud.announced(), loud.revision()),
        (Some(classes("Kx")), before)
    );
    assert_ne!(loud.digest(), quiet.digest());
    assert!(noted(&mut loud, sessions[1], 3, &[set("a")]).is_empty());

    let mut loaded = load(&snapshot(&mut loud, 1000)).expect("a whole snapshot");
    assert_eq!(loaded.announced(), Some(classes("Kx")));
    assert_eq!(loaded.digest(), loud.digest());
    loaded.listen(true, classes(""));
    assert!(noted(&mut loaded, sessions[1], 4, &[set("a")]).is_empty());
    let both = [announce("K$"), set("a"), announce(""), set("a")];
    assert_eq!(noted(&mut loaded, sessions[1], 5, &both), ["0 set a"]);
    assert_eq!(loaded.announced(), Some(classes("")));
}
