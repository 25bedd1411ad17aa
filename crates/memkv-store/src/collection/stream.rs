//! A small stream: entries in the order of their ids, which only grow.
//!
//! An entry's content is its fields and values, one after another, each with its length in front. Consumer groups are
//! none of it. Invariants: no id is at or below one that was given before, also if that entry is gone; an empty stream
//! remembers the last id, so a key may hold one without entries.

use super::packed::Parts;
use crate::encoding::put_prefixed;
use crate::tree::{Item, Shape, Tree, Walk};

/// Entries are sorted by id.
#[derive(Debug)]
pub struct Entries;

impl Shape for Entries {
    type Key = StreamId;

    /// Ids are all different, so nothing else decides.
    fn name(_: &[u8]) -> &[u8] {
        &[]
    }
}

/// The id of an entry: milliseconds, and a number among the entries of one millisecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Milliseconds since the epoch, or whatever the client has chosen.
    pub ms: u64,
    /// The number within them.
    pub seq: u64,
}

impl StreamId {
    /// The least id. No entry has it.
    pub const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    /// The greatest id.
    pub const MAX: StreamId = StreamId {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// The id that follows directly; none behind the greatest.
    pub fn next(self) -> Option<StreamId> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(StreamId { seq, ..self }),
            None => Some(StreamId {
                ms: self.ms.checked_add(1)?,
                seq: 0,
            }),
        }
    }

    /// The id that comes directly before; none before the least.
    pub fn previous(self) -> Option<StreamId> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(StreamId { seq, ..self }),
            None => Some(StreamId {
                ms: self.ms.checked_sub(1)?,
                seq: u64::MAX,
            }),
        }
    }
}

/// The id that a new entry is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewId {
    /// The milliseconds of log time, and the next number: `*`.
    Auto,
    /// The next number in these milliseconds: `ms-*`.
    AutoSeq {
        /// The milliseconds.
        ms: u64,
    },
    /// This one.
    Exactly(StreamId),
}

/// See the top of this file.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    entries: Tree<Entries>,
    last_id: StreamId,
    /// The greatest id of an entry that was deleted, not trimmed from the front.
    max_deleted_id: StreamId,
    added: u64,
    /// Bytes of the lengths in the contents.
    heads: u64,
}

/// An entry.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    item: Item<'a, Entries>,
}

impl<'a> Entry<'a> {
    /// Its id.
    pub fn id(&self) -> StreamId {
        self.item.key
    }

    /// Its fields and values, one after another.
    pub fn parts(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        Parts::of(self.item.content())
    }
}

/// Reading.
impl Stream {
    /// The number of entries.
    pub fn len(&self) -> u64 {
        self.entries.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The sum of the lengths of all fields and values.
    pub fn bytes(&self) -> u64 {
        self.entries.content_bytes() - self.heads
    }

    /// The last id that was given.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The greatest id of an entry that was deleted.
    pub fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    /// The number of entries that were ever added.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// The id that a new entry gets at log time `now_ms`; none if it is not above the last one.
    pub fn id_for(&self, wanted: NewId, now_ms: u64) -> Option<StreamId> {
        let next = self.last_id.next();
        let id = match wanted {
            NewId::Auto if now_ms > self.last_id.ms => StreamId { ms: now_ms, seq: 0 },
            NewId::Auto => next?,
            NewId::AutoSeq { ms } if ms > self.last_id.ms => StreamId { ms, seq: 0 },
            NewId::AutoSeq { ms } => next.filter(|next| next.ms == ms)?,
            NewId::Exactly(id) => id,
        };
        (id > self.last_id).then_some(id)
    }

    /// The entries from an id on up to another one.
    pub fn range(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let items: Walk<'_, Entries> = self.entries.walk(self.position(from));
        let items = items.take_while(move |item| item.key <= to);
        items.map(|item| Entry { item })
    }

    /// The same, the last one first.
    pub fn range_back(&self, from: StreamId, to: StreamId) -> impl Iterator<Item = Entry<'_>> {
        let behind = match self.entries.find(to, &[]) {
            Ok((at, _)) => at + 1,
            Err(at) => at,
        };
        let items = self.entries.walk_back(behind);
        let items = items.take_while(move |item| item.key >= from);
        items.map(|item| Entry { item })
    }

    /// How many entries have lower ids.
    fn position(&self, id: StreamId) -> u64 {
        self.entries
            .find(id, &[])
            .map_or_else(|at| at, |(at, _)| at)
    }
}

/// Writing.
impl Stream {
    /// Adds an entry of these fields and values behind all others, with an id of [`Stream::id_for`].
    pub fn push<'p>(&mut self, id: StreamId, parts: impl Iterator<Item = &'p [u8]>) {
        let (mut content, mut bytes) = (Vec::new(), 0);
        for part in parts {
            put_prefixed(&mut content, part);
            bytes += part.len();
        }
        self.heads += (content.len() - bytes) as u64;
        self.entries.push(id, &content);
        self.last_id = id;
        self.added += 1;
    }

    /// Deletes an entry; whether it was there.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Ok((at, item)) = self.entries.find(id, &[]) else {
            return false;
        };
        self.heads -= heads(item.content());
        self.entries.remove(at);
        self.max_deleted_id = self.max_deleted_id.max(id);
        true
    }

    /// Cuts off all entries before the last `len`, and returns them, which take long to free if they are many.
    pub fn trim_to(&mut self, len: u64) -> Stream {
        let cut = self.len().saturating_sub(len);
        self.cut(cut)
    }

    /// Cuts off all entries with an id below this one, and returns them.
    pub fn trim_before(&mut self, id: StreamId) -> Stream {
        self.cut(self.position(id))
    }

    /// Sets what [`Stream::last_id`] and the others say. The last id must not be below that of an entry.
    pub fn set_ids(
        &mut self,
        last_id: StreamId,
        added: Option<u64>,
        max_deleted: Option<StreamId>,
    ) {
        self.last_id = last_id;
        self.added = added.unwrap_or(self.added);
        self.max_deleted_id = max_deleted.unwrap_or(self.max_deleted_id);
    }

    fn cut(&mut self, at: u64) -> Stream {
        let rest = self.entries.split_off(at);
        let front = std::mem::replace(&mut self.entries, rest);
        let cut: u64 = front.walk(0).map(|item| heads(item.content())).sum();
        self.heads -= cut;
        Stream {
            entries: front,
            heads: cut,
            ..Stream::default()
        }
    }
}

/// Bytes of the lengths in a content.
fn heads(content: &[u8]) -> u64 {
    let parts: usize = Parts::of(content).map(<[u8]>::len).sum();
    (content.len() - parts) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn id(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    #[test]
    fn ids_only_grow() {
        let mut stream = Stream::default();
        assert_eq!(stream.id_for(NewId::Exactly(StreamId::MIN), 5), None);
        assert_eq!(stream.id_for(NewId::AutoSeq { ms: 0 }, 5), Some(id(0, 1)));
        assert_eq!(stream.id_for(NewId::Auto, 5), Some(id(5, 0)));
        stream.push(id(7, 3), [&b"f"[..], b"v"].into_iter());
        // Log time is behind: the id goes on, as in Redis.
        assert_eq!(stream.id_for(NewId::Auto, 5), Some(id(7, 4)));
        assert_eq!(stream.id_for(NewId::AutoSeq { ms: 7 }, 5), Some(id(7, 4)));
        assert_eq!(stream.id_for(NewId::AutoSeq { ms: 6 }, 5), None);
        assert_eq!(stream.id_for(NewId::Exactly(id(7, 3)), 5), None);
        assert!(stream.delete(id(7, 3)) && !stream.delete(id(7, 3)));
        assert_eq!(
            (stream.len(), stream.last_id(), stream.max_deleted_id()),
            (0, id(7, 3), id(7, 3))
        );
        assert_eq!(stream.id_for(NewId::Auto, 5), Some(id(7, 4)));
        stream.set_ids(StreamId::MAX, None, None);
        assert_eq!(stream.id_for(NewId::Auto, 5), None);
        assert_eq!(id(7, u64::MAX).next(), Some(id(8, 0)));
        assert_eq!(id(8, 0).previous(), Some(id(7, u64::MAX)));
        assert_eq!(
            (StreamId::MAX.next(), StreamId::MIN.previous()),
            (None, None)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 100 }))]

        #[test]
        fn a_stream_is_a_map_by_id(steps in prop::collection::vec((0..6u8, 0..500u64, 0..300usize), 1..300)) {
            let (mut stream, mut model) = (Stream::default(), BTreeMap::new());
            for (what, number, len) in steps {
                match what {
                    0..=3 => {
                        let new = stream.id_for(NewId::Auto, number).unwrap();
                        let parts = vec![b"field".to_vec(), vec![b'v'; len]];
                        stream.push(new, parts.iter().map(|part| &part[..]));
                        model.insert(new, parts);
                    }
                    4 => {
                        let some = model.keys().nth(number as usize % model.len().max(1)).copied();
                        prop_assert!(some.is_none_or(|some| stream.delete(some) && model.remove(&some).is_some()));
                    }
                    _ => {
                        let keep = number.min(100);
                        let cut = stream.trim_to(keep);
                        prop_assert_eq!(cut.len(), (model.len() as u64).saturating_sub(keep));
                        while model.len() as u64 > keep {
                            model.pop_first();
                        }
                    }
                }
            }
            let all = |entries: Vec<Entry<'_>>| -> Vec<(StreamId, Vec<Vec<u8>>)> {
                let entry = |it: &Entry<'_>| (it.id(), it.parts().map(<[u8]>::to_vec).collect());
                entries.iter().map(entry).collect()
            };
            let wanted: Vec<_> = model.clone().into_iter().collect();
            prop_assert_eq!(all(stream.range(StreamId::MIN, StreamId::MAX).collect()), wanted.clone());
            let (from, to) = (id(100, 1), id(300, 0));
            let part: Vec<_> = wanted.into_iter().filter(|(it, _)| (from..=to).contains(it)).collect();
            prop_assert_eq!(all(stream.range(from, to).collect()), part.clone());
            let mut back = all(stream.range_back(from, to).collect());
            back.reverse();
            prop_assert_eq!(back, part);
            let bytes: usize = model.values().flatten().map(Vec::len).sum();
            prop_assert_eq!(stream.bytes(), bytes as u64);
            let before = stream.trim_before(to);
            prop_assert_eq!(before.len(), model.range(..to).count() as u64);
            prop_assert_eq!(stream.len() + before.len(), model.len() as u64);
            prop_assert_eq!(stream.bytes() + before.bytes(), bytes as u64);
        }
    }
}
