//! Walking over keys. The store walks, in whole shards or in order; patterns are matched here.

use std::sync::Arc;

use memkv_resp::parse_integer;
use memkv_store::Query;

use super::{Args, ErrorReply, Op, ReplyFormat};

/// Most keys that KEYS reads; with more, SCAN is to be used. They are collected in one piece.
const KEYS_MAX: u64 = 100_000;

/// Keys per call of SCAN without COUNT, as in Redis.
const SCAN_COUNT: u64 = 10;

/// Most keys that one call of SCAN collects, whatever its COUNT: it holds the store meanwhile.
const SCAN_MAX: u64 = 10_000;

pub(super) fn keys(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let pattern = Arc::new(args.pattern(1)?);
    let query = Query::prefix(pattern.literal_prefix(), None, KEYS_MAX, true);
    Ok(Op::Read(query, ReplyFormat::Keys { pattern }))
}

pub(super) fn randomkey(_: &Args<'_>) -> Result<Op, ErrorReply> {
    // Resolved here and, within a transaction, kept in the log.
    let nonce = rand_nonce();
    Ok(Op::Read(Query::RandomKey { nonce }, ReplyFormat::Plain))
}

/// Differs at every call; it may be guessed.
fn rand_nonce() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}

pub(super) fn scan(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let cursor = cursor(args.get(1)).ok_or(ErrorReply::new("ERR invalid cursor"))?;
    let mut count = SCAN_COUNT;
    let mut matching = None;
    let mut is_other_type = false;
    let mut at = 2;
    while at < args.len() {
        let value = args.value_of_option(at)?;
        match &args.word(at)[..] {
            b"COUNT" => {
                let asked = u64::try_from(args.int(value)?).unwrap_or(0);
                if asked == 0 {
                    return Err(ErrorReply::SYNTAX);
                }
                count = asked.min(SCAN_MAX);
            }
            b"MATCH" => matching = Some(Arc::new(args.pattern(value)?)),
            b"TYPE" => is_other_type = !args.is(value, "string"),
            _ => return Err(ErrorReply::SYNTAX),
        }
        at = value + 1;
    }
    let format = ReplyFormat::Scan {
        pattern: matching,
        is_other_type,
    };
    Ok(Op::Read(Query::Scan { cursor, count }, format))
}

/// A cursor as C's `strtoul` reads it, which Redis uses: signs and leading zeros are taken.
fn cursor(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if negative {
        value.wrapping_neg()
    } else {
        value
    })
}

/// An integer that must not be negative.
pub(super) fn natural(text: &[u8]) -> Result<u64, ErrorReply> {
    let value = parse_integer(text).and_then(|value| u64::try_from(value).ok());
    value.ok_or(ErrorReply::NOT_AN_INTEGER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_by_strtoul() {
        assert_eq!(cursor(b""), Some(0));
        assert_eq!(cursor(b"007"), Some(7));
        assert_eq!(cursor(b"+7"), Some(7));
        assert_eq!(cursor(b"-1"), Some(u64::MAX));
        for bad in [" 1", "1x", "-", "18446744073709551616"] {
            assert_eq!(cursor(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
