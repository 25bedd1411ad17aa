//! Any bytes from a peer: as either side of the handshake, as frames and as a message. The first byte is
//! the size of the pieces in which they arrive.

#[path = "../../crates/memkv-server/tests/properties/peers.rs"]
mod properties;

/// One input.
pub(crate) fn target(data: &[u8]) {
    if let Some((piece, stream)) = data.split_first() {
        properties::check_handshake(stream, usize::from(*piece));
        properties::check_frames(stream, usize::from(*piece));
    }
}
