//! Sessions and batches against a model that is too simple to be wrong: random batches with duplicates and
//! gaps, sessions that come and go, and snapshots between any two of them.

use std::collections::BTreeMap;

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Refusal, Rejected, Reply, ReplyValue, ShardImage, SnapshotHead, Store,
    SystemOp, SystemOutcome,
};
use proptest::prelude::*;

use crate::support::{Event, Recorder, encode, load};

#[derive(Debug, Clone)]
enum Step {
    Batch {
        stamp: u64,
        parts: Vec<Part>,
    },
    /// A batch that is cut off so many bytes before its end, in the middle of a part.
    Malformed {
        parts: Vec<Part>,
    },
    BeginSnapshot,
    /// Takes so many pieces of the snapshot.
    Walk(usize),
    AbortSnapshot,
}

#[derive(Debug, Clone)]
enum Part {
    /// A group that starts `ahead` of the next number of the node's session: below 0 it repeats.
    Group {
        node: u64,
        ahead: i64,
        unacked: u64,
        commands: Vec<Command>,
    },
    Open {
        node: u64,
        boot: u64,
    },
    Close {
        node: u64,
    },
}

const NODES: u64 = 3;

fn key() -> impl Strategy<Value = Bytes> {
    let few = (0u8..20).prop_map(|n| Bytes::from(vec![n]));
    let any = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    prop_oneof![9 => few, 1 => any]
}

fn command() -> impl Strategy<Value = Command> {
    let value = prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    prop_oneof![
        1 => Just(Command::Noop),
        6 => (key(), value).prop_map(|(key, value)| Command::Set { key, value }),
        4 => prop::collection::vec(key(), 0..4).prop_map(|keys| Command::Del { keys }),
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let ahead = prop_oneof![6 => Just(0i64), 3 => -6i64..0, 1 => 1i64..4];
    let commands = prop::collection::vec(command(), 0..8);
    let group =
        (0..NODES, ahead, 0u64..6, commands).prop_map(|(node, ahead, unacked, commands)| {
            Part::Group {
                node,
                ahead,
                unacked,
                commands,
            }
        });
    prop_oneof![
        12 => group,
        2 => (0..NODES, 0u64..6).prop_map(|(node, boot)| Part::Open { node, boot }),
        1 => (0..NODES).prop_map(|node| Part::Close { node }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let parts = || prop::collection::vec(part(), 1..4);
    prop_oneof![
        12 => (0u64..50, parts()).prop_map(|(stamp, parts)| Step::Batch { stamp, parts }),
        1 => parts().prop_map(|parts| Step::Malformed { parts }),
        3 => Just(Step::BeginSnapshot),
        6 => (1usize..400).prop_map(Step::Walk),
        1 => Just(Step::AbortSnapshot),
    ]
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelKey {
    value: Bytes,
    created: u64,
    modified: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ModelSession {
    id: u64,
    boot: u64,
    last: u64,
    replies: BTreeMap<u64, Reply>,
}

/// The expected state of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Model {
    keys: BTreeMap<Bytes, ModelKey>,
    sessions: BTreeMap<u64, ModelSession>,
    revision: u64,
    stamp: u64,
    last_session: u64,
}

impl Model {
    fn execute(&mut self, command: &Command) -> Reply {
        let revision = self.revision + 1;
        let value = match command {
            Command::Noop => {
                return Reply {
                    revision: self.revision,
                    value: ReplyValue::Ok,
                };
            }
            Command::Set { key, value } => {
                let created = self.keys.get(key).map_or(revision, |old| old.created);
                let new = ModelKey {
                    value: value.clone(),
                    created,
                    modified: revision,
                };
                self.keys.insert(key.clone(), new);
                ReplyValue::Ok
            }
            Command::Del { keys } => {
                let gone = keys
                    .iter()
                    .filter(|key| self.keys.remove(*key).is_some())
                    .count();
                ReplyValue::Integer(gone as i64)
            }
            other => panic!("{other:?} is not generated here"),
        };
        self.revision = revision;
        Reply { revision, value }
    }

    /// The group's session id and first number, as the node would send them.
    fn address(&self, node: u64, ahead: i64) -> (u64, u64) {
        match self.sessions.get(&node) {
            Some(session) => (
                session.id,
                session.last.saturating_add_signed(ahead + 1).max(1),
            ),
            None => (1_000_000, 1),
        }
    }

    fn group(&mut self, node: u64, first: u64, acked: u64, commands: &[Command]) -> Vec<Event> {
        let Some(mut session) = self.sessions.get(&node).cloned() else {
            let count = commands.len() as u64;
            return vec![Event::Rejected(
                1_000_000,
                first,
                count,
                Rejected::UnknownSession,
            )];
        };
        if first > session.last + 1 {
            let why = Rejected::Gap {
                expected: session.last + 1,
            };
            return vec![Event::Rejected(
                session.id,
                first,
                commands.len() as u64,
                why,
            )];
        }
        session.replies.retain(|seq, _| *seq > acked);
        let mut events = Vec::new();
        for (seq, command) in (first..).zip(commands) {
            if seq <= session.last {
                let reply = session.replies.get(&seq).cloned();
                events.push(Event::Duplicate(session.id, seq, reply));
            } else {
                let reply = self.execute(command);
                session.last = seq;
                session.replies.insert(seq, reply.clone());
                events.push(Event::Reply(session.id, seq, reply));
            }
        }
        self.sessions.insert(node, session);
        events
    }

    fn open(&mut self, index: u64, node: u64, boot: u64) -> SystemOutcome {
        if self.last_session == index {
            return SystemOutcome::Refused {
                why: Refusal::Retry,
            };
        }
        if let Some(old) = self.sessions.get(&node).filter(|old| old.boot >= boot) {
            let why = Refusal::BootNotHigher {
                session: old.id,
                boot: old.boot,
            };
            return SystemOutcome::Refused { why };
        }
        let session = ModelSession {
            id: index,
            boot,
            last: 0,
            replies: BTreeMap::new(),
        };
        self.sessions.insert(node, session);
        self.last_session = index;
        SystemOutcome::SessionOpened { id: index }
    }

    fn close(&mut self, node: u64) -> (u64, SystemOutcome) {
        match self.sessions.remove(&node) {
            Some(session) => (session.id, SystemOutcome::Done),
            None => {
                let why = Refusal::UnknownSession { session: 1_000_000 };
                (1_000_000, SystemOutcome::Refused { why })
            }
        }
    }

    /// Builds the batch and says what applying it must tell the sink.
    fn batch(&mut self, index: u64, stamp: u64, parts: &[Part]) -> (Bytes, Vec<Event>) {
        let mut builder = BatchBuilder::new(stamp);
        let mut events = Vec::new();
        let mut ordinal = 0;
        self.stamp = self.stamp.max(stamp);
        for part in parts {
            let (op, outcome) = match part {
                Part::Group {
                    node,
                    ahead,
                    unacked,
                    commands,
                } => {
                    let (id, first) = self.address(*node, *ahead);
                    let acked = first.saturating_sub(*unacked);
                    let encoded: Vec<_> = commands.iter().map(Command::encode).collect();
                    builder.group(id, first, acked, encoded.iter());
                    events.extend(self.group(*node, first, acked, commands));
                    continue;
                }
                Part::Open { node, boot } => {
                    let op = SystemOp::OpenSession {
                        node: *node,
                        boot: *boot,
                        highest: 1,
                    };
                    (op, self.open(index, *node, *boot))
                }
                Part::Close { node } => {
                    let (session, outcome) = self.close(*node);
                    (SystemOp::CloseSession { session }, outcome)
                }
            };
            builder.system(&op);
            events.push(Event::System(ordinal, outcome));
            ordinal += 1;
        }
        (builder.finish(), events)
    }

    fn check(&self, store: &Store) {
        assert_eq!(store.revision(), self.revision);
        assert_eq!(store.stamp_ms(), self.stamp);
        assert_eq!(store.len(), self.keys.len());
        for (key, expected) in &self.keys {
            let found = store.get(key).expect("the model has the key");
            assert_eq!(found.value, expected.value);
            let revisions = (found.create_revision, found.mod_revision);
            assert_eq!(revisions, (expected.created, expected.modified));
        }
        for node in 0..NODES {
            let expected = self.sessions.get(&node);
            let id = store.session_of_node(node);
            assert_eq!(id, expected.map(|session| session.id));
            let (Some(found), Some(expected)) = (id.and_then(|id| store.session(id)), expected)
            else {
                continue;
            };
            assert_eq!(
                (found.boot(), found.last_seq()),
                (expected.boot, expected.last)
            );
            for seq in 0..=expected.last + 1 {
                assert_eq!(found.reply(seq), expected.replies.get(&seq));
            }
        }
    }
}

/// A snapshot in progress: its pieces, and its expected content.
struct Taking {
    head: SnapshotHead,
    images: Vec<ShardImage>,
    model: Model,
    digest: u64,
}

impl Taking {
    fn finish(self) {
        let loaded = load(&encode(&self.head, &self.images, 200)).expect("a whole snapshot");
        self.model.check(&loaded);
        assert_eq!(loaded.digest(), self.digest);
    }
}

/// Runs the steps on a store that takes snapshots and on a twin that never does.
fn run(steps: &[Step]) {
    let (mut store, mut twin, mut model) = (Store::new(), Store::new(), Model::default());
    let mut taking: Option<Taking> = None;
    for step in steps {
        let index = store.applied_index() + 1;
        match step {
            Step::Batch { stamp, parts } => {
                let (batch, expected) = model.batch(index, *stamp, parts);
                for store in [&mut store, &mut twin] {
                    let mut recorder = Recorder::default();
                    store.apply(index, &batch, &mut recorder);
                    assert_eq!(recorder.0, expected);
                }
            }
            Step::Malformed { parts } => {
                let (batch, _) = model.clone().batch(index, u64::MAX, parts);
                for store in [&mut store, &mut twin] {
                    let mut recorder = Recorder::default();
                    store.apply(index, &batch.slice(..batch.len() - 1), &mut recorder);
                    assert_eq!(recorder.0, [Event::Malformed]);
                }
            }
            Step::BeginSnapshot => {
                if let Ok(head) = store.begin_snapshot() {
                    let (model, digest) = (model.clone(), store.digest());
                    taking = Some(Taking {
                        head,
                        images: Vec::new(),
                        model,
                        digest,
                    });
                }
            }
            Step::Walk(pieces) => {
                for _ in 0..*pieces {
                    match (store.next_shard(), &mut taking) {
                        (Some(image), Some(taking)) => taking.images.push(image),
                        (None, _) => taking.take().into_iter().for_each(Taking::finish),
                        (Some(_), None) => panic!("a piece without a snapshot"),
                    }
                }
            }
            Step::AbortSnapshot => {
                store.abort_snapshot();
                taking = None;
            }
        }
        model.check(&store);
        assert_eq!(store.digest(), twin.digest());
    }
    if let Some(mut taking) = taking {
        taking
            .images
            .extend(std::iter::from_fn(|| store.next_shard()));
        taking.finish();
    }
    assert_eq!(store.memory_bytes(), twin.memory_bytes());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn the_store_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps);
    }

    #[test]
    fn any_bytes_are_a_batch_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut store = Store::new();
        let mut recorder = Recorder::default();
        let framed = [&[1, 0, 0, 0, 0, 0, 0, 0, 0][..], &bytes].concat();
        for (index, batch) in (1..).zip([bytes, framed]) {
            let before = (store.applied_index(), store.digest());
            recorder.0.clear();
            store.apply(index, &Bytes::from(batch), &mut recorder);
            if recorder.0 == [Event::Malformed] {
                prop_assert_eq!((store.applied_index(), store.digest()), before);
            } else {
                prop_assert_eq!(store.applied_index(), index);
            }
        }
    }
}
