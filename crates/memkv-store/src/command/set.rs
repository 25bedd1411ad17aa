//! SET and its kin: they set values of keys.
//!
//! In the log a plain SET is the key's length, the key, and the value up to the end. Key and value
//! lie next to each other, which is also how the keyspace stores them, so that applying a SET is
//! one allocation and one copy.

use bytes::{BufMut, Bytes, BytesMut};

use super::expire::{Fate, fate};
use super::{Command, Context, Expiry, SetIf, check_key, check_value, key_count};
use crate::encoding::{DecodeError, Reader, put_length};
use crate::{ReplyError, ReplyValue, Revision};

pub(super) const OPCODE: u8 = 1;
/// Of MSET and MSETNX.
pub(super) const MANY_OPCODE: u8 = 4;

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
        context.put_record(&[self.record], self.key_len, None);
        context.note_string("set", self.key());
        Ok(ReplyValue::Ok)
    }
}

/// MSET and MSETNX where they lie in the log: whether none may exist, the number of pairs, then each
/// key and each value with its length in front.
#[derive(Debug, Clone)]
pub(crate) struct SetMany<'a> {
    if_none_exists: bool,
    count: usize,
    /// Invariant: holds nothing but so many pairs.
    pairs: Reader<'a>,
}

impl<'a> SetMany<'a> {
    pub(super) fn decode(mut body: Reader<'a>) -> Result<SetMany<'a>, DecodeError> {
        let if_none_exists = body.bool("whether none may exist")?;
        let count = key_count(&mut body, "number of pairs")?;
        let pairs = body.clone();
        for _ in 0..count {
            body.prefixed("key")?;
            body.prefixed("value")?;
        }
        body.finish("command")?;
        Ok(SetMany {
            if_none_exists,
            count,
            pairs,
        })
    }

    /// The number of pairs, and of their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.count, self.pairs.rest().len())
    }

    fn pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let mut pairs = self.pairs.clone();
        std::iter::from_fn(move || {
            let key = pairs.prefixed("key").ok()?;
            Some((key, pairs.prefixed("value").ok()?))
        })
    }

    pub(super) fn to_command(&self, own: &dyn Fn(&[u8]) -> Bytes) -> Command {
        let pairs = self.pairs();
        Command::SetMany {
            pairs: pairs.map(|(key, value)| (own(key), own(value))).collect(),
            if_none_exists: self.if_none_exists,
        }
    }

    pub(super) fn execute(&self, context: &mut Context<'_>) -> Result<ReplyValue, ReplyError> {
        for (key, value) in self.pairs() {
            check_key(key)?;
            check_value(value)?;
        }
        Ok(many(context, self.pairs(), self.if_none_exists))
    }
}

/// SET with options.
pub(super) fn with(
    context: &mut Context<'_>,
    key: &[u8],
    value: &[u8],
    condition: &SetIf,
    expiry: Expiry,
    get: bool,
) -> Result<ReplyValue, ReplyError> {
    let old = context.get(key);
    // Redis checks the time before it checks the condition.
    let fate = fate(
        expiry,
        context.now_ms(),
        old.and_then(|old| old.deadline_ms),
    )?;
    let holds = condition.holds(old.map(|old| old.value));
    let answer = match old {
        Some(old) if get => context.answer(old)?,
        None if !get && holds => ReplyValue::Ok,
        Some(_) if holds => ReplyValue::Ok,
        _ => ReplyValue::Nil,
    };
    if holds {
        set(context, key, value, expiry, fate);
    }
    Ok(answer)
}

/// MSET and MSETNX.
pub(super) fn many<'k>(
    context: &mut Context<'_>,
    pairs: impl Iterator<Item = (&'k [u8], &'k [u8])> + Clone,
    if_none_exists: bool,
) -> ReplyValue {
    if if_none_exists && pairs.clone().any(|(key, _)| context.get(key).is_some()) {
        return ReplyValue::Integer(0);
    }
    for (key, value) in pairs {
        one_of_many(context, key, value);
    }
    answer(if_none_exists)
}

/// Sets one key of MSET or MSETNX.
pub(super) fn one_of_many(context: &mut Context<'_>, key: &[u8], value: &[u8]) {
    context.put(&[key, value], None);
    context.note_string("set", key);
}

/// The answer of MSET or MSETNX after it has set its keys.
pub(super) fn answer(if_none_exists: bool) -> ReplyValue {
    match if_none_exists {
        true => ReplyValue::Integer(1),
        false => ReplyValue::Ok,
    }
}

/// MEMKV.CAS.
pub(super) fn compare_and_set(
    context: &mut Context<'_>,
    key: &[u8],
    expected: Revision,
    value: &[u8],
    expiry: Expiry,
) -> Result<ReplyValue, ReplyError> {
    let old = context.get(key);
    let fate = fate(
        expiry,
        context.now_ms(),
        old.and_then(|old| old.deadline_ms),
    )?;
    if old.map_or(0, |old| old.mod_revision) != expected {
        return Ok(ReplyValue::Nil);
    }
    set(context, key, value, expiry, fate);
    Ok(ReplyValue::Integer(context.revision.cast_signed()))
}

/// A key that is set past its deadline is never visible, but it was set: a guard that saw it absent
/// fails, and key events tell of the SET and of the expiry, as in Redis.
fn set(context: &mut Context<'_>, key: &[u8], value: &[u8], expiry: Expiry, fate: Fate) {
    match fate {
        Fate::Lives { deadline_ms } => context.put(&[key, value], deadline_ms),
        Fate::Gone => {
            context.put(&[key], None);
            context.remove(key);
        }
    }
    context.note_string("set", key);
    if matches!(expiry, Expiry::In { .. } | Expiry::At { .. }) {
        context.note_generic("expire", key);
    }
    if fate == Fate::Gone {
        context.note_expired(key);
    }
}
