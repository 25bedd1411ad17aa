//! What memory looks like decides nothing: a build with other sizes of slots answers, counts and refuses
//! alike. The build with the deliberate bugs has other sizes, and both hold the one result below.
//!
//! Alone in this file, because the bugs of other tests are switched on for a whole process.

#![allow(clippy::expect_used, reason = "tests")]

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, DecodeError, EDGE_LEVEL, EvictionPolicy, Expiry, Member, Rejected,
    Reply, ReplyValue, SessionId, SetIf, Sink, Store, SystemOp, SystemOutcome,
};

/// What is left of the history below. It belongs to the format: another result needs a new feature level.
const RESULT: Outcome = Outcome {
    cost: 393_339,
    digest: 10_153_128_828_904_080_617,
    effects: Some(6_196_499_954_263_994_560),
    refused: 8_680,
};

#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    cost: u64,
    digest: u64,
    effects: Option<u64>,
    refused: u64,
}

/// Counts the commands that were refused.
#[derive(Default)]
struct Refusals(u64);

impl Sink for Refusals {
    fn reply(&mut self, _: SessionId, _: u64, reply: &Reply) {
        self.0 += u64::from(matches!(reply.value, ReplyValue::Error(_)));
    }
    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
    fn rejected(&mut self, _: SessionId, _: u64, _: u64, why: Rejected) {
        panic!("{why:?}");
    }
    fn system(&mut self, _: usize, _: &SystemOutcome) {}
    fn malformed(&mut self, why: &DecodeError) {
        panic!("{why}");
    }
}

/// Numbers without a pattern (Knuth's MMIX generator).
struct Draws(u64);

impl Draws {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn key(&mut self) -> Bytes {
        let number = self.below(3_000);
        let tail = usize::try_from(self.below(40)).expect("small");
        format!(
            "k{number}{}",
            "y".repeat(if number.is_multiple_of(7) { tail } else { 0 })
        )
        .into()
    }

    /// Lengths on both sides of every size of slot, and now and then a large one.
    fn value(&mut self) -> Bytes {
        let len = match self.below(30) {
            0 => self.below(20_000),
            _ => self.below(700),
        };
        vec![b'v'; usize::try_from(len).expect("small")].into()
    }

    fn command(&mut self) -> Command {
        let (key, to) = (self.key(), self.key());
        match self.below(12) {
            0..4 => Command::Set {
                key,
                value: self.value(),
            },
            4..6 => Command::SetWith {
                key,
                value: self.value(),
                condition: SetIf::Always,
                expiry: Expiry::In { ms: 900 },
                get: false,
            },
            6 => Command::Append {
                key,
                suffix: self.value(),
            },
            7 => Command::SetRange {
                key,
                offset: self.below(900),
                patch: self.value(),
            },
            8 => Command::Copy {
                from: key,
                to,
                to_database: 1,
                replace: true,
            },
            9 => Command::Rename {
                from: key,
                to,
                if_absent: false,
            },
            _ => Command::Del {
                keys: vec![key, to],
            },
        }
    }
}

/// Six thousand entries at a cap that a few hundred fill, one half under each policy.
fn outcome() -> Outcome {
    let mut builder = BatchBuilder::new(0);
    builder.system(&SystemOp::Form {
        cluster: [7; 16],
        durability_sync: true,
        level: EDGE_LEVEL,
        members: vec![Member {
            id: 1,
            name: "n1".to_owned(),
            addr: "h:1".to_owned(),
            pending: false,
        }],
        users: vec![],
    });
    builder.system(&SystemOp::OpenSession {
        node: 1,
        boot: 1,
        highest: EDGE_LEVEL,
    });
    let (mut store, mut refusals) = (Store::new(), Refusals::default());
    store.apply(1, &builder.finish(), &mut refusals);
    let session = store.session_of_node(1).expect("it was opened");
    let mut draws = Draws(1);
    let mut seq = 0;
    for entry in 0..6_000 {
        let mut commands = vec![draws.command(), draws.command()];
        let policy = match entry {
            0 => Some(EvictionPolicy::NoEviction),
            3_000 => Some(EvictionPolicy::VolatileTtl),
            _ => None,
        };
        if policy.is_some() {
            let cap = Some(400_000);
            commands.push(Command::SetMemory { cap, policy });
        }
        let encoded: Vec<Bytes> = commands.iter().map(Command::encode).collect();
        let mut builder = BatchBuilder::new(entry * 2);
        builder.group(session, seq + 1, seq, encoded.iter());
        seq += encoded.len() as u64;
        store.apply(entry + 2, &builder.finish(), &mut refusals);
    }
    Outcome {
        cost: store.memory().cost,
        digest: store.digest(),
        effects: store.effects(),
        refused: refusals.0,
    }
}

#[test]
fn builds_with_other_sizes_of_slots_answer_count_and_refuse_alike() {
    assert_eq!(outcome(), RESULT);
}
