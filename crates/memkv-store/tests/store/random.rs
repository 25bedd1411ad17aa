//! Random commands and queries of every kind against the reference, with snapshots between any two
//! entries, loaded into other stores, and a twin that sees the same log and takes none.

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Compare, Condition, ExpireIf, Expiry, Guard, Query, Seen, SetIf,
    ShardImage, SnapshotHead, Step as Operation, Store,
};
use proptest::prelude::*;

use crate::memory::formed;
use crate::reference::Reference;
use crate::support::{Event, Recorder, encode, load};

#[derive(Debug, Clone)]
enum Step {
    /// An entry so many milliseconds later.
    Entry {
        later: u64,
        commands: Vec<Command>,
    },
    Ask(Query),
    /// Remembers the state of a key.
    Watch {
        database: u8,
        key: Bytes,
    },
    /// A transaction with guards on the remembered states.
    Exec {
        watched: Vec<prop::sample::Index>,
        guards: Vec<Guard>,
        operations: Vec<Operation>,
        otherwise: Vec<Operation>,
    },
    BeginSnapshot,
    /// Takes so many pieces of the snapshot.
    Walk(usize),
    AbortSnapshot,
    DropGarbage,
}

/// Few keys, so that they meet: no two of them share a slot of the table of deletes, or a guard
/// could fail without a reason that the reference knows.
fn key() -> impl Strategy<Value = Bytes> {
    (0u8..12).prop_map(|n| Bytes::from(vec![b'a' + n / 4; 1 + usize::from(n % 4)]))
}

fn database() -> impl Strategy<Value = u8> {
    prop_oneof![4 => Just(0u8), 2 => Just(1u8), 1 => Just(15u8)]
}

/// Integers, also at the edges, text that is none, and large values, which readers share.
fn value() -> impl Strategy<Value = Bytes> {
    let edges = [i64::MAX, i64::MIN, 0, 1, -1].map(|n| n.to_string());
    prop_oneof![
        4 => (-1000i64..1000).prop_map(|n| Bytes::from(n.to_string())),
        1 => prop::sample::select(edges.to_vec()).prop_map(Bytes::from),
        1 => prop::sample::select(vec!["", "01", "+", "x", " 1"]).prop_map(Bytes::from),
        1 => (4090usize..4100).prop_map(|len| Bytes::from(vec![b'v'; len])),
    ]
}

fn expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        2 => Just(Expiry::None),
        2 => Just(Expiry::Keep),
        6 => (-3i64..60).prop_map(|ms| Expiry::In { ms }),
        4 => (-3i64..300).prop_map(|ms| Expiry::At { ms }),
        1 => prop::sample::select(vec![i64::MAX, i64::MAX - 100, i64::MIN])
            .prop_map(|ms| Expiry::In { ms }),
        1 => prop::sample::select(vec![i64::MAX, i64::MIN]).prop_map(|ms| Expiry::At { ms }),
    ]
}

fn set_if() -> impl Strategy<Value = SetIf> {
    prop_oneof![
        2 => Just(SetIf::Always),
        1 => Just(SetIf::Absent),
        1 => Just(SetIf::Present),
        1 => value().prop_map(SetIf::Equal),
        1 => value().prop_map(SetIf::Differs),
    ]
}

fn expire_if() -> impl Strategy<Value = ExpireIf> {
    prop::sample::select(vec![
        ExpireIf::Always,
        ExpireIf::NoDeadline,
        ExpireIf::HasDeadline,
        ExpireIf::Later,
        ExpireIf::Sooner,
        ExpireIf::HasDeadlineSooner,
    ])
}

fn plain() -> impl Strategy<Value = Command> {
    let sets = prop_oneof![
        4 => (key(), value()).prop_map(|(key, value)| Command::Set { key, value }),
        6 => (key(), value(), set_if(), expiry(), any::<bool>()).prop_map(
            |(key, value, condition, expiry, get)| Command::SetWith {
                key, value, condition, expiry, get,
            }
        ),
        1 => (prop::collection::vec((key(), value()), 0..4), any::<bool>()).prop_map(
            |(pairs, if_none_exists)| Command::SetMany { pairs, if_none_exists }
        ),
        1 => (key(), 0u64..40, value(), expiry()).prop_map(
            |(key, revision, value, expiry)| Command::CompareAndSet {
                key, revision, value, expiry,
            }
        ),
    ];
    let deletes = prop_oneof![
        2 => prop::collection::vec(key(), 0..3).prop_map(|keys| Command::Del { keys }),
        1 => (key(), set_if()).prop_map(|(key, condition)| Command::DelIf { key, condition }),
        1 => key().prop_map(|key| Command::GetDel { key }),
        1 => (key(), 0u64..40).prop_map(|(key, revision)| Command::DelRevision { key, revision }),
    ];
    let changes = prop_oneof![
        2 => (key(), prop_oneof![-5i64..5, Just(i64::MAX), Just(i64::MIN)])
            .prop_map(|(key, by)| Command::IncrBy { key, by }),
        2 => (key(), value()).prop_map(|(key, suffix)| Command::Append { key, suffix }),
        2 => (key(), prop_oneof![8 => 0u64..20, 1 => Just(u64::MAX)], value())
            .prop_map(|(key, offset, patch)| Command::SetRange { key, offset, patch }),
        2 => (key(), key(), any::<bool>()).prop_map(|(from, to, if_absent)| Command::Rename {
            from, to, if_absent,
        }),
        2 => (key(), key(), database(), any::<bool>()).prop_map(
            |(from, to, to_database, replace)| Command::Copy { from, to, to_database, replace }
        ),
    ];
    let times = prop_oneof![
        2 => (key(), expiry()).prop_map(|(key, expiry)| Command::GetEx { key, expiry }),
        4 => (key(), expiry(), expire_if()).prop_map(|(key, expiry, condition)| Command::Expire {
            key, expiry, condition,
        }),
        1 => (key(), -3000..3000i64).prop_map(|(key, by_ms)| Command::Prolong { key, by_ms }),
        1 => key().prop_map(|key| Command::Persist { key }),
    ];
    let others = prop_oneof![
        2 => Just(Command::Noop),
        2 => Just(Command::Tick),
        2 => Just(Command::FlushDatabase),
        1 => Just(Command::FlushAll),
        4 => prop::option::of(0u64..3_000).prop_map(|cap| Command::SetMemory { cap, policy: None }),
    ];
    prop_oneof![24 => sets, 8 => deletes, 12 => changes, 12 => times, 2 => others]
}

fn command() -> impl Strategy<Value = Command> {
    (database(), plain()).prop_map(|(database, command)| command.in_database(database))
}

fn query() -> impl Strategy<Value = Query> {
    let keys = || prop::collection::vec(key(), 0..4);
    let plain = prop_oneof![
        key().prop_map(|key| Query::Get { key }),
        keys().prop_map(|keys| Query::GetMany { keys }),
        keys().prop_map(|keys| Query::Exists { keys }),
        key().prop_map(|key| Query::StrLen { key }),
        (key(), -9i64..9, -9i64..9).prop_map(|(key, start, end)| Query::GetRange {
            key,
            start,
            end
        }),
        (key(), any::<bool>(), any::<bool>()).prop_map(|(key, seconds, absolute)| Query::Ttl {
            key,
            seconds,
            absolute
        }),
        (key(), any::<bool>()).prop_map(|(key, value)| Query::Meta { key, value }),
        (key(), prop::option::of(key()), 0u64..6, any::<bool>()).prop_map(
            |(start, end, limit, keys_only)| Query::Range {
                start,
                end,
                limit,
                keys_only
            }
        ),
        (key(), prop::option::of(key()), 0u64..6, any::<bool>()).prop_map(
            |(prefix, after, limit, keys_only)| {
                Query::prefix(&prefix, after.as_deref(), limit, keys_only)
            }
        ),
        Just(Query::DbSize),
    ];
    (database(), plain).prop_map(|(database, query)| query.in_database(database))
}

fn guard() -> impl Strategy<Value = Guard> {
    let compare = || {
        prop::sample::select(vec![
            Compare::Equal,
            Compare::NotEqual,
            Compare::Less,
            Compare::Greater,
        ])
    };
    let condition = prop_oneof![
        any::<bool>().prop_map(Condition::Exists),
        any::<bool>().prop_map(Condition::HasDeadline),
        (compare(), value()).prop_map(|(how, value)| Condition::Value(how, value)),
        (compare(), 0u64..40).prop_map(|(how, at)| Condition::ModRevision(how, at)),
        (compare(), 0u64..40).prop_map(|(how, at)| Condition::CreateRevision(how, at)),
    ];
    (database(), key(), condition).prop_map(|(database, key, holds)| Guard {
        database,
        key,
        holds,
    })
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        2 => command().prop_map(Operation::Write),
        1 => query().prop_map(Operation::Read),
    ];
    prop::collection::vec(operation, 0..5)
}

fn step() -> impl Strategy<Value = Step> {
    let exec = (
        prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        prop::collection::vec(guard(), 0..2),
        operations(),
        operations(),
    )
        .prop_map(|(watched, guards, operations, otherwise)| Step::Exec {
            watched,
            guards,
            operations,
            otherwise,
        });
    prop_oneof![
        12 => (0u64..20, prop::collection::vec(command(), 0..8))
            .prop_map(|(later, commands)| Step::Entry { later, commands }),
        6 => query().prop_map(Step::Ask),
        4 => (database(), key()).prop_map(|(database, key)| Step::Watch { database, key }),
        4 => exec,
        3 => Just(Step::BeginSnapshot),
        6 => (1usize..2000).prop_map(Step::Walk),
        1 => Just(Step::AbortSnapshot),
        1 => Just(Step::DropGarbage),
    ]
}

/// A snapshot in progress: its pieces, and its expected content.
struct Taking {
    head: SnapshotHead,
    images: Vec<ShardImage>,
    reference: Reference,
    digest: u64,
}

impl Taking {
    fn finish(self) {
        let loaded = load(&encode(&self.head, &self.images, 300)).expect("a whole snapshot");
        self.reference.check(&loaded);
        self.reference.check_scans(&loaded);
        assert_eq!(loaded.digest(), self.digest);
    }
}

struct Run {
    store: Store,
    twin: Store,
    session: u64,
    reference: Reference,
    watched: Vec<(u8, Bytes, Seen)>,
    taking: Option<Taking>,
}

impl Run {
    fn new() -> Run {
        let ((store, session), (twin, _)) = (formed(), formed());
        Run {
            store,
            twin,
            session,
            reference: Reference::default(),
            watched: Vec::new(),
            taking: None,
        }
    }

    fn entry(&mut self, later: u64, commands: &[Command]) {
        let index = self.store.applied_index() + 1;
        let first = self.store.session(self.session).map_or(0, |s| s.last_seq()) + 1;
        let stamp = self.reference.stamp + later;
        let mut builder = BatchBuilder::new(stamp);
        let encoded: Vec<_> = commands.iter().map(Command::encode).collect();
        builder.group(self.session, first, first - 1, encoded.iter());
        let batch = builder.finish();
        self.reference.advance(stamp);
        let expected: Vec<_> = (first..)
            .zip(commands)
            .map(|(seq, command)| {
                let before = self.reference.cost();
                let reply = self.reference.execute(command);
                let has_grown = self.reference.cost() > before;
                assert!(command.may_grow() || !has_grown, "{command:?}");
                Event::Reply(self.session, seq, reply)
            })
            .collect();
        for store in [&mut self.store, &mut self.twin] {
            let mut recorder = Recorder::default();
            store.apply(index, &batch, &mut recorder);
            for (found, (expected, command)) in recorder.0.iter().zip(expected.iter().zip(commands))
            {
                assert_eq!(found, expected, "{command:?}");
            }
            assert_eq!(recorder.0.len(), expected.len());
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Entry { later, commands } => self.entry(*later, commands),
            Step::Ask(query) => {
                for now in [self.reference.stamp, self.reference.stamp + 30] {
                    let found = self.store.query(query, now);
                    assert_eq!(found, self.reference.answer(query, now), "{query:?}");
                }
            }
            Step::Watch { database, key } => {
                let seen = self.store.seen(*database, key);
                self.watched.push((*database, key.clone(), seen));
            }
            Step::Exec {
                watched,
                guards,
                operations,
                otherwise,
            } => {
                let mut guards = guards.clone();
                for index in watched.iter().filter(|_| !self.watched.is_empty()) {
                    let (database, key, seen) = index.get(&self.watched).clone();
                    guards.push(Guard {
                        database,
                        key,
                        holds: Condition::Unchanged(seen),
                    });
                }
                let transaction = Command::Transaction {
                    guards,
                    operations: operations.clone(),
                    otherwise: otherwise.clone(),
                };
                assert_eq!(transaction.check_limits(), Ok(()));
                self.entry(1, &[transaction]);
            }
            Step::BeginSnapshot => {
                if let Ok(head) = self.store.begin_snapshot() {
                    self.taking = Some(Taking {
                        head,
                        images: Vec::new(),
                        reference: self.reference.clone(),
                        digest: self.store.digest(),
                    });
                }
            }
            Step::Walk(pieces) => self.walk(*pieces),
            Step::AbortSnapshot => {
                self.store.abort_snapshot();
                self.taking = None;
            }
            Step::DropGarbage => drop(self.store.take_garbage()),
        }
    }

    fn walk(&mut self, pieces: usize) {
        for _ in 0..pieces {
            match (self.store.next_shard(), &mut self.taking) {
                (Some(image), Some(taking)) => taking.images.push(image),
                (None, _) => return self.taking.take().into_iter().for_each(Taking::finish),
                (Some(_), None) => panic!("a piece without a snapshot"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn every_command_does_what_the_reference_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
            run.reference.check(&run.store);
        }
        run.reference.check_scans(&run.store);
        prop_assert_eq!(run.store.digest(), run.twin.digest());
        run.walk(usize::MAX);
        prop_assert_eq!(run.store.memory_bytes(), run.twin.memory_bytes());
    }

    #[test]
    fn commands_and_queries_survive_their_encoding(command in command(), query in query()) {
        let transaction = Command::Transaction {
            guards: Vec::new(),
            operations: vec![Operation::Write(command.clone()), Operation::Read(query.clone())],
            otherwise: vec![Operation::Read(query.clone())],
        };
        for command in [command, transaction] {
            let encoded = command.encode();
            prop_assert_eq!(Command::decode(&encoded), Ok(command.clone()));
            for len in 0..encoded.len() {
                prop_assert_ne!(Command::decode(&encoded.slice(..len)), Ok(command.clone()));
            }
        }
        prop_assert_eq!(Query::decode(&query.encode()), Ok(query));
    }
}
