//! What must hold whatever a client sends, from its bytes over the table of commands to a real
//! store and back; shared by this crate's tests and the fuzz target. Panics where it does not hold.
//!
//! - Whatever comes is answered in whole frames, and the connection ends when the client's end is
//!   reached, without a wait.
//! - A command that is answered with an error has changed nothing.
//! - After each write the store agrees with itself, and at the end with its own snapshot.
//! - The store does not depend on how the stream was cut into pieces.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use memkv_resp::FrameParser;
use memkv_server::resp::{Resp, RespSettings};
use memkv_store::KeyEventClasses;

use crate::machine::{MAX_VALUE_BYTES, Machine};
use crate::wire::{RUNTIME, Wire};

/// A snapshot walks over thousands of empty shards, and a second store costs as much as the first:
/// one input in so many is checked in these ways too.
const THOROUGH_EVERY: usize = 8;

/// Executes a stream of requests that arrives in pieces of `piece` bytes.
pub(crate) fn check_commands(stream: &[u8], piece: usize) {
    let machine = Machine::checked();
    execute(stream, piece, &machine);
    if piece.is_multiple_of(THOROUGH_EVERY) {
        machine.check_snapshot();
        let whole = Machine::default();
        execute(stream, stream.len(), &whole);
        assert_eq!(
            whole.image(),
            machine.image(),
            "the pieces show in the store"
        );
    }
}

fn execute(stream: &[u8], piece: usize, machine: &Machine) {
    let resp = serving(machine);
    let wire = Wire::new(stream, vec![piece]);
    let replies = wire.replies();
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    RUNTIME.with(|runtime| runtime.block_on(resp.serve(wire, BytesMut::new(), addr, addr)));
    check_frames(&replies.bytes());
}

/// The Redis protocol in front of a store.
pub(crate) fn serving(machine: &Machine) -> Resp<Machine> {
    let settings = RespSettings {
        port: 6379,
        max_value_bytes: MAX_VALUE_BYTES,
        max_connections: 1,
        write_stall: Duration::from_secs(1),
        idle_time: None,
        announce: KeyEventClasses::default(),
        sync: true,
    };
    let resp = Resp::new(machine.service(), settings);
    RUNTIME.with(|runtime| {
        let _guard = runtime.enter();
        resp.attach(machine.clone());
    });
    resp
}

/// Whether bytes are frames and nothing else.
fn check_frames(bytes: &[u8]) {
    let mut parser = FrameParser::new();
    let mut rest = BytesMut::from(bytes);
    while let Some(frame) = parser
        .parse(&mut rest)
        .expect("what is answered is a frame")
    {
        drop(frame);
    }
    assert!(rest.is_empty(), "half a frame: {rest:?}");
}
