//! One event as a line of JSON. JSON's own escapes keep a control character or a line end of a client
//! from making a second line.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::Event;
use crate::http::rfc3339;

/// Most characters of a text that a client has chosen: as an escape each takes six bytes.
const MAX_TEXT: usize = 64;

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    event: &'a str,
    outcome: &'a str,
    user: &'a str,
    origin: Option<String>,
    detail: &'a str,
    #[serde(skip_serializing_if = "is_none")]
    left_out: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none(left_out: &u64) -> bool {
    *left_out == 0
}

/// The line of an event, its end included; so many like it were left out before.
pub(super) fn of(event: &Event<'_>, left_out: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let line = Line {
        time: rfc3339(now.unwrap_or_default()),
        event: event.kind.name(),
        outcome: if event.allowed { "allowed" } else { "refused" },
        user: shortened(event.user),
        origin: event.origin.map(|addr| addr.to_string()),
        detail: shortened(event.detail),
        left_out,
    };
    // Texts and a number always have a JSON form.
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The beginning of a text.
pub(super) fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_TEXT);
    end.map_or(text, |(at, _)| &text[..at])
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_the_client_has_sent() {
        let long = "x".repeat(10_000);
        let event = Event {
            kind: Kind::Authentication,
            allowed: false,
            user: "a\n{\"event\":\"shutdown\"}\u{1b}[2J\u{2028}",
            origin: Some(([127, 0, 0, 1], 7).into()),
            detail: &long,
        };
        let line = of(&event, 3);
        assert_eq!(line.iter().filter(|byte| **byte < b' ').count(), 1);
        assert!(line.len() < 1024 && line.ends_with(b"\n"));
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["user"], event.user);
        assert_eq!(value["origin"], "127.0.0.1:7");
        assert_eq!(
            (&value["outcome"], &value["left_out"]),
            (&"refused".into(), &3.into())
        );
        assert_eq!(value["detail"].as_str().map(str::len), Some(MAX_TEXT));
        let time = value["time"].as_str().unwrap();
        assert!(
            time.starts_with("20") && time.ends_with('Z') && time.len() == 24,
            "{time}"
        );
    }
}
