//! Numbers as Redis on x86-64 computes INCRBYFLOAT: the 80-bit floats of the x87, in software, so
//! that every node computes the same on any processor.
//!
//! It covers three steps: reading text as C's `strtold` does within Redis's bounds, adding, and
//! printing as `%.17Lf` with the zeros at the end cut off. Rounding is to nearest, ties to even,
//! throughout. Invariant: a [`Number`] is not NaN.

use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round};

/// Text from this length on is no number, as in Redis (`MAX_LONG_DOUBLE_CHARS`).
const MAX_TEXT_BYTES: usize = 5 * 1024;

/// Digits after the decimal point.
const DECIMALS: usize = 17;

/// `10^DECIMALS`.
const DECIMAL_SCALE: u128 = 100_000_000_000_000_000;

/// Bits of the significand: the leading one is stored.
const SIGNIFICAND_BITS: u32 = 64;

/// The largest stored exponent, which infinity has.
const EXPONENT_MASK: u128 = 0x7fff;

/// The stored exponent minus that of the significand's last bit.
const EXPONENT_BIAS: i32 = 16_383 + 63;

/// An 80-bit floating-point number, or an infinity.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Number(X87DoubleExtended);

impl Number {
    /// Reads a decimal or hexadecimal number, or an infinity. None for anything else, and for a number
    /// that is too large or too close to zero to be represented.
    pub(crate) fn parse(text: &[u8]) -> Option<Number> {
        if text.len() >= MAX_TEXT_BYTES {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            _ => (false, text),
        };
        let magnitude = if is_infinity(unsigned) {
            X87DoubleExtended::INFINITY
        } else {
            finite(unsigned)?
        };
        Some(Number(if negative { -magnitude } else { magnitude }))
    }

    /// The sum; None if it is infinite or not a number.
    pub(crate) fn add(self, other: Number) -> Option<Number> {
        let sum = self.0.add_r(other.0, Round::NearestTiesToEven).value;
        sum.is_finite().then_some(Number(sum))
    }

    /// The decimal text of a finite number: no exponent, no zero at the end of the fraction.
    pub(crate) fn to_text(self) -> String {
        let bits = self.0.to_bits();
        let significand = bits & u128::from(u64::MAX);
        let stored = (bits >> SIGNIFICAND_BITS & EXPONENT_MASK) as i32;
        // The smallest exponent is stored as 0 and as 1.
        let exponent = stored.max(1) - EXPONENT_BIAS;
        let mut text = if exponent >= 0 {
            integer_text(significand as u64, exponent.unsigned_abs())
        } else {
            fraction_text(significand, exponent.unsigned_abs())
        };
        if self.0.is_negative() && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

/// `inf` or `infinity`, in any case.
fn is_infinity(text: &[u8]) -> bool {
    text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity")
}

/// A number without its sign.
fn finite(text: &[u8]) -> Option<X87DoubleExtended> {
    let text = std::str::from_utf8(text).ok()?;
    let hex = text.strip_prefix("0x").or(text.strip_prefix("0X"));
    let radix = if hex.is_some() { 16 } else { 10 };
    let body = hex.unwrap_or(text);
    let marks = if hex.is_some() {
        ['p', 'P']
    } else {
        ['e', 'E']
    };
    let (digits, exponent) = match body.split_once(marks) {
        Some((digits, exponent)) => (digits, Some(exponent)),
        None => (body, None),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut all = whole.chars().chain(fraction.chars());
    if (whole.len() + fraction.len() == 0) || !all.all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let exponent = exponent.map_or(Some(0), exponent_value)?;
    let is_zero = whole.chars().chain(fraction.chars()).all(|d| d == '0');
    if is_zero {
        return Some(X87DoubleExtended::ZERO);
    }
    let normal = match hex {
        Some(_) => format!("0x{whole}.{fraction}p{exponent}"),
        None => format!("{whole}.{fraction}e{exponent}"),
    };
    let value = X87DoubleExtended::from_str_r(&normal, Round::NearestTiesToEven);
    let value = value.ok()?.value;
    (value.is_finite() && !value.is_zero()).then_some(value)
}

/// An exponent's value, held to where nothing of bounded length is neither infinite nor zero.
fn exponent_value(text: &str) -> Option<i32> {
    const HIGHEST: i32 = 100_000;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if digits.is_empty() {
        return None;
    }
    let value = digits.chars().try_fold(0i32, |value, digit| {
        let digit = digit.to_digit(10)?.cast_signed();
        Some((value * 10 + digit).min(HIGHEST))
    })?;
    Some(if negative { -value } else { value })
}

/// `significand * 2^shift`.
fn integer_text(significand: u64, shift: u32) -> String {
    /// Limbs hold nine digits each, the lowest first.
    const LIMB: u64 = 1_000_000_000;
    /// So that a limb times a power of two, with a carry, fits 64 bits.
    const STEP_BITS: u32 = 32;
    let mut limbs = vec![
        significand % LIMB,
        significand / LIMB % LIMB,
        significand / LIMB / LIMB,
    ];
    let mut left = shift;
    while left > 0 {
        let step = left.min(STEP_BITS);
        left -= step;
        let mut carry = 0;
        for limb in &mut limbs {
            let value = (*limb << step) + carry;
            *limb = value % LIMB;
            carry = value / LIMB;
        }
        while carry > 0 {
            limbs.push(carry % LIMB);
            carry /= LIMB;
        }
    }
    let digits: String = limbs
        .iter()
        .rev()
        .map(|limb| format!("{limb:09}"))
        .collect();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() { "0" } else { digits }.to_owned()
}

/// `significand / 2^shift`, rounded to the nearest of 17 decimals.
fn fraction_text(significand: u128, shift: u32) -> String {
    // At most 121 bits, so a shift by more leaves less than half of the last decimal.
    let scaled = significand * DECIMAL_SCALE;
    let (mut whole, rest, half) = match scaled.checked_shr(shift) {
        Some(whole) => (whole, scaled - (whole << shift), 1 << (shift - 1)),
        None => (0, 0, 1),
    };
    if rest > half || rest == half && whole % 2 == 1 {
        whole += 1;
    }
    let (integer, fraction) = (whole / DECIMAL_SCALE, whole % DECIMAL_SCALE);
    let text = format!("{integer}.{fraction:0DECIMALS$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(one: &str, other: &str) -> Option<String> {
        let (one, other) = (
            Number::parse(one.as_bytes())?,
            Number::parse(other.as_bytes())?,
        );
        Some(
            one.add(other)
                .map_or("infinite".to_owned(), Number::to_text),
        )
    }

    /// The answers of redis-server 7.0.15 on x86-64.
    #[test]
    fn sums_are_those_of_redis() {
        let cases = [
            ("10.50", "0.1", Some("10.6")),
            ("5.0e3", "2.0e2", Some("5200")),
            ("0.1", "0.2", Some("0.3")),
            ("1", "-1", Some("0")),
            ("-0", "-0.0", Some("0")),
            ("-0.00000000000000000499", "0", Some("0")),
            ("3", "1.00000000000000001", Some("4.00000000000000001")),
            ("9223372036854775807", "0.5", Some("9223372036854775807.5")),
            ("18446744073709551615", "1", Some("18446744073709551616")),
            ("18446744073709551616", "1", Some("18446744073709551616")),
            ("1e20", "1", Some("100000000000000000000")),
            ("0x1p-17", "0", Some("0.00000762939453125")),
            ("0X.8", "+1", Some("1.5")),
            ("0x10", "1", Some("17")),
            ("0.000000000000000005", "0", Some("0")),
            ("0.000000000000000015", "0", Some("0.00000000000000002")),
            ("0x1p-18", "0x1p-60", Some("0.00000381469726563")),
            ("1e-4950", "0", Some("0")),
            ("1e-4951", "0", None),
            ("1e-4952", "0", None),
            ("1e4932", "-1e4932", Some("0")),
            ("1.2e4932", "0", None),
            ("1e4932", "1e4932", Some("infinite")),
            ("inf", "1", Some("infinite")),
            ("-inf", "inf", Some("infinite")),
            ("Infinity", "-1", Some("infinite")),
            ("nan", "0", None),
            ("", "1", None),
            ("1", " 1", None),
            (" 1", "1", None),
            ("1 ", "1", None),
            ("1e", "1", None),
            ("1e+", "1", None),
            (".", "1", None),
            (".5", "5.", Some("5.5")),
            ("+.5", "1", Some("1.5")),
            ("0x", "1", None),
            ("0x.", "1", None),
            ("0x1p", "1", None),
            ("1_0", "1", None),
            ("--1", "1", None),
            ("1e5", "1E-5", Some("100000.00001000000000317")),
            ("0e99999999999", "1", Some("1")),
            ("1e-99999999999", "1", None),
            ("3.0e3", "abc", None),
            (
                "123456789012345678901234567890",
                "0.1",
                Some("123456789012345678899921813504"),
            ),
        ];
        for (one, other, expected) in cases {
            assert_eq!(sum(one, other).as_deref(), expected, "{one} + {other}");
        }
    }

    #[test]
    fn text_of_the_longest_numbers_is_exact() {
        let largest = sum("0x1.fffffffffffffffep16383", "0").unwrap();
        assert_eq!(largest.len(), 4933);
        assert!(largest.starts_with("11897314953572317650212638530309702051690633222946"));
        assert!(largest.ends_with("19552086811989770240"));
        let digits = "1".repeat(MAX_TEXT_BYTES - 1);
        assert_eq!(
            sum(&format!("0.{}", &digits[2..]), "0").unwrap(),
            "0.11111111111111111"
        );
        assert_eq!(sum(&format!("0.{digits}"), "0"), None, "too long");
    }
}
