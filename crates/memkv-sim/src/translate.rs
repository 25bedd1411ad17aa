//! The specification's commands as the store's types, and the store's answers as the specification's.
//! Never decides anything, and never translates back: commands in the log are recognized by their bytes.

use bytes::Bytes;
use memkv_check::space::{Answer, Command, Error, Expiry, Guard, Holds, If, Query, Step};
use memkv_store::{ReplyError, ReplyValue};

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn all(keys: &[String]) -> Vec<Bytes> {
    keys.iter().map(|key| bytes(key)).collect()
}

fn millis(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

fn expiry(expiry: Expiry) -> memkv_store::Expiry {
    match expiry {
        Expiry::None => memkv_store::Expiry::None,
        Expiry::Keep => memkv_store::Expiry::Keep,
        Expiry::In(ms) => memkv_store::Expiry::In { ms: millis(ms) },
    }
}

fn condition(condition: &If) -> memkv_store::SetIf {
    match condition {
        If::Always => memkv_store::SetIf::Always,
        If::Absent => memkv_store::SetIf::Absent,
        If::Present => memkv_store::SetIf::Present,
        If::Equal(value) => memkv_store::SetIf::Equal(bytes(value)),
    }
}

/// The store's command.
pub(crate) fn command(command: &Command) -> memkv_store::Command {
    match command {
        Command::Set {
            key,
            value,
            condition: If::Always,
            expiry: Expiry::None,
            get: false,
        } => memkv_store::Command::Set {
            key: bytes(key),
            value: bytes(value),
        },
        Command::Set {
            key,
            value,
            condition: only_if,
            expiry: deadline,
            get,
        } => memkv_store::Command::SetWith {
            key: bytes(key),
            value: bytes(value),
            condition: condition(only_if),
            expiry: expiry(*deadline),
            get: *get,
        },
        Command::SetMany {
            pairs,
            if_none_exists,
        } => memkv_store::Command::SetMany {
            pairs: pairs
                .iter()
                .map(|(key, value)| (bytes(key), bytes(value)))
                .collect(),
            if_none_exists: *if_none_exists,
        },
        Command::Del { keys } => memkv_store::Command::Del { keys: all(keys) },
        Command::GetDel { key } => memkv_store::Command::GetDel { key: bytes(key) },
        Command::GetEx { key, expiry: time } => memkv_store::Command::GetEx {
            key: bytes(key),
            expiry: expiry(*time),
        },
        Command::IncrBy { key, by } => memkv_store::Command::IncrBy {
            key: bytes(key),
            by: *by,
        },
        Command::Append { key, suffix } => memkv_store::Command::Append {
            key: bytes(key),
            suffix: bytes(suffix),
        },
        Command::Expire { key, ms } => memkv_store::Command::Expire {
            key: bytes(key),
            expiry: memkv_store::Expiry::In { ms: millis(*ms) },
            condition: memkv_store::ExpireIf::Always,
        },
        Command::Persist { key } => memkv_store::Command::Persist { key: bytes(key) },
        Command::Rename { from, to } => memkv_store::Command::Rename {
            from: bytes(from),
            to: bytes(to),
            if_absent: false,
        },
        Command::Copy { from, to } => copy(from, to),
        Command::SetCap { cap } => set_cap(*cap),
        Command::Transaction {
            guards,
            steps: operations,
            otherwise,
        } => memkv_store::Command::Transaction {
            guards: guards.iter().map(guard).collect(),
            operations: steps(operations),
            otherwise: steps(otherwise),
        },
    }
}

fn copy(from: &str, to: &str) -> memkv_store::Command {
    memkv_store::Command::Copy {
        from: bytes(from),
        to: bytes(to),
        to_database: 0,
        replace: true,
    }
}

fn set_cap(cap: u64) -> memkv_store::Command {
    memkv_store::Command::SetMemory {
        cap: Some(cap),
        policy: None,
    }
}

fn guard(guard: &Guard) -> memkv_store::Guard {
    use memkv_store::{Compare, Condition, Seen};
    memkv_store::Guard {
        database: 0,
        key: bytes(&guard.key),
        holds: match &guard.holds {
            Holds::WrittenAt(revision) => Condition::Unchanged(Seen::Present {
                mod_revision: *revision,
            }),
            Holds::AbsentSince(at) => Condition::Unchanged(Seen::Absent { at: *at }),
            Holds::Exists(exists) => Condition::Exists(*exists),
            Holds::Value(value) => Condition::Value(Compare::Equal, bytes(value)),
        },
    }
}

fn steps(steps: &[Step]) -> Vec<memkv_store::Step> {
    let step = |step: &Step| match step {
        Step::Write(write) => memkv_store::Step::Write(command(write)),
        Step::Read(read) => memkv_store::Step::Read(query(read)),
    };
    steps.iter().map(step).collect()
}

/// The store's query.
pub(crate) fn query(query: &Query) -> memkv_store::Query {
    match query {
        Query::Get { key } => memkv_store::Query::Get { key: bytes(key) },
        Query::GetMany { keys } => memkv_store::Query::GetMany { keys: all(keys) },
        Query::Exists { keys } => memkv_store::Query::Exists { keys: all(keys) },
        Query::Deadline { key } => memkv_store::Query::Ttl {
            key: bytes(key),
            seconds: false,
            absolute: true,
        },
        Query::TimeLeft { key } => memkv_store::Query::Ttl {
            key: bytes(key),
            seconds: false,
            absolute: false,
        },
    }
}

/// The store's answer. Padding behind a value is no part of it.
pub(crate) fn answer(value: &ReplyValue) -> Answer {
    match value {
        ReplyValue::Ok => Answer::Ok,
        ReplyValue::Nil => Answer::Nil,
        ReplyValue::Integer(number) => Answer::Number(*number),
        ReplyValue::Bulk(value) => Answer::Text(text(value)),
        ReplyValue::Array(items) => Answer::List(items.iter().map(answer).collect()),
        ReplyValue::Aborted => Answer::Aborted,
        ReplyValue::Error(error) => Answer::Error(match error {
            ReplyError::NotAnInteger => Error::NotAnInteger,
            ReplyError::Overflow => Error::Overflow,
            ReplyError::NoSuchKey => Error::NoSuchKey,
            ReplyError::OutOfMemory => Error::OutOfMemory,
            _ => Error::Other,
        }),
    }
}

/// A value without its padding.
pub(crate) fn text(value: &[u8]) -> String {
    let padding = value.iter().rev().take_while(|byte| **byte == b'.').count();
    String::from_utf8_lossy(&value[..value.len() - padding]).into_owned()
}
