//! APPEND, SETRANGE, RENAME, COPY: they make values out of values. A large value that is moved or copied as
//! a whole is shared.
//!
//! A changed key keeps its deadline; a moved or copied value takes its deadline along.

use super::Context;
use super::execute::Taken;
use crate::{MAX_VALUE_BYTES_CEILING, ReplyError, ReplyValue};

/// APPEND.
pub(super) fn append(
    context: &mut Context<'_>,
    key: &[u8],
    suffix: &[u8],
) -> Result<ReplyValue, ReplyError> {
    let Some(old) = context.get(key) else {
        context.check_room(suffix.len())?;
        context.put(&[key, suffix], None);
        context.note_string("append", key);
        return Ok(length(suffix.len()));
    };
    let len = old.value.len() + suffix.len();
    check_length(len as u64)?;
    context.check_room(suffix.len())?;
    let (deadline_ms, old) = (old.deadline_ms, old.to_bytes());
    context.put(&[key, &old, suffix], deadline_ms);
    context.note_string("append", key);
    Ok(length(len))
}

/// SETRANGE.
pub(super) fn set_range(
    context: &mut Context<'_>,
    key: &[u8],
    offset: u64,
    patch: &[u8],
) -> Result<ReplyValue, ReplyError> {
    let old = context.get(key);
    let deadline_ms = old.and_then(|old| old.deadline_ms);
    let value = old.map(|old| old.to_bytes()).unwrap_or_default();
    if patch.is_empty() {
        return Ok(length(value.len()));
    }
    let end = offset.saturating_add(patch.len() as u64);
    check_length(end)?;
    context.check_room((end as usize).saturating_sub(value.len()))?;
    // The end was checked, so all of these are lengths of values.
    let offset = offset as usize;
    let head = &value[..offset.min(value.len())];
    let gap = vec![0; offset - head.len()];
    let tail = value.get(offset + patch.len()..).unwrap_or_default();
    context.put(&[key, head, &gap, patch, tail], deadline_ms);
    context.note_string("setrange", key);
    Ok(length(offset + patch.len() + tail.len()))
}

/// RENAME and RENAMENX.
pub(super) fn rename(
    context: &mut Context<'_>,
    from: &[u8],
    to: &[u8],
    if_absent: bool,
) -> Result<ReplyValue, ReplyError> {
    let old = context.get(from).ok_or(ReplyError::NoSuchKey)?;
    let old = Taken::of(&old);
    let is_taken = context.get(to).is_some();
    let refused = if_absent && is_taken;
    if from != to && !refused {
        context.remove(from);
        context.put_taken(to, &old);
        if is_taken {
            context.note_new(to);
        }
        context.note_generic("rename_from", from);
        context.note_generic("rename_to", to);
    }
    Ok(match if_absent {
        true => ReplyValue::Integer((!refused).into()),
        false => ReplyValue::Ok,
    })
}

/// COPY, from the context's database.
pub(super) fn copy(
    context: &mut Context<'_>,
    from: &[u8],
    to: &[u8],
    to_database: u8,
    replace: bool,
) -> Result<ReplyValue, ReplyError> {
    let Some(old) = context.get(from) else {
        return Ok(ReplyValue::Integer(0));
    };
    let len = old.value.len();
    let old = Taken::of(&old);
    let is_itself = from == to && context.database == to_database;
    context.database = to_database;
    let is_taken = context.get(to).is_some();
    let copied = !is_itself && (replace || !is_taken);
    if copied {
        context.check_room(len)?;
        context.put_taken(to, &old);
        if is_taken {
            context.note_new(to);
        }
        context.note_generic("copy_to", to);
    }
    Ok(ReplyValue::Integer(copied.into()))
}

fn check_length(len: u64) -> Result<(), ReplyError> {
    if len > MAX_VALUE_BYTES_CEILING as u64 {
        Err(ReplyError::StringTooLong)
    } else {
        Ok(())
    }
}

fn length(len: usize) -> ReplyValue {
    ReplyValue::Integer(i64::try_from(len).unwrap_or(i64::MAX))
}
