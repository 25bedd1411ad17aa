//! Keys in URL paths: any bytes to a path and back ("the rest of the path, percent-decoded once").
//! Never splits, trims or normalizes: `/`, `.` and `%2F` inside a key mean nothing special.
//!
//! Invariant: `decode_key_path(&encode_key_path(key)) == Ok(key)` for every key within the limit.

use crate::limits::MAX_KEY_BYTES;

/// Why the rest of a path is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPathError {
    /// `%` must be followed by two hexadecimal digits (RFC 3986, section 2.1).
    #[error(
        "the path has a '%' at byte {offset} that is not followed by two hexadecimal digits; \
         write a literal '%' as %25"
    )]
    BadEscape {
        /// Byte offset in the rest of the path.
        offset: usize,
    },
    /// The key is longer than [`MAX_KEY_BYTES`].
    #[error("the key is {length} bytes or more, the limit is {MAX_KEY_BYTES} bytes")]
    TooLong {
        /// Lower bound of the decoded length in bytes.
        length: usize,
    },
}

/// Percent-encodes `key` so that it can follow [`crate::KV_PREFIX`]. Only the unreserved characters
/// of RFC 3986 stay as they are; `/` is encoded too, so that no proxy merges or resolves segments.
pub fn encode_key_path(key: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    // A key of dots alone would be resolved away as a path segment (RFC 3986, section 5.2.4).
    let dots = matches!(key, b"." | b"..");
    let mut path = String::with_capacity(key.len());
    for &byte in key {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'~')
            || (byte == b'.' && !dots);
        if plain {
            path.push(char::from(byte));
        } else {
            path.push('%');
            path.push(char::from(HEX[usize::from(byte >> 4)]));
            path.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    path
}

/// Percent-decodes the rest of a path, once, into a key. `+` is a plus sign, and `rest` must not
/// contain the query string. An empty rest is the empty key.
///
/// # Errors
/// [`KeyPathError`] for a malformed escape or a key beyond [`MAX_KEY_BYTES`].
pub fn decode_key_path(rest: &str) -> Result<Vec<u8>, KeyPathError> {
    // Each byte of the key takes one to three bytes of the path.
    if rest.len().div_ceil(3) > MAX_KEY_BYTES {
        return Err(KeyPathError::TooLong {
            length: rest.len().div_ceil(3),
        });
    }
    let bytes = rest.as_bytes();
    let mut key = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            key.push(bytes[at]);
            at += 1;
            continue;
        }
        let digit = |offset: usize| bytes.get(offset).and_then(|&b| char::from(b).to_digit(16));
        let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
            return Err(KeyPathError::BadEscape { offset: at });
        };
        key.push((high * 16 + low) as u8);
        at += 3;
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(KeyPathError::TooLong { length: key.len() });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        let key: Vec<u8> = (0..=255).collect();
        assert_eq!(decode_key_path(&encode_key_path(&key)), Ok(key));
    }

    #[test]
    fn only_unreserved_characters_stay_plain() {
        assert_eq!(
            encode_key_path(b"user:1/a b%.txt"),
            "user%3A1%2Fa%20b%25.txt"
        );
        assert_eq!(encode_key_path(b""), "");
        assert_eq!(encode_key_path(b".."), "%2E%2E");
        assert_eq!(encode_key_path(b"..."), "...");
    }

    #[test]
    fn decodes_once_and_keeps_slashes_and_plus() {
        assert_eq!(decode_key_path("a/b+c"), Ok(b"a/b+c".to_vec()));
        assert_eq!(decode_key_path("%2525"), Ok(b"%25".to_vec()));
        assert_eq!(decode_key_path("%2f%2F"), Ok(b"//".to_vec()));
        assert_eq!(decode_key_path(""), Ok(Vec::new()));
    }

    #[test]
    fn malformed_escapes_name_their_offset() {
        for (path, offset) in [("%", 0), ("ab%4", 2), ("a%zz", 1), ("%+1", 0), ("%é", 0)] {
            assert_eq!(
                decode_key_path(path),
                Err(KeyPathError::BadEscape { offset }),
                "{path}"
            );
        }
    }

    #[test]
    fn length_is_bounded() {
        let longest = vec![0; MAX_KEY_BYTES];
        assert_eq!(decode_key_path(&encode_key_path(&longest)), Ok(longest));
        let too_long = "a".repeat(MAX_KEY_BYTES + 1);
        assert!(matches!(
            decode_key_path(&too_long),
            Err(KeyPathError::TooLong { .. })
        ));
        let far_too_long = "a".repeat(MAX_KEY_BYTES * 4);
        assert!(matches!(
            decode_key_path(&far_too_long),
            Err(KeyPathError::TooLong { .. })
        ));
    }
}
