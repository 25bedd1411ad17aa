//! The encoding of users, in commands, in the first entry of a log and in snapshots.
//!
//! Invariant: nothing is read that a table could not hold.

use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::{MAX_RULES_BYTES, MAX_SECRETS, MAX_USERS, Secret, User, UserSpec, UserTable};
use super::{check_name, check_users};
use crate::encoding::{DecodeError, Reader, put_length, put_prefixed, put_varint};

type Own<'a> = &'a dyn Fn(&[u8]) -> Bytes;

fn invalid(what: &'static str) -> DecodeError {
    DecodeError::Invalid { what }
}

fn read_name(reader: &mut Reader<'_>, own: Own<'_>) -> Result<Bytes, DecodeError> {
    let what = "user name";
    let name = reader.prefixed(what)?;
    match check_name(name) {
        true => Ok(own(name)),
        false => Err(invalid(what)),
    }
}

fn read_rules(reader: &mut Reader<'_>, own: Own<'_>) -> Result<Bytes, DecodeError> {
    let what = "rules of a user";
    let rules = reader.prefixed(what)?;
    match rules.len() <= MAX_RULES_BYTES {
        true => Ok(own(rules)),
        false => Err(DecodeError::TooLong {
            what,
            bytes: rules.len(),
            limit: MAX_RULES_BYTES,
        }),
    }
}

/// A number of items of at least one byte each, no more than `most`.
fn read_count(
    reader: &mut Reader<'_>,
    most: usize,
    what: &'static str,
) -> Result<usize, DecodeError> {
    let count = reader.length(what)?;
    match count <= most {
        true => Ok(count),
        false => Err(invalid(what)),
    }
}

fn put_spec(out: &mut impl BufMut, user: &UserSpec) {
    out.put_u8(u8::from(user.enabled));
    out.put_u8(u8::from(user.nopass));
    put_length(out, user.secrets.len());
    user.secrets.iter().for_each(|secret| secret.write(out));
    put_prefixed(out, &user.rules);
}

fn read_spec(reader: &mut Reader<'_>, own: Own<'_>) -> Result<UserSpec, DecodeError> {
    let enabled = reader.bool("whether a user is enabled")?;
    let nopass = reader.bool("whether a user needs no secret")?;
    let count = read_count(reader, MAX_SECRETS, "number of secrets")?;
    let secrets = (0..count).map(|_| Secret::read(reader, own));
    let secrets = secrets.collect::<Result<_, _>>()?;
    Ok(UserSpec {
        enabled,
        nopass,
        secrets,
        rules: read_rules(reader, own)?,
    })
}

/// Appends the fields of the command that sets a user.
pub(crate) fn put_set_user(
    out: &mut impl BufMut,
    name: &Bytes,
    expected: u64,
    user: &UserSpec,
    narrows: bool,
) {
    put_prefixed(out, name);
    put_varint(out, expected);
    out.put_u8(u8::from(narrows));
    put_spec(out, user);
}

/// Reads what [`put_set_user`] has written.
pub(crate) fn read_set_user(
    reader: &mut Reader<'_>,
    own: Own<'_>,
) -> Result<(Bytes, u64, UserSpec, bool), DecodeError> {
    let name = read_name(reader, own)?;
    let expected = reader.varint("expected revision of a user")?;
    let narrows = reader.bool("whether rights are taken")?;
    Ok((name, expected, read_spec(reader, own)?, narrows))
}

/// Appends names.
pub(crate) fn put_names(out: &mut impl BufMut, names: &[Bytes]) {
    put_length(out, names.len());
    names.iter().for_each(|name| put_prefixed(out, name));
}

/// Reads names of users.
pub(crate) fn read_names(reader: &mut Reader<'_>, own: Own<'_>) -> Result<Vec<Bytes>, DecodeError> {
    let what = "number of users";
    let count = read_count(reader, MAX_USERS, what)?;
    (0..count).map(|_| read_name(reader, own)).collect()
}

/// Appends the users of a first table, or of none.
pub(crate) fn put_users(out: &mut impl BufMut, users: &[(Bytes, UserSpec)]) {
    put_length(out, users.len());
    for (name, user) in users {
        put_prefixed(out, name);
        put_spec(out, user);
    }
}

/// Reads the users of a first table; none are no table. They are copied, since only all of them together
/// show whether they are one.
pub(crate) fn read_users(reader: &mut Reader<'_>) -> Result<Vec<(Bytes, UserSpec)>, DecodeError> {
    let own = &Bytes::copy_from_slice;
    let what = "users of a first table";
    let count = read_count(reader, MAX_USERS, what)?;
    let users = (0..count).map(|_| Ok((read_name(reader, own)?, read_spec(reader, own)?)));
    let users = users.collect::<Result<Vec<_>, DecodeError>>()?;
    match users.is_empty() || check_users(&users) {
        true => Ok(users),
        false => Err(invalid(what)),
    }
}

/// Appends a user of a table.
pub(super) fn put_user(out: &mut impl BufMut, user: &User) {
    put_prefixed(out, &user.name);
    for number in [user.id, user.changed_at, user.narrowed_at] {
        put_varint(out, number);
    }
    put_spec(out, &user.spec());
    for (_, since) in &user.secrets {
        put_varint(out, *since);
    }
}

fn read_user(reader: &mut Reader<'_>, own: Own<'_>) -> Result<User, DecodeError> {
    let name = read_name(reader, own)?;
    let what = "revision of a user";
    let id = reader.varint(what)?;
    let changed_at = reader.varint(what)?;
    let narrowed_at = reader.varint(what)?;
    let spec = read_spec(reader, own)?;
    let secrets = spec.secrets.into_iter();
    let secrets = secrets.map(|secret| Ok((secret, reader.varint(what)?)));
    Ok(User {
        name,
        id,
        changed_at,
        narrowed_at,
        enabled: spec.enabled,
        nopass: spec.nopass,
        secrets: secrets.collect::<Result<_, DecodeError>>()?,
        rules: spec.rules,
    })
}

/// Appends the table of a snapshot.
pub(crate) fn put_table(out: &mut impl BufMut, table: Option<&UserTable>) {
    out.put_u8(u8::from(table.is_some()));
    if let Some(table) = table {
        put_varint(out, table.revision());
        put_length(out, table.users().len());
        table.users().for_each(|user| put_user(out, user));
    }
}

/// Reads the table of a snapshot.
pub(crate) fn read_table(reader: &mut Reader<'_>) -> Result<Option<Arc<UserTable>>, DecodeError> {
    if !reader.bool("whether a table of users follows")? {
        return Ok(None);
    }
    let what = "table of users";
    let revision = reader.varint(what)?;
    // It only rises by one with each change.
    if revision > u64::MAX >> 1 {
        return Err(invalid(what));
    }
    let count = read_count(reader, MAX_USERS, what)?;
    let users = (0..count).map(|_| read_user(reader, &Bytes::copy_from_slice));
    let users = users.collect::<Result<Vec<_>, _>>()?;
    let table = UserTable::restore(revision, users).ok_or(invalid(what))?;
    Ok(Some(Arc::new(table)))
}
