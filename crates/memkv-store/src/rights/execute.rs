//! The commands that change the table of users. They take no revision of the keys.
//!
//! Each change goes into the hash of effects. Invariant: a command that fails has changed nothing.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::put_user;
use super::{UserSpec, UserTable};
use crate::effects::Effects;
use crate::encoding::{put_prefixed, put_varint};
use crate::{ReplyError, ReplyValue};

type Table = Option<Arc<UserTable>>;

fn integer(number: u64) -> ReplyValue {
    ReplyValue::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Makes or replaces a user: the new revision of the table, or nil.
pub(crate) fn set(
    table: &mut Table,
    effects: &mut Effects,
    name: &Bytes,
    expected: u64,
    user: &UserSpec,
    narrows: bool,
) -> Result<ReplyValue, ReplyError> {
    if !super::check_name(name) || !user.is_within_limits() {
        return Err(ReplyError::UserTooLarge);
    }
    let table = Arc::make_mut(table.as_mut().ok_or(ReplyError::NoUsers)?);
    let Some(user) = table.set(name, expected, user, narrows)? else {
        return Ok(ReplyValue::Nil);
    };
    let mut record = Vec::new();
    put_user(&mut record, &user);
    effects.users(&record);
    Ok(integer(table.revision()))
}

/// Removes users: their number.
pub(crate) fn delete(
    table: &mut Table,
    effects: &mut Effects,
    names: &[Bytes],
) -> Result<ReplyValue, ReplyError> {
    if !super::check_names(names) {
        return Err(ReplyError::UserTooLarge);
    }
    let table = Arc::make_mut(table.as_mut().ok_or(ReplyError::NoUsers)?);
    let removed = table.remove(names);
    let mut record = Vec::new();
    put_varint(&mut record, table.revision());
    names
        .iter()
        .for_each(|name| put_prefixed(&mut record, name));
    effects.users(&record);
    Ok(integer(removed as u64))
}

/// Makes the first table: 1, or 0 if there is one.
pub(crate) fn init(
    table: &mut Table,
    effects: &mut Effects,
    users: &[(Bytes, UserSpec)],
) -> Result<ReplyValue, ReplyError> {
    if table.is_some() {
        return Ok(integer(0));
    }
    let first = UserTable::first(users).ok_or(ReplyError::UserTooLarge)?;
    let mut record = Vec::new();
    first.users().for_each(|user| put_user(&mut record, user));
    effects.users(&record);
    *table = Some(Arc::new(first));
    Ok(integer(1))
}
