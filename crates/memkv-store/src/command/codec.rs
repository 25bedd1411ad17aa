//! The encoding of every command but NOOP, SET, MSET and DEL: its opcode, then its fields in order.
//!
//! It executes nothing. Invariants: an opcode is never reused for another meaning; `read` reads all bytes
//! that it accepts; [`Within`] bounds how deep commands are nested.

use bytes::{BufMut, Bytes, BytesMut};

use super::set::MANY_OPCODE;
use super::{Command, ExpireIf, Expiry, Guard, SetIf, Step, check_count};
use crate::encoding::{
    DecodeError, Reader, put_length, put_prefixed, put_varint, unzigzag, zigzag,
};
use crate::{DATABASES, EvictionPolicy, KeyEventClasses, rights};

const SET_WITH: u8 = 3;
const DEL_IF: u8 = 5;
const GET_DEL: u8 = 6;
const GET_EX: u8 = 7;
const INCR_BY: u8 = 8;
const INCR_BY_FLOAT: u8 = 9;
const APPEND: u8 = 10;
const SET_RANGE: u8 = 11;
const EXPIRE: u8 = 12;
const PERSIST: u8 = 13;
const RENAME: u8 = 14;
const COPY: u8 = 15;
const FLUSH_ALL: u8 = 16;
const FLUSH_DATABASE: u8 = 17;
const COMPARE_AND_SET: u8 = 18;
const DEL_REVISION: u8 = 19;
const TICK: u8 = 20;
const TRANSACTION: u8 = 21;
pub(super) const IN_DATABASE: u8 = 22;
const PROLONG: u8 = 23;
const ANNOUNCE: u8 = 24;
const SET_MEMORY: u8 = 25;
pub(super) const SET_USER: u8 = 32;
const DEL_USERS: u8 = 33;
pub(super) const INIT_USERS: u8 = 34;
#[cfg(memkv_bugs)]
const OF_NEXT_LEVEL: u8 = 0xe0;

/// The context of a command, which limits its kind: a transaction is at the top only, and a database
/// wraps a plain command only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    Nothing,
    Transaction,
    Database,
}

/// Appends a command that has an opcode in this file.
pub(super) fn encode(command: &Command, out: &mut BytesMut) {
    match command {
        Command::SetWith {
            key,
            value,
            condition,
            expiry,
            get,
        } => {
            out.put_u8(SET_WITH);
            put_prefixed(out, key);
            put_prefixed(out, value);
            condition.write(out);
            expiry.write(out);
            out.put_u8(u8::from(*get));
        }
        Command::SetMany {
            pairs,
            if_none_exists,
        } => {
            out.put_u8(MANY_OPCODE);
            out.put_u8(u8::from(*if_none_exists));
            put_length(out, pairs.len());
            for (key, value) in pairs {
                put_prefixed(out, key);
                put_prefixed(out, value);
            }
        }
        Command::DelIf { key, condition } => {
            put_key(out, DEL_IF, key);
            condition.write(out);
        }
        Command::GetDel { key } => put_key(out, GET_DEL, key),
        Command::GetEx { key, expiry } => {
            put_key(out, GET_EX, key);
            expiry.write(out);
        }
        Command::IncrBy { key, by } => {
            put_key(out, INCR_BY, key);
            put_varint(out, zigzag(*by));
        }
        Command::IncrByFloat { key, by } => {
            put_key(out, INCR_BY_FLOAT, key);
            put_prefixed(out, by);
        }
        Command::Append { key, suffix } => {
            put_key(out, APPEND, key);
            put_prefixed(out, suffix);
        }
        Command::SetRange { key, offset, patch } => {
            put_key(out, SET_RANGE, key);
            put_varint(out, *offset);
            put_prefixed(out, patch);
        }
        Command::Expire {
            key,
            expiry,
            condition,
        } => {
            put_key(out, EXPIRE, key);
            expiry.write(out);
            condition.write(out);
        }
        Command::Prolong { key, by_ms } => {
            put_key(out, PROLONG, key);
            put_varint(out, zigzag(*by_ms));
        }
        Command::Persist { key } => put_key(out, PERSIST, key),
        Command::Rename {
            from,
            to,
            if_absent,
        } => {
            put_key(out, RENAME, from);
            put_prefixed(out, to);
            out.put_u8(u8::from(*if_absent));
        }
        Command::Copy {
            from,
            to,
            to_database,
            replace,
        } => {
            put_key(out, COPY, from);
            put_prefixed(out, to);
            out.put_u8(*to_database);
            out.put_u8(u8::from(*replace));
        }
        Command::FlushAll => out.put_u8(FLUSH_ALL),
        Command::FlushDatabase => out.put_u8(FLUSH_DATABASE),
        Command::CompareAndSet {
            key,
            revision,
            value,
            expiry,
        } => {
            put_key(out, COMPARE_AND_SET, key);
            put_varint(out, *revision);
            put_prefixed(out, value);
            expiry.write(out);
        }
        Command::DelRevision { key, revision } => {
            put_key(out, DEL_REVISION, key);
            put_varint(out, *revision);
        }
        Command::Announce { .. } | Command::SetMemory { .. } => put_setting(command, out),
        Command::SetUser { .. } | Command::DelUsers { .. } | Command::InitUsers { .. } => {
            put_users(command, out);
        }
        Command::Tick => out.put_u8(TICK),
        #[cfg(memkv_bugs)]
        Command::OfNextLevel => out.put_u8(OF_NEXT_LEVEL),
        Command::Transaction {
            guards,
            operations,
            otherwise,
        } => put_transaction(guards, [operations, otherwise], out),
        Command::InDatabase { database, command } => {
            out.put_u8(IN_DATABASE);
            out.put_u8(*database);
            command.encode_into(out);
        }
        Command::Noop | Command::Set { .. } | Command::Del { .. } => command.encode_into(out),
    }
}

/// Reads the fields behind `opcode`, up to the end. `own` makes the kept form of keys and values: copied,
/// or shared with the input.
pub(super) fn read(
    opcode: u8,
    mut reader: Reader<'_>,
    within: Within,
    own: &dyn Fn(&[u8]) -> Bytes,
) -> Result<Command, DecodeError> {
    let body = &mut reader;
    let command = match opcode {
        SET_WITH => Command::SetWith {
            key: own(body.prefixed("key")?),
            value: own(body.prefixed("value")?),
            condition: SetIf::read(body, own)?,
            expiry: Expiry::read(body)?,
            get: body.bool("whether to get")?,
        },
        DEL_IF => Command::DelIf {
            key: own(body.prefixed("key")?),
            condition: SetIf::read(body, own)?,
        },
        GET_DEL => Command::GetDel {
            key: own(body.prefixed("key")?),
        },
        GET_EX => Command::GetEx {
            key: own(body.prefixed("key")?),
            expiry: Expiry::read(body)?,
        },
        INCR_BY => Command::IncrBy {
            key: own(body.prefixed("key")?),
            by: unzigzag(body.varint("increment")?),
        },
        INCR_BY_FLOAT => Command::IncrByFloat {
            key: own(body.prefixed("key")?),
            by: own(body.prefixed("increment")?),
        },
        APPEND => Command::Append {
            key: own(body.prefixed("key")?),
            suffix: own(body.prefixed("suffix")?),
        },
        SET_RANGE => Command::SetRange {
            key: own(body.prefixed("key")?),
            offset: body.varint("offset")?,
            patch: own(body.prefixed("patch")?),
        },
        EXPIRE => Command::Expire {
            key: own(body.prefixed("key")?),
            expiry: Expiry::read(body)?,
            condition: ExpireIf::read(body)?,
        },
        PROLONG => Command::Prolong {
            key: own(body.prefixed("key")?),
            by_ms: unzigzag(body.varint("time")?),
        },
        PERSIST => Command::Persist {
            key: own(body.prefixed("key")?),
        },
        RENAME => Command::Rename {
            from: own(body.prefixed("key")?),
            to: own(body.prefixed("new key")?),
            if_absent: body.bool("whether the new key must be absent")?,
        },
        COPY => Command::Copy {
            from: own(body.prefixed("key")?),
            to: own(body.prefixed("new key")?),
            to_database: read_database(body)?,
            replace: body.bool("whether to replace")?,
        },
        FLUSH_ALL => Command::FlushAll,
        FLUSH_DATABASE => Command::FlushDatabase,
        COMPARE_AND_SET => Command::CompareAndSet {
            key: own(body.prefixed("key")?),
            revision: body.varint("revision")?,
            value: own(body.prefixed("value")?),
            expiry: Expiry::read(body)?,
        },
        DEL_REVISION => Command::DelRevision {
            key: own(body.prefixed("key")?),
            revision: body.varint("revision")?,
        },
        ANNOUNCE | SET_MEMORY => read_setting(opcode, body)?,
        TICK => Command::Tick,
        #[cfg(memkv_bugs)]
        OF_NEXT_LEVEL => Command::OfNextLevel,
        SET_USER | DEL_USERS | INIT_USERS if within == Within::Nothing => {
            read_users(opcode, body, own)?
        }
        TRANSACTION if within == Within::Nothing => read_transaction(body, own)?,
        IN_DATABASE if within != Within::Database => {
            let database = read_database(body)?;
            let inner = body.take(body.rest().len(), "command")?;
            Command::InDatabase {
                database,
                command: Box::new(Command::read(inner, Within::Database, own)?),
            }
        }
        tag => {
            return Err(DecodeError::UnknownTag {
                what: "command",
                tag,
            });
        }
    };
    reader.finish("command")?;
    Ok(command)
}

/// Appends a command that sets something for the whole cluster.
fn put_setting(command: &Command, out: &mut BytesMut) {
    match command {
        Command::Announce { classes } => {
            out.put_u8(ANNOUNCE);
            out.put_u16_le(classes.bits());
        }
        Command::SetMemory { cap, policy } => {
            out.put_u8(SET_MEMORY);
            out.put_u8(u8::from(cap.is_some()));
            cap.iter().for_each(|cap| put_varint(out, *cap));
            out.put_u8(u8::from(policy.is_some()));
            policy.iter().for_each(|policy| out.put_u8(*policy as u8));
        }
        _ => {}
    }
}

/// Reads the fields of such a command.
fn read_setting(opcode: u8, body: &mut Reader<'_>) -> Result<Command, DecodeError> {
    if opcode == ANNOUNCE {
        let bits = u16::from_le_bytes(body.array("events")?);
        let classes = KeyEventClasses::from_bits(bits);
        let classes = classes.ok_or(DecodeError::Invalid { what: "events" })?;
        return Ok(Command::Announce { classes });
    }
    let cap = body.bool("whether a memory cap follows")?;
    let cap = cap.then(|| body.varint("memory cap")).transpose()?;
    let policy = body.bool("whether a policy follows")?;
    let policy = policy.then(|| EvictionPolicy::read(body)).transpose()?;
    Ok(Command::SetMemory { cap, policy })
}

fn put_users(command: &Command, out: &mut BytesMut) {
    match command {
        Command::SetUser {
            name,
            expected,
            user,
            narrows,
        } => {
            out.put_u8(SET_USER);
            rights::put_set_user(out, name, *expected, user, *narrows);
        }
        Command::DelUsers { names } => {
            out.put_u8(DEL_USERS);
            rights::put_names(out, names);
        }
        Command::InitUsers { users } => {
            out.put_u8(INIT_USERS);
            rights::put_users(out, users);
        }
        // No other command comes here.
        _ => {}
    }
}

fn read_users(
    opcode: u8,
    body: &mut Reader<'_>,
    own: &dyn Fn(&[u8]) -> Bytes,
) -> Result<Command, DecodeError> {
    Ok(match opcode {
        SET_USER => {
            let (name, expected, user, narrows) = rights::read_set_user(body, own)?;
            Command::SetUser {
                name,
                expected,
                user,
                narrows,
            }
        }
        DEL_USERS => Command::DelUsers {
            names: rights::read_names(body, own)?,
        },
        _ => Command::InitUsers {
            users: rights::read_users(body)?,
        },
    })
}

fn put_transaction(guards: &[Guard], branches: [&Vec<Step>; 2], out: &mut BytesMut) {
    out.put_u8(TRANSACTION);
    put_length(out, guards.len());
    guards.iter().for_each(|guard| guard.write(out));
    for steps in branches {
        put_length(out, steps.len());
        steps.iter().for_each(|step| step.write(out));
    }
}

fn read_transaction(
    body: &mut Reader<'_>,
    own: &dyn Fn(&[u8]) -> Bytes,
) -> Result<Command, DecodeError> {
    let transaction = Command::Transaction {
        guards: Guard::read_all(body, own)?,
        operations: Step::read_all(body, own)?,
        otherwise: Step::read_all(body, own)?,
    };
    let what = "number of a transaction's keys";
    let checked = transaction.check_key_count();
    checked.map_err(|_| DecodeError::Invalid { what })?;
    Ok(transaction)
}

/// How many keys, or pairs, of at least one byte each follow: no more than a command may name.
pub(crate) fn key_count(reader: &mut Reader<'_>, what: &'static str) -> Result<usize, DecodeError> {
    let count = reader.length(what)?;
    check_count(count).map_err(|_| DecodeError::Invalid { what })?;
    Ok(count)
}

pub(crate) fn read_database(reader: &mut Reader<'_>) -> Result<u8, DecodeError> {
    let database = reader.u8("database")?;
    if database < DATABASES {
        Ok(database)
    } else {
        Err(DecodeError::Invalid { what: "database" })
    }
}

fn put_key(out: &mut BytesMut, opcode: u8, key: &Bytes) {
    out.put_u8(opcode);
    put_prefixed(out, key);
}
