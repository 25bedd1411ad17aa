//! Reading and writing the little-endian encodings of this crate. Every read is bounded by what is
//! there; nothing is allocated on the word of a length field.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes from a peer or from the disk are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// The message ends too early.
    #[error("message ends before its {0}")]
    Truncated(&'static str),
    /// A field has a value that this version does not know.
    #[error("bad {what}: {value}")]
    Bad {
        /// Which field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
}

/// Takes fields off the front of a message.
pub(crate) struct Reader(pub(crate) Bytes);

impl Reader {
    fn need(&self, count: usize, what: &'static str) -> Result<(), DecodeError> {
        if self.0.len() < count {
            Err(DecodeError::Truncated(what))
        } else {
            Ok(())
        }
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.need(1, what)?;
        Ok(self.0.get_u8())
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.need(4, what)?;
        Ok(self.0.get_u32_le())
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.need(8, what)?;
        Ok(self.0.get_u64_le())
    }

    pub(crate) fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(DecodeError::Bad {
                what,
                value: u64::from(value),
            }),
        }
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        self.need(N, what)?;
        let mut array = [0; N];
        self.0.copy_to_slice(&mut array);
        Ok(array)
    }

    /// `count` bytes, shared with the message.
    pub(crate) fn take(&mut self, count: usize, what: &'static str) -> Result<Bytes, DecodeError> {
        self.need(count, what)?;
        Ok(self.0.split_to(count))
    }

    /// A `u32` length and so many bytes.
    pub(crate) fn blob(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let count = self.u32(what)? as usize;
        self.take(count, what)
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let blob = self.blob(what)?;
        String::from_utf8(blob.to_vec()).map_err(|error| DecodeError::Bad {
            what,
            value: error.utf8_error().valid_up_to() as u64,
        })
    }

    pub(crate) fn option<T>(
        &mut self,
        what: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool(what)? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A `u32` count and so many items; a count larger than the bytes left is refused.
    pub(crate) fn list<T>(
        &mut self,
        what: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.u32(what)? as usize;
        // Every item of every list takes at least a byte.
        self.need(count, what)?;
        (0..count).map(|_| read(self)).collect()
    }

    /// Fails if anything is left.
    pub(crate) fn end(&self, what: &'static str) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            left => Err(DecodeError::Bad {
                what,
                value: left as u64,
            }),
        }
    }
}

/// Length as the encodings store it. Everything that is encoded here is bounded far below 4 GiB.
pub(crate) fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("messages are bounded far below 4 GiB")
}

pub(crate) fn put_blob(out: &mut BytesMut, blob: &[u8]) {
    out.put_u32_le(len32(blob.len()));
    out.put_slice(blob);
}

pub(crate) fn put_option<T>(
    out: &mut BytesMut,
    value: Option<T>,
    put: impl FnOnce(&mut BytesMut, T),
) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_beyond_the_message_are_refused_before_anything_is_allocated() {
        let mut hostile = BytesMut::new();
        hostile.put_u32_le(u32::MAX);
        let hostile = hostile.freeze();
        assert_eq!(
            Reader(hostile.clone()).blob("key"),
            Err(DecodeError::Truncated("key"))
        );
        let list = Reader(hostile).list("list", |reader| reader.u8("item"));
        assert_eq!(list, Err(DecodeError::Truncated("list")));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = BytesMut::new();
        put_blob(&mut out, b"name");
        put_option(&mut out, Some(7u64), BytesMut::put_u64_le);
        put_option(&mut out, None::<u64>, BytesMut::put_u64_le);
        let mut reader = Reader(out.freeze());
        assert_eq!(reader.text("name").unwrap(), "name");
        assert_eq!(reader.option("some", |r| r.u64("value")).unwrap(), Some(7));
        assert_eq!(reader.option("none", |r| r.u64("value")).unwrap(), None);
        reader.end("end").unwrap();
        assert!(reader.u8("more").is_err());
    }
}
