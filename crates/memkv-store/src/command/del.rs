//! DEL and its kin: they remove keys.
//!
//! In the log a DEL is the number of keys, then each with its length in front. All of them are removed at
//! one revision: it is one operation.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Context, SetIf, check_key, key_count};
use crate::encoding::{DecodeError, Reader, put_length, put_prefixed};
use crate::{ReplyError, ReplyValue, Revision};

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
    count: usize,
}

impl<'a> Del<'a> {
    pub(super) fn decode(mut body: Reader<'a>) -> Result<Del<'a>, DecodeError> {
        let count = key_count(&mut body, "del keys")?;
        let keys = body.clone();
        for _ in 0..count {
            body.prefixed("del key")?;
        }
        body.finish("del")?;
        Ok(Del { keys, count })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut keys = self.keys.clone();
        std::iter::from_fn(move || keys.prefixed("del key").ok())
    }

    /// The number of keys that it names.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn execute(&self, context: &mut Context<'_>) -> Result<ReplyValue, ReplyError> {
        self.keys().try_for_each(check_key)?;
        Ok(all(context, self.keys()))
    }
}

/// Removes the keys. Takes a revision even if none of them existed.
pub(super) fn all<'k>(
    context: &mut Context<'_>,
    keys: impl Iterator<Item = &'k [u8]>,
) -> ReplyValue {
    let removed = keys.filter(|key| del(context, key)).count();
    context.changed = true;
    ReplyValue::Integer(i64::try_from(removed).unwrap_or(i64::MAX))
}

/// DELIFEQ and DELEX.
pub(super) fn conditional(context: &mut Context<'_>, key: &[u8], condition: &SetIf) -> ReplyValue {
    let value = context.get(key).map(|old| old.value);
    let removed = condition.holds(value) && del(context, key);
    ReplyValue::Integer(removed.into())
}

/// GETDEL.
pub(super) fn get(context: &mut Context<'_>, key: &[u8]) -> Result<ReplyValue, ReplyError> {
    let old = context.get(key).map(|old| context.answer(old));
    let old = old.transpose()?;
    del(context, key);
    Ok(old.unwrap_or(ReplyValue::Nil))
}

/// MEMKV.DELREV.
pub(super) fn at_revision(context: &mut Context<'_>, key: &[u8], expected: Revision) -> ReplyValue {
    let found = context.get(key).map(|old| old.mod_revision);
    let removed = found == Some(expected) && del(context, key);
    ReplyValue::Integer(removed.into())
}

/// Removes a key as DEL does; returns whether it existed.
pub(super) fn del(context: &mut Context<'_>, key: &[u8]) -> bool {
    let removed = context.remove(key);
    if removed {
        context.note_generic("del", key);
    }
    removed
}
