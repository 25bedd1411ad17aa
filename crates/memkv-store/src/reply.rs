//! Replies: what an executed write answers, compact enough to be cached for every unacknowledged
//! command of every session.
//!
//! They never carry text for humans: the front doors own the wording. Invariant: a reply encodes
//! to the same bytes on every node, because cached replies are part of the replicated state.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::wire::{DecodeError, Reader, put_prefixed, put_varint};
use crate::{MAX_KEY_BYTES, MAX_VALUE_BYTES_CEILING, Revision};

/// What one executed write command answered.
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
}

const OK: u8 = 0;
const NIL: u8 = 1;
const INTEGER: u8 = 2;
const BULK: u8 = 3;
const ERROR: u8 = 4;

const KEY_TOO_LONG: u8 = 1;
const VALUE_TOO_LONG: u8 = 2;

impl ReplyError {
    fn code(self) -> u8 {
        match self {
            ReplyError::KeyTooLong => KEY_TOO_LONG,
            ReplyError::ValueTooLong => VALUE_TOO_LONG,
        }
    }

    fn from_code(code: u8) -> Result<ReplyError, DecodeError> {
        match code {
            KEY_TOO_LONG => Ok(ReplyError::KeyTooLong),
            VALUE_TOO_LONG => Ok(ReplyError::ValueTooLong),
            tag => Err(DecodeError::UnknownTag {
                what: "reply error",
                tag,
            }),
        }
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
        match &self.value {
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
                out.put_u8(error.code());
            }
        }
    }

    /// Reads one reply; `own` says how a bulk value is kept: copied, or shared with the input.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        own: impl Fn(&[u8]) -> Bytes,
    ) -> Result<Reply, DecodeError> {
        let revision = reader.varint("reply revision")?;
        let value = match reader.u8("reply kind")? {
            OK => ReplyValue::Ok,
            NIL => ReplyValue::Nil,
            INTEGER => ReplyValue::Integer(unzigzag(reader.varint("reply integer")?)),
            BULK => ReplyValue::Bulk(own(reader.prefixed("reply value")?)),
            ERROR => ReplyValue::Error(ReplyError::from_code(reader.u8("reply error")?)?),
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "reply kind",
                    tag,
                });
            }
        };
        Ok(Reply { revision, value })
    }

    /// Bytes of a value that this reply keeps in memory besides itself.
    pub(crate) fn bulk_len(&self) -> usize {
        match &self.value {
            ReplyValue::Bulk(value) => value.len(),
            _ => 0,
        }
    }
}

/// Maps small numbers of either sign to small unsigned ones, so that they make short varints.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(coded: u64) -> i64 {
    (coded >> 1).cast_signed() ^ -(coded & 1).cast_signed()
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
            ReplyValue::Error(ReplyError::KeyTooLong),
            ReplyValue::Error(ReplyError::ValueTooLong),
        ];
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
    fn a_reply_stays_small_because_every_unacknowledged_command_has_one() {
        assert!(size_of::<Reply>() <= 48);
    }
}
