//! Any bytes on an HTTP connection, executed on a real store. The first byte says how many bytes
//! behind it are the sizes of the pieces in which the rest arrives, one after the other and again.

#[path = "../../crates/memkv-server/tests/properties/http.rs"]
mod properties;

/// Most sizes: enough for pauses in any three places of a short request.
const SIZES: usize = 8;

/// The sizes and the stream of one input.
pub(crate) fn split(data: &[u8]) -> Option<(Vec<usize>, &[u8])> {
    let (count, rest) = data.split_first()?;
    let (sizes, stream) = rest.split_at_checked(usize::from(*count) % (SIZES + 1))?;
    Some((sizes.iter().copied().map(usize::from).collect(), stream))
}

pub(crate) use properties::check_http as check;

/// One input.
pub(crate) fn target(data: &[u8]) {
    if let Some((sizes, stream)) = split(data) {
        check(stream, sizes);
    }
}
