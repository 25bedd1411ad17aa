//! The original's protocol: `POST /memkv{id}/store/{get,set,del,exist}` with small JSON bodies.
//!
//! Replies are byte for byte those of the original, whose client reads little JSON: it does not
//! decode `\uXXXX` and needs a string `value` in every reply to `get`. So replies escape
//! `\b \f \n \r \t " \\` only; all other characters, control characters included, go out raw.
//!
//! Requests are read as JSON (RFC 8259), with the liberty on which the original's own client relies:
//! control characters may stand raw in strings. Names of fields are compared without regard to ASCII case,
//! the first of several equal ones counts, unknown ones are ignored. Unlike the original, escapes
//! are decoded, blanks at the start of a string are kept, and other text than JSON is refused.
//!
//! Never answers "no leader" for a command that may have been executed: the answer is `error`, and the
//! listener adds the header [`crate::HEADER_EXECUTED`].

mod request;

pub use request::{CompatError, CompatRequest, parse_request};

/// The original's commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompatOp {
    /// Reads a value.
    Get,
    /// Writes a value.
    Set,
    /// Removes a key.
    Del,
    /// Asks whether a key exists.
    Exist,
}

impl CompatOp {
    /// The last segment of the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Del => "del",
            Self::Exist => "exist",
        }
    }

    /// Splits a path (without its query) into the node's id and the command; None if it is not one
    /// of the original's. The short form `/store/get` has the empty id.
    pub fn from_path(path: &str) -> Option<(&str, Self)> {
        let (id, op) = match path.strip_prefix("/store/") {
            Some(op) => ("", op),
            None => path.strip_prefix("/memkv")?.split_once("/store/")?,
        };
        let ops = [Self::Get, Self::Set, Self::Del, Self::Exist];
        let op = ops.into_iter().find(|known| known.as_str() == op)?;
        (!id.contains('/')).then_some((id, op))
    }
}

/// Writes the body of a request, in the original client's order.
pub fn encode_request(key: &str, value: Option<&str>) -> Vec<u8> {
    let mut body = b"{\"key\":".to_vec();
    push_string(&mut body, key);
    if let Some(value) = value {
        body.extend_from_slice(b",\"value\":");
        push_string(&mut body, value);
    }
    body.push(b'}');
    body
}

/// The `status` of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CompatStatus {
    /// Done; for `del` also if the key was absent.
    Ok,
    /// `get` of an absent key.
    NotFound,
    /// No leader, and nothing was executed.
    NoLeader,
    /// Failed, or unknown.
    Error,
    /// `exist` of a present key.
    Yes,
    /// `exist` of an absent key.
    No,
}

impl CompatStatus {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotFound => "not found",
            Self::NoLeader => "no leader",
            Self::Error => "error",
            Self::Yes => "yes",
            Self::No => "no",
        }
    }

    /// The body of a reply to `set`, `del` and `exist`.
    pub fn body(self) -> &'static [u8] {
        match self {
            Self::Ok => br#"{"status":"ok"}"#,
            Self::NotFound => br#"{"status":"not found"}"#,
            Self::NoLeader => br#"{"status":"no leader"}"#,
            Self::Error => br#"{"status":"error"}"#,
            Self::Yes => br#"{"status":"yes"}"#,
            Self::No => br#"{"status":"no"}"#,
        }
    }

    /// The body of a reply to `get` without a value: the field `value` is present and empty.
    pub fn body_of_get(self) -> &'static [u8] {
        match self {
            Self::Ok => br#"{"status":"ok","value":""}"#,
            Self::NotFound => br#"{"status":"not found","value":""}"#,
            Self::NoLeader => br#"{"status":"no leader","value":""}"#,
            Self::Error | Self::Yes | Self::No => br#"{"status":"error","value":""}"#,
        }
    }
}

/// The body of a reply to `get` of a present key.
///
/// A value that is not UTF-8 (written through another interface) cannot stand in JSON: it is
/// answered like a failed read, `{"status":"error","value":"","error":"..."}`, still with HTTP 200,
/// because the request was well-formed and the original client gives up on any other status.
pub fn value_body(value: &[u8]) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(value) else {
        return br#"{"status":"error","value":"","error":"the value is not UTF-8; read it with GET /v1/kv/{key}"}"#
            .to_vec();
    };
    // Most values have little to escape: one allocation is enough for them.
    let mut body = Vec::with_capacity(value.len() + value.len() / 8 + 32);
    body.extend_from_slice(br#"{"status":"ok","value":"#);
    push_string(&mut body, text);
    body.push(b'}');
    body
}

/// `{"status":"error","error":"..."}`, the reply to a malformed request.
pub fn error_body(message: &str) -> Vec<u8> {
    let mut body = br#"{"status":"error","error":"#.to_vec();
    push_string(&mut body, message);
    body.push(b'}');
    body
}

/// Appends `text` as a JSON string in the way described above. For a text with control characters
/// other than the five escaped ones the result is not strict JSON, as in the original.
pub fn push_string(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape: &[u8; 2] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0x08 => b"\\b",
            0x0c => b"\\f",
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        out.extend_from_slice(escape);
        copied = at + 1;
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_the_original_bytes() {
        assert_eq!(value_body(b"v1"), br#"{"status":"ok","value":"v1"}"#);
        assert_eq!(
            CompatStatus::NotFound.body_of_get(),
            br#"{"status":"not found","value":""}"#
        );
        assert_eq!(
            CompatStatus::NoLeader.body_of_get(),
            br#"{"status":"no leader","value":""}"#
        );
        assert_eq!(
            CompatStatus::Error.body_of_get(),
            br#"{"status":"error","value":""}"#
        );
        use CompatStatus::{Error, No, NoLeader, NotFound, Ok, Yes};
        for status in [Ok, NotFound, NoLeader, Error, Yes, No] {
            let body = format!(r#"{{"status":"{}"}}"#, status.as_str());
            assert_eq!(status.body(), body.as_bytes());
        }
    }

    #[test]
    fn only_seven_characters_are_escaped_and_never_as_unicode() {
        let body = value_body("\u{1}\u{8}\u{c}\n\r\t\"\\/\u{7f}é😀\u{1f}\0".as_bytes());
        let expected = "{\"status\":\"ok\",\"value\":\
                        \"\u{1}\\b\\f\\n\\r\\t\\\"\\\\/\u{7f}é😀\u{1f}\0\"}";
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        assert_eq!(value_body(b""), br#"{"status":"ok","value":""}"#);
    }

    #[test]
    fn a_value_that_is_not_utf8_is_an_error_with_a_string_value() {
        let body: serde_json::Value = serde_json::from_slice(&value_body(b"\xff")).unwrap();
        assert_eq!(
            (&body["status"], &body["value"]),
            (&"error".into(), &"".into())
        );
        assert!(body["error"].as_str().unwrap().contains("/v1/kv/"));
    }

    #[test]
    fn paths() {
        assert_eq!(
            CompatOp::from_path("/memkv11081/store/get"),
            Some(("11081", CompatOp::Get))
        );
        assert_eq!(
            CompatOp::from_path("/memkv/store/set"),
            Some(("", CompatOp::Set))
        );
        assert_eq!(
            CompatOp::from_path("/store/exist"),
            Some(("", CompatOp::Exist))
        );
        for path in [
            "/memkv1/store/",
            "/memkv1/store/GET",
            "/memkv1/store/get/",
            "/memkv1/raft/get",
            "/memkv1/x/store/get",
            "/store/get/x",
            "memkv1/store/get",
            "/x/store/get",
            "/",
        ] {
            assert_eq!(CompatOp::from_path(path), None, "{path}");
        }
    }
}
