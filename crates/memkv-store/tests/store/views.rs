//! Reading piece by piece on a view: the answers are those of the state when the view began, with any
//! writes in between, and the memory of a view is bounded.

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, ExpireIf, Expiry, MAX_VIEWS, Query, Reading, Readings, ReplyError,
    ReplyValue, SessionId, Store, ViewId,
};

use crate::pieces::Draws;
use crate::support::open;

const MOST: usize = 256 << 20;

/// A store and the session that writes to it.
struct Log {
    store: Store,
    session: SessionId,
    seq: u64,
    now_ms: u64,
}

impl Log {
    fn new() -> Log {
        let mut store = Store::new();
        let session = open(&mut store, 1, 1);
        Log {
            store,
            session,
            seq: 1,
            now_ms: 0,
        }
    }

    fn apply(&mut self, commands: &[Command]) {
        let mut batch = BatchBuilder::new(self.now_ms);
        let encoded: Vec<Bytes> = commands.iter().map(Command::encode).collect();
        batch.group(self.session, self.seq, self.seq - 1, encoded.iter());
        self.seq += commands.len() as u64;
        let index = self.store.applied_index() + 1;
        self.store.apply(index, &batch.finish(), &mut ());
    }

    fn answer(&self, queries: &[Query], now_ms: u64) -> Vec<ReplyValue> {
        let answers = queries.iter().map(|query| self.store.query(query, now_ms));
        answers.collect()
    }
}

fn key(n: u64) -> Bytes {
    format!("k{n}").into()
}

/// Every kind of query, in some databases.
fn queries(draws: &mut Draws) -> Vec<Query> {
    let keys = |draws: &mut Draws| (0..draws.draw(80)).map(|_| draws.key()).collect();
    let all = [
        Query::GetMany { keys: keys(draws) },
        Query::Exists { keys: keys(draws) },
        Query::Range {
            start: draws.key(),
            end: (draws.draw(2) == 0).then(|| draws.key()),
            limit: draws.draw(70),
            keys_only: draws.draw(2) == 0,
        },
        Query::Range {
            start: Bytes::new(),
            end: None,
            limit: 1_000,
            keys_only: false,
        },
        Query::Scan {
            cursor: 0,
            count: 1 + draws.draw(200),
        },
        Query::Get { key: draws.key() },
        Query::Ttl {
            key: draws.key(),
            seconds: false,
            absolute: true,
        },
        Query::Meta {
            key: draws.key(),
            value: true,
        },
        Query::RandomKey {
            nonce: draws.draw(u64::from(u32::MAX)),
        },
        Query::DbSize,
    ];
    let mut picked = Vec::new();
    for query in all {
        if draws.draw(3) > 0 {
            picked.push(query.in_database(draws.draw(2) as u8));
        }
    }
    picked
}

#[test]
fn answers_in_pieces_are_of_one_state() {
    let mut draws = Draws(11);
    let mut log = Log::new();
    let (mut pieces, mut changed) = (0, 0);
    for _ in 0..400 {
        let view = log.store.begin_view().expect("no other view");
        let queries = queries(&mut draws);
        let now_ms = log.now_ms + 7;
        let expected = log.answer(&queries, now_ms);
        let mut reading = Reading::new(queries.clone(), MOST);
        loop {
            let most = 1 + draws.draw(40) as usize;
            match reading.resume(&log.store, Some(view), now_ms, most) {
                Readings::Done => break,
                Readings::More => pieces += 1,
                Readings::Lost => panic!("nothing much was written"),
            }
            let mut commands: Vec<Command> = (0..draws.draw(6)).map(|_| draws.command()).collect();
            match draws.draw(12) {
                0 => commands.push(Command::FlushAll),
                1 => commands.push(Command::FlushDatabase),
                2..6 => commands.push(Command::Expire {
                    key: draws.key(),
                    expiry: Expiry::In {
                        ms: 1 + draws.draw(20) as i64,
                    },
                    condition: ExpireIf::Always,
                }),
                _ => log.now_ms += draws.draw(9),
            }
            log.apply(&commands);
            drop(log.store.take_garbage());
            if draws.draw(4) == 0 {
                log.store.abort_snapshot();
                log.store.begin_snapshot().expect("between two entries");
            }
        }
        changed += u64::from(log.answer(&queries, now_ms) != expected);
        assert_eq!(reading.into_answers(), expected, "{queries:?}");
        assert!(log.store.end_view(view).is_some());
        assert!(log.store.end_view(view).is_none());
    }
    assert!(pieces > 2_000 && changed > 200, "{pieces} {changed}");
}

#[test]
fn views_are_bounded_and_release_their_entries() {
    let mut log = Log::new();
    let set = |n, len: usize| Command::Set {
        key: key(n),
        value: vec![b'v'; len].into(),
    };
    log.apply(&[set(1, 100_000), set(2, 10)]);
    let alone = log.store.memory_bytes();
    let views: Vec<ViewId> = (0..MAX_VIEWS)
        .map(|_| log.store.begin_view().expect("one of a few"))
        .collect();
    assert_eq!(log.store.begin_view(), None);
    assert_eq!(log.store.memory_bytes(), alone, "nothing is copied");
    log.apply(&[set(1, 100_000)]);
    assert!(log.store.memory_bytes() > alone + 100_000 * MAX_VIEWS as u64);
    // Once is enough.
    let held = log.store.memory_bytes();
    log.apply(&[set(1, 100_000)]);
    assert_eq!(log.store.memory_bytes(), held);
    for view in views {
        assert!(log.store.end_view(view).is_some());
    }
    assert!(log.store.memory_bytes() <= alone);
}

#[test]
fn a_view_that_would_hold_too_much_is_lost_and_its_reading_begins_anew() {
    let mut log = Log::new();
    let set = |n: u64, value: u8| Command::Set {
        key: key(n),
        value: vec![value; 500_000].into(),
    };
    let all = |value| (0..100).map(|n| set(n, value)).collect::<Vec<_>>();
    log.apply(&all(b'a'));
    let query = Query::GetMany {
        keys: (0..100).map(key).collect(),
    };
    let view = log.store.begin_view().expect("no other view");
    let mut reading = Reading::new([query.clone()], MOST);
    let mut resume = |log: &Log, view, most| reading.resume(&log.store, view, 0, most);
    assert_eq!(resume(&log, Some(view), 10), Readings::More);
    log.apply(&all(b'b'));
    let held = log.store.memory_bytes();
    // The values themselves, and the most that a view may hold.
    assert!(held < 100 * 500_000 + (33 << 20), "{held}");
    assert_eq!(resume(&log, Some(view), 10), Readings::Lost);
    log.store.end_view(view);
    assert_eq!(resume(&log, Some(view), 10), Readings::Lost, "it has ended");
    assert_eq!(resume(&log, None, usize::MAX), Readings::Done);
    assert_eq!(reading.into_answers(), [log.store.query(&query, 0)]);
}

#[test]
fn answers_are_bounded() {
    let mut log = Log::new();
    let set = Command::Set {
        key: key(1),
        value: vec![0; 1_000].into(),
    };
    log.apply(&[set]);
    let many = |times| Query::GetMany {
        keys: vec![key(1); times],
    };
    let queries = [many(10), many(11), many(6), many(1)];
    let mut reading = Reading::new(queries, 10_000);
    while reading.resume(&log.store, None, 0, 3) != Readings::Done {}
    let too_long = ReplyValue::Error(ReplyError::ReplyTooLong);
    let answers = reading.into_answers();
    let known = |query: Query| log.store.query(&query, 0);
    let expected = [known(many(10)), too_long.clone(), known(many(6)), too_long];
    assert_eq!(answers, expected);
}
