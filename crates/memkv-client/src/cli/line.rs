//! A key as a line of JSON, as `export` writes it, `import` reads it, and `scan -o json` prints it.
//!
//! ```text
//! {"key":"k","value":"v","expires_ms":1796026500000}
//! ```
//!
//! Bytes that are no UTF-8 stand under `key_base64` and `value_base64`. `expires_ms` is when the key goes, in
//! milliseconds since the epoch; without it, or with null, the key stays. `revision` and `create_revision` are passed
//! over: a write gets its own. Never guesses: a line with any other field is refused, since it may say what must not
//! be lost.

use std::io::{self, BufRead, Read};

use bytes::Bytes;
use memkv_client::Item;
use memkv_proto::json_bytes;
use memkv_proto::limits::{MAX_KEY_BYTES, MAX_VALUE_BYTES_CEILING};
use serde_json::{Map, Value};

/// Most bytes of a line: a key and a value of which each byte is written as `\u0000`, and the names.
const MAX_LINE_BYTES: u64 = 6 * (MAX_KEY_BYTES as u64 + MAX_VALUE_BYTES_CEILING as u64) + 1024;

/// A key that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: Bytes,
    pub(super) value: Bytes,
    /// When it goes, in milliseconds since the epoch; None if it stays.
    pub(super) expires_ms: Option<u64>,
}

/// Writes a key as a line.
pub(super) fn put(out: &mut Vec<u8>, item: &Item) {
    let mut object = Map::new();
    json_bytes::put(&mut object, "key", &item.key);
    json_bytes::put(
        &mut object,
        "value",
        item.value.as_deref().unwrap_or_default(),
    );
    if let Some(at) = item.expires_ms {
        object.insert("expires_ms".to_owned(), at.into());
    }
    out.extend_from_slice(Value::Object(object).to_string().as_bytes());
    out.push(b'\n');
}

/// Reads a line.
///
/// # Errors
/// Words that say what is wrong with it.
pub(super) fn parse(text: &[u8]) -> Result<Line, String> {
    let mut object: Map<String, Value> =
        serde_json::from_slice(text).map_err(|err| format!("it is no JSON object: {err}"))?;
    let key = json_bytes::take(&mut object, "key")?.ok_or("it has no \"key\"")?;
    let value = json_bytes::take(&mut object, "value")?.ok_or("it has no \"value\"")?;
    let expires_ms = match object.remove("expires_ms") {
        None | Some(Value::Null) => None,
        Some(at) => Some(at.as_u64().ok_or("\"expires_ms\" is no time")?),
    };
    object.remove("revision");
    object.remove("create_revision");
    if let Some(other) = object.keys().next() {
        return Err(format!(
            "it has the field {other:?}, which this version does not know"
        ));
    }
    if key.len() > MAX_KEY_BYTES {
        return Err(format!(
            "its key has {} bytes, and {MAX_KEY_BYTES} are allowed",
            key.len()
        ));
    }
    if value.len() > MAX_VALUE_BYTES_CEILING {
        return Err(format!(
            "its value has {} bytes, and {MAX_VALUE_BYTES_CEILING} are allowed",
            value.len()
        ));
    }
    Ok(Line {
        key: key.into(),
        value: value.into(),
        expires_ms,
    })
}

/// Reads the text of the next line into `text`, without its end; false if there is none. A line that is longer than any
/// key is an error, and so is one that is cut off by the end of the file.
pub(super) fn read(source: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<bool> {
    read_bounded(source, text, MAX_LINE_BYTES)
}

fn read_bounded(source: &mut impl BufRead, text: &mut Vec<u8>, most: u64) -> io::Result<bool> {
    text.clear();
    let mut bounded = source.by_ref().take(most + 1);
    if bounded.read_until(b'\n', text)? == 0 {
        return Ok(false);
    }
    match text.pop() {
        Some(b'\n') => {}
        Some(last) => {
            text.push(last);
            let is_long = text.len() as u64 > most;
            let what = match is_long {
                true => "it is longer than any key and value",
                // A program that wrote lines may have left the last end out; a file that was cut is no JSON there.
                false if parse(text).is_ok() => return Ok(true),
                false => "the file ends in the middle of it",
            };
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        None => {}
    }
    if text.last() == Some(&b'\r') {
        text.pop();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(key: &[u8], value: &[u8], expires_ms: Option<u64>) -> Item {
        Item {
            key: Bytes::copy_from_slice(key),
            value: Some(Bytes::copy_from_slice(value)),
            revision: Some(7),
            create_revision: Some(6),
            expires_ms,
        }
    }

    #[test]
    fn any_bytes_survive_a_line() {
        let every: Vec<u8> = (0..=255).collect();
        for (key, value, expires_ms) in [
            (&b"k"[..], &b"v"[..], None),
            (b"", b"", Some(0)),
            (&every, b"line\nbreak\r\n\0\x7f\xe2\x80\xa8", Some(u64::MAX)),
            ("\u{fffd}\"\\".as_bytes(), &every, Some(9)),
        ] {
            let mut out = Vec::new();
            put(&mut out, &item(key, value, expires_ms));
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
            let mut text = Vec::new();
            assert!(read(&mut &out[..], &mut text).unwrap());
            let expected = Line {
                key: Bytes::copy_from_slice(key),
                value: Bytes::copy_from_slice(value),
                expires_ms,
            };
            assert_eq!(parse(&text), Ok(expected));
        }
    }

    #[test]
    fn a_line_that_says_more_or_less_is_refused() {
        let accepted =
            r#"{"key":"k","value":"v","expires_ms":null,"revision":1,"create_revision":1}"#;
        assert!(parse(accepted.as_bytes()).is_ok());
        for (text, why) in [
            ("", "no JSON object"),
            ("[]", "no JSON object"),
            (r#"{"value":"v"}"#, "no \"key\""),
            (r#"{"key":"k"}"#, "no \"value\""),
            (r#"{"key":"k","value":1}"#, "value"),
            (r#"{"key":"k","value":"v","expires_ms":-1}"#, "no time"),
            (r#"{"key":"k","value":"v","type":"list"}"#, "\"type\""),
            (r#"{"key":"k","key_base64":"aw==","value":"v"}"#, "key"),
            (r#"{"key_base64":"?","value":"v"}"#, "key"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let long = format!(
            r#"{{"key":"{}","value":""}}"#,
            "k".repeat(MAX_KEY_BYTES + 1)
        );
        assert!(parse(long.as_bytes()).unwrap_err().contains("allowed"));
    }

    #[test]
    fn lines_end_where_they_should() {
        let lines = |text: &str| {
            let (mut source, mut line, mut found) = (text.as_bytes(), Vec::new(), Vec::new());
            loop {
                match read(&mut source, &mut line) {
                    Ok(true) => found.push(String::from_utf8(line.clone()).unwrap()),
                    Ok(false) => return Ok(found),
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        assert_eq!(
            lines("a\r\n\nb\n"),
            Ok(["a", "", "b"].map(str::to_owned).into())
        );
        let whole = r#"{"key":"k","value":"v"}"#;
        assert_eq!(lines(whole), Ok(vec![whole.to_owned()]));
        for len in 1..whole.len() {
            assert!(lines(&whole[..len]).is_err(), "cut at {len}");
        }
        let mut endless = io::BufReader::new(io::repeat(b'x'));
        let error = read_bounded(&mut endless, &mut Vec::new(), 100_000);
        assert!(error.unwrap_err().to_string().contains("longer"));
    }
}
