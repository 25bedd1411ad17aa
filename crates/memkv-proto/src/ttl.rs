//! Times to live as people write them: `30s`, `500ms`. Never a fraction, and never zero.

/// A time to live in milliseconds: a whole number with `ms`, `s`, `m`, `h` or `d`, or without a unit
/// for seconds. At least 1 ms.
pub fn ttl_ms(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.parse::<i64>().ok()?.checked_mul(scale)?;
    (ms > 0).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_have_units_and_bounds() {
        let known = [
            ("30", 30_000),
            ("30s", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ];
        for (text, ms) in known {
            assert_eq!(ttl_ms(text), Some(ms), "{text}");
        }
        for text in ["", "0", "-1s", "s", "1w", "1.5s", "9223372036854775807d"] {
            assert_eq!(ttl_ms(text), None, "{text}");
        }
    }
}
