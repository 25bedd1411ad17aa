//! A hash: values by field, in the order of the fields' hashes.
//!
//! An item's content is the length of its field, the field, and the value.

use bytes::Bytes;

use super::set::lower_bound;
use super::{is_long, tag};
use crate::encoding::{Reader, put_prefixed, varint_len};
use crate::tree::{Item, Shape, Tree, Walk};

/// Fields are sorted by hash, then by themselves.
#[derive(Debug)]
pub struct Fields;

impl Shape for Fields {
    type Key = u32;

    fn name(content: &[u8]) -> &[u8] {
        split(content).0
    }
}

/// See the top of this file.
#[derive(Debug, Clone)]
pub struct Hash {
    seed: u64,
    fields: Tree<Fields>,
    /// Bytes of the lengths in the contents.
    heads: u64,
    /// Fields and values that Redis would not keep in its small encoding.
    long: u64,
}

/// A field and its value.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    item: Item<'a, Fields>,
}

impl<'a> Field<'a> {
    /// Its name.
    pub fn name(&self) -> &'a [u8] {
        split(self.item.content()).0
    }

    /// Its value.
    pub fn value(&self) -> &'a [u8] {
        split(self.item.content()).1
    }

    /// Its value to keep: a reference if that is cheaper than a copy.
    pub fn value_bytes(&self) -> Bytes {
        match self.item.is_apart() {
            true => self.item.to_bytes().slice_ref(self.value()),
            false => Bytes::copy_from_slice(self.value()),
        }
    }

    /// The hash of its name.
    pub fn tag(&self) -> u32 {
        self.item.key
    }
}

/// Field and value of a content.
fn split(content: &[u8]) -> (&[u8], &[u8]) {
    let mut reader = Reader::new(content);
    let field = reader.prefixed("field").unwrap_or_default();
    (field, reader.rest())
}

fn content(field: &[u8], value: &[u8]) -> Vec<u8> {
    let mut content =
        Vec::with_capacity(varint_len(field.len() as u64) + field.len() + value.len());
    put_prefixed(&mut content, field);
    content.extend_from_slice(value);
    content
}

fn head(field: &[u8]) -> u64 {
    varint_len(field.len() as u64) as u64
}

impl Hash {
    /// An empty one, whose fields are hashed by this seed.
    pub fn new(seed: u64) -> Hash {
        Hash {
            seed,
            fields: Tree::default(),
            heads: 0,
            long: 0,
        }
    }

    /// The number of fields.
    pub fn len(&self) -> u64 {
        self.fields.len()
    }

    /// Whether it has no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The sum of the lengths of all fields and values.
    pub fn bytes(&self) -> u64 {
        self.fields.content_bytes() - self.heads
    }

    /// Whether a field or a value is longer than Redis keeps in its small encoding.
    pub fn has_long(&self) -> bool {
        self.long > 0
    }

    /// A field with its value.
    pub fn get(&self, field: &[u8]) -> Option<Field<'_>> {
        let found = self.fields.find(tag(self.seed, field), field).ok()?;
        Some(Field { item: found.1 })
    }

    /// The field at a position in the order of hashes: what chance chooses from.
    pub fn at(&self, at: u64) -> Option<Field<'_>> {
        self.fields.get(at).map(|item| Field { item })
    }

    /// All fields from the one at a position on.
    pub fn walk(&self, from: u64) -> impl Iterator<Item = Field<'_>> {
        let items: Walk<'_, Fields> = self.fields.walk(from);
        items.map(|item| Field { item })
    }

    /// The fields from a hash on: where a scan goes on.
    pub fn scan(&self, from: u32) -> impl Iterator<Item = Field<'_>> {
        self.walk(lower_bound(&self.fields, from))
    }

    /// Sets a field; whether it is new.
    pub fn insert(&mut self, field: &[u8], value: &[u8]) -> bool {
        let (tag, new) = (tag(self.seed, field), content(field, value));
        let found = self.fields.find(tag, field);
        let found = found.map(|(at, old)| (at, is_long(Field { item: old }.value())));
        match found {
            Ok((at, was_long)) => {
                self.fields.replace(at, tag, &new);
                self.long = self.long - u64::from(was_long) + u64::from(is_long(value));
            }
            Err(_) => {
                self.fields.insert(tag, &new);
                self.note_new(field, value);
            }
        }
        found.is_err()
    }

    /// Removes a field; whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        let Ok((at, old)) = self.fields.find(tag(self.seed, field), field) else {
            return false;
        };
        let value = Field { item: old }.value();
        self.long -= u64::from(is_long(field)) + u64::from(is_long(value));
        self.heads -= head(field);
        self.fields.remove(at);
        true
    }

    /// Sets a field that comes behind all others.
    pub(super) fn push(&mut self, field: &[u8], value: &[u8]) {
        self.fields
            .push(tag(self.seed, field), &content(field, value));
        self.note_new(field, value);
    }

    fn note_new(&mut self, field: &[u8], value: &[u8]) {
        self.long += u64::from(is_long(field)) + u64::from(is_long(value));
        self.heads += head(field);
    }
}
