//! Random commands and queries of every kind against the reference, with snapshots between any two
//! entries, loaded into other stores, and a twin that sees the same log and takes none.

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Condition, Guard, Query, Seen, ShardImage, SnapshotHead,
    Step as Operation, Store,
};
use proptest::prelude::*;

use crate::generators::{command, database, guard, key, operations, query};
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
