//! What must hold whatever arrives on an HTTP connection, from its bytes over the routes to a real
//! store and back; shared by this crate's tests and the fuzz target. Panics where it does not hold.
//!
//! - The answers, the store and what is left for another protocol depend on the bytes and not on the
//!   pieces in which they arrived.
//! - What is answered is whole responses, and the connection ends with the client's end, without a
//!   wait.
//! - A command that is answered with an error has changed nothing.

use std::sync::Arc;

use bytes::BytesMut;
use memkv_server::http::{End, Limits, serve};

use crate::machine::Machine;
use crate::wire::{RUNTIME, Wire};

/// What became of one connection.
#[derive(Debug, PartialEq)]
struct Outcome {
    answers: Vec<u8>,
    /// What comes behind an upgrade.
    leftover: Option<Vec<u8>>,
}

/// Serves a stream that arrives in pieces of these sizes, again and again.
pub(crate) fn check_http(stream: &[u8], pieces: Vec<usize>) {
    let machine = Machine::checked();
    let outcome = outcome(stream, pieces, &machine);
    // HEAD is answered with the length of a body that does not come.
    if !stream.windows(4).any(|word| word == b"HEAD") {
        check_responses(&outcome);
    }
    let whole = Machine::default();
    let of_whole = self::outcome(stream, vec![stream.len()], &whole);
    assert!(
        outcome == of_whole,
        "the pieces show in the answers: \"{}\" and, in one piece, \"{}\"",
        outcome.answers.escape_ascii(),
        of_whole.answers.escape_ascii(),
    );
    assert_eq!(
        whole.image(),
        machine.image(),
        "the pieces show in the store"
    );
}

fn outcome(stream: &[u8], pieces: Vec<usize>, machine: &Machine) -> Outcome {
    let api = machine.api();
    let wire = Wire::new(stream, pieces);
    let replies = wire.replies();
    let serving = serve(
        wire,
        ([127, 0, 0, 1], 1).into(),
        BytesMut::new(),
        &api,
        Arc::new(Limits::default()),
    );
    let leftover = match RUNTIME.with(|runtime| runtime.block_on(serving)) {
        End::Closed => None,
        End::Upgraded(wire, read, _) => Some([&read, wire.rest].concat()),
    };
    Outcome {
        answers: timeless(&replies.bytes()),
        leftover,
    }
}

/// Without what depends on when the bytes came: dates, and whether a client that waits for an
/// invitation to send its body was told so before the body was here.
fn timeless(answers: &[u8]) -> Vec<u8> {
    const DATE: &[u8] = b"\r\nDate: ";
    const DATE_BYTES: usize = DATE.len() + "Sun, 06 Nov 1994 08:49:37 GMT".len();
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut rest = answers;
    let mut kept = Vec::with_capacity(rest.len());
    while let Some(first) = rest.first() {
        let skipped = match rest {
            _ if rest.starts_with(DATE) => DATE_BYTES.min(rest.len()),
            _ if rest.starts_with(CONTINUE) => CONTINUE.len(),
            _ => {
                kept.push(*first);
                1
            }
        };
        rest = &rest[skipped..];
    }
    kept
}

/// Whether the answers are responses and nothing else.
fn check_responses(outcome: &Outcome) {
    let mut rest = &outcome.answers[..];
    let mut is_last = false;
    while !rest.is_empty() {
        assert!(!is_last, "something comes behind the last response");
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n");
        let (head, body) = rest.split_at(end.expect("a response has a head") + 4);
        let head = std::str::from_utf8(head).expect("a head is text");
        let status = head.strip_prefix("HTTP/1.1 ").expect("it says its version");
        let status: u16 = status[..3].parse().expect("it has a status");
        // 503: there is no node here that could have metrics.
        assert!(matches!(status, 101 | 200 | 304 | 400..500 | 503), "{head}");
        is_last = status == 101 || head.contains("\r\nConnection: Close\r\n");
        let length = head.split("\r\nContent-Length: ").nth(1).map_or(0, |rest| {
            let (digits, _) = rest.split_once("\r\n").expect("a field ends");
            digits.parse().expect("a length is a number")
        });
        assert!(length <= body.len(), "a body is whole");
        rest = &body[length..];
    }
    let has_upgraded = outcome.answers.windows(4).any(|word| word == b" 101");
    assert!(has_upgraded || outcome.leftover.is_none());
}
