//! Replies: the answers of executed writes, compact enough to be cached for every unacknowledged command of
//! every session.
//!
//! They never carry text for people: the interfaces have the wording. Invariant: a reply encodes
//! to the same bytes on every node, because cached replies are part of the replicated state.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::encoding::{
    DecodeError, Reader, put_length, put_prefixed, put_varint, unzigzag, zigzag,
};
use crate::{
    MAX_COMMAND_KEYS, MAX_COPIED_BYTES, MAX_KEY_BYTES, MAX_RULES_BYTES, MAX_SECRETS,
    MAX_TRANSACTION_STEPS, MAX_USER_NAME_BYTES, MAX_USER_TABLE_BYTES, MAX_USERS,
    MAX_VALUE_BYTES_CEILING, MAX_WRITE_REPLY_BYTES, Revision,
};

/// The reply of one executed write command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The revision that the write made; for a command that wrote nothing, the store's revision
    /// when it was executed.
    pub revision: Revision,
    /// The answer.
    pub value: ReplyValue,
}

/// The kinds of answers, as in the Redis protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyValue {
    /// Done.
    Ok,
    /// No value.
    Nil,
    /// A count or a number.
    Integer(i64),
    /// A value.
    Bulk(Bytes),
    /// Several answers, of several kinds.
    Array(Vec<ReplyValue>),
    /// A guard of the transaction did not hold: nothing was executed.
    Aborted,
    /// The command was executed and failed; it changed nothing.
    Error(ReplyError),
}

/// Why an executed command failed. It changed nothing and took no revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// A key is longer than [`MAX_KEY_BYTES`].
    #[error("a key is longer than {MAX_KEY_BYTES} bytes; use a shorter key")]
    KeyTooLong,
    /// A value is longer than [`MAX_VALUE_BYTES_CEILING`].
    #[error("a value is longer than {MAX_VALUE_BYTES_CEILING} bytes; split it over several keys")]
    ValueTooLong,
    /// APPEND or SETRANGE would make a value longer than [`MAX_VALUE_BYTES_CEILING`].
    #[error("the value would exceed {MAX_VALUE_BYTES_CEILING} bytes; split it over several keys")]
    StringTooLong,
    /// The value is not a decimal 64-bit integer.
    #[error("the value is not a 64-bit decimal integer; set it to one first")]
    NotAnInteger,
    /// The sum does not fit 64 bits.
    #[error("the increment would overflow 64 bits; use a smaller one")]
    Overflow,
    /// The value or the increment is not a number.
    #[error("the value or the increment is not a number; set it to one first")]
    NotAFloat,
    /// The sum is infinite or not a number.
    #[error("the increment would produce NaN or Infinity; use a smaller one")]
    NanOrInfinity,
    /// A deadline is not above 0, or beyond what 64 bits hold.
    #[error("the expire time is not valid; it must be above 0 and fit 64 bits in milliseconds")]
    InvalidExpireTime,
    /// The key to rename is absent.
    #[error("there is no such key; only a key that exists can be renamed")]
    NoSuchKey,
    /// The answer of a write, or of a transaction with its reads, would be longer than
    /// [`MAX_WRITE_REPLY_BYTES`]: a transaction of which this was known before was not executed.
    /// Also the answer of reads outside the log, whose limit is that of their interface.
    #[error(
        "the answer would be too long (a write or a transaction answers at most \
         {MAX_WRITE_REPLY_BYTES} bytes); read less at a time"
    )]
    ReplyTooLong,
    /// A transaction has too many guards or steps, or is nested in another; answered before proposing
    /// only.
    #[error("a transaction has over {MAX_TRANSACTION_STEPS} guards or steps, or lies in another")]
    TransactionTooLong,
    /// A transaction's APPEND and SETRANGE would write values anew of more than
    /// [`MAX_COPIED_BYTES`] together; nothing of it was executed.
    #[error(
        "the transaction would copy more than {MAX_COPIED_BYTES} bytes of values; split it into \
         several"
    )]
    TooMuchCopied,
    /// A command names more than [`MAX_COMMAND_KEYS`](crate::MAX_COMMAND_KEYS) keys; answered before
    /// proposing only.
    #[error("a command takes at most {MAX_COMMAND_KEYS} keys; send several")]
    TooManyKeys,
    /// The keys cost as much as they may: a command that may grow was refused whole. Within a transaction
    /// also an APPEND, SETRANGE or COPY that would go too far beyond the cap. Needs feature level 2.
    #[error("the keys take as much memory as they may; delete some, or raise max_memory")]
    OutOfMemory,
    /// The cluster has no table of users yet.
    #[error("the cluster has no users yet; initialise them first")]
    NoUsers,
    /// The table of users would exceed [`MAX_USERS`](crate::MAX_USERS) or
    /// [`MAX_USER_TABLE_BYTES`](crate::MAX_USER_TABLE_BYTES).
    #[error(
        "the users would be more than {MAX_USERS}, or more than {MAX_USER_TABLE_BYTES} bytes with \
         their rules; remove some first"
    )]
    TooManyUsers,
    /// A name, the rules or the secrets of a user are beyond their limits.
    #[error(
        "a user has a name of 1 to {MAX_USER_NAME_BYTES} bytes, at most {MAX_SECRETS} secrets and at \
         most {MAX_RULES_BYTES} bytes of rules; use less"
    )]
    UserTooLarge,
}

const OK: u8 = 0;
const NIL: u8 = 1;
const INTEGER: u8 = 2;
const BULK: u8 = 3;
const ERROR: u8 = 4;
const ARRAY: u8 = 5;
const ABORTED: u8 = 6;

/// The deepest nesting of arrays: a transaction, a range, its items, an item.
const MAX_DEPTH: usize = 4;

/// The assumed cost of an array's element besides its value, in bytes. Fixed rather than measured, because
/// evictions from a session's cache must not depend on the build.
pub(crate) const ELEMENT_OVERHEAD_BYTES: usize = 40;

/// Every error, at the place of its code in the log less one.
const ERRORS: [ReplyError; 17] = [
    ReplyError::KeyTooLong,
    ReplyError::ValueTooLong,
    ReplyError::StringTooLong,
    ReplyError::NotAnInteger,
    ReplyError::Overflow,
    ReplyError::NotAFloat,
    ReplyError::NanOrInfinity,
    ReplyError::InvalidExpireTime,
    ReplyError::NoSuchKey,
    ReplyError::ReplyTooLong,
    ReplyError::TransactionTooLong,
    ReplyError::TooMuchCopied,
    ReplyError::TooManyKeys,
    ReplyError::OutOfMemory,
    ReplyError::NoUsers,
    ReplyError::TooManyUsers,
    ReplyError::UserTooLarge,
];

impl ReplyError {
    /// Its code in the log.
    pub(crate) fn code(self) -> usize {
        let index = ERRORS.iter().position(|error| *error == self);
        index.map_or(0, |index| index + 1)
    }

    fn write(self, out: &mut impl BufMut) {
        put_length(out, self.code());
    }

    fn read(reader: &mut Reader<'_>) -> Result<ReplyError, DecodeError> {
        let what = "reply error";
        let tag = reader.u8(what)?;
        let error = usize::from(tag)
            .checked_sub(1)
            .and_then(|at| ERRORS.get(at));
        error.copied().ok_or(DecodeError::UnknownTag { what, tag })
    }
}

impl Reply {
    /// Appends the encoding to `out`.
    pub fn encode_into(&self, out: &mut BytesMut) {
        self.write(out);
    }

    /// Reads one reply off the front of `input`; a bulk value shares `input`'s memory.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are no reply; `input` is then unchanged.
    pub fn decode(input: &mut Bytes) -> Result<Reply, DecodeError> {
        let mut reader = Reader::new(input);
        let reply = Reply::read(&mut reader, |bulk| input.slice_ref(bulk))?;
        let used = input.len() - reader.rest().len();
        input.advance(used);
        Ok(reply)
    }

    /// Appends the encoding to any buffer.
    pub(crate) fn write(&self, out: &mut impl BufMut) {
        put_varint(out, self.revision);
        self.value.write(out);
    }

    /// Reads one reply; `own` makes the kept form of a bulk value: copied, or shared with the input.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        own: impl Fn(&[u8]) -> Bytes,
    ) -> Result<Reply, DecodeError> {
        Ok(Reply {
            revision: reader.varint("reply revision")?,
            value: ReplyValue::read(reader, &own, MAX_DEPTH)?,
        })
    }

    /// Bytes of values and elements that this reply keeps in memory besides itself.
    pub(crate) fn bulk_len(&self) -> usize {
        self.value.bulk_len()
    }
}

impl ReplyValue {
    fn write(&self, out: &mut impl BufMut) {
        match self {
            ReplyValue::Ok => out.put_u8(OK),
            ReplyValue::Nil => out.put_u8(NIL),
            ReplyValue::Integer(number) => {
                out.put_u8(INTEGER);
                put_varint(out, zigzag(*number));
            }
            ReplyValue::Bulk(value) => {
                out.put_u8(BULK);
                put_prefixed(out, value);
            }
            ReplyValue::Error(error) => {
                out.put_u8(ERROR);
                error.write(out);
            }
            ReplyValue::Array(items) => {
                out.put_u8(ARRAY);
                put_length(out, items.len());
                items.iter().for_each(|item| item.write(out));
            }
            ReplyValue::Aborted => out.put_u8(ABORTED),
        }
    }

    fn read(
        reader: &mut Reader<'_>,
        own: &impl Fn(&[u8]) -> Bytes,
        depth: usize,
    ) -> Result<ReplyValue, DecodeError> {
        let what = "reply kind";
        Ok(match reader.u8(what)? {
            OK => ReplyValue::Ok,
            NIL => ReplyValue::Nil,
            INTEGER => ReplyValue::Integer(unzigzag(reader.varint("reply integer")?)),
            BULK => ReplyValue::Bulk(own(reader.prefixed("reply value")?)),
            ERROR => ReplyValue::Error(ReplyError::read(reader)?),
            ARRAY if depth > 0 => {
                let count = reader.length("reply array")?;
                let items = (0..count).map(|_| ReplyValue::read(reader, own, depth - 1));
                ReplyValue::Array(items.collect::<Result<_, _>>()?)
            }
            ABORTED => ReplyValue::Aborted,
            tag => return Err(DecodeError::UnknownTag { what, tag }),
        })
    }

    /// Bytes of values and elements in it.
    pub(crate) fn bulk_len(&self) -> usize {
        match self {
            ReplyValue::Bulk(value) => value.len(),
            ReplyValue::Array(items) => items
                .iter()
                .map(|item| ELEMENT_OVERHEAD_BYTES + item.bulk_len())
                .sum(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Reply> {
        let values = [
            ReplyValue::Ok,
            ReplyValue::Nil,
            ReplyValue::Integer(0),
            ReplyValue::Integer(-1),
            ReplyValue::Integer(i64::MAX),
            ReplyValue::Integer(i64::MIN),
            ReplyValue::Bulk(Bytes::new()),
            ReplyValue::Bulk(Bytes::from_static(b"\0\r\nvalue")),
            ReplyValue::Aborted,
            ReplyValue::Array(vec![]),
            ReplyValue::Array(vec![
                ReplyValue::Array(vec![ReplyValue::Nil, ReplyValue::Integer(5)]),
                ReplyValue::Bulk(Bytes::from_static(b"x")),
            ]),
        ];
        let values = values
            .into_iter()
            .chain(ERRORS.map(ReplyValue::Error))
            .collect::<Vec<_>>();
        let revisions = [0, 1, 127, 128, u64::MAX];
        let pairs = values
            .iter()
            .flat_map(|value| revisions.map(|revision| (revision, value)));
        pairs
            .map(|(revision, value)| Reply {
                revision,
                value: value.clone(),
            })
            .collect()
    }

    #[test]
    fn replies_round_trip_one_after_another() {
        let mut out = BytesMut::new();
        for reply in samples() {
            reply.encode_into(&mut out);
        }
        let mut input = out.freeze();
        for reply in samples() {
            assert_eq!(Reply::decode(&mut input), Ok(reply));
        }
        assert!(input.is_empty());
    }

    #[test]
    fn a_cut_reply_is_an_error_and_consumes_nothing() {
        for reply in samples() {
            let mut out = BytesMut::new();
            reply.encode_into(&mut out);
            let whole = out.freeze();
            for len in 0..whole.len() {
                let mut cut = whole.slice(..len);
                assert!(Reply::decode(&mut cut).is_err());
                assert_eq!(cut.len(), len);
            }
        }
    }

    #[test]
    fn the_codes_of_errors_are_pinned() {
        let code = |error| {
            let mut out = Vec::new();
            ReplyValue::Error(error).write(&mut out);
            out
        };
        assert_eq!(code(ReplyError::KeyTooLong), [ERROR, 1]);
        assert_eq!(code(ReplyError::ValueTooLong), [ERROR, 2]);
        assert_eq!(code(ReplyError::TransactionTooLong), [ERROR, 11]);
        assert_eq!(code(ReplyError::TooManyKeys), [ERROR, 13]);
        assert_eq!(code(ReplyError::OutOfMemory), [ERROR, 14]);
        assert_eq!(code(ReplyError::UserTooLarge), [ERROR, 17]);
    }

    #[test]
    fn nesting_of_arrays_is_bounded() {
        let nested =
            |depth| (0..depth).fold(ReplyValue::Ok, |value, _| ReplyValue::Array(vec![value]));
        for (depth, fits) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false), (100_000, false)] {
            // Written by hand: a deep value would be dropped deeply.
            let mut out = vec![0];
            out.extend([ARRAY, 1].repeat(depth));
            out.push(OK);
            let found = Reply::decode(&mut Bytes::from(out));
            let value = found.map(|reply| reply.value).ok();
            assert_eq!(value, fits.then(|| nested(depth)));
        }
    }

    #[test]
    fn a_reply_stays_small_because_every_unacknowledged_command_has_one() {
        assert!(size_of::<Reply>() <= 48);
    }
}
