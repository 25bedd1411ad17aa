//! Numbers as Redis reads and writes them. Integers are read in one canonical form only and written
//! without an allocation; doubles are written as C's `%.17g` does.

/// Longest number line: a type byte, a sign, 20 digits, CR LF.
const LINE_BYTES: usize = 24;

/// Reads an integer as Redis's `string2ll` does: decimal, no `+`, no spaces, no leading zero, no
/// `-0`, within an `i64`.
#[must_use]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        // Any 19 digits fit a `u64`, so the sum below cannot overflow.
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut magnitude = 0_u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude * 10 + u64::from(digit - b'0');
    }
    if negative {
        0_i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// A type byte, a number and a line end, in one piece so that one append writes them.
pub(crate) struct NumberLine {
    bytes: [u8; LINE_BYTES],
    start: usize,
}

impl NumberLine {
    /// A line with an integer.
    pub(crate) fn signed(kind: u8, value: i64) -> Self {
        Self::new(kind, value < 0, value.unsigned_abs())
    }

    /// A line with a length or a count.
    pub(crate) fn length(kind: u8, value: usize) -> Self {
        Self::new(kind, false, value as u64)
    }

    fn new(kind: u8, negative: bool, mut magnitude: u64) -> Self {
        let mut line = Self {
            bytes: [0; LINE_BYTES],
            start: LINE_BYTES,
        };
        line.prepend(b'\n');
        line.prepend(b'\r');
        loop {
            line.prepend(b'0' + (magnitude % 10) as u8);
            magnitude /= 10;
            if magnitude == 0 {
                break;
            }
        }
        if negative {
            line.prepend(b'-');
        }
        line.prepend(kind);
        line
    }

    fn prepend(&mut self, byte: u8) {
        self.start -= 1;
        self.bytes[self.start] = byte;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// Writes a double as C's `printf("%.17g")` does, and the infinities and "not a number" as RESP3
/// spells them: `inf`, `-inf`, `nan`.
pub(crate) fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    // 17 significant digits, correctly rounded, in the form -d.ddddddddddddddddE; an infinity has
    // no exponent and is spelt as it should be.
    let scientific = format!("{value:.16e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits = mantissa.replace('.', "");
    // `%g` goes over to an exponent below 1e-4 and where the digits end, and drops trailing zeros.
    let (whole, fraction, suffix) = match exponent {
        0..17 => {
            let (whole, fraction) = digits.split_at(exponent as usize + 1);
            (whole.to_owned(), fraction.to_owned(), String::new())
        }
        -4..0 => {
            let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
            ("0".to_owned(), zeros + &digits, String::new())
        }
        _ => {
            let (whole, fraction) = digits.split_at(1);
            let sign = if exponent < 0 { '-' } else { '+' };
            let suffix = format!("e{sign}{:02}", exponent.unsigned_abs());
            (whole.to_owned(), fraction.to_owned(), suffix)
        }
    };
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::{NumberLine, format_double, parse_i64};
    use proptest::prelude::*;

    #[test]
    fn only_the_canonical_form_is_an_integer() {
        for (text, value) in [
            ("0", 0),
            ("7", 7),
            ("-1", -1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), Some(value), "{text}");
        }
        for text in [
            "",
            "-",
            "+1",
            "-0",
            "00",
            "01",
            "-01",
            " 1",
            "1 ",
            "1a",
            "0x1",
            "1.0",
            "9223372036854775808",
            "-9223372036854775809",
            "18446744073709551616",
            "99999999999999999999",
            "1\0",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn doubles_are_written_as_by_printf() {
        // The right side is what C's printf("%.17g") writes.
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.10000000000000001"),
            (3.0e-4, "0.00029999999999999997"),
            (1.0e-4, "0.0001"),
            (1.0e-5, "1.0000000000000001e-05"),
            (1.0e16, "10000000000000000"),
            (1.0e17, "1e+17"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (1.0e100, "1e+100"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5.0e-324, "4.9406564584124654e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "nan"),
        ] {
            assert_eq!(format_double(value), text);
        }
    }

    proptest! {
        #[test]
        fn integers_come_back(value: i64) {
            let line = NumberLine::signed(b':', value);
            let expected = format!(":{value}\r\n");
            prop_assert_eq!(line.as_bytes(), expected.as_bytes());
            prop_assert_eq!(parse_i64(value.to_string().as_bytes()), Some(value));
        }

        #[test]
        fn lengths_are_decimal(value: usize) {
            let line = NumberLine::length(b'$', value);
            let expected = format!("${value}\r\n");
            prop_assert_eq!(line.as_bytes(), expected.as_bytes());
        }

        #[test]
        fn seventeen_digits_are_enough_for_every_double(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            prop_assert_eq!(format_double(value).parse::<f64>(), Ok(value));
        }
    }
}
