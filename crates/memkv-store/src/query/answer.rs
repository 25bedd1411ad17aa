//! What each query answers.

use std::ops::Bound;

use bytes::Bytes;

use super::Query;
use super::scan::{random_key, range, scan};
use crate::ReplyValue;
use crate::keyspace::{Keyspace, Value};

/// What TTL answers for an absent key, and for one without a deadline.
const ABSENT: i64 = -2;
pub(super) const NO_DEADLINE: i64 = -1;

impl Query {
    /// Answers from the keys as they are; `now_ms` is the time that is left from.
    pub(crate) fn answer(&self, keys: &Keyspace, now_ms: u64) -> ReplyValue {
        match self {
            Query::InDatabase { database, query } => query.answer_in(keys, *database, now_ms),
            query => query.answer_in(keys, 0, now_ms),
        }
    }

    fn answer_in(&self, keys: &Keyspace, database: u8, now_ms: u64) -> ReplyValue {
        let get = |key: &Bytes| keys.get(database, key);
        #[cfg(memkv_bugs)]
        let get = |key: &Bytes| {
            let hides = crate::bugs::active(crate::bugs::Bug::ExpireByOwnClock);
            get(key).filter(|found| !hides || found.deadline_ms.is_none_or(|at| at > now_ms))
        };
        match self {
            Query::Get { key } => bulk(get(key)),
            Query::GetMany { keys } => {
                ReplyValue::Array(keys.iter().map(|key| bulk(get(key))).collect())
            }
            Query::Exists { keys } => count(keys.iter().filter(|key| get(key).is_some()).count()),
            Query::StrLen { key } => count(get(key).map_or(0, |found| found.value.len())),
            Query::GetRange { key, start, end } => {
                let part = get(key).map(|found| substring(found, *start, *end));
                ReplyValue::Bulk(part.unwrap_or_default())
            }
            Query::Ttl {
                key,
                seconds,
                absolute,
            } => ReplyValue::Integer(ttl(get(key), *seconds, *absolute, now_ms)),
            Query::Meta { key, value } => match get(key) {
                Some(found) => ReplyValue::Array(meta(found, *value).into()),
                None => ReplyValue::Nil,
            },
            Query::Scan { cursor, count } => scan(keys, database, *cursor, *count),
            Query::Range {
                start,
                end,
                limit,
                keys_only,
            } => {
                let end = end
                    .as_ref()
                    .map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]));
                range(keys, database, start, end, *limit, *keys_only)
            }
            Query::RandomKey { nonce } => random_key(keys, database, *nonce),
            Query::DbSize => count(keys.database_len(database)),
            // Decoding refuses it; built by hand, the innermost database counts.
            Query::InDatabase { database, query } => query.answer_in(keys, *database, now_ms),
        }
    }
}

fn bulk(found: Option<Value<'_>>) -> ReplyValue {
    found.map_or(ReplyValue::Nil, |found| ReplyValue::Bulk(found.to_bytes()))
}

pub(super) fn count(count: usize) -> ReplyValue {
    ReplyValue::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// GETRANGE: indexes from the end are negative, and what lies outside is cut off.
fn substring(found: Value<'_>, start: i64, end: i64) -> Bytes {
    let len = found.value.len() as i64;
    let from_front = |index: i64| match index {
        ..0 => index.saturating_add(len),
        _ => index,
    };
    // Redis compares what both count from the end before it cuts off what lies before the value.
    let inverted = start < 0 && end < 0 && start > end;
    let start = from_front(start).max(0);
    let end = from_front(end).max(0).min(len - 1);
    if inverted || start > end {
        return Bytes::new();
    }
    found.to_bytes().slice(start as usize..=end as usize)
}

fn ttl(found: Option<Value<'_>>, seconds: bool, absolute: bool, now_ms: u64) -> i64 {
    let Some(found) = found else {
        return ABSENT;
    };
    let Some(deadline) = found.deadline_ms else {
        return NO_DEADLINE;
    };
    let ms = match absolute {
        true => deadline,
        // The key is there, so something is left, whatever the clock says.
        false => deadline.saturating_sub(now_ms).max(1),
    };
    let answer = match seconds {
        true => ms.saturating_add(500) / 1000,
        false => ms,
    };
    i64::try_from(answer).unwrap_or(i64::MAX)
}

/// Value, creation, modification, deadline.
pub(super) fn meta(found: Value<'_>, value: bool) -> [ReplyValue; 4] {
    let number = |number: u64| ReplyValue::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    [
        bulk(Some(found).filter(|_| value)),
        number(found.create_revision),
        number(found.mod_revision),
        found
            .deadline_ms
            .map_or(ReplyValue::Integer(NO_DEADLINE), number),
    ]
}
