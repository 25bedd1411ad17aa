//! One key with its value, its deadline and its revisions.
//!
//! Key, value and deadline share one allocation, so that a key without a deadline pays nothing for
//! those that have one. Invariants: the record is the key, then the value, then, if the flag is
//! set, the deadline in eight bytes; `key_len` without the flag is at most its length.

use std::sync::Arc;

use bytes::Bytes;

use crate::Revision;
use crate::snapshot::EntryView;

/// What an entry is taken to cost besides its bytes and those of its key in the ordered index, in
/// bytes: 40 in a table that is two thirds full on average, 16 for the reference counts, 48 for 32 in
/// the index's nodes of that fill, and the allocators' rounding.
const ENTRY_OVERHEAD_BYTES: u64 = 144;

/// What a deadline is taken to cost besides its place in the record: 16 bytes in an index whose
/// nodes are two thirds full.
const DEADLINE_OVERHEAD_BYTES: u64 = 24;

/// Values from this size on are handed out by reference; below it a copy costs less than the
/// allocation that sharing needs.
const SHARE_FROM_BYTES: usize = 4096;

/// In an entry's `key_len`: the record ends with a deadline. Keys are bounded far below 2 GiB.
const HAS_DEADLINE: u32 = 1 << 31;

/// Size of a deadline in a record.
const DEADLINE_BYTES: usize = size_of::<u64>();

/// What an entry is made of, before it is one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// One after another the key and its value; the key lies within the first part.
    pub(crate) parts: &'a [&'a [u8]],
    pub(crate) key_len: usize,
    /// Milliseconds since the epoch.
    pub(crate) deadline_ms: Option<u64>,
}

impl<'a> Record<'a> {
    pub(crate) fn key(&self) -> &'a [u8] {
        &self.parts[0][..self.key_len]
    }

    fn len(&self) -> usize {
        let deadline = self.deadline_ms.map_or(0, |_| DEADLINE_BYTES);
        self.parts.iter().map(|part| part.len()).sum::<usize>() + deadline
    }

    /// Fills `out`, which has the record's length.
    fn copy_to(&self, mut out: &mut [u8]) {
        let deadline = self.deadline_ms.map(u64::to_le_bytes);
        let deadline = deadline.as_ref().map(|bytes| &bytes[..]);
        for part in self.parts.iter().copied().chain(deadline) {
            let (head, rest) = out.split_at_mut(part.len());
            head.copy_from_slice(part);
            out = rest;
        }
    }

    fn to_shared(self) -> Arc<[u8]> {
        if let (&[whole], None) = (self.parts, self.deadline_ms) {
            return Arc::from(whole);
        }
        // One allocation of known size, which nobody else can hold yet.
        let mut record: Arc<[u8]> = std::iter::repeat_n(0, self.len()).collect();
        if let Some(bytes) = Arc::get_mut(&mut record) {
            self.copy_to(bytes);
        }
        record
    }

    fn flagged_key_len(&self) -> u32 {
        let len = u32::try_from(self.key_len).expect("keys are bounded far below 2 GiB");
        len | self.deadline_ms.map_or(0, |_| HAS_DEADLINE)
    }
}

/// One key and its value, with one allocation for both.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    record: Arc<[u8]>,
    key_len: u32,
    /// The lower half of the key's hash, so that a growing table need not touch the keys.
    tag: u32,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
}

impl Entry {
    pub(super) fn new(record: &Record<'_>, tag: u32, revision: Revision) -> Entry {
        Entry {
            record: record.to_shared(),
            key_len: record.flagged_key_len(),
            tag,
            create_revision: revision,
            mod_revision: revision,
        }
    }

    /// An entry of a snapshot.
    pub(super) fn restored(view: &EntryView<'_>, tag: u32) -> Entry {
        let record = Record {
            parts: &[view.record],
            key_len: view.key_len,
            deadline_ms: view.deadline_ms,
        };
        Entry {
            mod_revision: view.mod_revision,
            ..Entry::new(&record, tag, view.create_revision)
        }
    }

    pub(crate) fn tag(&self) -> u32 {
        self.tag
    }

    fn key_len(&self) -> usize {
        (self.key_len & !HAS_DEADLINE) as usize
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.record[..self.key_len()]
    }

    pub(crate) fn value(&self) -> &[u8] {
        &self.record()[self.key_len()..]
    }

    /// The key and, directly after it, the value.
    pub(crate) fn record(&self) -> &[u8] {
        match self.key_len & HAS_DEADLINE {
            0 => &self.record,
            _ => &self.record[..self.record.len() - DEADLINE_BYTES],
        }
    }

    /// When the key goes, in milliseconds since the epoch.
    pub(crate) fn deadline_ms(&self) -> Option<u64> {
        if self.key_len & HAS_DEADLINE == 0 {
            return None;
        }
        self.record.last_chunk().copied().map(u64::from_le_bytes)
    }

    /// Whether the key is there at log time `now_ms`: a deadline that is reached is over.
    pub(crate) fn is_alive(&self, now_ms: u64) -> bool {
        self.deadline_ms().is_none_or(|deadline| deadline > now_ms)
    }

    /// What the entry is taken to cost in memory.
    pub(crate) fn cost(&self) -> u64 {
        let deadline = match self.key_len & HAS_DEADLINE {
            0 => 0,
            _ => DEADLINE_OVERHEAD_BYTES,
        };
        (self.record.len() + self.key_len()) as u64 + ENTRY_OVERHEAD_BYTES + deadline
    }

    /// Takes a new record for the same key, in place where the old one has the size and nobody
    /// else (a snapshot, a reader of a large value) still holds it.
    pub(super) fn overwrite(&mut self, record: &Record<'_>, revision: Revision) {
        match Arc::get_mut(&mut self.record) {
            Some(old) if old.len() == record.len() => record.copy_to(old),
            _ => self.record = record.to_shared(),
        }
        self.key_len = record.flagged_key_len();
        self.mod_revision = revision;
    }

    /// Changes nothing but the deadline.
    pub(super) fn set_deadline(&mut self, deadline_ms: Option<u64>, revision: Revision) {
        self.mod_revision = revision;
        let both = self.deadline_ms().and(deadline_ms);
        if let (Some(deadline), Some(bytes)) = (both, Arc::get_mut(&mut self.record)) {
            let at = bytes.len() - DEADLINE_BYTES;
            bytes[at..].copy_from_slice(&deadline.to_le_bytes());
            return;
        }
        let record = Record {
            parts: &[self.record()],
            key_len: self.key_len(),
            deadline_ms,
        };
        let (shared, key_len) = (record.to_shared(), record.flagged_key_len());
        (self.record, self.key_len) = (shared, key_len);
    }
}

/// What a key holds, as a reader sees it.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    /// The value's bytes.
    pub value: &'a [u8],
    /// The revision that created the key, after which it was never deleted.
    pub create_revision: Revision,
    /// The revision that last wrote the key or its deadline.
    pub mod_revision: Revision,
    /// When the key goes, in milliseconds since the epoch; none if never.
    pub deadline_ms: Option<u64>,
    entry: &'a Entry,
}

impl<'a> Value<'a> {
    pub(super) fn of(entry: &'a Entry) -> Value<'a> {
        Value {
            value: entry.value(),
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            deadline_ms: entry.deadline_ms(),
            entry,
        }
    }

    /// The entry, independent of the store; the record is shared.
    pub(crate) fn to_entry(self) -> Entry {
        self.entry.clone()
    }

    /// The value, independent of the store: a small one is copied, a large one shared.
    pub fn to_bytes(&self) -> Bytes {
        struct Shared(Entry);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                self.0.value()
            }
        }
        if self.value.len() < SHARE_FROM_BYTES {
            Bytes::copy_from_slice(self.value)
        } else {
            Bytes::from_owner(Shared(self.entry.clone()))
        }
    }
}
