//! Bytes in JSON: a string where they are UTF-8, and base64 (RFC 4648, section 4) under another name
//! where they are not. Reading takes either.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// Suffix of a field's name whose value is base64.
const SUFFIX: &str = "_base64";

/// Puts bytes into an object, as `name` or as `name_base64`.
pub fn put(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.to_owned(), text.into()),
        Err(_) => object.insert(format!("{name}{SUFFIX}"), STANDARD.encode(bytes).into()),
    };
}

/// Takes bytes out of an object; `None` if it has neither field.
///
/// # Errors
/// As text: a field is no string, is no base64, or both fields are there.
pub fn take(object: &mut Map<String, Value>, name: &str) -> Result<Option<Vec<u8>>, String> {
    let encoded = format!("{name}{SUFFIX}");
    match (object.remove(name), object.remove(&encoded)) {
        (None, None) => Ok(None),
        (Some(Value::String(text)), None) => Ok(Some(text.into_bytes())),
        (None, Some(Value::String(text))) => match STANDARD.decode(&text) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(format!("{encoded} is not base64: {error}")),
        },
        (Some(_), Some(_)) => Err(format!("both {name} and {encoded}; send one of them")),
        _ => Err(format!("{name} must be a string")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_as_they_were() {
        for bytes in [&b""[..], b"text", b"\xff\x00"] {
            let mut object = Map::new();
            put(&mut object, "value", bytes);
            assert_eq!(take(&mut object, "value"), Ok(Some(bytes.to_vec())));
            assert!(object.is_empty());
        }
    }

    #[test]
    fn other_values_than_bytes_are_refused() {
        let refused = |text: &str| {
            let mut object = serde_json::from_str(text).unwrap();
            assert!(take(&mut object, "value").is_err(), "{text}");
        };
        refused(r#"{"value": 1}"#);
        refused(r#"{"value_base64": "?"}"#);
        refused(r#"{"value": "a", "value_base64": "YQ=="}"#);
    }
}
