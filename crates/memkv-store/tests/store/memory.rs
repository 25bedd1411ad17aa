//! The memory cap: refusals at it, evictions for it, and the state that goes with it. That the cost of the
//! keys is what the content says, whatever came before, is shown in `random`.

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, CAP_OVERRUN_BYTES, Command, Condition, EDGE_LEVEL, EVICTED_PER_ENTRY,
    EvictionPolicy, Expiry, Guard, KeyEventClasses, Member, Progress, Query, Refusal, Reply,
    ReplyError, ReplyValue, Seen, SetIf, Step, Store, SystemOp, SystemOutcome,
};

use crate::support::{Event, Recorder, apply, load, open, snapshot, system};

/// A cluster of two at the level that has a cap; node 1 has a session.
pub(crate) fn formed() -> (Store, u64) {
    let member = |id: u64| Member {
        id,
        name: format!("n{id}"),
        addr: "h:1".to_owned(),
        pending: false,
    };
    let form = SystemOp::Form {
        cluster: [7; 16],
        durability_sync: true,
        level: EDGE_LEVEL,
        members: vec![member(1), member(2)],
        users: vec![],
    };
    let mut store = Store::new();
    apply(&mut store, &system(&[form]));
    let session = open(&mut store, 1, 1);
    (store, session)
}

struct Log {
    store: Store,
    session: u64,
    stamp: u64,
}

impl Log {
    fn new() -> Log {
        let (store, session) = formed();
        let stamp = 0;
        Log {
            store,
            session,
            stamp,
        }
    }

    fn batch(&self, commands: &[Command]) -> Bytes {
        let last = self
            .store
            .session(self.session)
            .expect("the session is open")
            .last_seq();
        let encoded: Vec<Bytes> = commands.iter().map(Command::encode).collect();
        let mut batch = BatchBuilder::new(self.stamp);
        batch.group(self.session, last + 1, last, encoded.iter());
        batch.finish()
    }

    fn run(&mut self, commands: &[Command]) -> Vec<ReplyValue> {
        let batch = self.batch(commands);
        let events = apply(&mut self.store, &batch);
        let values = events.into_iter().map(|event| match event {
            Event::Reply(_, _, reply) => reply.value,
            other => panic!("{other:?}"),
        });
        values.collect()
    }

    fn one(&mut self, command: Command) -> ReplyValue {
        self.run(&[command]).remove(0)
    }

    fn cap(&mut self, cap: u64, policy: EvictionPolicy) {
        let set = Command::SetMemory {
            cap: Some(cap),
            policy: Some(policy),
        };
        assert_eq!(self.one(set), ReplyValue::Ok);
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn set(key: &str, len: usize) -> Command {
    Command::Set {
        key: bytes(key),
        value: vec![b'v'; len].into(),
    }
}

/// A key with a deadline.
fn set_until(key: &str, at: u64) -> Command {
    Command::SetWith {
        key: bytes(key),
        value: bytes("v"),
        condition: SetIf::Always,
        expiry: Expiry::At { ms: at as i64 },
        get: false,
    }
}

fn exec(operations: Vec<Command>, otherwise: Vec<Command>, guards: Vec<Guard>) -> Command {
    let steps = |commands: Vec<Command>| commands.into_iter().map(Step::Write).collect();
    Command::Transaction {
        guards,
        operations: steps(operations),
        otherwise: steps(otherwise),
    }
}

const OOM: ReplyValue = ReplyValue::Error(ReplyError::OutOfMemory);

#[test]
fn at_the_cap_what_may_grow_is_refused_whole_and_the_rest_goes_on() {
    let mut log = Log::new();
    log.run(&[set("a", 10), set("b", 10)]);
    log.cap(log.store.memory().cost, EvictionPolicy::NoEviction);
    let before = log.store.revision();
    let exists = |exists| Guard {
        database: 0,
        key: bytes("a"),
        holds: Condition::Exists(exists),
    };
    let rename = |to: &str| Command::Rename {
        from: bytes("b"),
        to: bytes(to),
        if_absent: false,
    };
    let del = |key: &str| Command::Del {
        keys: vec![bytes(key)],
    };
    let refused = [
        set("c", 1),
        set("c", 1).in_database(3),
        set("a", 0),
        set_until("a", 9),
        Command::IncrBy {
            key: bytes("n"),
            by: 1,
        },
        Command::Append {
            key: bytes("a"),
            suffix: bytes("x"),
        },
        rename("a longer name"),
        exec(vec![del("a"), set("c", 1)], vec![], vec![]),
        exec(vec![], vec![set("c", 1)], vec![exists(false)]),
    ];
    let answers = log.run(&refused);
    assert!(answers.iter().all(|answer| *answer == OOM), "{answers:?}");
    assert_eq!(log.store.revision(), before, "nothing was executed");
    // The branch that is taken decides, and one whose guards fail does nothing.
    let taken = exec(vec![], vec![set("c", 1)], vec![exists(true)]);
    assert_eq!(log.one(taken), ReplyValue::Array(vec![]));
    let aborted = exec(vec![set("c", 1)], vec![], vec![exists(false)]);
    assert_eq!(log.one(aborted), ReplyValue::Aborted);
    assert_eq!(log.one(rename("B")), ReplyValue::Ok);
    let persists = Command::Persist { key: bytes("a") };
    assert_eq!(log.one(persists), ReplyValue::Integer(0));
    assert_eq!(log.one(del("a")), ReplyValue::Integer(1));
    assert_eq!(log.one(set("c", 1_000)), ReplyValue::Ok, "there is room");
    assert_eq!(log.one(set("d", 1)), OOM, "it took the room");
    log.cap(0, EvictionPolicy::NoEviction);
    assert_eq!(log.one(set("d", 1)), ReplyValue::Ok);
}

#[test]
fn a_refusal_is_a_reply_that_a_repeated_command_gets_again() {
    let mut log = Log::new();
    log.run(&[set("a", 10)]);
    let derive = |log: &mut Log, bytes| {
        apply(&mut log.store, &system(&[SystemOp::SetCap { bytes }]));
    };
    derive(&mut log, 1);
    let batch = log.batch(&[set("b", 1)]);
    apply(&mut log.store, &batch);
    let last = log.store.session(log.session).unwrap().last_seq();
    derive(&mut log, u64::MAX);
    let revision = log.store.revision();
    let again = apply(&mut log.store, &batch);
    let reply = Reply {
        revision,
        value: OOM,
    };
    let expected = [Event::Duplicate(log.session, last, Some(reply))];
    assert_eq!(again, expected);
    assert!(!log.store.exists(b"b"));
}

#[test]
fn only_what_makes_values_of_values_fails_within_an_accepted_transaction() {
    const LEN: usize = 30 << 20;
    let mut log = Log::new();
    log.run(&[set("a", LEN)]);
    let cost = log.store.memory().cost;
    log.cap(cost + 1, EvictionPolicy::NoEviction);
    let copy = |to: &str| Command::Copy {
        from: bytes("a"),
        to: bytes(to),
        to_database: 0,
        replace: false,
    };
    let append = |key: &str| Command::Append {
        key: bytes(key),
        suffix: vec![b'v'; LEN].into(),
    };
    let steps = vec![copy("b"), copy("c"), copy("d"), append("e"), set("f", LEN)];
    let answers = log.one(exec(steps, vec![], vec![]));
    let (one, ok) = (ReplyValue::Integer(1), ReplyValue::Ok);
    let expected = vec![one.clone(), one, OOM, OOM, ok];
    assert_eq!(answers, ReplyValue::Array(expected));
    assert!(log.store.memory().cost < cost + CAP_OVERRUN_BYTES + LEN as u64 + 1_000);
}

#[test]
fn evicted_keys_are_those_with_the_nearest_deadlines_and_are_deleted_at_a_revision() {
    let mut log = Log::new();
    log.store
        .listen(true, KeyEventClasses::parse(b"Ee").unwrap());
    log.run(&[
        set("stays", 10),
        set_until("late", 900),
        set_until("first", 100),
        set_until("second", 200).in_database(5),
        set_until("third", 300),
    ]);
    let seen = log.store.seen(0, b"first");
    assert!(matches!(seen, Seen::Present { .. }));
    let absent = log.store.seen(0, b"nothing");
    log.cap(log.store.memory().cost - 1, EvictionPolicy::VolatileTtl);
    assert!(log.store.exists(b"first"), "it goes when there is an entry");
    let revision = log.store.revision();
    assert_eq!(log.run(&[Command::Tick]), [ReplyValue::Ok]);
    assert_eq!(log.store.revision(), revision + 1);
    assert!(!log.store.exists(b"first") && log.store.exists(b"third"));
    let guard = |holds| Guard {
        database: 0,
        key: bytes("first"),
        holds,
    };
    for holds in [Condition::Unchanged(seen), Condition::Unchanged(absent)] {
        let guarded = exec(vec![], vec![], vec![guard(holds)]);
        assert_eq!(log.one(guarded), ReplyValue::Aborted);
    }
    // A command makes room for itself.
    assert_eq!(log.one(set("new", 90)), ReplyValue::Ok);
    assert_eq!(log.one(set("newer", 1)), ReplyValue::Ok);
    assert_eq!(log.store.memory().evicted, 2);
    assert_eq!(log.store.database_len(5), 0);
    log.run(&[set("x", 1_000), set("y", 1_000), set("z", 1)]);
    assert!(!log.store.exists(b"late") && log.store.exists(b"stays"));
    assert_eq!(log.one(set("z", 1)), OOM, "nothing is left to evict");
    let events = log.store.take_key_events();
    let named: Vec<_> = events
        .iter()
        .map(|event| (event.database, event.event, &event.key[..]))
        .collect();
    let evicted = |database, key| (database, "evicted", key);
    assert_eq!(
        named,
        [
            evicted(0, &b"first"[..]),
            evicted(5, b"second"),
            evicted(0, b"third"),
            evicted(0, b"late")
        ]
    );
}

/// The same log in a store that takes snapshots and cuts its entries, and in one that does neither.
#[test]
fn stores_refuse_and_evict_the_same_however_entries_are_cut() {
    let (mut log, mut cut) = (Log::new(), formed().0);
    let mut draws = crate::pieces::Draws(3);
    let mut refusals = 0;
    for round in 0..600u64 {
        log.stamp += draws.draw(3);
        let mut commands: Vec<Command> = (0..draws.draw(12)).map(|_| draws.command()).collect();
        for _ in 0..draws.draw(4) {
            let at = log.stamp + 100 + draws.draw(2_000);
            commands.push(set_until(&format!("t{}", draws.draw(3_000)), at));
        }
        if draws.draw(20) == 0 {
            // Large enough to be executed in pieces.
            let pairs = (0..2_000).map(|n| (bytes(&format!("m{n}")), bytes("v")));
            commands.push(Command::SetMany {
                pairs: pairs.collect(),
                if_none_exists: draws.draw(2) == 0,
            });
        }
        if draws.draw(8) == 0 {
            commands.push(Command::SetMemory {
                cap: Some(log.store.memory().cost.saturating_sub(500) + draws.draw(1_000)),
                policy: Some(match draws.draw(2) {
                    0 => EvictionPolicy::NoEviction,
                    _ => EvictionPolicy::VolatileTtl,
                }),
            });
        }
        let batch = log.batch(&commands);
        let expected = apply(&mut log.store, &batch);
        let is_oom = |event: &&Event| matches!(event, Event::Reply(_, _, r) if r.value == OOM);
        refusals += expected.iter().filter(is_oom).count();
        if round % 7 == 0 {
            cut.abort_snapshot();
            cut.begin_snapshot().expect("between entries");
        }
        let mut recorder = Recorder::default();
        let index = cut.applied_index() + 1;
        let mut applying = cut.begin_apply(index, &batch, &mut recorder).unwrap();
        let mut room = draws.draw(400);
        while let Progress::Paused { next } = cut.resume(&mut applying, &mut room, &mut recorder) {
            room = next.max(draws.draw(400));
        }
        cut.next_shard();
        assert_eq!(recorder.0, expected);
        assert_eq!(cut.effects(), log.store.effects(), "round {round}");
        assert_eq!(cut.memory(), log.store.memory());
        if round % 100 == 0 {
            assert_eq!(cut.digest(), log.store.digest());
            cut.abort_snapshot();
            let loaded = load(&snapshot(&mut cut, 4_000)).expect("a whole snapshot");
            assert_eq!(loaded.memory(), cut.memory());
            assert_eq!(
                (loaded.digest(), loaded.effects()),
                (cut.digest(), cut.effects())
            );
        }
    }
    assert!(refusals > 100, "{refusals}");
    assert!(log.store.memory().evicted > 100);
}

#[test]
fn an_entry_evicts_a_bounded_number_of_keys() {
    let mut log = Log::new();
    let count = 2 * EVICTED_PER_ENTRY as u64 + 5;
    let keys: Vec<_> = (0..count)
        .map(|n| set_until(&format!("k{n}"), 1_000_000 + n))
        .collect();
    log.run(&keys);
    log.cap(1, EvictionPolicy::VolatileTtl);
    let most = EVICTED_PER_ENTRY;
    for left in [count as usize - most, count as usize - 2 * most, 0] {
        assert_eq!(log.one(Command::Tick), ReplyValue::Ok);
        assert_eq!(log.store.len(), left);
    }
}

#[test]
fn the_derived_cap_is_never_set_below_the_cost_and_the_operators_wins() {
    let mut log = Log::new();
    log.run(&[set("a", 1_000)]);
    let cost = log.store.memory().cost;
    let derive = |log: &mut Log, bytes| {
        let done = apply(&mut log.store, &system(&[SystemOp::SetCap { bytes }]));
        assert_eq!(done, [Event::System(0, SystemOutcome::Done)]);
        log.store.memory().cap
    };
    assert_eq!(derive(&mut log, cost + 100), Some(cost + 100));
    assert_eq!(derive(&mut log, 5), Some(cost));
    assert_eq!(log.one(set("b", 1)), OOM);
    log.cap(cost + 1, EvictionPolicy::NoEviction);
    assert_eq!(derive(&mut log, 5), Some(cost + 1));
    assert_eq!(log.one(set("b", 1)), ReplyValue::Ok);
}

#[test]
fn a_node_announces_its_memory_with_the_boot_that_has_its_session() {
    let (mut store, session) = formed();
    let announce = |store: &mut Store, node, boot| {
        let op = SystemOp::AnnounceMemory {
            node,
            boot,
            bytes: 10 + boot,
        };
        match apply(store, &system(&[op])).remove(0) {
            Event::System(0, outcome) => outcome,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(announce(&mut store, 1, 1), SystemOutcome::Done);
    for (node, boot, session) in [(1, 2, session), (2, 1, 0)] {
        let why = Refusal::UnknownSession { session };
        assert_eq!(
            announce(&mut store, node, boot),
            SystemOutcome::Refused { why }
        );
    }
    let announced = |store: &Store| store.member_table().announced_memory(1).map(|it| it.bytes);
    assert_eq!(announced(&store), Some(11));
    open(&mut store, 1, 2);
    assert_eq!(announce(&mut store, 1, 2), SystemOutcome::Done);
    let loaded = load(&snapshot(&mut store, 4_000)).expect("a whole snapshot");
    assert_eq!(loaded.member_table(), store.member_table());
    assert_eq!(announced(&loaded), Some(12));
}

#[test]
fn below_the_level_there_is_no_cap_and_no_trace_of_one() {
    let mut store = Store::new();
    let session = open(&mut store, 1, 1);
    let command = Command::SetMemory {
        cap: Some(1),
        policy: None,
    };
    assert_eq!(command.level(), EDGE_LEVEL);
    let mut batch = BatchBuilder::new(0);
    batch.group(session, 1, 0, [command.encode()].iter());
    let head = snapshot(&mut store, 100).remove(0);
    assert_eq!(apply(&mut store, &batch.finish()), [Event::Malformed]);
    let (formed, _) = formed();
    let mut formed = formed;
    let section = snapshot(&mut formed, 100).remove(0);
    assert!(head.ends_with(&[0]) && section.ends_with(&[0, 0, 0, 0, 0]));
    assert_eq!(
        store.query(&Query::DbSize, 0),
        ReplyValue::Integer(0),
        "nothing was applied"
    );
}
