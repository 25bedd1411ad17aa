//! SET: gives a key a value.
//!
//! In the log: the key's length, the key, and the value up to the end. Key and value lie next to
//! each other, which is also how the keyspace stores them, so that applying a SET is one
//! allocation and one copy.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Context, check_key, check_value};
use crate::wire::{DecodeError, Reader, put_length};
use crate::{ReplyError, ReplyValue};

pub(super) const OPCODE: u8 = 1;

pub(super) fn encode(key: &Bytes, value: &Bytes, out: &mut BytesMut) {
    out.put_u8(OPCODE);
    put_length(out, key.len());
    out.put_slice(key);
    out.put_slice(value);
}

#[derive(Debug, Clone)]
pub(crate) struct Set<'a> {
    /// The key and, directly after it, the value.
    record: &'a [u8],
    /// Invariant: at most the record's length.
    key_len: usize,
}

impl<'a> Set<'a> {
    pub(super) fn decode(mut body: Reader<'a>) -> Result<Set<'a>, DecodeError> {
        let key_len = body.length("set key")?;
        Ok(Set {
            record: body.rest(),
            key_len,
        })
    }

    pub(super) fn key(&self) -> &'a [u8] {
        &self.record[..self.key_len]
    }

    pub(super) fn value(&self) -> &'a [u8] {
        &self.record[self.key_len..]
    }

    pub(super) fn execute(&self, context: &mut Context<'_>) -> Result<ReplyValue, ReplyError> {
        check_key(self.key())?;
        check_value(self.value())?;
        context
            .keys
            .put(self.record, self.key_len, context.revision);
        Ok(ReplyValue::Ok)
    }
}
