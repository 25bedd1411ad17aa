//! Splits a line that a person typed into words: for inline requests and for the prompt.
//! The same as Redis's `sdssplitargs`, except that a NUL is a byte like any other; in Redis it ends
//! the line unseen.

use std::fmt;
use std::ops::Range;

/// A quote is not closed, or another byte than a space follows the closing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnbalancedQuotes;

impl fmt::Display for UnbalancedQuotes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unbalanced quotes")
    }
}

impl std::error::Error for UnbalancedQuotes {}

/// Splits a line into words.
///
/// Words are separated by white space. Within `"..."` the escapes `\n`, `\r`, `\t`, `\b`, `\a` and
/// `\xHH` stand for one byte, and `\` makes any other byte stand for itself; within `'...'` only
/// `\'` does. A quote may open within a word, but must close at its end.
///
/// # Errors
///
/// [`UnbalancedQuotes`] if a quote does not close, or not at the end of its word.
pub fn split_args(line: &[u8]) -> Result<Vec<Vec<u8>>, UnbalancedQuotes> {
    let mut decoded = Vec::with_capacity(line.len());
    let mut words = Vec::new();
    split(line, &mut decoded, &mut words)?;
    Ok(words
        .into_iter()
        .map(|word| decoded[word].to_vec())
        .collect())
}

/// Appends the words to `decoded`, one after the other, and their places to `words`. The words
/// together are never longer than the line.
pub(crate) fn split(
    line: &[u8],
    decoded: &mut Vec<u8>,
    words: &mut Vec<Range<usize>>,
) -> Result<(), UnbalancedQuotes> {
    let mut rest = line;
    loop {
        match rest {
            [] => return Ok(()),
            [byte, tail @ ..] if is_space(*byte) => rest = tail,
            _ => {
                let start = decoded.len();
                rest = word(rest, decoded)?;
                words.push(start..decoded.len());
            }
        }
    }
}

/// Decodes one word and returns the rest of the line.
fn word<'a>(mut rest: &'a [u8], decoded: &mut Vec<u8>) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        match rest {
            // Vertical tab and form feed separate words but do not end one, as in Redis.
            [] | [b' ' | b'\n' | b'\r' | b'\t', ..] => return Ok(rest),
            [b'"', tail @ ..] => return closed(double_quoted(tail, decoded)?),
            [b'\'', tail @ ..] => return closed(single_quoted(tail, decoded)?),
            [byte, tail @ ..] => {
                decoded.push(*byte);
                rest = tail;
            }
        }
    }
}

/// A closing quote ends its word.
fn closed(rest: &[u8]) -> Result<&[u8], UnbalancedQuotes> {
    match rest {
        [byte, ..] if !is_space(*byte) => Err(UnbalancedQuotes),
        _ => Ok(rest),
    }
}

fn double_quoted<'a>(
    mut rest: &'a [u8],
    decoded: &mut Vec<u8>,
) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, tail) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) << 4 | hex(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (unescape(*escaped), tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        decoded.push(byte);
        rest = tail;
    }
}

fn single_quoted<'a>(
    mut rest: &'a [u8],
    decoded: &mut Vec<u8>,
) -> Result<&'a [u8], UnbalancedQuotes> {
    loop {
        let (byte, tail) = match rest {
            [] => return Err(UnbalancedQuotes),
            [b'\'', tail @ ..] => return Ok(tail),
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [byte, tail @ ..] => (*byte, tail),
        };
        decoded.push(byte);
        rest = tail;
    }
}

fn unescape(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// C's `isspace` in the locale in which Redis runs.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d)
}

#[cfg(test)]
mod tests {
    use super::{UnbalancedQuotes, split_args};
    use proptest::prelude::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        split_args(line.as_bytes()).unwrap()
    }

    #[test]
    fn space_separates() {
        assert_eq!(
            words(" SET  key\tvalue \r\n"),
            [&b"SET"[..], b"key", b"value"]
        );
        assert!(words("").is_empty());
        assert!(words(" \t\x0b\x0c").is_empty());
        assert_eq!(words("a\x0bb"), [b"a\x0bb"]);
    }

    #[test]
    fn double_quotes_know_escapes() {
        assert_eq!(words(r#""a b" """#), [&b"a b"[..], b""]);
        assert_eq!(
            words(r#""\n\r\t\b\a\"\\\q""#),
            [b"\n\r\t\x08\x07\"\\q".to_vec()]
        );
        assert_eq!(words(r#""\x00\xfF\x0""#), [b"\x00\xffx0".to_vec()]);
        assert_eq!(words(r#"ab"c d""#), [b"abc d"]);
    }

    #[test]
    fn single_quotes_know_only_themselves() {
        assert_eq!(words(r"'a b' ''"), [&b"a b"[..], b""]);
        assert_eq!(words(r"'it\'s \n\x41'"), [br"it's \n\x41".to_vec()]);
    }

    #[test]
    fn outside_quotes_a_backslash_is_a_byte() {
        assert_eq!(words(r"\x41 a\ b"), [&br"\x41"[..], br"a\", b"b"]);
    }

    #[test]
    fn a_nul_ends_nothing() {
        assert_eq!(words("a\0b \"\0\""), [&b"a\0b"[..], b"\0"]);
    }

    #[test]
    fn quotes_must_close_at_the_end_of_a_word() {
        for line in [
            r#"""#,
            r#""a"#,
            r#""a\""#,
            r#""a\"#,
            "'",
            "'a",
            r"'a\'",
            r#""a"b"#,
            "'a'b",
            r#""a"'b'"#,
        ] {
            assert_eq!(split_args(line.as_bytes()), Err(UnbalancedQuotes), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(words: Vec<Vec<u8>>) {
            let mut line = Vec::new();
            for word in &words {
                line.push(b'"');
                for byte in word {
                    line.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
                }
                line.extend_from_slice(b"\" ");
            }
            prop_assert_eq!(split_args(&line), Ok(words));
        }

        #[test]
        fn words_are_never_longer_than_the_line(line: Vec<u8>) {
            if let Ok(words) = split_args(&line) {
                prop_assert!(words.iter().map(Vec::len).sum::<usize>() <= line.len());
            }
        }
    }
}
