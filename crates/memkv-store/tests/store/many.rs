//! A command of many keys that is executed in pieces: between them readers see nothing of it, whatever
//! they ask, and in the end it is as if it had been executed at once.

use bytes::Bytes;
use memkv_store::{
    Applying, BatchBuilder, Checked, Command, KeyEventClasses, Progress, Query, Reading, Readings,
    ReplyValue, SessionId, Store,
};

use crate::pieces::Draws;
use crate::support::{Event, Recorder, open};

/// Keys that there may be.
const KEYS: u64 = 4_000;
const MOST: usize = 256 << 20;

fn key(draws: &mut Draws) -> Bytes {
    format!("key:{}", draws.draw(KEYS)).into()
}

fn value(draws: &mut Draws) -> Bytes {
    // Some are shared and not copied.
    let len = match draws.draw(100) {
        0 => 5_000,
        _ => draws.draw(60),
    };
    vec![draws.draw(256) as u8; len as usize].into()
}

/// Mostly with so many keys that it is executed in pieces.
fn command(draws: &mut Draws) -> Command {
    let count = 500 + draws.draw(2_000);
    let keys = |draws: &mut Draws| (0..count).map(|_| key(draws)).collect();
    let pairs = |draws: &mut Draws| (0..count).map(|_| (key(draws), value(draws))).collect();
    let command = match draws.draw(8) {
        0 => Command::Set {
            key: key(draws),
            value: value(draws),
        },
        1 => Command::FlushDatabase,
        2..4 => Command::Del { keys: keys(draws) },
        4 => Command::SetMany {
            pairs: pairs(draws),
            if_none_exists: true,
        },
        _ => Command::SetMany {
            pairs: pairs(draws),
            if_none_exists: false,
        },
    };
    command.in_database(draws.draw(2) as u8)
}

fn queries(draws: &mut Draws) -> Vec<Query> {
    let keys = |draws: &mut Draws| (0..draws.draw(50)).map(|_| key(draws)).collect();
    let all = [
        Query::Get { key: key(draws) },
        Query::GetMany { keys: keys(draws) },
        Query::Exists { keys: keys(draws) },
        Query::Meta {
            key: key(draws),
            value: true,
        },
        Query::Range {
            start: key(draws),
            end: (draws.draw(2) == 0).then(|| key(draws)),
            limit: draws.draw(200),
            keys_only: draws.draw(2) == 0,
        },
        Query::Scan {
            cursor: 0,
            count: 1 + draws.draw(300),
        },
        Query::RandomKey {
            nonce: draws.draw(u64::from(u32::MAX)),
        },
        Query::DbSize,
    ];
    let databases = all.map(|query| query.in_database(draws.draw(2) as u8));
    databases.into()
}

fn answers(store: &Store, queries: &[Query]) -> Vec<ReplyValue> {
    queries.iter().map(|query| store.query(query, 0)).collect()
}

fn group(session: SessionId, seq: u64, commands: &[Command]) -> Bytes {
    let encoded: Vec<Bytes> = commands.iter().map(Command::encode).collect();
    let mut batch = BatchBuilder::new(0);
    batch.group(session, seq, seq - 1, encoded.iter());
    batch.finish()
}

#[test]
fn between_its_pieces_a_command_is_not_seen_and_in_the_end_all_of_it_is() {
    let mut draws = Draws(5);
    // One has entries whole, one has them cut, and one has a command after the other.
    let (mut whole, mut cut, mut steps) = (Store::new(), Store::new(), Store::new());
    let [session, ..] = [&mut whole, &mut cut, &mut steps].map(|store| open(store, 1, 1));
    let listening = KeyEventClasses::parse(b"KEA").unwrap();
    cut.listen(true, listening);
    let (mut seq, mut within, mut refused) = (1, 0, 0);
    let mut next = 1;
    let mut step = |store: &mut Store, commands: &[Command]| {
        for command in commands {
            let batch = group(session, next, std::slice::from_ref(command));
            store.apply(store.applied_index() + 1, &batch, &mut ());
            next += 1;
        }
    };
    for _ in 0..60 {
        let commands: Vec<Command> = (0..1 + draws.draw(3))
            .map(|_| command(&mut draws))
            .collect();
        let batch = group(session, seq, &commands);
        let index = whole.applied_index() + 1;
        let (mut expected, mut seen) = (Recorder::default(), Recorder::default());
        whole.apply(index, &batch, &mut expected);
        let begun: Option<Applying> = cut.begin_apply(index, &batch, &mut seen);
        let mut applying = begun.expect("a new entry");
        let (mut room, mut executed) = (draws.draw(9_000), 0);
        while let Progress::Paused { next } = cut.resume(&mut applying, &mut room, &mut seen) {
            room = next + draws.draw(9_000);
            step(&mut steps, &commands[executed..seen.0.len()]);
            executed = seen.0.len();
            let queries = queries(&mut draws);
            let expected = answers(&steps, &queries);
            assert_eq!(answers(&cut, &queries), expected);
            let mut reading = Reading::new(queries, MOST);
            while reading.resume(&cut, None, 0, 20) != Readings::Done {}
            assert_eq!(reading.into_answers(), expected);
            let key = key(&mut draws);
            assert_eq!(cut.seen(1, &key), steps.seen(1, &key));
            assert_eq!(cut.revision(), steps.revision());
            if cut.is_within_command() {
                within += 1;
                assert_eq!(cut.begin_view(), None);
                assert!(
                    cut.take_key_events().is_empty(),
                    "of what cannot be read yet"
                );
            }
        }
        step(&mut steps, &commands[executed..]);
        seq += commands.len() as u64;
        refused += count_of_zero(&seen);
        assert_eq!(seen.0, expected.0);
        assert_eq!(cut.digest(), whole.digest());
        assert_eq!(cut.effects(), whole.effects());
        assert!(!cut.is_within_command());
        cut.take_key_events();
        drop(cut.take_garbage());
    }
    assert!(within > 200, "{within}");
    assert!(refused > 3, "{refused} times one of the keys was there");
}

/// How often a command changed nothing.
fn count_of_zero(seen: &Recorder) -> usize {
    let is_zero = |event: &&Event| match event {
        Event::Reply(_, _, reply) => reply.value == ReplyValue::Integer(0),
        _ => false,
    };
    seen.0.iter().filter(is_zero).count()
}

#[test]
fn a_command_that_changes_more_than_is_held_back_for_readers_ends_in_one_piece() {
    // 40 MB of entries that are copied where they are saved.
    const COUNT: usize = 90_000;
    let mut store = Store::new();
    let session = open(&mut store, 1, 1);
    let pairs = |value: Bytes| {
        let pair = |n: usize| (Bytes::from(n.to_string()), value.clone());
        let pairs = (0..COUNT).map(pair).collect();
        Command::SetMany {
            pairs,
            if_none_exists: false,
        }
    };
    let old = Bytes::from(vec![b'o'; 450]);
    let batch = group(session, 1, &[pairs(old.clone())]);
    store.apply(store.applied_index() + 1, &batch, &mut ());
    let held = store.memory_bytes();
    let batch = group(session, 2, &[pairs("new".into())]);
    let mut seen = Recorder::default();
    let index = store.applied_index() + 1;
    let mut applying = store.begin_apply(index, &batch, &mut seen).unwrap();
    let (mut pauses, mut most) = (0, 0);
    while store.resume(&mut applying, &mut 10_000, &mut seen) != Progress::Done {
        pauses += 1;
        for n in [0, pauses, COUNT - 1] {
            let found = store.get(n.to_string().as_bytes()).unwrap();
            assert_eq!(found.value, old);
        }
        most = most.max(store.memory_bytes());
    }
    // Of some seventy thousand, about six hundred at a time.
    assert!((90..130).contains(&pauses), "{pauses}");
    assert!(most < held + (33 << 20), "{most}");
    assert!(seen.0.len() == 1 && !store.is_within_command());
    assert_eq!(store.get(b"77").unwrap().value, b"new");
    assert!(
        store
            .take_garbage()
            .is_some_and(|garbage| garbage.is_much())
    );
    assert!(store.memory_bytes() < held / 4);
}

#[test]
fn a_long_command_that_was_read_before_its_turn_is_executed_in_its_place_and_once() {
    let set = |value: &'static str| Command::Set {
        key: "7".into(),
        value: value.into(),
    };
    let value = Bytes::from(vec![b'v'; 60]);
    let pair = |n: u32| (Bytes::from(n.to_string()), value.clone());
    let many = Command::SetMany {
        pairs: (0..4_000).map(pair).collect(),
        if_none_exists: false,
    };
    let commands = [set("before"), many.clone(), set("after"), many, set("last")];
    let mut store = Store::new();
    let session = open(&mut store, 1, 1);
    let batch = group(session, 1, &commands);
    let checked = Checked::new(&batch).unwrap();
    let mut seen = Recorder::default();
    let mut applying = store.begin_checked(2, checked, &mut seen).unwrap();
    let mut values = Vec::new();
    while store.resume(&mut applying, &mut 2_000, &mut seen) != Progress::Done {
        values.push(store.get(b"7").unwrap().value.to_vec());
    }
    values.dedup();
    assert_eq!(values, [b"before", &b"after"[..]], "never one of many");
    assert_eq!(store.get(b"7").unwrap().value, b"last");
    assert_eq!((store.len(), store.revision()), (4_000, 5));
    let numbers: Vec<u64> = seen.0.iter().map(|event| number(event, false)).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);

    // Behind a reply that was lost, and in the name of no session.
    let (digest, mut seen) = (store.digest(), Recorder::default());
    store.apply(3, &batch, &mut seen);
    let numbers: Vec<u64> = seen.0.iter().map(|event| number(event, true)).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    let mut seen = Recorder::default();
    store.apply(4, &group(session + 1, 1, &commands), &mut seen);
    assert!(matches!(seen.0[..], [Event::Rejected(..)]));
    assert_eq!(store.digest(), digest);
}

/// The number of a command that was executed, or had been.
fn number(event: &Event, is_duplicate: bool) -> u64 {
    match event {
        Event::Reply(_, number, _) if !is_duplicate => *number,
        Event::Duplicate(_, number, Some(_)) if is_duplicate => *number,
        event => panic!("{event:?}"),
    }
}
