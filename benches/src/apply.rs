//! Commands on their way through the log and the state machine: encoded, put into an entry,
//! applied; and queries.

use std::hint::black_box;

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, DecodeError, Query, Rejected, Reply, SessionId, Sink, Store, SystemOp,
    SystemOutcome,
};

use crate::{Piece, Run, VALUE_BYTES, key};

/// Commands in one entry: what 64 connections bring at once.
const COMMANDS: u64 = 64;

/// Keys in the store before it is measured: enough that shards and index have their usual depth.
const KEYS: u64 = 10_000;

/// The session of all commands: the index of the entry that opened it.
const SESSION: SessionId = 1;

pub(crate) const PIECES: &[Piece] = &[
    Piece {
        name: "entry_build",
        operations: COMMANDS,
        prepare: build,
    },
    Piece {
        name: "apply_set_known",
        operations: COMMANDS,
        prepare: || apply(|run, at| set((run * 7_919 + at) % KEYS)),
    },
    Piece {
        name: "apply_set_new",
        operations: COMMANDS,
        prepare: || apply(|run, at| set(KEYS + run * COMMANDS + at)),
    },
    Piece {
        name: "apply_set_and_del",
        operations: COMMANDS,
        prepare: || {
            apply(|run, at| match at % 2 {
                0 => set(KEYS + run),
                _ => Command::Del {
                    keys: vec![key(KEYS + run)],
                },
            })
        },
    },
    Piece {
        name: "apply_incr",
        operations: COMMANDS,
        prepare: || {
            apply(|_, at| Command::IncrBy {
                key: key(KEYS + at),
                by: 1,
            })
        },
    },
    Piece {
        name: "query_get",
        operations: COMMANDS,
        prepare: get,
    },
];

/// Counts the replies; no client waits for them.
#[derive(Default)]
struct Replies(u64);

impl Sink for Replies {
    fn reply(&mut self, _: SessionId, _: u64, reply: &Reply) {
        black_box(reply);
        self.0 += 1;
    }

    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
    fn rejected(&mut self, _: SessionId, _: u64, _: u64, _: Rejected) {}
    fn system(&mut self, _: usize, _: &SystemOutcome) {}
    fn malformed(&mut self, _: &DecodeError) {}
}

/// A store with one session, and what it takes to write the next entry.
pub(crate) struct Filled {
    pub(crate) store: Store,
    next_seq: u64,
}

impl Filled {
    /// A store of this many keys.
    pub(crate) fn new(keys: u64) -> Filled {
        let mut open = BatchBuilder::new(0);
        open.system(&SystemOp::OpenSession {
            node: 1,
            boot: 1,
            highest: 1,
        });
        let mut filled = Filled {
            store: Store::new(),
            next_seq: 1,
        };
        filled.store.apply(SESSION, &open.finish(), &mut ());
        for number in 0..keys {
            let entry = filled.entry(std::iter::once(set(number)));
            filled.apply(&entry);
        }
        assert_eq!(filled.store.len() as u64, keys);
        filled
    }

    /// The next entry.
    fn entry(&mut self, commands: impl Iterator<Item = Command>) -> Bytes {
        let commands: Vec<Bytes> = commands.map(|command| command.encode()).collect();
        let mut batch = BatchBuilder::new(0);
        batch.group(SESSION, self.next_seq, self.next_seq - 1, commands.iter());
        self.next_seq += commands.len() as u64;
        batch.finish()
    }

    /// Applies an entry and returns how many commands were executed.
    fn apply(&mut self, entry: &Bytes) -> u64 {
        let mut replies = Replies::default();
        let index = self.store.applied_index() + 1;
        self.store.apply(index, entry, &mut replies);
        replies.0
    }
}

fn set(number: u64) -> Command {
    Command::Set {
        key: key(number),
        value: Bytes::from_static(&[b'v'; VALUE_BYTES]),
    }
}

fn build() -> Run {
    let commands: Vec<Command> = (0..COMMANDS).map(set).collect();
    Box::new(move || {
        let encoded: Vec<Bytes> = commands.iter().map(Command::encode).collect();
        let mut batch = BatchBuilder::new(0);
        batch.group(SESSION, 1, 0, encoded.iter());
        assert!(black_box(batch.finish()).len() > COMMANDS as usize * VALUE_BYTES);
    })
}

/// Applies entries of the commands that `command` returns for the number of the run and the place
/// in the entry. To build the entry is part of it: no node reads a log entry twice.
fn apply(command: fn(u64, u64) -> Command) -> Run {
    let mut filled = Filled::new(KEYS);
    let mut runs = 0;
    Box::new(move || {
        let entry = filled.entry((0..COMMANDS).map(|at| command(runs, at)));
        assert_eq!(filled.apply(&entry), COMMANDS);
        runs += 1;
    })
}

fn get() -> Run {
    let filled = Filled::new(KEYS);
    let queries: Vec<Query> = (0..COMMANDS)
        .map(|number| Query::Get {
            key: key(number * 31),
        })
        .collect();
    Box::new(move || {
        for query in &queries {
            black_box(filled.store.query(query, 0));
        }
    })
}
