//! DEL: removes keys and counts those that existed.
//!
//! In the log: the number of keys, then each with its length in front. All of them go at one
//! revision: it is one operation.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Context, check_key};
use crate::wire::{DecodeError, Reader, put_length, put_prefixed};
use crate::{ReplyError, ReplyValue};

pub(super) const OPCODE: u8 = 2;

pub(super) fn encode(keys: &[Bytes], out: &mut BytesMut) {
    out.put_u8(OPCODE);
    put_length(out, keys.len());
    for key in keys {
        put_prefixed(out, key);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Del<'a> {
    /// Invariant: holds nothing but length-prefixed keys.
    keys: Reader<'a>,
}

impl<'a> Del<'a> {
    pub(super) fn decode(mut body: Reader<'a>) -> Result<Del<'a>, DecodeError> {
        let count = body.length("del keys")?;
        let keys = body.clone();
        for _ in 0..count {
            body.prefixed("del key")?;
        }
        body.finish("del")?;
        Ok(Del { keys })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut keys = self.keys.clone();
        std::iter::from_fn(move || keys.prefixed("del key").ok())
    }

    pub(super) fn execute(&self, context: &mut Context<'_>) -> Result<ReplyValue, ReplyError> {
        self.keys().try_for_each(check_key)?;
        let removed = self.keys().filter(|key| context.keys.remove(key)).count();
        Ok(ReplyValue::Integer(
            i64::try_from(removed).unwrap_or(i64::MAX),
        ))
    }
}
