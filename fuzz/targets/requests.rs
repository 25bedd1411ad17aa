//! Any bytes as a stream of requests. The first byte is the size of the pieces in which it arrives.

use memkv_resp::Limits;

#[path = "../../crates/memkv-resp/tests/properties/requests.rs"]
mod properties;

/// One input.
pub(crate) fn target(data: &[u8]) {
    if let Some((piece, stream)) = data.split_first() {
        properties::check_requests(properties::SMALL, stream, usize::from(*piece));
        properties::check_requests(Limits::unauthenticated(), stream, usize::from(*piece));
    }
}
