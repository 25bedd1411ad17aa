//! Any bytes as the requests of one client, executed on a real store. The first byte is the size of
//! the pieces in which they arrive.

#[path = "../../crates/memkv-server/tests/properties/commands.rs"]
mod properties;

/// One input.
pub(crate) fn target(data: &[u8]) {
    if let Some((piece, stream)) = data.split_first() {
        properties::check_commands(stream, usize::from(*piece));
    }
}
