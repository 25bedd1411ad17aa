//! The rolling hash of effects: one number for all changes and answers of applying the log, by which nodes
//! find a store that differs from theirs.
//!
//! It is a part of the state: snapshots carry it, and a store that replays the log gets the same number. It
//! takes a few instructions for each effect, so of a long value it covers the length and the ends, eight
//! bytes each, and all of a value up to sixteen bytes. It does not depend on the layout in memory, and it
//! is no proof of equality: [`Store::digest`](crate::Store::digest) is. Invariants: the same entries make
//! the same hash, however they are cut; a difference in one effect stays in the hash for ever.

use xxhash_rust::xxh3::xxh3_64;

use crate::{Reply, ReplyValue, Revision};

/// An odd number without a pattern, to spread each bit over the higher ones (the golden ratio).
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The numbers of the kinds of effects and answers. They are a part of the hash.
const OK: u64 = 0;
const NIL: u64 = 2 << 56;
const INTEGER: u64 = 3 << 56;
const BULK: u64 = 4 << 56;
const ARRAY: u64 = 5 << 56;
const ABORTED: u64 = 6 << 56;
const ERROR: u64 = 7 << 56;
const REJECTED: u64 = 8 << 56;
const REMOVED: u64 = 10 << 56;
const DEADLINE: u64 = 11 << 56;
const FLUSHED: u64 = 12 << 56;
const MEMORY: u64 = 13 << 56;
const USERS: u64 = 14 << 56;
const NO_RIGHT: u64 = 15 << 56;

/// The hash so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effects {
    hash: u64,
    /// The changes of the commands since then, which the next answer adds to the hash.
    changes: u64,
    /// Whether it began with the first entry. A state from a snapshot without the hash has no beginning.
    is_known: bool,
}

impl Default for Effects {
    fn default() -> Self {
        Self {
            hash: 0,
            changes: 0,
            is_known: true,
        }
    }
}

impl Effects {
    /// Continues the hash of a snapshot.
    pub(crate) fn resume(hash: Option<u64>) -> Self {
        Self {
            hash: hash.unwrap_or(0),
            changes: 0,
            is_known: hash.is_some(),
        }
    }

    /// The hash, unless its beginning is not known.
    pub(crate) fn hash(self) -> Option<u64> {
        self.is_known.then_some(self.hash)
    }

    /// A key, of which `tag` is a hash, now holds this record in short (`Record::in_short`).
    #[inline]
    pub(crate) fn put(&mut self, database: u8, tag: u32, short: u64) {
        self.change(short ^ u64::from(tag) ^ u64::from(database) << 48);
    }

    /// A key was removed.
    #[inline]
    pub(crate) fn removed(&mut self, database: u8, tag: u32) {
        self.change(REMOVED ^ u64::from(database) << 48 ^ u64::from(tag));
    }

    /// A key has another deadline.
    pub(crate) fn deadline(&mut self, database: u8, tag: u32, deadline_ms: Option<u64>) {
        self.change(u64::from(database) << 48 ^ u64::from(tag));
        self.change(DEADLINE ^ deadline_ms.unwrap_or(0));
    }

    /// A database was flushed.
    pub(crate) fn flushed(&mut self, database: u8) {
        self.change(FLUSHED ^ u64::from(database) << 48);
    }

    /// The operator set the cap, or the policy at the cap.
    pub(crate) fn memory(&mut self, operator: Option<u64>, policy: u8) {
        self.change(MEMORY ^ u64::from(policy) << 48);
        self.change(operator.unwrap_or(0));
    }

    /// The table of users has changed by this record.
    pub(crate) fn users(&mut self, record: &[u8]) {
        self.change(USERS);
        self.change(xxh3_64(record));
    }

    /// The rest of a group was refused for its principals.
    pub(crate) fn refused(&mut self, next: u64, table: u64) {
        self.mix(NO_RIGHT ^ next);
        self.mix(table);
    }

    #[inline]
    fn change(&mut self, change: u64) {
        self.changes = self.changes.rotate_left(5).wrapping_add(change);
    }

    /// A command was executed.
    #[inline]
    pub(crate) fn reply(&mut self, reply: &Reply) {
        let value = match reply.value {
            // Nearly every write has this answer.
            ReplyValue::Ok => OK,
            // Spread, so that no revision compensates for another answer.
            ref other => summary(other).wrapping_mul(SPREAD),
        };
        self.mix(reply.revision ^ value);
    }

    /// A group continues its session, which keeps this many replies; or it was rejected.
    pub(crate) fn group(&mut self, next: u64, replies: Option<usize>) {
        let replies = replies.map_or(REJECTED, |replies| (replies as u64).rotate_left(32));
        self.mix(next ^ replies);
    }

    /// Everything but the keys now has this encoding.
    pub(crate) fn records(&mut self, head: &[u8]) {
        self.mix(xxh3_64(head));
    }

    /// An entry was applied as a whole, with this result.
    pub(crate) fn entry(&mut self, stamp_ms: u64, at: Revision, keys: usize, expired: u64) {
        self.mix(stamp_ms ^ expired.rotate_left(43));
        self.mix(at ^ (keys as u64).rotate_left(32));
        self.changes = 0;
    }

    /// The cost of the keys after an entry, and how many keys have been evicted.
    pub(crate) fn cost(&mut self, cost: u64, evicted: u64) {
        self.mix(cost ^ evicted.rotate_left(40));
    }

    #[inline]
    fn mix(&mut self, effect: u64) {
        let all = self.hash.rotate_left(23) ^ effect ^ self.changes;
        self.hash = all.wrapping_mul(SPREAD);
    }
}

/// An answer as one number.
fn summary(value: &ReplyValue) -> u64 {
    match value {
        ReplyValue::Ok => OK,
        ReplyValue::Nil => NIL,
        ReplyValue::Integer(number) => INTEGER ^ number.cast_unsigned(),
        ReplyValue::Bulk(bytes) => BULK ^ bytes.len() as u64 ^ ends(bytes).wrapping_mul(SPREAD),
        // As many as a transaction has steps or a command keys, which cost more each.
        ReplyValue::Array(items) => items.iter().fold(ARRAY ^ items.len() as u64, |sum, item| {
            (sum.rotate_left(7) ^ summary(item)).wrapping_mul(SPREAD)
        }),
        ReplyValue::Aborted => ABORTED,
        ReplyValue::Error(error) => ERROR ^ error.code() as u64,
    }
}

/// The first and the last eight bytes as one number; of fewer than eight bytes, all of them.
#[inline]
pub(crate) fn ends(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk(), bytes.last_chunk()) {
        (Some(head), Some(tail)) => {
            u64::from_le_bytes(*head).rotate_left(23) ^ u64::from_le_bytes(*tail)
        }
        _ => short_ends(bytes),
    }
}

#[inline(never)]
fn short_ends(bytes: &[u8]) -> u64 {
    match (bytes.first_chunk(), bytes.last_chunk(), bytes) {
        (Some(head), Some(tail), _) => {
            let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
            four(head) << 32 | four(tail)
        }
        (_, _, [first, .., last]) => {
            let middle = bytes[bytes.len() / 2];
            u64::from(*first) << 16 | u64::from(middle) << 8 | u64::from(*last)
        }
        (_, _, [only]) => u64::from(*only),
        (_, _, []) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::keyspace::Record;

    fn after(effect: impl FnOnce(&mut Effects)) -> u64 {
        let mut effects = Effects::default();
        effect(&mut effects);
        effects.entry(1, 2, 3, 4);
        effects.hash
    }

    #[test]
    fn every_difference_in_an_answer_shows() {
        let bulk = |text: &'static str| ReplyValue::Bulk(Bytes::from_static(text.as_bytes()));
        let values = [
            ReplyValue::Ok,
            ReplyValue::Nil,
            ReplyValue::Integer(0),
            ReplyValue::Integer(-1),
            bulk(""),
            bulk("a"),
            bulk("b"),
            bulk("a longer value"),
            bulk("a longer valuf"),
            bulk("a Longer value"),
            ReplyValue::Array(vec![]),
            ReplyValue::Array(vec![ReplyValue::Ok, ReplyValue::Nil]),
            ReplyValue::Array(vec![ReplyValue::Nil, ReplyValue::Ok]),
            ReplyValue::Aborted,
            ReplyValue::Error(crate::ReplyError::NotAnInteger),
            ReplyValue::Error(crate::ReplyError::Overflow),
        ];
        let hashes: BTreeSet<u64> = values
            .iter()
            .flat_map(|value| {
                [1, 2].map(|revision| {
                    let value = value.clone();
                    after(|effects| effects.reply(&Reply { revision, value }))
                })
            })
            .collect();
        assert_eq!(hashes.len(), 2 * values.len());
    }

    #[test]
    fn every_difference_in_a_change_shows() {
        let whole = |record: &'static [u8], deadline_ms| (record, 3, deadline_ms);
        let mut hashes = BTreeSet::new();
        let records = [
            whole(b"key", None),
            whole(b"key\0", None),
            whole(b"keyv", None),
            whole(b"keyw", None),
            whole(b"keyv", Some(5)),
            whole(b"key a value of some length", None),
            whole(b"key a value of some lengti", None),
            whole(b"key A value of some length", None),
        ];
        for (record, key_len, deadline_ms) in records {
            let parts = [record];
            let record = Record {
                parts: &parts,
                key_len,
                deadline_ms,
                shared: None,
            };
            for (database, tag) in [(0, 7), (1, 7), (0, 8)] {
                hashes.insert(after(|effects| {
                    effects.put(database, tag, record.in_short())
                }));
            }
        }
        for (database, tag) in [(0, 7), (1, 7), (0, 8)] {
            hashes.insert(after(|effects| effects.removed(database, tag)));
            for deadline in [None, Some(1), Some(2)] {
                hashes.insert(after(|effects| effects.deadline(database, tag, deadline)));
            }
        }
        hashes.insert(after(|effects| effects.flushed(0)));
        hashes.insert(after(|effects| effects.flushed(1)));
        hashes.insert(after(|effects| effects.users(b"a")));
        hashes.insert(after(|effects| effects.users(b"b")));
        hashes.insert(after(|effects| effects.refused(9, 1)));
        hashes.insert(after(|effects| effects.refused(9, 2)));
        hashes.insert(after(|effects| effects.group(9, None)));
        hashes.insert(after(|effects| effects.group(9, Some(1))));
        assert_eq!(hashes.len(), 3 * 8 + 3 * 4 + 8);
    }

    #[test]
    fn every_byte_of_a_short_value_shows() {
        for len in 0..=16 {
            let value = vec![0x55; len];
            for bit in 0..8 * len {
                let mut other = value.clone();
                other[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(ends(&other), ends(&value), "{len} bytes, bit {bit}");
            }
        }
    }

    #[test]
    fn a_record_in_parts_is_the_same_record() {
        let put = |parts: &[&[u8]]| {
            let record = Record {
                parts,
                key_len: 3,
                deadline_ms: None,
                shared: None,
            };
            after(|effects| effects.put(0, 1, record.in_short()))
        };
        let whole = put(&[b"key0123456789abcdef"]);
        assert_eq!(put(&[b"key", b"0123456789abcdef"]), whole);
        assert_eq!(put(&[b"key", b"0123456789", b"abcdef"]), whole);
        assert_eq!(put(&[b"key0", b"", b"123456789abcdef"]), whole);
    }

    #[test]
    fn the_order_of_effects_shows_and_a_difference_stays() {
        let hash = |effects: [u64; 2]| {
            after(|all| {
                effects.iter().for_each(|at| all.group(*at, None));
                (0..100).for_each(|tag| all.removed(0, tag));
            })
        };
        assert_ne!(hash([1, 2]), hash([2, 1]));
        assert_ne!(hash([1, 2]), hash([1, 3]));
    }

    #[test]
    fn a_state_that_began_without_a_hash_never_has_one() {
        let mut effects = Effects::resume(None);
        effects.flushed(0);
        assert_eq!(effects.hash(), None);
        assert_eq!(Effects::resume(Some(7)).hash(), Some(7));
    }
}
