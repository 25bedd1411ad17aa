//! An entry that is applied piece by piece: the same effects however it is cut, nothing but whole
//! commands between pieces, and large commands are known before they are executed.

use bytes::Bytes;
use memkv_store::{
    Applying, BatchBuilder, Command, Progress, Query, SnapshotBusy, Step, Store, SystemOp,
};

use crate::support::{Recorder, open};

/// Numbers without a pattern.
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % below
    }

    pub(crate) fn key(&mut self) -> Bytes {
        format!("k{}", self.draw(60)).into()
    }

    pub(crate) fn value(&mut self) -> Bytes {
        vec![self.draw(256) as u8; self.draw(700) as usize].into()
    }

    fn plain(&mut self) -> Command {
        match self.draw(9) {
            0 | 1 => Command::Set {
                key: self.key(),
                value: self.value(),
            },
            2 => Command::Del {
                keys: (0..self.draw(40)).map(|_| self.key()).collect(),
            },
            3 => Command::SetMany {
                pairs: (0..self.draw(40))
                    .map(|_| (self.key(), self.value()))
                    .collect(),
                if_none_exists: self.draw(4) == 0,
            },
            4 => Command::Append {
                key: self.key(),
                suffix: self.value(),
            },
            5 => Command::Copy {
                from: self.key(),
                to: self.key(),
                to_database: self.draw(2) as u8,
                replace: true,
            },
            6 => Command::Rename {
                from: self.key(),
                to: self.key(),
                if_absent: false,
            },
            7 => Command::FlushDatabase.in_database(1),
            _ => Command::Noop,
        }
    }

    pub(crate) fn command(&mut self) -> Command {
        if self.draw(6) > 0 {
            return self.plain();
        }
        let steps = (0..self.draw(6)).map(|_| match self.draw(3) {
            0 => Step::Read(Query::Get { key: self.key() }),
            _ => Step::Write(self.plain()),
        });
        Command::Transaction {
            guards: vec![],
            operations: steps.collect(),
            otherwise: vec![],
        }
    }
}

#[test]
fn an_entry_has_the_same_effects_however_it_is_cut() {
    let mut draws = Draws(7);
    let (mut whole, mut cut) = (Store::new(), Store::new());
    let sessions = [1, 2].map(|node| {
        open(&mut cut, node, 1);
        open(&mut whole, node, 1)
    });
    let mut next = [1u64; 2];
    let mut pauses = 0;
    for _ in 0..300 {
        let mut batch = BatchBuilder::new(0);
        for _ in 0..draws.draw(4) {
            let sender = draws.draw(2) as usize;
            // Sometimes an executed command is sent again, or a number is left out.
            let first = match draws.draw(12) {
                0 => next[sender].saturating_sub(draws.draw(5)).max(1),
                1 => next[sender] + 1 + draws.draw(2),
                _ => next[sender],
            };
            let commands: Vec<Bytes> = (0..draws.draw(40))
                .map(|_| draws.command().encode())
                .collect();
            if first <= next[sender] {
                next[sender] = next[sender].max(first + commands.len() as u64);
            }
            batch.group(sessions[sender], first, 0, commands.iter());
            if draws.draw(5) == 0 {
                batch.system(&SystemOp::CloseSession { session: 999 });
            }
        }
        let batch = batch.finish();
        let index = whole.applied_index() + 1;
        let (mut expected, mut seen) = (Recorder::default(), Recorder::default());
        whole.apply(index, &batch, &mut expected);
        let begun: Option<Applying> = cut.begin_apply(index, &batch, &mut seen);
        let mut applying = begun.unwrap();
        let mut room = draws.draw(3_000);
        loop {
            match cut.resume(&mut applying, &mut room, &mut seen) {
                Progress::Done => break,
                Progress::Paused { next } => {
                    assert!(next > room, "there was room for it");
                    assert!(seen.0.len() <= expected.0.len());
                    assert_eq!(seen.0[..], expected.0[..seen.0.len()], "commands in order");
                    assert_eq!(cut.begin_snapshot().err(), Some(SnapshotBusy));
                    pauses += 1;
                    room = next + draws.draw(2_000);
                }
            }
        }
        assert_eq!(seen.0, expected.0);
        assert_eq!(cut.digest(), whole.digest());
        cut.begin_snapshot().unwrap();
        cut.abort_snapshot();
    }
    assert!(pauses > 500, "{pauses}");
}

/// Begins an entry with one command, of a session of its own.
fn begin(store: &mut Store, command: &Command) -> Applying {
    let session = open(store, 1, store.applied_index() + 1);
    let mut batch = BatchBuilder::new(0);
    batch.group(session, 1, 0, [command.encode()].iter());
    let index = store.applied_index() + 1;
    let begun = store.begin_apply(index, &batch.finish(), &mut ());
    begun.expect("a new entry")
}

/// How much work a store says that a command may be.
pub(crate) fn work(store: &mut Store, command: &Command) -> u64 {
    let mut applying = begin(store, command);
    let Progress::Paused { next } = store.resume(&mut applying, &mut 0, &mut ()) else {
        panic!("executed without room");
    };
    let mut room = next;
    assert_eq!(
        store.resume(&mut applying, &mut room, &mut ()),
        Progress::Done
    );
    assert_eq!(room, 0);
    next
}

#[test]
fn large_commands_are_known_before_they_are_executed() {
    const LARGE: u64 = 100_000;
    let mut store = Store::new();
    let key = |n: usize| Bytes::from(format!("k{n}"));
    let append = |to: usize| Command::Append {
        key: key(to),
        suffix: key(1),
    };
    let exec = |steps: Vec<Command>| Command::Transaction {
        guards: vec![],
        operations: steps.into_iter().map(Step::Write).collect(),
        otherwise: vec![],
    };
    let rename = Command::Rename {
        from: key(1),
        to: key(2),
        if_absent: false,
    };
    let patch = Command::SetRange {
        key: key(1),
        offset: 16 << 20,
        patch: key(1),
    };
    let many: Vec<Bytes> = (0..10_000).map(key).collect();
    let pairs = || many.iter().map(|key| (key.clone(), key.clone())).collect();
    let set_many = |if_none_exists| Command::SetMany {
        pairs: pairs(),
        if_none_exists,
    };
    assert!(work(&mut store, &append(1)) < 100);
    for large in [
        patch.clone(),
        append(1),
        append(1).in_database(0),
        exec(vec![rename, append(2)]),
        exec(vec![patch.in_database(3), append(1).in_database(3)]),
        exec(vec![set_many(false)]),
        Command::Transaction {
            guards: vec![],
            operations: vec![Step::Write(append(3))],
            otherwise: vec![Step::Read(Query::GetMany { keys: many.clone() })],
        },
    ] {
        let found = work(&mut store, &large);
        assert!(found > LARGE, "{found} for {}", large.name());
    }
    // A flush is not.
    assert!(work(&mut store, &Command::FlushAll) < 100);
    assert!(work(&mut store, &append(1)) < 100);
    // A command that is large by its keys takes any room.
    let del = Command::Del { keys: many.clone() };
    for (many, passes) in [
        (set_many(false), 1),
        (set_many(false).in_database(2), 1),
        (del, 1),
        // It first looks whether there are any.
        (set_many(true), 2),
    ] {
        let pauses = pauses(&mut store, &many);
        assert_eq!(pauses / (10_000 / 64), passes, "{pauses}: {}", many.name());
    }
}

/// In how many pieces a command is executed without room.
fn pauses(store: &mut Store, command: &Command) -> usize {
    let mut applying = begin(store, command);
    let mut pauses = 0;
    while let Progress::Paused { next } = store.resume(&mut applying, &mut 0, &mut ()) {
        assert!(next == 0 && store.is_within_command());
        pauses += 1;
    }
    pauses
}
