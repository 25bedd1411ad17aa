//! The cost of JSON, which is written and parsed on the threads of clients.

/// Steps to parse or to write so many bytes, see [`Aside`](crate::aside::Aside).
pub(super) fn steps(bytes: usize) -> usize {
    bytes * 4
}
