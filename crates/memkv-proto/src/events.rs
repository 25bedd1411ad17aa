//! A node's timeline: the JSON of `GET /v1/events`.
//! Never more than one node has seen, by its own clock.
//!
//! Invariant: an older or newer node's timeline can be read: unknown fields and kinds are no error.

use serde::{Deserialize, Serialize};

/// The answer to `GET /v1/events?since=SEQ`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// The asked node's name.
    pub name: String,
    /// How often a process has opened the node's directory. Numbers begin anew with each.
    pub boot: u64,
    /// When the process began, in milliseconds since the Unix epoch, by the node's wall clock; 0 of a node that does
    /// not tell. An emptied directory counts its starts anew.
    #[serde(default)]
    pub began_at_ms: u64,
    /// What has happened since the process began, as far as it is kept, in the order of the numbers.
    pub events: Vec<Event>,
}

/// What has happened to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its number, from 1, without a gap but where older ones have gone: the oldest of the most
    /// frequent kind goes first.
    pub seq: u64,
    /// Milliseconds since the Unix epoch, by the node's wall clock.
    pub at_ms: u64,
    /// A word that programs go by, such as `leader`.
    pub kind: String,
    /// Whether an operator should look.
    #[serde(default)]
    pub warns: bool,
    /// It has happened while the node was away; `at_ms` is when the node has found it.
    #[serde(default)]
    pub late: bool,
    /// Words for people.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_version_adds_or_leaves_out_is_no_error() {
        let json = r#"{"name":"n1","boot":2,"new":[1],"events":[
            {"seq":1,"at_ms":5,"kind":"eclipse","text":"dark","moon":true}]}"#;
        let read: Events = serde_json::from_str(json).unwrap();
        let event = &read.events[0];
        assert_eq!(
            (&*event.kind, event.warns, event.late),
            ("eclipse", false, false)
        );
        assert_eq!(read.began_at_ms, 0);
    }
}
