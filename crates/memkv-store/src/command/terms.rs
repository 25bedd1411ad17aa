//! The terms that commands share: when a deadline is set, and on which condition something happens.
//!
//! A relative time stays relative in the log: `apply` adds it to the entry's stamp, so nothing needs
//! a clock before. Invariant: a code is never reused for another meaning.

use bytes::{BufMut, Bytes};

use crate::encoding::{DecodeError, Reader, put_prefixed, put_varint, unzigzag, zigzag};

/// The change of a key's deadline. Times are in milliseconds; a deadline at or before log time
/// means that the key is gone at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The key has no deadline afterwards.
    None,
    /// The key keeps the deadline that it has, if any.
    Keep,
    /// This long after the entry's stamp.
    In {
        /// Milliseconds.
        ms: i64,
    },
    /// At this log time.
    At {
        /// Milliseconds since the epoch.
        ms: i64,
    },
}

/// On which condition a key is written or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetIf {
    /// On none.
    Always,
    /// The key is absent: `NX`.
    Absent,
    /// The key is present: `XX`.
    Present,
    /// The key is present and has this value: `IFEQ`.
    Equal(Bytes),
    /// The key is absent or has another value: `IFNE`.
    Differs(Bytes),
}

/// On which condition `EXPIRE` sets a deadline. A key without one lives for ever: later than any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpireIf {
    /// On none.
    Always,
    /// The key has no deadline: `NX`.
    NoDeadline,
    /// The key has a deadline: `XX`.
    HasDeadline,
    /// The new deadline is later: `GT`, also `XX GT`.
    Later,
    /// The new deadline is sooner: `LT`.
    Sooner,
    /// The key has a deadline and the new one is sooner: `XX LT`.
    HasDeadlineSooner,
}

/// Every condition of `EXPIRE`, at the place of its code.
const EXPIRE_IF: [ExpireIf; 6] = [
    ExpireIf::Always,
    ExpireIf::NoDeadline,
    ExpireIf::HasDeadline,
    ExpireIf::Later,
    ExpireIf::Sooner,
    ExpireIf::HasDeadlineSooner,
];

impl Expiry {
    pub(super) fn write(self, out: &mut impl BufMut) {
        match self {
            Expiry::None => out.put_u8(0),
            Expiry::Keep => out.put_u8(1),
            Expiry::In { ms } => {
                out.put_u8(2);
                put_varint(out, zigzag(ms));
            }
            Expiry::At { ms } => {
                out.put_u8(3);
                put_varint(out, zigzag(ms));
            }
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Expiry, DecodeError> {
        let what = "expiry";
        Ok(match reader.u8(what)? {
            0 => Expiry::None,
            1 => Expiry::Keep,
            2 => Expiry::In {
                ms: unzigzag(reader.varint(what)?),
            },
            3 => Expiry::At {
                ms: unzigzag(reader.varint(what)?),
            },
            tag => return Err(DecodeError::UnknownTag { what, tag }),
        })
    }
}

impl SetIf {
    pub(super) fn write(&self, out: &mut impl BufMut) {
        match self {
            SetIf::Always => out.put_u8(0),
            SetIf::Absent => out.put_u8(1),
            SetIf::Present => out.put_u8(2),
            SetIf::Equal(value) => {
                out.put_u8(3);
                put_prefixed(out, value);
            }
            SetIf::Differs(value) => {
                out.put_u8(4);
                put_prefixed(out, value);
            }
        }
    }

    pub(super) fn read(
        reader: &mut Reader<'_>,
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<SetIf, DecodeError> {
        let what = "condition";
        Ok(match reader.u8(what)? {
            0 => SetIf::Always,
            1 => SetIf::Absent,
            2 => SetIf::Present,
            3 => SetIf::Equal(own(reader.prefixed(what)?)),
            4 => SetIf::Differs(own(reader.prefixed(what)?)),
            tag => return Err(DecodeError::UnknownTag { what, tag }),
        })
    }

    /// The value that it compares with.
    pub(super) fn value(&self) -> Option<&Bytes> {
        match self {
            SetIf::Equal(value) | SetIf::Differs(value) => Some(value),
            _ => None,
        }
    }

    /// Whether it holds for a key that has this value, or is absent.
    pub(super) fn holds(&self, value: Option<&[u8]>) -> bool {
        match self {
            SetIf::Always => true,
            SetIf::Absent => value.is_none(),
            SetIf::Present => value.is_some(),
            SetIf::Equal(expected) => value == Some(&expected[..]),
            SetIf::Differs(other) => value != Some(&other[..]),
        }
    }
}

impl ExpireIf {
    pub(super) fn write(self, out: &mut impl BufMut) {
        let code = EXPIRE_IF.iter().position(|condition| *condition == self);
        put_varint(out, code.unwrap_or(0) as u64);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<ExpireIf, DecodeError> {
        let what = "expire condition";
        let tag = reader.u8(what)?;
        let condition = EXPIRE_IF.get(usize::from(tag)).copied();
        condition.ok_or(DecodeError::UnknownTag { what, tag })
    }
}
