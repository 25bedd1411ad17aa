//! INCR and its kin: numbers that are kept as text.
//!
//! Integers have Redis's form: canonical decimal, so no sign but a minus, no leading zero, no space. The deadline stays.

use super::Context;
use crate::float::Number;
use crate::{ReplyError, ReplyValue};

/// INCR, DECR, INCRBY, DECRBY.
pub(super) fn by(context: &mut Context<'_>, key: &[u8], by: i64) -> Result<ReplyValue, ReplyError> {
    let old = context.get(key);
    let number = old.map_or(Ok(0), |old| integer(old.value))?;
    let sum = number.checked_add(by).ok_or(ReplyError::Overflow)?;
    let deadline_ms = old.and_then(|old| old.deadline_ms);
    context.put(&[key, sum.to_string().as_bytes()], deadline_ms);
    context.note_string("incrby", key);
    Ok(ReplyValue::Integer(sum))
}

fn integer(text: &[u8]) -> Result<i64, ReplyError> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let text = std::str::from_utf8(text).ok().filter(|_| canonical);
    text.and_then(|text| text.parse().ok())
        .ok_or(ReplyError::NotAnInteger)
}

/// INCRBYFLOAT.
pub(super) fn by_float(
    context: &mut Context<'_>,
    key: &[u8],
    by: &[u8],
) -> Result<ReplyValue, ReplyError> {
    let old = context.get(key);
    let text = old.map_or(&b"0"[..], |old| old.value);
    let (Some(number), Some(by)) = (Number::parse(text), Number::parse(by)) else {
        return Err(ReplyError::NotAFloat);
    };
    let sum = number.add(by).ok_or(ReplyError::NanOrInfinity)?.to_text();
    let deadline_ms = old.and_then(|old| old.deadline_ms);
    context.put(&[key, sum.as_bytes()], deadline_ms);
    context.note_string("incrbyfloat", key);
    Ok(ReplyValue::Bulk(sum.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_decimals_are_integers() {
        for number in [0, 1, -1, 10, i64::MAX, i64::MIN] {
            assert_eq!(integer(number.to_string().as_bytes()), Ok(number));
        }
        let not: [&[u8]; 14] = [
            b"",
            b"-",
            b"+1",
            b"-0",
            b"01",
            b"-01",
            b" 1",
            b"1 ",
            b"1.0",
            b"1e3",
            b"0x1",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"\xff",
        ];
        for text in not {
            assert_eq!(integer(text), Err(ReplyError::NotAnInteger), "{text:?}");
        }
    }
}
