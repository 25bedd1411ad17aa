//! Requests of a Redis client from their bytes to the bytes of their answers: parsing, dispatch,
//! admission, the store, and the answers' encoding, on a connection without a network. The store takes
//! the place of a node, so no entry is written and nothing waits.

use std::net::SocketAddr;

use bytes::BytesMut;

use crate::connection::serving;
use crate::machine::Machine;
use crate::wire::{RUNTIME, Wire};
use crate::{Piece, Run, VALUE_BYTES, key};

/// Requests of one connection: enough that its beginning and its end do not count.
const REQUESTS: u64 = 1024;

/// Keys in the store: as many as one connection names.
const KEYS: u64 = REQUESTS;

/// Bytes of an answer to SET.
const OK: &[u8] = b"+OK\r\n";

pub(crate) const PIECES: &[Piece] = &[
    Piece {
        name: "edge_get",
        operations: REQUESTS,
        prepare: || edge(&[b"GET"], VALUE_BYTES + b"$256\r\n\r\n".len()),
    },
    Piece {
        name: "edge_set",
        operations: REQUESTS,
        prepare: || edge(&[b"SET", &VALUE], OK.len()),
    },
];

const VALUE: [u8; VALUE_BYTES] = [b'v'; VALUE_BYTES];

/// One connection that sends a command for each key; each answer takes so many bytes.
fn edge(command: &'static [&'static [u8]], answer_bytes: usize) -> Run {
    let machine = Machine::default();
    let resp = serving(&machine);
    let serve = move |stream: &[u8]| {
        let wire = Wire::new(stream, vec![stream.len()]);
        let answers = wire.replies();
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        RUNTIME.with(|runtime| runtime.block_on(resp.serve(wire, BytesMut::new(), addr, addr)));
        answers.bytes().len()
    };
    let all = KEYS as usize;
    assert_eq!(serve(&stream(&[b"SET", &VALUE])), all * OK.len());
    let stream = stream(command);
    Box::new(move || assert_eq!(serve(&stream), all * answer_bytes))
}

/// The command for each key: its name, the key, and what comes behind it.
fn stream(command: &[&[u8]]) -> Vec<u8> {
    let mut stream = Vec::new();
    for number in 0..KEYS {
        let key = key(number);
        let words = [command[0], &key]
            .into_iter()
            .chain(command[1..].iter().copied());
        stream.extend_from_slice(format!("*{}\r\n", command.len() + 1).as_bytes());
        for word in words {
            stream.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            stream.extend_from_slice(word);
            stream.extend_from_slice(b"\r\n");
        }
    }
    stream
}
