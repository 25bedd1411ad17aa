//! One key with its value, its deadline and its revisions, as bytes and as a reader sees them.
//!
//! The bytes are: the key's length and whether there is a deadline, the value's length, the key,
//! the value, the revision that wrote last, how many revisions before it the key was created, and
//! the deadline in eight bytes if there is one. Numbers are varints, so that the usual case (short lengths,
//! no deadline, one revision) costs a byte or few. These bytes never leave memory.
//! Invariant: all bytes read here were written by [`Record::write`].

use bytes::Bytes;

use super::large::Large;

use crate::Revision;
use crate::effects::ends;
use crate::encoding::varint_len;
use crate::memory;

/// Size of a deadline in an entry.
const DEADLINE_BYTES: usize = size_of::<u64>();

/// The parts of an entry that is about to be written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    /// One after another the key and its value; the key lies within the first part.
    pub(crate) parts: &'a [&'a [u8]],
    pub(crate) key_len: usize,
    /// Milliseconds since the epoch.
    pub(crate) deadline_ms: Option<u64>,
    /// The value, which the parts hold too, if the entry is to hold it together with others.
    pub(crate) shared: Option<&'a Bytes>,
}

/// The numbers at the end of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    pub(super) create_revision: Revision,
    pub(super) mod_revision: Revision,
    pub(super) deadline_ms: Option<u64>,
}

impl Numbers {
    fn len(&self) -> usize {
        varint_len(self.mod_revision)
            + varint_len(self.mod_revision - self.create_revision)
            + self.deadline_ms.map_or(0, |_| DEADLINE_BYTES)
    }

    fn write(&self, mut out: &mut [u8]) {
        put(&mut out, self.mod_revision);
        put(&mut out, self.mod_revision - self.create_revision);
        if let Some(deadline) = self.deadline_ms {
            out[..DEADLINE_BYTES].copy_from_slice(&deadline.to_le_bytes());
        }
    }
}

impl<'a> Record<'a> {
    pub(crate) fn key(&self) -> &'a [u8] {
        &self.parts[0][..self.key_len]
    }

    fn value_len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum::<usize>() - self.key_len
    }

    /// See [`memory::cost`].
    #[inline]
    pub(super) fn cost(&self) -> u64 {
        memory::cost(self.parts.iter().map(|part| part.len()).sum())
    }

    /// Value and deadline as one number: the value's [`ends`] and its length.
    #[inline]
    pub(crate) fn in_short(&self) -> u64 {
        let rest = &self.parts[0][self.key_len..];
        let value = match self.parts {
            [_] => rest,
            [_, value] if rest.is_empty() => value,
            _ => return self.parts_in_short(),
        };
        let short = ends(value) ^ (value.len() as u64).rotate_left(32);
        match self.deadline_ms {
            None => short,
            Some(deadline_ms) => short ^ deadline_ms.rotate_left(17),
        }
    }

    /// The same, however the value lies.
    #[cold]
    #[inline(never)]
    fn parts_in_short(&self) -> u64 {
        const END: usize = size_of::<u64>();
        let rest = [&self.parts[0][self.key_len..]];
        let bytes = rest.iter().chain(&self.parts[1..]).copied().flatten();
        let mut both = [0; 2 * END];
        let (first, last) = both.split_at_mut(END);
        let filled = first.iter_mut().zip(bytes.clone());
        let count = filled.map(|(to, from)| *to = *from).count();
        let ends = match count < END {
            true => ends(&both[..count]),
            false => {
                let filled = last.iter_mut().rev().zip(bytes.rev());
                filled.for_each(|(to, from)| *to = *from);
                ends(&both)
            }
        };
        let deadline = self.deadline_ms.unwrap_or(0).rotate_left(17);
        ends ^ (self.value_len() as u64).rotate_left(32) ^ deadline
    }

    pub(super) fn numbers(&self, create_revision: Revision, mod_revision: Revision) -> Numbers {
        Numbers {
            create_revision,
            mod_revision,
            deadline_ms: self.deadline_ms,
        }
    }

    /// The number of bytes that [`Record::write`] writes.
    pub(super) fn len(&self, numbers: &Numbers) -> usize {
        let value_len = self.value_len();
        varint_len(first_field(self.key_len, self.deadline_ms))
            + varint_len(value_len as u64)
            + self.key_len
            + value_len
            + numbers.len()
    }

    /// Fills the front of `out`.
    pub(super) fn write(&self, numbers: &Numbers, out: &mut [u8]) {
        self.write_parts(self.parts, numbers, out);
    }

    /// All of it but the value, for an entry that holds the value in common with others.
    pub(super) fn without_value(&self, numbers: &Numbers) -> Box<[u8]> {
        let len = self.len(numbers) - self.value_len();
        let mut out = vec![0; len].into_boxed_slice();
        self.write_parts(&[self.key()], numbers, &mut out);
        out
    }

    fn write_parts(&self, parts: &[&[u8]], numbers: &Numbers, mut out: &mut [u8]) {
        put(&mut out, first_field(self.key_len, self.deadline_ms));
        put(&mut out, self.value_len() as u64);
        for part in parts {
            let (head, rest) = out.split_at_mut(part.len());
            head.copy_from_slice(part);
            out = rest;
        }
        numbers.write(out);
    }
}

fn first_field(key_len: usize, deadline_ms: Option<u64>) -> u64 {
    (key_len as u64) << 1 | u64::from(deadline_ms.is_some())
}

/// Writes a varint and moves on behind it.
fn put(out: &mut &mut [u8], mut value: u64) {
    let buf = std::mem::take(out);
    let mut at = 0;
    while value >= 0x80 {
        buf[at] = value.to_le_bytes()[0] | 0x80;
        value >>= 7;
        at += 1;
    }
    buf[at] = value.to_le_bytes()[0];
    *out = &mut buf[at + 1..];
}

/// Reads a varint at `at`, and moves on behind it.
#[inline]
fn get(bytes: &[u8], at: &mut usize) -> u64 {
    let first = bytes[*at];
    if first < 0x80 {
        *at += 1;
        return u64::from(first);
    }
    get_long(bytes, at)
}

fn get_long(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    value
}

/// The bytes of an entry, where they are kept. Behind the entry may be others that mean nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kept<'a> {
    /// Among others of about its size.
    Slot(&'a [u8]),
    /// In memory of its own, which readers and snapshots may share.
    Large(&'a Large),
}

impl<'a> Kept<'a> {
    /// The entry, or all of it but the value.
    #[inline]
    fn bytes(self) -> &'a [u8] {
        match self {
            Kept::Slot(bytes) => bytes,
            Kept::Large(large) => large.bytes(),
        }
    }

    /// The key alone, which is less to read than all of the entry.
    pub(super) fn key(self) -> &'a [u8] {
        let bytes = self.bytes();
        let mut at = 0;
        let key_len = (get(bytes, &mut at) >> 1) as usize;
        get(bytes, &mut at);
        &bytes[at..at + key_len]
    }
}

/// One key and its value, where the store or a snapshot keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    kept: Kept<'a>,
    key: &'a [u8],
    value: &'a [u8],
    /// Length of the whole entry, wherever its value lies.
    len: usize,
    pub(crate) create_revision: Revision,
    pub(crate) mod_revision: Revision,
    /// The key's deadline, in milliseconds since the epoch.
    pub(crate) deadline_ms: Option<u64>,
}

impl<'a> Entry<'a> {
    pub(super) fn read(kept: Kept<'a>) -> Entry<'a> {
        let elsewhere = match kept {
            Kept::Slot(_) => None,
            Kept::Large(large) => large.value(),
        };
        let bytes = kept.bytes();
        let mut at = 0;
        let first = get(bytes, &mut at);
        let key_len = (first >> 1) as usize;
        let value_len = get(bytes, &mut at) as usize;
        let here = match elsewhere {
            None => value_len,
            Some(_) => 0,
        };
        let (key, value) = bytes[at..at + key_len + here].split_at(key_len);
        at += key_len + here;
        let mod_revision = get(bytes, &mut at);
        let age = get(bytes, &mut at);
        let deadline = match first & 1 {
            0 => None,
            _ => bytes[at..].first_chunk(),
        };
        let len = at + deadline.map_or(0, |bytes| bytes.len());
        Entry {
            kept,
            key,
            value: elsewhere.map_or(value, |value| &value[..]),
            len: len + value_len - here,
            create_revision: mod_revision - age,
            mod_revision,
            deadline_ms: deadline.copied().map(u64::from_le_bytes),
        }
    }

    /// Its bytes, and nothing behind them.
    pub(super) fn kept(&self) -> Kept<'a> {
        match self.kept {
            Kept::Slot(bytes) => Kept::Slot(&bytes[..self.len]),
            large => large,
        }
    }

    pub(crate) fn key(&self) -> &'a [u8] {
        self.key
    }

    pub(crate) fn value(&self) -> &'a [u8] {
        self.value
    }

    /// Whether the key is present at log time `now_ms`: at its deadline it is not.
    pub(crate) fn is_alive(&self, now_ms: u64) -> bool {
        self.deadline_ms.is_none_or(|deadline| deadline > now_ms)
    }

    /// See [`memory::cost`].
    #[inline]
    pub(crate) fn cost(&self) -> u64 {
        memory::cost(self.key.len() + self.value.len())
    }

    /// The length of the same entry with other numbers, of which a deadline is one if it was.
    pub(super) fn len_with(&self, numbers: &Numbers) -> usize {
        self.numbers_at() + numbers.len()
    }

    /// Where the numbers at the end begin.
    pub(super) fn numbers_at(&self) -> usize {
        let numbers = Numbers {
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            deadline_ms: self.deadline_ms,
        };
        self.len - numbers.len()
    }
}

/// Gives an entry, whose numbers begin at `at`, others of its kind.
pub(super) fn write_numbers(bytes: &mut [u8], at: usize, numbers: &Numbers) {
    numbers.write(&mut bytes[at..]);
}

/// Entries of a snapshot: copies of small ones, references to large ones, independent of the store.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entries {
    /// Small ones, one behind the other.
    copied: Vec<u8>,
    shared: Vec<Large>,
}

impl Entries {
    pub(crate) fn push(&mut self, entry: &Entry<'_>) {
        match entry.kept() {
            Kept::Slot(bytes) => self.copied.extend_from_slice(bytes),
            Kept::Large(large) => self.shared.push(large.clone()),
        }
    }

    /// All of them, in no meaningful order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        let mut rest = &self.copied[..];
        let copied = std::iter::from_fn(move || {
            let entry = (!rest.is_empty()).then(|| Entry::read(Kept::Slot(rest)))?;
            rest = &rest[entry.len..];
            Some(entry)
        });
        let shared = self.shared.iter();
        copied.chain(shared.map(|large| Entry::read(Kept::Large(large))))
    }
}

/// The value of a key, as a reader sees it.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    /// The value's bytes.
    pub value: &'a [u8],
    /// The revision that created the key, after which it was never deleted.
    pub create_revision: Revision,
    /// The revision that last wrote the key or its deadline.
    pub mod_revision: Revision,
    /// The key's deadline, in milliseconds since the epoch; none if it has none.
    pub deadline_ms: Option<u64>,
    kept: Kept<'a>,
}

impl<'a> Value<'a> {
    pub(crate) fn of(entry: &Entry<'a>) -> Value<'a> {
        Value {
            value: entry.value(),
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            deadline_ms: entry.deadline_ms,
            kept: entry.kept,
        }
    }

    /// The value, independent of the store: a small one is copied, a large one shared.
    pub fn to_bytes(&self) -> Bytes {
        match self.kept {
            Kept::Large(large) => large.value_bytes(self.value),
            Kept::Slot(_) => Bytes::copy_from_slice(self.value),
        }
    }

    /// The value for another entry to hold in common with this one; nothing if a copy is better.
    pub(crate) fn share(&self) -> Option<Bytes> {
        match self.kept {
            Kept::Large(large) => large.share(self.value),
            Kept::Slot(_) => None,
        }
    }

    /// The number of bytes that another entry with this value copies.
    pub(crate) fn copied_len(&self) -> usize {
        match self.kept {
            Kept::Large(large) if large.is_shareable(self.value.len()) => 0,
            _ => self.value.len(),
        }
    }
}
