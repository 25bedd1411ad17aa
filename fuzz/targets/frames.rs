//! Any bytes as a stream of frames. The first byte is the size of the pieces in which it arrives.

#[path = "../../crates/memkv-resp/tests/properties/frames.rs"]
mod properties;

/// One input.
pub(crate) fn target(data: &[u8]) {
    if let Some((piece, stream)) = data.split_first() {
        properties::check_frames(stream, usize::from(*piece));
    }
}
