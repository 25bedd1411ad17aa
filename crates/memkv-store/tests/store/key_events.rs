//! Key events where more keys are due than one entry removes. Their order, classes and setting are in
//! `tests/scripts/`; the black-box tests compare the events of each command with redis-server.

use bytes::Bytes;
use memkv_store::{BatchBuilder, Command, Expiry, KeyEventClasses, SetIf, Store};

use crate::support::{apply, open};

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

/// Applies one entry and returns its key events.
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
