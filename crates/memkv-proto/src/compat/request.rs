//! Reads the body of a request, with the liberties on which the original's own client relies.
//! Never recurses deeper than [`MAX_JSON_DEPTH`], and copies a string only if it has escapes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{CompatOp, error_body};
use crate::error::ErrorCode;
use crate::json::Text;
use crate::limits::MAX_JSON_DEPTH;

/// A request's body; the strings borrow from it wherever they contain no escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompatRequest<'a> {
    /// The key; the empty one is valid.
    pub key: Cow<'a, str>,
    /// The value, for [`CompatOp::Set`] only; the empty one is valid.
    pub value: Option<Cow<'a, str>>,
}

/// Why a body is not a request. Answer with the status of [`CompatError::code`] and
/// [`CompatError::body`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompatError {
    /// Not UTF-8.
    #[error("the body is not UTF-8 from byte {valid} on; for binary values use PUT /v1/kv/{{key}}")]
    NotUtf8 {
        /// The number of bytes that are.
        valid: usize,
    },
    /// Not JSON, not an object, or nested deeper than [`MAX_JSON_DEPTH`].
    #[error("the body is not acceptable JSON: {0}; send an object such as {{\"key\":\"k\"}}")]
    BadJson(String),
    /// A field is missing.
    #[error("the field {0:?} is missing; it must be a string")]
    Missing(&'static str),
    /// A field is no string.
    #[error("the field {0:?} is {1}; it must be a string")]
    WrongType(&'static str, &'static str),
}

impl CompatError {
    /// The line of the error table: HTTP 400, nothing executed.
    pub fn code(&self) -> ErrorCode {
        ErrorCode::BadJson
    }

    /// `{"status":"error","error":"..."}`.
    pub fn body(&self) -> Vec<u8> {
        error_body(&self.to_string())
    }
}

/// Reads the body of a request.
///
/// # Errors
/// [`CompatError`]; nothing was executed.
pub fn parse_request(op: CompatOp, body: &[u8]) -> Result<CompatRequest<'_>, CompatError> {
    let text = std::str::from_utf8(body).map_err(|err| CompatError::NotUtf8 {
        valid: err.valid_up_to(),
    })?;
    let fields: Fields<'_> = match escape_controls(text) {
        None => serde_json::from_str(text),
        Some(escaped) => serde_json::from_str(&escaped).map(Fields::into_owned),
    }
    .map_err(|err| CompatError::BadJson(err.to_string()))?;
    let key = fields.key.required("key")?;
    let value = match op {
        CompatOp::Set => Some(fields.value.required("value")?),
        CompatOp::Get | CompatOp::Del | CompatOp::Exist => None,
    };
    Ok(CompatRequest { key, value })
}

/// Rewrites raw control characters within strings as `\u00XX`, which the JSON parser demands.
/// None if there are none, as in nearly every request.
fn escape_controls(text: &str) -> Option<String> {
    text.bytes().find(|&byte| byte < b' ')?;
    let mut escaped = String::with_capacity(text.len() + 16);
    let (mut in_string, mut after_backslash, mut found) = (false, false, false);
    for character in text.chars() {
        // A control character after a backslash stays, for the parser to refuse.
        if in_string && character < ' ' && !after_backslash {
            found = true;
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
            continue;
        }
        if character == '"' && !after_backslash {
            in_string = !in_string;
        }
        after_backslash = in_string && character == '\\' && !after_backslash;
        escaped.push(character);
    }
    found.then_some(escaped)
}

/// A field of a request as it was found.
#[derive(Default)]
enum Field<'a> {
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Other(&'static str),
}

impl<'a> Field<'a> {
    fn required(self, name: &'static str) -> Result<Cow<'a, str>, CompatError> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Absent => Err(CompatError::Missing(name)),
            Self::Other(found) => Err(CompatError::WrongType(name, found)),
        }
    }

    fn into_owned(self) -> Field<'static> {
        match self {
            Self::Text(text) => Field::Text(Cow::Owned(text.into_owned())),
            Self::Other(found) => Field::Other(found),
            Self::Absent => Field::Absent,
        }
    }
}

/// The fields of a request that are used.
#[derive(Default)]
struct Fields<'a> {
    key: Field<'a>,
    value: Field<'a>,
}

impl Fields<'_> {
    fn into_owned(self) -> Fields<'static> {
        Fields {
            key: self.key.into_owned(),
            value: self.value.into_owned(),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(Text(name)) = map.next_key()? {
                    let field = map.next_value_seed(Shallow { depth: 2 })?;
                    let slot = match name {
                        name if name.eq_ignore_ascii_case("key") => &mut fields.key,
                        name if name.eq_ignore_ascii_case("value") => &mut fields.value,
                        _ => continue,
                    };
                    if matches!(slot, Field::Absent) {
                        *slot = field;
                    }
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads any value, keeps a string, and refuses values nested too deep. `depth` is the depth of an
/// array or object here.
#[derive(Clone, Copy)]
struct Shallow {
    depth: usize,
}

impl Shallow {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth > MAX_JSON_DEPTH {
            return Err(E::custom(format_args!(
                "nested deeper than {MAX_JSON_DEPTH} levels"
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
        })
    }
}

impl<'de> DeserializeSeed<'de> for Shallow {
    type Value = Field<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Shallow {
    type Value = Field<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Field<'de>, E> {
        Ok(Field::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Field<'de>, E> {
        Ok(Field::Other("true or false"))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Field<'de>, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Field<'de>, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Field<'de>, E> {
        Ok(Field::Other("a number"))
    }

    fn visit_unit<E>(self) -> Result<Field<'de>, E> {
        Ok(Field::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<'de>, A::Error> {
        let inner = self.inside::<A::Error>()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(Field::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field<'de>, A::Error> {
        let inner = self.inside::<A::Error>()?;
        while map.next_key::<Text<'de>>()?.is_some() {
            map.next_value_seed(inner)?;
        }
        Ok(Field::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::encode_request;
    use super::*;

    fn set(body: &str) -> Result<(String, String), CompatError> {
        let request = parse_request(CompatOp::Set, body.as_bytes())?;
        Ok((
            request.key.into_owned(),
            request.value.unwrap().into_owned(),
        ))
    }

    fn pair(key: &str, value: &str) -> Result<(String, String), CompatError> {
        Ok((key.to_owned(), value.to_owned()))
    }

    #[test]
    fn requests_of_the_original_client() {
        assert_eq!(set(r#"{"key":"k1","value":"v1"}"#), pair("k1", "v1"));
        assert_eq!(
            encode_request("k1", Some("v1")),
            br#"{"key":"k1","value":"v1"}"#
        );
        assert_eq!(encode_request("k1", None), br#"{"key":"k1"}"#);
        let request = parse_request(CompatOp::Get, br#"{"key":"k1"}"#).unwrap();
        assert_eq!(
            request,
            CompatRequest {
                key: "k1".into(),
                value: None
            }
        );
        assert!(matches!(request.key, Cow::Borrowed(_)));
    }

    #[test]
    fn every_string_survives_the_round_trip() {
        let all: String = (0..0x250)
            .filter_map(char::from_u32)
            .chain(['😀', '\u{2028}'])
            .collect();
        let body = encode_request(&all, Some(&all));
        let request = parse_request(CompatOp::Set, &body).unwrap();
        assert_eq!(
            (request.key.as_ref(), request.value.as_deref()),
            (&*all, Some(&*all))
        );
    }

    #[test]
    fn first_key_and_value_of_a_request_count() {
        assert_eq!(
            set(r#"{"value":"","key":""}"#),
            pair("", ""),
            "any order, empty strings"
        );
        assert_eq!(
            set(r#"{"KEY":"a","Value":"b"}"#),
            pair("a", "b"),
            "any case"
        );
        assert_eq!(
            set(r#"{"key":"a","key":1,"value":"b","value":"c"}"#),
            pair("a", "b"),
            "first"
        );
        assert_eq!(
            set(r#"{"x":[{"key":1}],"key":"a","y":null,"value":"b"}"#),
            pair("a", "b")
        );
        assert_eq!(
            set(" {\n\t\"key\" : \" a\" ,\r\n\"value\":\"b\"} \n"),
            pair(" a", "b")
        );
        assert_eq!(
            set(r#"{"key":"\u0041\ud83d\ude00\/","value":"\n"}"#),
            pair("A😀/", "\n")
        );
        assert_eq!(
            set("{\"key\":\"a\nb\\\"\u{1}\",\"value\":\"\0\\\\\"}"),
            pair("a\nb\"\u{1}", "\0\\")
        );
    }

    #[test]
    fn malformed_requests_say_what_is_wrong() {
        for (body, expected) in [
            ("", "not acceptable JSON: EOF"),
            (r#"{"key":"a","value":"b""#, "not acceptable JSON: EOF"),
            (r#"{"key":"a","value":"b"} x"#, "trailing characters"),
            (
                r#"x{"key":"a","value":"b"}"#,
                "not acceptable JSON: expected value",
            ),
            (r#"["key"]"#, "expected an object"),
            (r#"{"key":"a"}"#, r#"the field "value" is missing"#),
            (r#"{"value":"a"}"#, r#"the field "key" is missing"#),
            (
                r#"{"key":"a","value":1}"#,
                r#"the field "value" is a number; it must be a string"#,
            ),
            (r#"{"key":1.5e400,"value":""}"#, "number out of range"),
            (
                r#"{"key":true,"value":""}"#,
                r#"the field "key" is true or false"#,
            ),
            (r#"{"key":null,"value":""}"#, r#"the field "key" is null"#),
            (
                r#"{"key":{},"value":""}"#,
                r#"the field "key" is an object"#,
            ),
            (r#"{"key":[],"value":""}"#, r#"the field "key" is an array"#),
            (r#"{"key":"\ud800","value":""}"#, "not acceptable JSON"),
            ("{\"key\":\"a\\\n\",\"value\":\"\"}", "not acceptable JSON"),
            ("\u{1}{\"key\":\"a\",\"value\":\"\"}", "not acceptable JSON"),
        ] {
            let message = set(body).unwrap_err().to_string();
            assert!(message.contains(expected), "{body} -> {message}");
        }
        let error = parse_request(CompatOp::Get, b"{\"key\":\"\xff\"}").unwrap_err();
        assert_eq!(error, CompatError::NotUtf8 { valid: 8 });
        assert_eq!(error.code().info().http, 400);
        let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
        assert_eq!(body["status"], "error");
        assert!(body["error"].as_str().unwrap().contains("from byte 8 on"));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| {
            let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
            set(&format!(r#"{{"key":"a","value":"b","x":{open}{close}}}"#))
        };
        assert_eq!(nested(MAX_JSON_DEPTH), pair("a", "b"));
        assert!(
            nested(MAX_JSON_DEPTH + 1)
                .unwrap_err()
                .to_string()
                .contains("deeper than 32")
        );
        let bomb = format!(r#"{{"x":{}"#, r#"{"x":"#.repeat(1_000_000));
        assert!(
            set(&bomb)
                .unwrap_err()
                .to_string()
                .contains("deeper than 32")
        );
    }
}
