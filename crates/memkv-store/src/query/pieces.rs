//! Queries over many keys, answered piece by piece: writes may execute between two pieces, and the answers
//! are still those of one state, which a view holds.
//!
//! It never waits and holds nothing of the store between two pieces. Invariant: its answers are those that
//! [`Store::query`] would have given when the view began.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Query;
use super::answer::{before, bulk, count, look_up};
use super::scan::{Range, Scan, Taken};
use crate::keyspace::Lens;
use crate::{ReplyError, ReplyValue, Store, ViewId};

/// Keys whose entries the processor fetches at the same time.
const FETCHED: usize = 16;

/// The progress of a [`Reading`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Readings {
    /// All queries are answered.
    Done,
    /// Some queries are not answered yet.
    More,
    /// The view is lost: it has ended, or too much was written meanwhile. The reading starts again, with
    /// another view or with none.
    Lost,
}

/// Queries that are being answered at one state.
#[derive(Debug)]
pub struct Reading {
    queries: VecDeque<Query>,
    /// The number of answered ones.
    answered: usize,
    part: Part,
    answers: Vec<ReplyValue>,
    /// Bytes of values in the answers.
    bytes: usize,
    most: usize,
}

/// The part of the next query's answer that is known.
#[derive(Debug)]
enum Part {
    Nothing,
    Values {
        found: Vec<ReplyValue>,
        bytes: usize,
    },
    Count {
        at: usize,
        found: usize,
    },
    Range {
        next: Bytes,
        range: Range,
    },
    Scan(Scan),
}

impl Reading {
    /// A reading of these queries, in order. An array of values above `most` bytes is answered with `ReplyTooLong`,
    /// and so are the queries behind it when there are more in all.
    pub fn new(queries: impl IntoIterator<Item = Query>, most: usize) -> Reading {
        Reading {
            queries: queries.into_iter().collect(),
            answered: 0,
            part: Part::Nothing,
            answers: Vec::new(),
            bytes: 0,
            most,
        }
    }

    /// Continues until about `most_keys` keys have been read. `now_ms` is for times to live, and must be
    /// the same each time.
    pub fn resume(
        &mut self,
        store: &Store,
        view: Option<ViewId>,
        now_ms: u64,
        most_keys: usize,
    ) -> Readings {
        let Some(keys) = store.keys.lens(view) else {
            *self = Reading::new(std::mem::take(&mut self.queries), self.most);
            return Readings::Lost;
        };
        let mut room = most_keys.max(1);
        while room > 0 {
            let Some(query) = self.queries.get(self.answered) else {
                return Readings::Done;
            };
            let (database, query) = match query {
                Query::InDatabase { database, query } => (*database, &**query),
                query => (0, query),
            };
            let look = Look {
                keys,
                database,
                now_ms,
            };
            let answer = match self.bytes > self.most {
                true => Some(ReplyValue::Error(ReplyError::ReplyTooLong)),
                false => look.go_on(query, &mut self.part, self.most, &mut room),
            };
            if let Some(answer) = answer {
                self.part = Part::Nothing;
                self.bytes = self.bytes.saturating_add(size(&answer));
                self.answers.push(answer);
                self.answered += 1;
            }
        }
        match self.answered == self.queries.len() {
            true => Readings::Done,
            false => Readings::More,
        }
    }

    /// The answers, when it is done.
    pub fn into_answers(self) -> Vec<ReplyValue> {
        self.answers
    }
}

/// Bytes of values.
fn size(value: &ReplyValue) -> usize {
    match value {
        ReplyValue::Bulk(bytes) => bytes.len(),
        ReplyValue::Array(values) => values.iter().map(size).sum(),
        _ => 0,
    }
}

/// The state and the database that a piece reads.
#[derive(Clone, Copy)]
struct Look<'a> {
    keys: Lens<'a>,
    database: u8,
    now_ms: u64,
}

impl<'a> Look<'a> {
    /// Continues a query; returns its answer once it is complete.
    fn go_on(
        self,
        query: &Query,
        part: &mut Part,
        most: usize,
        room: &mut usize,
    ) -> Option<ReplyValue> {
        match query {
            Query::GetMany { keys } => self.values(keys, part, most, room),
            Query::Exists { keys } => self.exists(keys, part, room),
            Query::Range {
                start,
                end,
                limit,
                keys_only,
            } => {
                if let Part::Nothing = part {
                    let range = Range::new(*limit, *keys_only);
                    let next = start.clone();
                    *part = Part::Range { next, range };
                }
                self.range(end, part, room)
            }
            Query::Scan { cursor, count } => {
                if let Part::Nothing = part {
                    *part = Part::Scan(Scan::new(*cursor, *count));
                }
                self.scan(part, room)
            }
            short => {
                *room -= 1;
                Some(short.answer_in(self.keys, self.database, self.now_ms))
            }
        }
    }

    fn values(
        self,
        keys: &[Bytes],
        part: &mut Part,
        most: usize,
        room: &mut usize,
    ) -> Option<ReplyValue> {
        if let Part::Nothing = part {
            let found = Vec::with_capacity(keys.len());
            *part = Part::Values { found, bytes: 0 };
        }
        let Part::Values { found, bytes } = part else {
            return None;
        };
        for chunk in next(keys, found.len(), room).chunks(FETCHED) {
            if self.database == 0 {
                self.keys.fetch(chunk.iter().map(|key| &key[..]));
            }
            for key in chunk {
                let value = self.get(key);
                *bytes = bytes.saturating_add(value.map_or(0, |value| value.value.len()));
                if *bytes > most {
                    return Some(ReplyValue::Error(ReplyError::ReplyTooLong));
                }
                found.push(bulk(value));
            }
        }
        (found.len() == keys.len()).then(|| ReplyValue::Array(std::mem::take(found)))
    }

    fn exists(self, keys: &[Bytes], part: &mut Part, room: &mut usize) -> Option<ReplyValue> {
        if let Part::Nothing = part {
            *part = Part::Count { at: 0, found: 0 };
        }
        let Part::Count { at, found } = part else {
            return None;
        };
        let chunk = next(keys, *at, room);
        *found += chunk.iter().filter(|key| self.get(key).is_some()).count();
        *at += chunk.len();
        (*at == keys.len()).then(|| count(*found))
    }

    /// Goes on with a range that has begun; it may use all of the room.
    fn range(self, end: &Option<Bytes>, part: &mut Part, room: &mut usize) -> Option<ReplyValue> {
        let Part::Range { next, range } = part else {
            return None;
        };
        let most = std::mem::take(room);
        let more = match range.take(self.keys, self.database, next, before(end), most) {
            Taken::Upto(key) => {
                *next = key;
                return None;
            }
            Taken::More => true,
            Taken::All => false,
        };
        match std::mem::replace(part, Part::Nothing) {
            Part::Range { range, .. } => Some(range.answer(more)),
            _ => None,
        }
    }

    /// Goes on with a scan that has begun.
    fn scan(self, part: &mut Part, room: &mut usize) -> Option<ReplyValue> {
        let Part::Scan(scan) = part else {
            return None;
        };
        while *room > 0 && !scan.is_done() {
            let found = scan.take_shard(self.keys, self.database);
            *room = room.saturating_sub(1 + found);
        }
        if !scan.is_done() {
            return None;
        }
        match std::mem::replace(part, Part::Nothing) {
            Part::Scan(scan) => Some(scan.answer()),
            _ => None,
        }
    }

    fn get(self, key: &[u8]) -> Option<crate::Value<'a>> {
        look_up(self.keys, self.database, key, self.now_ms)
    }
}

/// The keys from `at` on for which there is room.
fn next<'k>(keys: &'k [Bytes], at: usize, room: &mut usize) -> &'k [Bytes] {
    let rest = keys.get(at..).unwrap_or_default();
    let (now, _) = rest.split_at(rest.len().min(*room));
    *room -= now.len();
    now
}
