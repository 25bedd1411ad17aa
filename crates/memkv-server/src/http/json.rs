//! JSON of which nothing is dropped: an object with a field twice is refused, because two readers of
//! it may each believe another one. Never recurses deeper than the parser's own limit of 128 levels.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Steps to parse or to write so many bytes, see [`Aside`](crate::aside::Aside).
pub(super) fn steps(bytes: usize) -> usize {
    bytes * 4
}

/// One document and nothing behind it.
///
/// # Errors
/// The fault and its location.
pub(super) fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = Whole.deserialize(&mut parser)?;
    parser.end()?;
    Ok(value)
}

struct Whole;

impl<'de> DeserializeSeed<'de> for Whole {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(Whole)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = object.next_key::<String>()? {
            if fields.contains_key(&name) {
                return Err(A::Error::custom(format!("the field {name:?} occurs twice")));
            }
            fields.insert(name, object.next_value_seed(Whole)?);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_json_is_what_every_reader_reads() {
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        for text in [
            r#" {"a": [null, true, -1, 18446744073709551615, 1.5e3, "\u0041\n"], "b": {"a": {}}} "#,
            "\"text\"",
            "[]",
            &deep,
        ] {
            let usual: Value = serde_json::from_str(text).unwrap();
            assert_eq!(parse(text.as_bytes()).unwrap(), usual, "{text}");
        }
    }

    #[test]
    fn a_field_that_occurs_twice_is_refused_with_its_location() {
        for text in [r#"{"a": 1, "a": 1}"#, r#"[{"a": 1, "\u0061": 2}]"#] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("\"a\" occurs twice at line 1"), "{error}");
        }
        let deep = "[".repeat(1_000_000);
        for text in [
            "",
            "{",
            "{} {}",
            "[1,]",
            "{\"a\"}",
            "nul",
            "\"\u{1}\"",
            &deep,
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:.20}");
        }
        assert!(parse(b"\"\xff\"").is_err());
    }
}
