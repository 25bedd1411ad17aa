//! EXPIRE, PERSIST, GETEX: they change deadlines.
//!
//! All arithmetic is from the entry's stamp, which is log time while it is applied, or from the previous
//! deadline. Invariant: no key ever gets a deadline that log time has reached; it is removed instead.

use super::{Context, ExpireIf, Expiry, del};
use crate::{ReplyError, ReplyValue};

/// The meaning of an [`Expiry`] for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It stays until the deadline, or for ever.
    Lives { deadline_ms: Option<u64> },
    /// Its deadline has passed.
    Gone,
}

/// The meaning of the expiry of a SET; `current` is the key's deadline before.
pub(super) fn fate(expiry: Expiry, now_ms: u64, current: Option<u64>) -> Result<Fate, ReplyError> {
    match expiry {
        Expiry::None => Ok(Fate::Lives { deadline_ms: None }),
        Expiry::Keep => Ok(Fate::Lives {
            deadline_ms: current,
        }),
        Expiry::In { ms: ..=0 } | Expiry::At { ms: ..=0 } => Err(ReplyError::InvalidExpireTime),
        Expiry::In { ms } => after(now_ms, ms).map(|at| fate_at(at, now_ms)),
        Expiry::At { ms } => Ok(fate_at(ms, now_ms)),
    }
}

fn after(moment_ms: u64, ms: i64) -> Result<i64, ReplyError> {
    let moment = i64::try_from(moment_ms).ok();
    let at = moment.and_then(|moment| moment.checked_add(ms));
    at.ok_or(ReplyError::InvalidExpireTime)
}

fn fate_at(at_ms: i64, now_ms: u64) -> Fate {
    match u64::try_from(at_ms) {
        Ok(at) if at > now_ms => Fate::Lives {
            deadline_ms: Some(at),
        },
        _ => Fate::Gone,
    }
}

/// EXPIRE and its kin.
pub(super) fn expire(
    context: &mut Context<'_>,
    key: &[u8],
    expiry: Expiry,
    condition: ExpireIf,
) -> Result<ReplyValue, ReplyError> {
    let now_ms = context.now_ms();
    let at = match expiry {
        Expiry::None => return Ok(persist(context, key)),
        Expiry::Keep => return Ok(ReplyValue::Integer(0)),
        Expiry::In { ms } => after(now_ms, ms)?,
        Expiry::At { ms } => ms,
    };
    let Some(old) = context.get(key) else {
        return Ok(ReplyValue::Integer(0));
    };
    if !holds(condition, old.deadline_ms, at) {
        return Ok(ReplyValue::Integer(0));
    }
    apply(context, key, fate_at(at, now_ms));
    Ok(ReplyValue::Integer(1))
}

fn holds(condition: ExpireIf, current: Option<u64>, at: i64) -> bool {
    let at = i128::from(at);
    let current = current.map(i128::from);
    match condition {
        ExpireIf::Always => true,
        ExpireIf::NoDeadline => current.is_none(),
        ExpireIf::HasDeadline => current.is_some(),
        ExpireIf::Later => current.is_some_and(|current| at > current),
        ExpireIf::Sooner => current.is_none_or(|current| at < current),
        ExpireIf::HasDeadlineSooner => current.is_some_and(|current| at < current),
    }
}

/// Moves an existing deadline.
pub(super) fn prolong(
    context: &mut Context<'_>,
    key: &[u8],
    by_ms: i64,
) -> Result<ReplyValue, ReplyError> {
    let Some(deadline_ms) = context.get(key).and_then(|old| old.deadline_ms) else {
        return Ok(ReplyValue::Integer(0));
    };
    let at = after(deadline_ms, by_ms)?;
    apply(context, key, fate_at(at, context.now_ms()));
    Ok(ReplyValue::Integer(1))
}

/// PERSIST.
pub(super) fn persist(context: &mut Context<'_>, key: &[u8]) -> ReplyValue {
    let has_deadline = context
        .get(key)
        .is_some_and(|old| old.deadline_ms.is_some());
    if has_deadline {
        context.set_deadline(key, None);
        context.note_generic("persist", key);
    }
    ReplyValue::Integer(has_deadline.into())
}

/// GETEX with an option.
pub(super) fn get(
    context: &mut Context<'_>,
    key: &[u8],
    expiry: Expiry,
) -> Result<ReplyValue, ReplyError> {
    let Some(old) = context.get(key) else {
        return Ok(ReplyValue::Nil);
    };
    let fate = fate(expiry, context.now_ms(), old.deadline_ms)?;
    let value = context.answer(old)?;
    match expiry {
        Expiry::Keep => {}
        Expiry::None => drop(persist(context, key)),
        Expiry::In { .. } | Expiry::At { .. } => apply(context, key, fate),
    }
    Ok(value)
}

fn apply(context: &mut Context<'_>, key: &[u8], fate: Fate) {
    match fate {
        Fate::Lives { deadline_ms } => {
            context.set_deadline(key, deadline_ms);
            context.note_generic("expire", key);
        }
        Fate::Gone => drop(del::del(context, key)),
    }
}
