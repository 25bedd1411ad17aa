//! The packed form of a small collection: its bytes in one piece, as a key's entry keeps them.
//!
//! They are: the number of items, the sum of their lengths, then the items in the collection's order, each part with
//! its length in front and a score before its member. Numbers are varints. These bytes never leave memory, and
//! whether a collection is packed is each node's own affair. Invariant: all bytes read here were written by
//! [`Collection::pack`].

use bytes::BufMut;

use super::{Collection, Kind};
use crate::encoding::{Reader, put_prefixed, put_varint, varint_len};

/// The most items of a packed collection.
pub const MAX_PACKED_ITEMS: u64 = 64;

/// The most bytes of a packed collection: to read and write so many takes a microsecond or two.
pub const MAX_PACKED_BYTES: usize = 512;

impl Collection {
    /// Its packed form, if it is small.
    pub fn pack(&self) -> Option<Vec<u8>> {
        let (items, bytes) = (self.len(), self.bytes());
        // Two lengths, or a length and a score, for each item.
        let most = 2 * items + bytes + 2 * varint_len(bytes) as u64;
        if items > MAX_PACKED_ITEMS || most > MAX_PACKED_BYTES as u64 {
            return None;
        }
        let mut out = Vec::with_capacity(MAX_PACKED_BYTES);
        put_varint(&mut out, items);
        put_varint(&mut out, bytes);
        match self {
            Collection::List(list) => {
                list.walk(0)
                    .for_each(|it| put_prefixed(&mut out, it.content()));
            }
            Collection::Hash(hash) => hash.walk(0).for_each(|field| {
                put_prefixed(&mut out, field.name());
                put_prefixed(&mut out, field.value());
            }),
            Collection::Set(set) => {
                set.walk(0)
                    .for_each(|it| put_prefixed(&mut out, it.content()));
            }
            Collection::SortedSet(set) => set.walk(0).for_each(|it| {
                out.put_f64_le(it.score());
                put_prefixed(&mut out, it.member());
            }),
        }
        (out.len() <= MAX_PACKED_BYTES).then_some(out)
    }

    /// The collection that was packed.
    pub fn unpack(kind: Kind, seed: u64, packed: &[u8]) -> Collection {
        let mut all = Collection::new(kind, seed);
        let (_, mut rest) = head(packed);
        while let Some(item) = all.push_next(&mut rest) {
            debug_assert!(item <= MAX_PACKED_ITEMS, "a packed collection is small");
        }
        all
    }

    /// Adds the next item of packed bytes behind all others; returns their number, or nothing at the end.
    fn push_next(&mut self, rest: &mut Reader<'_>) -> Option<u64> {
        match self {
            Collection::List(list) => list.push_back(rest.prefixed("element").ok()?),
            Collection::Hash(hash) => {
                let field = rest.prefixed("field").ok()?;
                hash.push(field, rest.prefixed("value").ok()?);
            }
            Collection::Set(set) => set.push(rest.prefixed("member").ok()?),
            Collection::SortedSet(set) => {
                let score = f64::from_le_bytes(rest.array("score").ok()?);
                set.push(rest.prefixed("member").ok()?, score);
            }
        }
        Some(self.len())
    }
}

/// Parts one after another, each with its length in front.
pub(super) struct Parts<'a>(Reader<'a>);

impl<'a> Parts<'a> {
    /// Those of bytes that hold nothing else.
    pub(super) fn of(bytes: &'a [u8]) -> Parts<'a> {
        Parts(Reader::new(bytes))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.0.prefixed("part").ok()
    }
}

/// The number of items and the sum of their lengths, and the items.
fn head(packed: &[u8]) -> ((u64, u64), Reader<'_>) {
    let mut rest = Reader::new(packed);
    let items = rest.varint("number of items").unwrap_or(0);
    let bytes = rest.varint("bytes of items").unwrap_or(0);
    ((items, bytes), rest)
}

/// The number of items of a packed collection, and the sum of their lengths.
pub fn packed_sums(packed: &[u8]) -> (u64, u64) {
    head(packed).0
}
