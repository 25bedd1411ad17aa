//! Queries over many keys: SCAN by hash shards, ranges by the ordered index, and RANDOMKEY.
//!
//! Keys of one shard come out sorted, because the order of its table differs between nodes. Keys
//! past their deadline never come out.

use std::ops::Bound;

use bytes::Bytes;

use super::answer::{META_FIELDS, count, meta, sum_until};
use crate::keyspace::{Lens, SHARDS, Value, shard_of};
use crate::reply::ELEMENT_OVERHEAD_BYTES;
use crate::{RANGE_BYTES, ReplyValue};

/// Whole shards from `cursor` on, until `count` keys are reached.
pub(super) fn scan(keys: Lens<'_>, database: u8, cursor: u64, count: u64) -> ReplyValue {
    let mut scan = Scan::new(cursor, count);
    while !scan.is_done() {
        scan.take_shard(keys, database);
    }
    scan.answer()
}

/// The result of a SCAN so far.
#[derive(Debug)]
pub(super) struct Scan {
    found: Vec<ReplyValue>,
    /// Of the keys in `found`. More than [`RANGE_BYTES`] end it after a whole shard: no transaction answers
    /// with so many, so the log never depends on this bound.
    bytes: usize,
    next: usize,
    count: u64,
}

impl Scan {
    pub(super) fn new(cursor: u64, count: u64) -> Scan {
        Scan {
            found: Vec::new(),
            bytes: 0,
            next: usize::try_from(cursor).unwrap_or(usize::MAX),
            count: count.max(1),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        let is_full = self.found.len() as u64 >= self.count || self.bytes >= RANGE_BYTES;
        self.next >= SHARDS || is_full
    }

    /// Adds the next shard; returns its number of keys.
    pub(super) fn take_shard(&mut self, keys: Lens<'_>, database: u8) -> usize {
        let shard = keys.alive_of(database, self.next);
        let mut shard: Vec<&[u8]> = shard.map(|entry| entry.key()).collect();
        shard.sort_unstable();
        let count = shard.len();
        self.bytes += shard.iter().map(|key| key.len()).sum::<usize>();
        self.found.extend(shard.into_iter().map(key_bulk));
        self.next += 1;
        count
    }

    pub(super) fn answer(self) -> ReplyValue {
        let cursor = if self.next < SHARDS {
            self.next as i64
        } else {
            0
        };
        let found = ReplyValue::Array(self.found);
        ReplyValue::Array(vec![ReplyValue::Integer(cursor), found])
    }
}

/// The length of the answer of [`scan`], counted until it is above `enough`.
pub(super) fn scan_len(
    keys: Lens<'_>,
    database: u8,
    cursor: u64,
    count: u64,
    enough: usize,
) -> usize {
    let mut found = 0;
    let mut next = usize::try_from(cursor).unwrap_or(usize::MAX);
    let shards = std::iter::from_fn(|| {
        if next >= SHARDS || found >= count.max(1) {
            return None;
        }
        let shard = keys.alive_of(database, next);
        next += 1;
        let lengths: Vec<usize> = shard.map(|entry| entry.key().len()).collect();
        found += lengths.len() as u64;
        Some(lengths)
    });
    let len = sum_until(shards.flatten(), enough);
    len.saturating_add(2 * ELEMENT_OVERHEAD_BYTES)
}

/// The length of the answer of [`range`], counted until it is above `enough`.
pub(super) fn range_len(
    keys: Lens<'_>,
    database: u8,
    start: &[u8],
    end: Bound<&[u8]>,
    limit: u64,
    keys_only: bool,
    enough: usize,
) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let alive = keys.alive_between(database, start, end);
    let lengths = alive.take(limit).map(|entry| match keys_only {
        true => entry.key().len(),
        false => {
            let fields = (1 + META_FIELDS) * ELEMENT_OVERHEAD_BYTES;
            fields + entry.key().len() + entry.value().len()
        }
    });
    sum_until(lengths, enough).saturating_add(2 * ELEMENT_OVERHEAD_BYTES)
}

/// Keys in byte order, and whether more follow.
pub(super) fn range(
    keys: Lens<'_>,
    database: u8,
    start: &[u8],
    end: Bound<&[u8]>,
    limit: u64,
    keys_only: bool,
) -> ReplyValue {
    let mut range = Range::new(limit, keys_only);
    let ended = range.take(keys, database, start, end, usize::MAX);
    range.answer(ended == Taken::More)
}

/// The result of a range so far.
#[derive(Debug)]
pub(super) struct Range {
    items: Vec<ReplyValue>,
    bytes: usize,
    limit: u64,
    keys_only: bool,
}

/// The progress of a range.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The range has no more keys.
    All,
    /// The range has more keys than it may answer.
    More,
    /// It has read as many keys as it may; the next one is not below this.
    Upto(Bytes),
}

impl Range {
    pub(super) fn new(limit: u64, keys_only: bool) -> Range {
        Range {
            items: Vec::new(),
            bytes: 0,
            limit,
            keys_only,
        }
    }

    /// Adds keys from `start` on, at most `most` of them.
    pub(super) fn take(
        &mut self,
        keys: Lens<'_>,
        database: u8,
        start: &[u8],
        end: Bound<&[u8]>,
        most: usize,
    ) -> Taken {
        for (taken, entry) in keys.alive_between(database, start, end).enumerate() {
            let key = entry.key();
            if self.items.len() as u64 >= self.limit || self.bytes >= RANGE_BYTES {
                return Taken::More;
            }
            if taken == most {
                return Taken::Upto(Bytes::copy_from_slice(key));
            }
            self.bytes += key.len();
            self.items.push(match self.keys_only {
                true => key_bulk(key),
                false => {
                    self.bytes += entry.value().len();
                    let fields = meta(Value::of(&entry), true);
                    ReplyValue::Array([key_bulk(key)].into_iter().chain(fields).collect())
                }
            });
        }
        Taken::All
    }

    pub(super) fn answer(self, more: bool) -> ReplyValue {
        let more = count(usize::from(more));
        ReplyValue::Array(vec![ReplyValue::Array(self.items), more])
    }
}

/// See [`pick_key`].
pub(super) fn random_key(keys: Lens<'_>, database: u8, nonce: u64) -> ReplyValue {
    pick_key(keys, database, nonce).map_or(ReplyValue::Nil, key_bulk)
}

/// A key that the nonce picks: the shard of the keys that have it as their hash, within that the key
/// whose hash differs least in its lower half. That costs one shard, not the whole keyspace.
pub(super) fn pick_key(keys: Lens<'_>, database: u8, nonce: u64) -> Option<&[u8]> {
    let first = shard_of(nonce);
    let mask = (nonce & u64::from(u32::MAX)) as u32;
    let mut shards = (0..SHARDS).map(|step| (first + step) % SHARDS);
    let picked = shards.find_map(|shard| {
        let entries = keys.alive_of(database, shard);
        let tagged = entries.map(|entry| (keys.tag(&entry) ^ mask, entry.key()));
        tagged.min()
    });
    picked.map(|(_, key)| key)
}

fn key_bulk(key: &[u8]) -> ReplyValue {
    ReplyValue::Bulk(Bytes::copy_from_slice(key))
}
