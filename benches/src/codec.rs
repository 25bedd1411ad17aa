//! The Redis protocol as the server uses it: requests out of a receive buffer, replies into a send
//! buffer.

use std::hint::black_box;

use bytes::BytesMut;
use memkv_resp::{Limits, Protocol, ReplyWriter, RequestParser, encode_command};

use crate::{Piece, Run, VALUE_BYTES, key};

/// Commands in one pipeline.
const PIPELINE: u64 = 16;

pub(crate) const PIECES: &[Piece] = &[
    Piece {
        name: "resp_parse_set",
        operations: PIPELINE,
        prepare: || parse(|key, value, wire| encode_command(wire, &[b"SET", key, value])),
    },
    Piece {
        name: "resp_parse_get",
        operations: PIPELINE,
        prepare: || parse(|key, _, wire| encode_command(wire, &[b"GET", key])),
    },
    Piece {
        name: "resp_write_ok",
        operations: PIPELINE,
        prepare: || write(|reply, _| reply.ok()),
    },
    Piece {
        name: "resp_write_bulk",
        operations: PIPELINE,
        prepare: || write(|reply, value| reply.bulk(value)),
    },
];

/// Reads a pipeline of requests that has arrived as a whole.
fn parse(encode: fn(&[u8], &[u8], &mut Vec<u8>)) -> Run {
    let mut wire = Vec::new();
    for number in 0..PIPELINE {
        encode(&key(number), &[b'v'; VALUE_BYTES], &mut wire);
    }
    let mut parser = RequestParser::new(Limits::new(1 << 20));
    let mut buffer = BytesMut::new();
    Box::new(move || {
        buffer.extend_from_slice(&wire);
        let mut requests = 0;
        while let Ok(Some(request)) = parser.parse(&mut buffer) {
            black_box(request.args().map(<[u8]>::len).sum::<usize>());
            parser.recycle(request);
            requests += 1;
        }
        assert_eq!(requests, PIPELINE);
    })
}

/// Writes the replies of a pipeline.
fn write(one: fn(&mut ReplyWriter<'_, BytesMut>, &[u8])) -> Run {
    let value = [b'v'; VALUE_BYTES];
    let mut buffer = BytesMut::new();
    Box::new(move || {
        buffer.clear();
        let mut reply = ReplyWriter::new(&mut buffer, Protocol::Resp2);
        for _ in 0..PIPELINE {
            one(&mut reply, black_box(&value));
        }
        assert!(!black_box(&buffer).is_empty());
    })
}
