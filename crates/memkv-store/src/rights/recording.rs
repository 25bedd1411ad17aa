//! A keyspace that records what is looked up and written, and the tests that compare that with what
//! commands and queries say they touch. Compiled for tests only.

use std::cell::RefCell;
use std::ops::Bound;

use bytes::Bytes;
use proptest::prelude::*;

use super::generators::{command, guard, operations, query};
use super::{Access, Touch, Touched};
use crate::{
    BatchBuilder, Command, EDGE_LEVEL, Expiry, Member, Query, Rejected, Reply, ReplyValue,
    SessionId, SetIf, Sink, Step, Store, SystemOp, SystemOutcome,
};

/// What an execution did.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Did {
    Look(u8, Vec<u8>),
    Write(u8, Vec<u8>),
    Range(u8, Vec<u8>, Option<Vec<u8>>),
    Walk(u8),
    Flush(u8),
}

thread_local! {
    static DONE: RefCell<Option<Vec<Did>>> = const { RefCell::new(None) };
}

fn note(did: impl FnOnce() -> Did) {
    DONE.with_borrow_mut(|done| {
        if let Some(done) = done {
            done.push(did());
        }
    });
}

pub(crate) fn looked(database: u8, key: &[u8]) {
    note(|| Did::Look(database, key.to_vec()));
}

pub(crate) fn wrote(database: u8, key: &[u8]) {
    note(|| Did::Write(database, key.to_vec()));
}

pub(crate) fn walked(database: u8) {
    note(|| Did::Walk(database));
}

pub(crate) fn flushed(database: u8) {
    note(|| Did::Flush(database));
}

pub(crate) fn ranged(database: u8, start: &[u8], end: Bound<&[u8]>) {
    let end = match end {
        Bound::Excluded(end) | Bound::Included(end) => Some(end.to_vec()),
        Bound::Unbounded => None,
    };
    note(|| Did::Range(database, start.to_vec(), end));
}

/// While this lives nothing is recorded: for bounds of work, on which no effect depends.
pub(crate) struct Pause(Option<Vec<Did>>);

impl Pause {
    pub(crate) fn begin() -> Pause {
        Pause(DONE.take())
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        DONE.set(self.0.take());
    }
}

/// What is recorded while `what` runs.
fn recorded(what: impl FnOnce()) -> Vec<Did> {
    DONE.set(Some(Vec::new()));
    what();
    DONE.take().unwrap_or_default()
}

/// Whether a touch states it.
fn states(touch: &Touch<'_>, did: &Did) -> bool {
    let (database, is_write) = match did {
        Did::Look(database, _) | Did::Range(database, ..) | Did::Walk(database) => {
            (*database, false)
        }
        Did::Write(database, _) | Did::Flush(database) => (*database, true),
    };
    let covers = match (touch.what, did) {
        (Touched::Everything, _) => true,
        (Touched::Database { database: of }, _) => of == database,
        (Touched::Key { database: of, key }, Did::Look(_, did) | Did::Write(_, did)) => {
            of == database && key[..] == did[..]
        }
        (
            Touched::Range {
                database: of,
                start,
                end,
            },
            Did::Range(_, from, to),
        ) => of == database && start[..] == from[..] && end.map(|end| &end[..]) == to.as_deref(),
        _ => false,
    };
    covers && (touch.access.writes() || !is_write)
}

#[derive(Default)]
struct Answers(Vec<ReplyValue>);

impl Sink for Answers {
    fn reply(&mut self, _: SessionId, _: u64, reply: &Reply) {
        self.0.push(reply.value.clone());
    }
    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
    fn rejected(&mut self, _: SessionId, _: u64, _: u64, _: Rejected) {}
    fn system(&mut self, _: usize, _: &SystemOutcome) {}
    fn malformed(&mut self, _: &crate::DecodeError) {}
}

/// A store whose session is the first entry.
struct Run {
    store: Store,
    stamp_ms: u64,
}

impl Run {
    fn new() -> Run {
        let mut store = Store::new();
        let member = Member {
            id: 1,
            name: String::new(),
            addr: String::new(),
            pending: false,
        };
        let mut batch = BatchBuilder::new(0);
        batch.system(&SystemOp::Form {
            cluster: [7; 16],
            durability_sync: true,
            level: EDGE_LEVEL,
            members: vec![member],
            users: vec![],
        });
        batch.system(&SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: EDGE_LEVEL,
        });
        store.apply(1, &batch.finish(), &mut ());
        let stamp_ms = 0;
        Run { store, stamp_ms }
    }

    fn execute(&mut self, command: &Command) -> ReplyValue {
        self.stamp_ms += 1;
        let next = self.store.session(1).map_or(0, |it| it.last_seq()) + 1;
        let mut batch = BatchBuilder::new(self.stamp_ms);
        batch.group(1, next, next - 1, [command.encode()].iter());
        let mut answers = Answers::default();
        let index = self.store.applied_index() + 1;
        self.store.apply(index, &batch.finish(), &mut answers);
        answers.0.pop().expect("the command is executed")
    }
}

fn touches(of: impl for<'v> FnOnce(&mut dyn FnMut(Touch<'_>))) -> usize {
    let mut count = 0;
    of(&mut |_| count += 1);
    count
}

/// Every kind of query, also those that answer by chance.
fn any_query() -> impl Strategy<Value = Query> {
    let scan = (0u64..1030, 1u64..50).prop_map(|(cursor, count)| Query::Scan { cursor, count });
    let random = any::<u64>().prop_map(|nonce| Query::RandomKey { nonce });
    prop_oneof![8 => query(), 1 => scan, 1 => random]
}

fn any_command() -> impl Strategy<Value = Command> {
    let guards = prop::collection::vec(guard(), 0..3);
    let reads = prop::collection::vec(any_query().prop_map(Step::Read), 0..2);
    let transaction = (guards, operations(), reads, operations()).prop_map(
        |(guards, mut operations, reads, otherwise)| {
            operations.extend(reads);
            Command::Transaction {
                guards,
                operations,
                otherwise,
            }
        },
    );
    prop_oneof![8 => command(), 2 => transaction]
}

/// The key has another value of the same length, which is no number.
fn altered(value: &[u8]) -> Bytes {
    value.iter().map(|byte| byte ^ 0x80).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_a_command_touches_is_stated(
        commands in prop::collection::vec(any_command(), 1..40),
        queries in prop::collection::vec(any_query(), 1..8),
    ) {
        let mut run = Run::new();
        for command in &commands {
            let mut stated = Vec::new();
            command.touches(&mut |touch| stated.push(touch));
            let done = recorded(|| drop(run.execute(command)));
            for did in &done {
                let is_stated = stated.iter().any(|touch| states(touch, did));
                prop_assert!(is_stated, "{did:?} of {command:?}");
            }
        }
        for query in &queries {
            let mut stated = Vec::new();
            query.touches(&mut |touch| stated.push(touch));
            let done = recorded(|| drop(run.store.query(query, 0)));
            for did in &done {
                let is_stated = stated.iter().any(|touch| states(touch, did));
                prop_assert!(is_stated, "{did:?} of {query:?}");
            }
        }
    }

    /// Two stores that differ in the value of one key: a command that does not state that it reads the key
    /// answers the same on both.
    #[test]
    fn what_a_command_answers_of_a_value_is_stated(
        history in prop::collection::vec(command(), 1..20),
        command in any_command(),
    ) {
        let mut stated = Vec::new();
        command.touches(&mut |touch| stated.push(touch));
        for touch in &stated {
            let Touched::Key { database, key } = touch.what else {
                continue;
            };
            let shows = |other: &Touch<'_>| other.access.reads() && match other.what {
                Touched::Key { database: of, key: other } => of == database && other == key,
                _ => true,
            };
            let (mut one, mut other) = (Run::new(), Run::new());
            for command in &history {
                one.execute(command);
                other.execute(command);
            }
            let value = one.store.get_in(database, key).map(|found| found.value.to_vec());
            let (false, Some(value)) = (stated.iter().any(shows), value) else {
                continue;
            };
            let set = |value: Bytes| Command::SetWith {
                key: key.clone(),
                value,
                condition: SetIf::Always,
                expiry: Expiry::Keep,
                get: false,
            }.in_database(database);
            one.execute(&set(value.clone().into()));
            other.execute(&set(altered(&value)));
            prop_assert_eq!(one.execute(&command), other.execute(&command));
        }
    }
}

#[test]
fn the_recorder_finds_a_key_that_is_not_stated() {
    let key = Bytes::from_static(b"k");
    let other = Bytes::from_static(b"o");
    let touch = |access| Touch {
        what: Touched::Key {
            database: 0,
            key: &key,
        },
        access,
    };
    let mut run = Run::new();
    let set = Command::Set {
        key: key.clone(),
        value: Bytes::new(),
    };
    let done = recorded(|| drop(run.execute(&set)));
    assert!(done.contains(&Did::Write(0, key.to_vec())));
    let did = Did::Write(0, key.to_vec());
    assert!(states(&touch(Access::UPDATE), &did));
    assert!(!states(&touch(Access::READ), &did));
    assert!(!states(
        &touch(Access::UPDATE),
        &Did::Write(1, key.to_vec())
    ));
    assert!(!states(
        &touch(Access::UPDATE),
        &Did::Look(0, other.to_vec())
    ));
}

#[test]
fn accesses_follow_the_key_specifications_of_redis() {
    use Access as A;
    let k = || Bytes::from_static(b"k");
    let set = |condition, get| Command::SetWith {
        key: k(),
        value: k(),
        condition,
        expiry: Expiry::None,
        get,
    };
    let many = |if_none_exists| Command::SetMany {
        pairs: vec![(k(), k())],
        if_none_exists,
    };
    let rename = |if_absent| Command::Rename {
        from: k(),
        to: k(),
        if_absent,
    };
    let copy = Command::Copy {
        from: k(),
        to: k(),
        to_database: 3,
        replace: true,
    };
    let cases = [
        (
            Command::Set {
                key: k(),
                value: k(),
            },
            vec![A::UPDATE],
        ),
        (set(SetIf::Absent, false), vec![A::UPDATE]),
        (set(SetIf::Always, true), vec![A::READ.and(A::UPDATE)]),
        (set(SetIf::Equal(k()), false), vec![A::READ.and(A::UPDATE)]),
        (many(false), vec![A::UPDATE]),
        (many(true), vec![A::INSERT]),
        (
            Command::Del {
                keys: vec![k(), k()],
            },
            vec![A::DELETE, A::DELETE],
        ),
        (Command::GetDel { key: k() }, vec![A::READ.and(A::DELETE)]),
        (
            Command::IncrBy { key: k(), by: 1 },
            vec![A::READ.and(A::UPDATE)],
        ),
        (
            Command::Append {
                key: k(),
                suffix: k(),
            },
            vec![A::INSERT],
        ),
        (Command::Persist { key: k() }, vec![A::UPDATE]),
        (rename(false), vec![A::READ.and(A::DELETE), A::UPDATE]),
        (rename(true), vec![A::READ.and(A::DELETE), A::INSERT]),
        (copy, vec![A::READ, A::UPDATE]),
        (Command::FlushAll, vec![A::DELETE]),
        (Command::Noop, vec![]),
    ];
    for (command, expected) in cases {
        let mut found = Vec::new();
        command.touches(&mut |touch| found.push(touch.access));
        assert_eq!(found, expected, "{command:?}");
        let inner = command.in_database(5);
        inner.touches(&mut |touch| {
            if let Touched::Key { database, .. } = touch.what {
                assert!(database == 5 || database == 3);
            }
        });
    }
    let asks = |query: Query| touches(|visit| query.touches(visit));
    assert_eq!(asks(Query::DbSize), 1);
}
