//! Deadlines of more keys than one entry removes, flushes during a snapshot, and the limits of values and
//! ranges. The behaviour at a deadline is in `tests/scripts/`; `random` compares every command with a
//! model.

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Condition, Expiry, Guard, Query, Reply, ReplyError, ReplyValue, Seen,
    SetIf, Store,
};

use crate::reference::scanned;
use crate::support::{Event, Recorder, load, open, set, snapshot};

/// A store and the way into it: an entry a time.
struct Log {
    store: Store,
    session: u64,
}

impl Log {
    fn new() -> Log {
        let mut store = Store::new();
        let session = open(&mut store, 1, 1);
        Log { store, session }
    }

    fn entry(&mut self, stamp: u64, commands: &[Command]) -> Vec<Reply> {
        let first = self.store.session(self.session).map_or(0, |s| s.last_seq()) + 1;
        let mut builder = BatchBuilder::new(stamp);
        let encoded: Vec<_> = commands.iter().map(Command::encode).collect();
        builder.group(self.session, first, first - 1, encoded.iter());
        let mut recorder = Recorder::default();
        let index = self.store.applied_index() + 1;
        self.store.apply(index, &builder.finish(), &mut recorder);
        let replies = recorder.0.into_iter().map(|event| match event {
            Event::Reply(_, _, reply) => reply,
            other => panic!("no reply: {other:?}"),
        });
        replies.collect()
    }

    fn one(&mut self, stamp: u64, command: Command) -> ReplyValue {
        self.entry(stamp, &[command]).remove(0).value
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn plain(key: &str) -> Command {
    Command::Set {
        key: bytes(key),
        value: bytes("v"),
    }
}

fn until(key: &str, ms: i64) -> Command {
    Command::SetWith {
        key: bytes(key),
        value: bytes("v"),
        condition: SetIf::Always,
        expiry: Expiry::At { ms },
        get: false,
    }
}

/// Whether a transaction with a guard on the seen state is executed.
fn executes(log: &mut Log, stamp: u64, key: &str, seen: Seen) -> bool {
    let transaction = Command::Transaction {
        guards: vec![Guard {
            database: 0,
            key: bytes(key),
            holds: Condition::Unchanged(seen),
        }],
        operations: vec![],
        otherwise: vec![],
    };
    log.one(stamp, transaction) == ReplyValue::Array(vec![])
}

/// More keys than one entry removes.
const MANY: u64 = 12_000;

fn many_due() -> Log {
    let mut log = Log::new();
    let commands: Vec<_> = (0..MANY).map(|n| until(&format!("k{n}"), 1500)).collect();
    log.entry(1000, &commands);
    log
}

#[test]
fn keys_that_one_entry_does_not_remove_are_absent_nevertheless() {
    let mut log = many_due();
    let before = log.store.revision();
    log.entry(1500, &[]);
    assert_eq!(log.store.len(), 2000);
    assert_eq!(
        log.store.revision(),
        before + 1,
        "all of them are one event"
    );
    let keys: Vec<_> = (0..MANY).map(|n| bytes(&format!("k{n}"))).collect();
    let absent = |query: &Query| log.store.query(query, 1500);
    assert_eq!(
        absent(&Query::Exists { keys: keys.clone() }),
        ReplyValue::Integer(0)
    );
    let all = Query::prefix(b"", None, 10, false);
    let empty = ReplyValue::Array(vec![ReplyValue::Array(vec![]), ReplyValue::Integer(0)]);
    assert_eq!(absent(&all), empty);
    assert_eq!(absent(&Query::RandomKey { nonce: 3 }), ReplyValue::Nil);
    assert_eq!(scanned(&log.store, 0), Vec::<Bytes>::new());
    let mut loaded = load(&snapshot(&mut log.store, 4096)).unwrap();
    assert_eq!((loaded.digest(), loaded.len()), (log.store.digest(), 2000));
    let index = log.store.applied_index() + 1;
    for store in [&mut log.store, &mut loaded] {
        store.apply(index, &BatchBuilder::new(0).finish(), &mut ());
        assert_eq!((store.len(), store.expired_total()), (0, MANY));
    }
    assert_eq!(loaded.digest(), log.store.digest());
}

#[test]
fn a_key_left_over_starts_anew_when_it_is_written() {
    let mut log = many_due();
    log.entry(1500, &[]);
    let left: Vec<_> = (0..MANY).map(|n| format!("k{n}")).collect();
    let replies = left.iter().map(|key| Command::Append {
        key: bytes(key),
        suffix: bytes("w"),
    });
    let replies = log.entry(1400, &replies.collect::<Vec<_>>());
    assert!(
        replies
            .iter()
            .all(|reply| reply.value == ReplyValue::Integer(1))
    );
    for key in &left {
        let found = log.store.get(key.as_bytes()).unwrap();
        assert_eq!(found.create_revision, found.mod_revision);
        assert_eq!((found.value, found.deadline_ms), (&b"w"[..], None));
    }
    assert_eq!(
        (log.store.len() as u64, log.store.expired_total()),
        (MANY, MANY)
    );
    assert_eq!(log.store.next_deadline(), None);
}

#[test]
fn a_watched_key_that_came_and_is_over_but_not_removed_has_changed() {
    let mut log = many_due();
    // Its deadline is the last of all, so the entry at its time leaves it to the next one.
    let absent = log.store.seen(0, b"last");
    log.entry(1000, &[until("last", 1501)]);
    assert!(!executes(&mut log, 1501, "last", absent));
    assert!(
        !log.store.is_empty(),
        "the transaction came before the removal"
    );
    let absent = log.store.seen(0, b"last");
    log.entry(1501, &[]);
    assert_eq!(log.store.len(), 0);
    assert!(
        !executes(&mut log, 1501, "last", absent),
        "a false failure, which is allowed"
    );
}

#[test]
fn databases_that_a_snapshot_holds_after_a_flush_are_garbage_when_it_ends() {
    for finish in [true, false] {
        let mut log = Log::new();
        log.entry(1, &[plain("a"), plain("b")]);
        let digest = log.store.digest();
        let head = log.store.begin_snapshot().unwrap();
        log.entry(
            1,
            &[plain("a"), Command::FlushAll, plain("c"), Command::FlushAll],
        );
        assert!(log.store.take_garbage().is_some());
        if finish {
            let images: Vec<_> = std::iter::from_fn(|| log.store.next_shard()).collect();
            let blocks = crate::support::encode(&head, &images, 1000);
            assert_eq!(load(&blocks).unwrap().digest(), digest);
        } else {
            log.store.abort_snapshot();
        }
        assert!(log.store.take_garbage().is_some());
    }
}

#[test]
fn values_have_a_ceiling_that_appending_and_patching_meet() {
    let mut log = Log::new();
    let key = bytes("a");
    let ceiling = memkv_store::MAX_VALUE_BYTES_CEILING as u64;
    let patch = |offset| Command::SetRange {
        key: bytes("a"),
        offset,
        patch: bytes("x"),
    };
    let append = Command::Append {
        key,
        suffix: bytes("y"),
    };
    let too_long = ReplyValue::Error(ReplyError::StringTooLong);
    assert_eq!(log.one(1, patch(ceiling)), too_long);
    assert_eq!(log.one(1, patch(u64::MAX)), too_long);
    assert_eq!(
        log.one(1, patch(ceiling - 1)),
        ReplyValue::Integer(ceiling as i64)
    );
    assert_eq!(log.one(1, append), too_long);
    assert_eq!(log.store.revision(), 1);
}

#[test]
fn a_range_ends_early_when_it_is_full_of_large_values() {
    let mut log = Log::new();
    let half = memkv_store::RANGE_BYTES / 2;
    let large = |key: &str| set(key.as_bytes(), &vec![0; half]);
    let commands = ["a", "b", "c"].map(|key| Command::decode(&large(key)).unwrap());
    log.entry(1, &commands);
    let count = |after: Option<&[u8]>| {
        let answer = log.store.query(&Query::prefix(b"", after, 10, false), 1);
        let ReplyValue::Array(answer) = answer else {
            panic!("no array")
        };
        let [ReplyValue::Array(items), ReplyValue::Integer(more)] = &answer[..] else {
            panic!("no items")
        };
        (items.len(), *more)
    };
    assert_eq!(count(None), (2, 1));
    assert_eq!(count(Some(b"b")), (1, 0));
}
