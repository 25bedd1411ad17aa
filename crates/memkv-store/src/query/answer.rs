//! The answers of the queries.

use std::ops::{Bound, RangeInclusive};

use bytes::Bytes;

use super::Query;
use super::scan::{pick_key, random_key, range, range_len, scan, scan_len};
use crate::ReplyValue;
use crate::keyspace::{Lens, Value};
use crate::reply::ELEMENT_OVERHEAD_BYTES;

/// The answers of TTL for an absent key, and for one without a deadline.
const ABSENT: i64 = -2;
pub(super) const NO_DEADLINE: i64 = -1;

impl Query {
    /// Answers from the keys as they are; times to live are counted from `now_ms`.
    pub(crate) fn answer(&self, keys: Lens<'_>, now_ms: u64) -> ReplyValue {
        match self {
            Query::InDatabase { database, query } => query.answer_in(keys, *database, now_ms),
            query => query.answer_in(keys, 0, now_ms),
        }
    }

    pub(super) fn answer_in(&self, keys: Lens<'_>, database: u8, now_ms: u64) -> ReplyValue {
        let get = |key: &Bytes| look_up(keys, database, key, now_ms);
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
            } => range(keys, database, start, before(end), *limit, *keys_only),
            Query::RandomKey { nonce } => random_key(keys, database, *nonce),
            Query::DbSize => count(keys.database_len(database)),
            // Decoding refuses it; built by hand, the innermost database counts.
            Query::InDatabase { database, query } => query.answer_in(keys, *database, now_ms),
        }
    }
}

/// The value of a key; `now_ms` is the reader's clock, on which the presence of the key does not depend.
#[cfg_attr(
    not(memkv_bugs),
    expect(unused_variables, reason = "a deliberate bug looks at it")
)]
#[inline]
pub(super) fn look_up<'a>(
    keys: Lens<'a>,
    database: u8,
    key: &[u8],
    now_ms: u64,
) -> Option<Value<'a>> {
    let found = keys.get(database, key);
    #[cfg(memkv_bugs)]
    let found = {
        let hides = crate::bugs::active(crate::bugs::Bug::ExpireByOwnClock);
        found.filter(|found| !hides || found.deadline_ms.is_none_or(|at| at > now_ms))
    };
    found
}

/// The length of an answer before it is made.
impl Query {
    /// The number of bytes of values and elements in the answer, without copying one; counting ends above
    /// `enough`. `len_of` returns the length of a key's value.
    pub(crate) fn answer_len(
        &self,
        keys: Lens<'_>,
        len_of: &dyn Fn(u8, &[u8]) -> Option<usize>,
        enough: usize,
    ) -> usize {
        match self {
            Query::InDatabase { database, query } => {
                query.answer_len_in(keys, *database, len_of, enough)
            }
            query => query.answer_len_in(keys, 0, len_of, enough),
        }
    }

    fn answer_len_in(
        &self,
        keys: Lens<'_>,
        database: u8,
        len_of: &dyn Fn(u8, &[u8]) -> Option<usize>,
        enough: usize,
    ) -> usize {
        match self {
            Query::Get { key } => len_of(database, key).unwrap_or(0),
            Query::GetMany { keys } => sum_until(
                keys.iter().map(|key| len_of(database, key).unwrap_or(0)),
                enough,
            ),
            Query::GetRange { key, start, end } => {
                let len = len_of(database, key).unwrap_or(0);
                bounds(len, *start, *end).map_or(0, |bounds| bounds.count())
            }
            Query::Meta { key, value } => len_of(database, key).map_or(0, |len| {
                META_FIELDS * ELEMENT_OVERHEAD_BYTES + if *value { len } else { 0 }
            }),
            Query::Scan { cursor, count } => scan_len(keys, database, *cursor, *count, enough),
            Query::Range {
                start,
                end,
                limit,
                keys_only,
            } => range_len(
                keys,
                database,
                start,
                before(end),
                *limit,
                *keys_only,
                enough,
            ),
            Query::RandomKey { nonce } => pick_key(keys, database, *nonce).map_or(0, <[u8]>::len),
            Query::Exists { .. } | Query::StrLen { .. } | Query::Ttl { .. } | Query::DbSize => 0,
            // As above, the innermost database counts.
            Query::InDatabase { database, query } => {
                query.answer_len_in(keys, *database, len_of, enough)
            }
        }
    }
}

/// The length of an array whose elements have these, counted until it is above `enough`.
pub(super) fn sum_until(lengths: impl Iterator<Item = usize>, enough: usize) -> usize {
    let mut sum: usize = 0;
    for len in lengths {
        sum = sum.saturating_add(ELEMENT_OVERHEAD_BYTES + len);
        if sum > enough {
            break;
        }
    }
    sum
}

pub(super) fn bulk(found: Option<Value<'_>>) -> ReplyValue {
    found.map_or(ReplyValue::Nil, |found| ReplyValue::Bulk(found.to_bytes()))
}

pub(super) fn count(count: usize) -> ReplyValue {
    ReplyValue::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

/// GETRANGE. A part that is much smaller than the value is copied, so that it does not keep the whole
/// value in memory for as long as it lives.
fn substring(found: Value<'_>, start: i64, end: i64) -> Bytes {
    const SHARED_PART: usize = 8;
    let Some(bounds) = bounds(found.value.len(), start, end) else {
        return Bytes::new();
    };
    let part = found.value.get(bounds.clone()).unwrap_or_default();
    match part.len() < found.value.len() / SHARED_PART {
        true => Bytes::copy_from_slice(part),
        false => found.to_bytes().slice(bounds),
    }
}

/// The part of a value of this length: indexes from the end are negative, and the part outside is cut
/// off.
fn bounds(len: usize, start: i64, end: i64) -> Option<RangeInclusive<usize>> {
    let len = len as i64;
    let from_front = |index: i64| match index {
        ..0 => index.saturating_add(len),
        _ => index,
    };
    // Redis compares two indexes from the end before it cuts off the part before the value.
    let inverted = start < 0 && end < 0 && start > end;
    let start = from_front(start).max(0);
    let end = from_front(end).max(0).min(len - 1);
    (!inverted && start <= end).then_some(start as usize..=end as usize)
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
        // The key is present, so some time is left, even if the reader's clock is past the deadline.
        false => deadline.saturating_sub(now_ms).max(1),
    };
    let answer = match seconds {
        true => ms.saturating_add(500) / 1000,
        false => ms,
    };
    i64::try_from(answer).unwrap_or(i64::MAX)
}

/// The number of fields of [`meta`].
pub(super) const META_FIELDS: usize = 4;

/// Value, creation, modification, deadline.
pub(super) fn meta(found: Value<'_>, value: bool) -> [ReplyValue; META_FIELDS] {
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

/// Where a range ends: before `end`, or nowhere.
pub(super) fn before(end: &Option<Bytes>) -> Bound<&[u8]> {
    end.as_ref()
        .map_or(Bound::Unbounded, |end| Bound::Excluded(&end[..]))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::keyspace::{Keyspace, Record};

    #[test]
    fn the_length_of_an_answer_is_known_before_it_is_made() {
        let mut keys = Keyspace::new(5);
        keys.now_ms = 100;
        let mut draws = (0u64..).map(|n| xxh3_64(&n.to_le_bytes()));
        let mut draw = |below: u64| draws.next().unwrap_or(0) % below;
        let key_of = |n: u64| Bytes::from(format!("{:0width$}", n, width = 1 + n as usize % 9));
        for revision in 1..=400 {
            let (key, value) = (key_of(draw(300)), vec![7; draw(2_000) as usize]);
            let mut record = BytesMut::from(&key[..]);
            record.extend_from_slice(&value);
            let record = Record {
                parts: &[&record],
                key_len: key.len(),
                // Some are over.
                deadline_ms: (draw(8) == 0).then(|| 50 + draw(100)),
                shared: None,
            };
            keys.put(draw(2) as u8, &record, revision);
        }
        let len_of = |database, key: &[u8]| Some(keys.get(database, key)?.value.len());
        let mut longest = 0;
        for _ in 0..4_000 {
            let key = key_of(draw(330));
            let query = match draw(10) {
                0 => Query::Get { key },
                1 => Query::GetMany {
                    keys: (0..draw(9)).map(|n| key_of(n * 31)).chain([key]).collect(),
                },
                2 => Query::GetRange {
                    key,
                    start: draw(4_000).cast_signed() - 2_000,
                    end: draw(4_000).cast_signed() - 2_000,
                },
                3 => Query::Meta {
                    key,
                    value: draw(2) == 0,
                },
                4 => Query::Scan {
                    cursor: draw(1_030),
                    count: draw(50),
                },
                5 => Query::RandomKey {
                    nonce: draw(u64::MAX),
                },
                6 => Query::StrLen { key },
                7 => Query::Exists { keys: vec![key] },
                _ => Query::Range {
                    start: key,
                    end: (draw(2) == 0).then(|| key_of(draw(300))),
                    limit: draw(60),
                    keys_only: draw(2) == 0,
                },
            };
            let query = query.in_database(draw(3) as u8);
            let len = query.answer(Lens::from(&keys), keys.now_ms).bulk_len();
            let known = query.answer_len(Lens::from(&keys), &len_of, usize::MAX);
            assert_eq!(known, len, "{query:?}");
            let enough = draw(3_000) as usize;
            let counted = query.answer_len(Lens::from(&keys), &len_of, enough);
            assert_eq!(counted > enough, len > enough, "{query:?}");
            longest = longest.max(len);
        }
        assert!(longest > 50_000, "{longest}");
    }

    #[test]
    fn a_small_part_does_not_keep_a_large_value() {
        let mut keys = Keyspace::new(5);
        let value = vec![1; 100_000];
        let parts: [&[u8]; 2] = [b"k", &value];
        let record = Record {
            parts: &parts,
            key_len: 1,
            deadline_ms: None,
            shared: None,
        };
        keys.put(0, &record, 1);
        let part = |end| {
            let key = Bytes::from_static(b"k");
            let query = Query::GetRange { key, start: 0, end };
            match query.answer(Lens::from(&keys), 0) {
                ReplyValue::Bulk(part) => part,
                other => panic!("{other:?}"),
            }
        };
        // A value that is not shared is written over in place.
        let small = part(9);
        let pointer = keys.get(0, b"k").map(|found| found.value.as_ptr());
        assert_eq!(small, vec![1; 10]);
        keys.put(0, &record, 2);
        assert_eq!(keys.get(0, b"k").map(|found| found.value.as_ptr()), pointer);
    }
}
