//! The primitives of every encoding in this crate: little-endian integers, LEB128 varints and
//! length-prefixed bytes, and a reader that cannot run past its input.
//!
//! It never allocates and never trusts a length: an announced length is first compared with the bytes
//! that are left. Invariant: a reader only moves forward, and only over bytes that exist.

use bytes::BufMut;

/// Why bytes from the log, from a peer or from a snapshot cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends before the field does.
    #[error("{what} is cut short: the input ends inside it; the sender or the disk lost bytes")]
    Truncated {
        /// The field that was being read.
        what: &'static str,
    },
    /// The format version is not one that this build reads.
    #[error("{what} has format version {found}, this build reads {supported}; upgrade this node")]
    Version {
        /// The format that carries the version.
        what: &'static str,
        /// The version found.
        found: u8,
        /// The version this build writes and reads.
        supported: u8,
    },
    /// A tag or operation code that this build does not know.
    #[error("{tag} is not a known {what}; it was written by a newer build or is damaged")]
    UnknownTag {
        /// The field of the tag.
        what: &'static str,
        /// The tag found.
        tag: u8,
    },
    /// A part of it belongs to a higher feature level than the cluster has at that point of its log.
    #[error("it belongs to feature level {needs}, and the cluster is at level {level} there")]
    AboveLevel {
        /// The level that it belongs to.
        needs: u32,
        /// The level of the state.
        level: u32,
    },
    /// A field is longer than its limit.
    #[error("{what} has {bytes} bytes, the limit is {limit}; refuse it before it is proposed")]
    TooLong {
        /// The field.
        what: &'static str,
        /// Its length in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Bytes are left over after the last field.
    #[error("{bytes} bytes follow the end of {what}; the sender and this node disagree on it")]
    Trailing {
        /// The message that should have ended.
        what: &'static str,
        /// The number of bytes that are left.
        bytes: usize,
    },
    /// A field has a value that no correct sender writes.
    #[error("{what} is not valid; the sender is faulty or the bytes are damaged")]
    Invalid {
        /// The field.
        what: &'static str,
    },
}

/// Reads fields off the front of a byte slice.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Reader<'a> {
        Reader { rest: input }
    }

    /// The bytes that have not been read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated { what })?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array(what).map(|[byte]| byte)
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid { what }),
        }
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(DecodeError::Invalid { what });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Invalid { what })
    }

    /// A feature level: never 0.
    pub(crate) fn level(&mut self) -> Result<u32, DecodeError> {
        let what = "feature level";
        let level = u32::try_from(self.varint(what)?);
        level
            .ok()
            .filter(|level| *level > 0)
            .ok_or(DecodeError::Invalid { what })
    }

    /// A varint that counts bytes or items of at least one byte each that follow: never more than the
    /// bytes that are left.
    pub(crate) fn length(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let announced = self.varint(what)?;
        usize::try_from(announced)
            .ok()
            .filter(|len| *len <= self.rest.len())
            .ok_or(DecodeError::Truncated { what })
    }

    /// Bytes with their length in front.
    pub(crate) fn prefixed(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.length(what)?;
        self.take(len, what)
    }

    /// Text with its length in front.
    pub(crate) fn text(
        &mut self,
        limit: usize,
        what: &'static str,
    ) -> Result<&'a str, DecodeError> {
        let bytes = self.prefixed(what)?;
        if bytes.len() > limit {
            return Err(DecodeError::TooLong {
                what,
                bytes: bytes.len(),
                limit,
            });
        }
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Invalid { what })
    }

    /// Ends the reading: everything must have been consumed.
    pub(crate) fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::Trailing { what, bytes }),
        }
    }
}

/// Appends an LEB128 varint: one byte per seven bits, at most ten.
pub(crate) fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

/// Appends a count or a length as a varint.
pub(crate) fn put_length(out: &mut impl BufMut, len: usize) {
    put_varint(out, len as u64);
}

/// Appends bytes with their length in front.
pub(crate) fn put_prefixed(out: &mut impl BufMut, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

/// The number of bytes that [`put_varint`] writes.
pub(crate) fn varint_len(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// Maps small numbers of either sign to small unsigned ones, so that they make short varints.
pub(crate) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(coded: u64) -> i64 {
    (coded >> 1).cast_signed() ^ -(coded & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_width() {
        for shift in 0..64 {
            for value in [
                (1u64 << shift) - 1,
                1 << shift,
                (1 << shift) + 1,
                u64::MAX >> shift,
            ] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value), "{value}");
                let mut reader = Reader::new(&out);
                assert_eq!(reader.varint("x"), Ok(value));
                assert!(reader.is_empty());
            }
        }
    }

    #[test]
    fn a_varint_beyond_64_bits_is_invalid_and_a_cut_one_truncated() {
        let mut over = vec![0xff; 9];
        over.push(0x02);
        assert_eq!(
            Reader::new(&over).varint("x"),
            Err(DecodeError::Invalid { what: "x" })
        );
        let endless = [0x80; 11];
        assert_eq!(
            Reader::new(&endless).varint("x"),
            Err(DecodeError::Invalid { what: "x" })
        );
        assert_eq!(
            Reader::new(&[0x80]).varint("x"),
            Err(DecodeError::Truncated { what: "x" })
        );
    }

    #[test]
    fn a_length_never_exceeds_the_rest_of_the_input() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        out.extend([1, 2, 3]);
        assert_eq!(
            Reader::new(&out).prefixed("x"),
            Err(DecodeError::Truncated { what: "x" })
        );
        let mut reader = Reader::new(&[3, 1, 2, 3, 9]);
        assert_eq!(reader.prefixed("x"), Ok(&[1, 2, 3][..]));
        assert_eq!(
            reader.finish("y"),
            Err(DecodeError::Trailing {
                what: "y",
                bytes: 1
            })
        );
    }

    #[test]
    fn text_is_bounded_and_utf8() {
        let mut out = Vec::new();
        put_prefixed(&mut out, "häh".as_bytes());
        assert_eq!(Reader::new(&out).text(4, "x"), Ok("häh"));
        assert_eq!(
            Reader::new(&out).text(3, "x"),
            Err(DecodeError::TooLong {
                what: "x",
                bytes: 4,
                limit: 3
            })
        );
        assert_eq!(
            Reader::new(&[1, 0xff]).text(3, "x"),
            Err(DecodeError::Invalid { what: "x" })
        );
    }
}
