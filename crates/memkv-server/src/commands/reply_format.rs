//! Writes the store's answers as the client reads them. Never changes an answer: a format only says
//! how it is written.

use std::sync::Arc;

use memkv_proto::ErrorCode;
use memkv_resp::{Output, Pattern, ReplyWriter, parse_integer};
use memkv_store::{ReplyError, ReplyValue};

use super::ErrorReply;
use crate::aside::steps_of;

/// Longest value that Redis keeps together with its header.
const EMBSTR_BYTES: usize = 44;

/// What the store keeps of a key beside its bytes and those of its value, about: a table's slot, a
/// header, and its slot in the ordered index.
const KEY_OVERHEAD_BYTES: usize = 96;

/// How an answer is written.
#[derive(Debug, Clone)]
pub(crate) enum ReplyFormat {
    /// As it is.
    Plain,
    /// Done or not: 1 or 0.
    Flag,
    /// Present or not: `string` or `none`.
    Type,
    /// An error if there is a value, nothing otherwise.
    FailIfPresent(ErrorReply),
    /// A number if there is a value, nothing otherwise.
    IfPresent(i64),
    /// How Redis would keep the value.
    Encoding,
    /// Estimated size of a key and its value.
    MemoryUsage { key_bytes: usize },
    /// A step of SCAN.
    Scan {
        pattern: Option<Arc<Pattern>>,
        is_other_type: bool,
    },
    /// All keys that match.
    Keys { pattern: Arc<Pattern> },
    /// Revisions and expiry.
    Meta,
    /// A page of keys in order.
    Range,
    /// A script's result, made from a transaction's answer.
    Script(fn(&ReplyValue) -> ReplyValue),
}

impl ReplyFormat {
    /// Steps to write an answer that names keys.
    pub(crate) fn steps(&self, value: &ReplyValue) -> usize {
        let (pattern, keys) = match (self, value) {
            (Self::Scan { pattern, .. }, ReplyValue::Array(parts)) => {
                (pattern.as_ref(), parts.last())
            }
            (Self::Keys { pattern }, ReplyValue::Array(parts)) => (Some(pattern), parts.first()),
            _ => return 0,
        };
        let Some(ReplyValue::Array(keys)) = keys else {
            return 0;
        };
        let of_key = |key: &ReplyValue| {
            let key = key_of(key);
            steps_of(1, key.len()) + pattern.map_or(0, |pattern| pattern.steps(key))
        };
        keys.iter().map(of_key).sum()
    }

    /// Writes the answer to the command called `name`; the caller writes `Err` as it is.
    pub(crate) fn write<B: Output + ?Sized>(
        &self,
        reply: &mut ReplyWriter<'_, B>,
        name: &str,
        value: &ReplyValue,
    ) -> Result<(), ErrorReply> {
        if let ReplyValue::Error(error) = value {
            return Err(ErrorReply::executed(*error, name));
        }
        let is_there = *value != ReplyValue::Nil;
        match (self, value) {
            (Self::Flag, _) => reply.integer(is_there.into()),
            (Self::Type, ReplyValue::Integer(0)) => reply.simple(b"none"),
            (Self::Type, _) => reply.simple(b"string"),
            (Self::FailIfPresent(failure), _) if is_there => return Err(failure.clone()),
            (Self::IfPresent(number), _) if is_there => reply.integer(*number),
            (Self::Encoding, ReplyValue::Bulk(bytes)) => reply.bulk(encoding(bytes)),
            (Self::MemoryUsage { key_bytes }, ReplyValue::Bulk(bytes)) => {
                let bytes = key_bytes + bytes.len() + KEY_OVERHEAD_BYTES;
                reply.integer(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            (Self::Scan { .. }, ReplyValue::Array(parts)) => return self.scan(reply, parts),
            (Self::Keys { pattern }, ReplyValue::Array(parts)) => {
                return all_keys(reply, pattern, parts);
            }
            (Self::Meta, ReplyValue::Array(parts)) => return meta(reply, parts),
            (Self::Range, ReplyValue::Array(parts)) => return range(reply, name, parts),
            // A script's answer does not tell which branch was taken.
            (Self::Script(result), ReplyValue::Array(values))
                if values.first() == Some(&ReplyValue::Aborted) =>
            {
                let answers = ReplyValue::Array(values[1..].to_vec());
                plain(reply, name, &result(&answers));
            }
            (Self::Script(result), _) => plain(reply, name, &result(value)),
            _ => plain(reply, name, value),
        }
        Ok(())
    }

    /// A step of SCAN: the next cursor, and the keys that are kept of it.
    fn scan<B: Output + ?Sized>(
        &self,
        reply: &mut ReplyWriter<'_, B>,
        parts: &[ReplyValue],
    ) -> Result<(), ErrorReply> {
        let (
            Self::Scan {
                pattern,
                is_other_type,
            },
            [ReplyValue::Integer(cursor), ReplyValue::Array(keys)],
        ) = (self, parts)
        else {
            return Err(ErrorReply::internal());
        };
        let keeps = |key: &&[u8]| {
            let matches = |pattern: &Arc<Pattern>| matches(pattern, key);
            !is_other_type && pattern.as_ref().is_none_or(matches)
        };
        reply.array(2);
        reply.bulk(cursor.cast_unsigned().to_string().as_bytes());
        write_keys(reply, keys, keeps);
        Ok(())
    }
}

fn all_keys<B: Output + ?Sized>(
    reply: &mut ReplyWriter<'_, B>,
    pattern: &Pattern,
    parts: &[ReplyValue],
) -> Result<(), ErrorReply> {
    let [ReplyValue::Array(keys), ReplyValue::Integer(more)] = parts else {
        return Err(ErrorReply::internal());
    };
    if *more != 0 {
        return Err(ErrorReply::new(
            "ERR there are too many keys for KEYS: use SCAN, or MEMKV.RANGE for a prefix",
        ));
    }
    write_keys(reply, keys, |key| matches(pattern, key));
    Ok(())
}

fn meta<B: Output + ?Sized>(
    reply: &mut ReplyWriter<'_, B>,
    parts: &[ReplyValue],
) -> Result<(), ErrorReply> {
    let [_, revisions @ ..] = parts else {
        return Err(ErrorReply::internal());
    };
    reply.map(revisions.len());
    let names = ["create_revision", "mod_revision", "expires_at_ms"];
    for (name, value) in names.iter().zip(revisions) {
        reply.bulk(name.as_bytes());
        plain(reply, name, value);
    }
    Ok(())
}

fn range<B: Output + ?Sized>(
    reply: &mut ReplyWriter<'_, B>,
    name: &str,
    parts: &[ReplyValue],
) -> Result<(), ErrorReply> {
    let [ReplyValue::Array(items), ReplyValue::Integer(more)] = parts else {
        return Err(ErrorReply::internal());
    };
    range_head(reply, items, *more != 0);
    reply.array(items.len());
    items.iter().for_each(|item| plain(reply, name, item));
    Ok(())
}

/// Writes what comes before the items of a page: where the next page begins, if there is one.
pub(crate) fn range_head<B: Output + ?Sized>(
    reply: &mut ReplyWriter<'_, B>,
    items: &[ReplyValue],
    more: bool,
) {
    reply.array(2);
    match items.last() {
        Some(last) if more => reply.bulk(key_of(last)),
        _ => reply.null(),
    }
}

/// Writes a value as it is, errors included.
fn plain<B: Output + ?Sized>(reply: &mut ReplyWriter<'_, B>, name: &str, value: &ReplyValue) {
    match value {
        ReplyValue::Ok => reply.ok(),
        ReplyValue::Nil => reply.null(),
        ReplyValue::Integer(number) => reply.integer(*number),
        ReplyValue::Bulk(bytes) => reply.bulk_shared(bytes),
        ReplyValue::Error(error) => reply.error(ErrorReply::executed(*error, name).as_bytes()),
        ReplyValue::Array(values) => {
            reply.array(values.len());
            values.iter().for_each(|value| plain(reply, name, value));
        }
        ReplyValue::Aborted => reply.null_array(),
    }
}

fn write_keys<B: Output + ?Sized>(
    reply: &mut ReplyWriter<'_, B>,
    keys: &[ReplyValue],
    keeps: impl Fn(&&[u8]) -> bool,
) {
    let kept: Vec<&[u8]> = keys.iter().map(key_of).filter(keeps).collect();
    reply.array(kept.len());
    kept.iter().for_each(|key| reply.bulk(key));
}

/// `*` is everything, the empty key too.
fn matches(pattern: &Pattern, key: &[u8]) -> bool {
    pattern.as_bytes() == "*" || pattern.matches(key)
}

/// The key of an item: the item itself, or its first part.
fn key_of(item: &ReplyValue) -> &[u8] {
    match item {
        ReplyValue::Bulk(key) => key,
        ReplyValue::Array(parts) => parts.first().map_or(&[], key_of),
        _ => &[],
    }
}

fn encoding(value: &[u8]) -> &'static [u8] {
    if parse_integer(value).is_some() {
        b"int"
    } else if value.len() <= EMBSTR_BYTES {
        b"embstr"
    } else {
        b"raw"
    }
}

impl ErrorReply {
    /// The text for a command that was executed and failed.
    pub(crate) fn executed(error: ReplyError, name: &str) -> Self {
        match error {
            ReplyError::NotAnInteger => Self::NOT_AN_INTEGER,
            ReplyError::NotAFloat => Self::NOT_A_FLOAT,
            ReplyError::Overflow => Self::new("ERR increment or decrement would overflow"),
            ReplyError::NanOrInfinity => Self::new("ERR increment would produce NaN or Infinity"),
            ReplyError::InvalidExpireTime => Self::invalid_expire(name),
            ReplyError::NoSuchKey => Self::new("ERR no such key"),
            ReplyError::OutOfMemory => Self::OUT_OF_MEMORY,
            ReplyError::StringTooLong => {
                Self::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
            }
            other => Self::of(crate::failure::reply_code(other), &other.to_string()),
        }
    }

    pub(super) fn invalid_expire(name: &str) -> Self {
        Self::with(format!("ERR invalid expire time in '{name}' command"))
    }

    /// An answer of a kind that the command cannot have.
    fn internal() -> Self {
        Self::of(
            ErrorCode::Internal,
            "the store answered something unexpected; please report this",
        )
    }
}
