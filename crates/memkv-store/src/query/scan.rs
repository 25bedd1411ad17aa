//! Queries over many keys: SCAN by hash shards, ranges by the ordered index, and RANDOMKEY.
//!
//! Keys of one shard come out sorted, because the order of its table differs between nodes. Keys
//! past their deadline never come out.

use std::ops::Bound;

use bytes::Bytes;

use super::answer::{META_FIELDS, count, meta, sum_until};
use crate::keyspace::{Database, Entry, Keyspace, SHARDS, Value, shard_of};
use crate::reply::ELEMENT_OVERHEAD_BYTES;
use crate::{RANGE_BYTES, ReplyValue};

/// Whole shards from `cursor` on, until `count` keys are reached.
pub(super) fn scan(keys: &Keyspace, database: u8, cursor: u64, count: u64) -> ReplyValue {
    let mut found = Vec::new();
    let mut next = usize::try_from(cursor).unwrap_or(usize::MAX);
    while next < SHARDS && (found.len() as u64) < count.max(1) {
        let mut shard: Vec<&[u8]> = alive(keys, keys.database(database), next)
            .map(|entry| entry.key())
            .collect();
        shard.sort_unstable();
        found.extend(shard.into_iter().map(key_bulk));
        next += 1;
    }
    let cursor = if next < SHARDS { next as i64 } else { 0 };
    ReplyValue::Array(vec![ReplyValue::Integer(cursor), ReplyValue::Array(found)])
}

/// How long the answer of [`scan`] is, counted until it is above `enough`.
pub(super) fn scan_len(
    keys: &Keyspace,
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
        let shard = alive(keys, keys.database(database), next);
        next += 1;
        let lengths: Vec<usize> = shard.map(|entry| entry.key().len()).collect();
        found += lengths.len() as u64;
        Some(lengths)
    });
    let len = sum_until(shards.flatten(), enough);
    len.saturating_add(2 * ELEMENT_OVERHEAD_BYTES)
}

/// How long the answer of [`range`] is, counted until it is above `enough`.
pub(super) fn range_len(
    keys: &Keyspace,
    database: u8,
    start: &[u8],
    end: Bound<&[u8]>,
    limit: u64,
    keys_only: bool,
    enough: usize,
) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let ordered = keys.database(database).map(|d| d.between(start, end));
    let entries = ordered.into_iter().flatten();
    let alive = entries.filter(|entry| entry.is_alive(keys.now_ms));
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
    keys: &Keyspace,
    database: u8,
    start: &[u8],
    end: Bound<&[u8]>,
    limit: u64,
    keys_only: bool,
) -> ReplyValue {
    let mut items = Vec::new();
    let mut bytes = 0;
    let mut more = false;
    let ordered = keys.database(database).map(|d| d.between(start, end));
    let entries = ordered.into_iter().flatten();
    for entry in entries.filter(|entry| entry.is_alive(keys.now_ms)) {
        let key = entry.key();
        more = items.len() as u64 >= limit || bytes >= RANGE_BYTES;
        if more {
            break;
        }
        bytes += key.len();
        items.push(match keys_only {
            true => key_bulk(key),
            false => {
                bytes += entry.value().len();
                let fields = meta(Value::of(&entry), true);
                ReplyValue::Array([key_bulk(key)].into_iter().chain(fields).collect())
            }
        });
    }
    ReplyValue::Array(vec![ReplyValue::Array(items), count(usize::from(more))])
}

/// See [`pick_key`].
pub(super) fn random_key(keys: &Keyspace, database: u8, nonce: u64) -> ReplyValue {
    pick_key(keys, database, nonce).map_or(ReplyValue::Nil, key_bulk)
}

/// A key that the nonce picks: the shard of the keys that have it as their hash, within that the key
/// whose hash differs least in its lower half. That costs one shard, not the whole keyspace.
pub(super) fn pick_key(keys: &Keyspace, database: u8, nonce: u64) -> Option<&[u8]> {
    let first = shard_of(nonce);
    let mask = (nonce & u64::from(u32::MAX)) as u32;
    let mut shards = (0..SHARDS).map(|step| (first + step) % SHARDS);
    let database = keys.database(database);
    let picked = shards.find_map(|shard| {
        let entries = alive(keys, database, shard);
        let tagged =
            entries.map(|entry| (database.map_or(0, |d| d.tag(&entry)) ^ mask, entry.key()));
        tagged.min()
    });
    picked.map(|(_, key)| key)
}

fn alive<'a>(
    keys: &Keyspace,
    database: Option<&'a Database>,
    shard: usize,
) -> impl Iterator<Item = Entry<'a>> + use<'a> {
    let now_ms = keys.now_ms;
    let entries = database
        .into_iter()
        .flat_map(move |database| database.shard(shard));
    entries.filter(move |entry| entry.is_alive(now_ms))
}

fn key_bulk(key: &[u8]) -> ReplyValue {
    ReplyValue::Bulk(Bytes::copy_from_slice(key))
}
