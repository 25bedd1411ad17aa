//! How much a write may answer and a transaction may copy: refused before anything has changed.

use bytes::Bytes;
use memkv_store::{
    Command, Condition, Expiry, Guard, MAX_COPIED_BYTES, MAX_VALUE_BYTES_CEILING,
    MAX_WRITE_REPLY_BYTES, Query, Reply, ReplyError, ReplyValue, SessionId, SetIf, Step, Store,
};

use crate::support::{Event, apply, group, set, store_with};

const KIB: usize = 1024;

struct Log {
    store: Store,
    session: SessionId,
}

impl Log {
    fn new() -> Log {
        let (store, session) = store_with(&[]);
        Log { store, session }
    }

    fn one(&mut self, command: &Command) -> ReplyValue {
        self.encoded(command.encode())
    }

    fn encoded(&mut self, command: Bytes) -> ReplyValue {
        let seq = self.store.session(self.session).expect("open").last_seq() + 1;
        let batch = group(self.session, seq, seq - 1, &[command]);
        match &apply(&mut self.store, &batch)[..] {
            [Event::Reply(_, _, Reply { value, .. })] => value.clone(),
            other => panic!("{other:?}"),
        }
    }
}

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn write(name: &str, len: usize) -> Step {
    Step::Write(Command::Set {
        key: key(name),
        value: vec![b'x'; len].into(),
    })
}

fn many(name: &str, times: usize) -> Step {
    Step::Read(Query::GetMany {
        keys: vec![key(name); times],
    })
}

fn exec(operations: Vec<Step>) -> Command {
    Command::Transaction {
        guards: vec![],
        operations,
        otherwise: vec![],
    }
}

const TOO_LONG: ReplyValue = ReplyValue::Error(ReplyError::ReplyTooLong);

#[test]
fn a_transaction_that_would_answer_too_much_changes_nothing() {
    let part = Step::Read(Query::GetRange {
        key: key("k"),
        start: 0,
        end: -1,
    });
    let meta = Step::Read(Query::Meta {
        key: key("k"),
        value: true,
    });
    let get_with = Step::Write(Command::SetWith {
        key: key("k"),
        value: vec![b'y'; 64 * KIB].into(),
        condition: SetIf::Always,
        expiry: Expiry::None,
        get: true,
    });
    let copy = Step::Write(Command::Copy {
        from: key("k"),
        to: key("l"),
        to_database: 0,
        replace: true,
    });
    let rename = Step::Write(Command::Rename {
        from: key("k"),
        to: key("l"),
        if_absent: false,
    });
    let append = Step::Write(Command::Append {
        key: key("k"),
        suffix: vec![b'z'; 4 * 1024 * KIB].into(),
    });
    let patch = Step::Write(Command::SetRange {
        key: key("n"),
        offset: 5 * 1024 * KIB as u64,
        patch: key("end"),
    });
    let too_much = [
        vec![write("k", 64 * KIB), many("k", 200)],
        // Mostly elements.
        vec![write("k", 30), many("k", 130_000)],
        [vec![write("k", 64 * KIB)], vec![part; 129]].concat(),
        [vec![write("k", 64 * KIB)], vec![meta; 129]].concat(),
        [vec![write("k", 64 * KIB)], vec![get_with; 129]].concat(),
        vec![write("k", 64 * KIB), copy, many("l", 130)],
        vec![write("k", 64 * KIB), rename, many("l", 130)],
        vec![write("k", 64 * KIB), append, many("k", 2)],
        vec![patch, many("n", 2)],
    ];
    for operations in too_much {
        let mut log = Log::new();
        let shown: Vec<String> = operations.iter().map(name).collect();
        assert_eq!(log.one(&exec(operations)), TOO_LONG, "{shown:?}");
        assert_eq!((log.store.len(), log.store.revision()), (0, 0), "{shown:?}");
        assert!(log.store.memory_bytes() < 1_000);
    }
}

fn name(step: &Step) -> String {
    match step {
        Step::Write(command) => command.name().to_owned(),
        Step::Read(query) => format!("{query:?}").chars().take(20).collect(),
    }
}

#[test]
fn answers_up_to_the_limit_are_given_in_full() {
    let mut log = Log::new();
    // Of each element of an array 40 bytes are counted besides its value, and of each step.
    let elements = 7;
    let room = MAX_WRITE_REPLY_BYTES - (2 + elements) * 40;
    let whole = room / elements;
    let fits = |len| exec(vec![write("k", len), many("k", elements)]);
    assert_eq!(log.one(&fits(whole + 1)), TOO_LONG);
    let ReplyValue::Array(answers) = log.one(&fits(whole)) else {
        panic!("refused");
    };
    let ReplyValue::Array(values) = &answers[1] else {
        panic!("no list");
    };
    assert_eq!(values.len(), elements);
    // Removed values do not count.
    let flush = Step::Write(Command::FlushDatabase);
    let gone = Step::Write(Command::Del {
        keys: vec![key("k")],
    });
    for empties in [flush, gone, write("k", 0)] {
        let answers = log.one(&exec(vec![empties, many("k", 100)]));
        assert!(matches!(answers, ReplyValue::Array(_)), "{answers:?}");
        log.encoded(set(b"k", &vec![b'x'; whole]));
    }
}

#[test]
fn only_the_taken_branch_is_measured() {
    let mut log = Log::new();
    log.encoded(set(b"big", &vec![b'x'; 5 * 1024 * KIB]));
    let transaction = |exists| Command::Transaction {
        guards: vec![Guard {
            database: 0,
            key: key("big"),
            holds: Condition::Exists(exists),
        }],
        operations: vec![write("k", 1), many("big", 2)],
        otherwise: vec![write("l", 1), many("big", 1)],
    };
    assert_eq!(log.one(&transaction(true)), TOO_LONG);
    assert!(matches!(log.one(&transaction(false)), ReplyValue::Array(_)));
    assert!(!log.store.exists(b"k") && log.store.exists(b"l"));
}

#[test]
fn a_listing_that_grows_behind_a_write_is_measured_in_its_turn() {
    let mut log = Log::new();
    let range = Step::Read(Query::prefix(b"", None, 1_000, false));
    let answers = log.one(&exec(vec![
        write("a", 5 * 1024 * KIB),
        write("b", 4 * 1024 * KIB),
        range.clone(),
        write("c", 1),
    ]));
    let ok = ReplyValue::Ok;
    let wanted = vec![ok.clone(), ok.clone(), TOO_LONG, ok];
    assert_eq!(answers, ReplyValue::Array(wanted));
    assert_eq!(log.one(&exec(vec![write("d", 1), range])), TOO_LONG);
    assert!(log.store.exists(b"c") && !log.store.exists(b"d"));
}

#[test]
fn a_value_that_is_too_long_for_the_answer_of_a_write_stays() {
    let mut log = Log::new();
    for (len, fits) in [
        (MAX_WRITE_REPLY_BYTES, true),
        (MAX_WRITE_REPLY_BYTES + 1, false),
    ] {
        let writes = [
            Command::GetDel { key: key("k") },
            Command::GetEx {
                key: key("k"),
                expiry: Expiry::In { ms: 1 },
            },
            Command::SetWith {
                key: key("k"),
                value: key("v"),
                condition: SetIf::Always,
                expiry: Expiry::None,
                get: true,
            },
        ];
        for command in writes {
            log.encoded(set(b"k", &vec![b'x'; len]));
            let before = (log.store.revision(), log.store.memory_bytes());
            let answer = log.one(&command);
            assert_eq!(answer != TOO_LONG, fits, "{}", command.name());
            if !fits {
                assert_eq!(log.store.revision(), before.0);
                let found = log.store.get(b"k").unwrap();
                assert_eq!((found.value.len(), found.deadline_ms), (len, None));
            }
        }
    }
}

#[test]
fn a_transaction_copies_only_so_much() {
    let mut log = Log::new();
    let append = |len| {
        Step::Write(Command::Append {
            key: key("k"),
            suffix: vec![b'x'; len].into(),
        })
    };
    let patch = Step::Write(Command::SetRange {
        key: key("k"),
        offset: MAX_VALUE_BYTES_CEILING as u64 - 1,
        patch: key("x"),
    });
    let times = MAX_COPIED_BYTES / MAX_VALUE_BYTES_CEILING;
    for step in [append(0), patch.clone()] {
        let steps = [vec![patch.clone()], vec![step; times]].concat();
        let refused = ReplyValue::Error(ReplyError::TooMuchCopied);
        assert_eq!(log.one(&exec(steps)), refused);
        assert_eq!(log.store.len(), 0);
    }
    let few = log.one(&exec(vec![append(1); 1_000]));
    assert!(matches!(few, ReplyValue::Array(_)));
}
