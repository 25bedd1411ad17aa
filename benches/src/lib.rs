//! The work that the hot path repeats for every command and every entry, in pieces small enough to
//! be measured alone: the Redis protocol, building and applying entries, the log, snapshots; and whole
//! requests from bytes to bytes.
//!
//! `cargo bench -p memkv-hot-path` times the pieces; `cargo xtask instructions` counts the
//! instructions of the same pieces and holds them against `baseline.json`. Nothing here starts a
//! node or a thread, and no piece takes a random number: a second run executes the same
//! instructions, the random salt of a log segment aside.

#![forbid(unsafe_code)]

mod apply;
mod codec;
mod edge;
mod log;
mod snapshot;

#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "made for tests"
)]
#[path = "../../crates/memkv-server/tests/properties/commands.rs"]
mod connection;
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "made for tests"
)]
#[path = "../../crates/memkv-server/tests/properties/machine.rs"]
mod machine;
#[allow(clippy::unwrap_used, reason = "made for tests")]
#[path = "../../crates/memkv-server/tests/properties/wire.rs"]
mod wire;

use bytes::Bytes;

/// What the server allocates with, so that allocations cost here what they cost there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of a key, and of a value: the sizes in which the project states its speed.
const KEY_BYTES: usize = 16;
const VALUE_BYTES: usize = 256;

/// A piece of work.
pub struct Piece {
    /// What it is called in the baseline.
    pub name: &'static str,
    /// How many operations one run consists of.
    pub operations: u64,
    /// Does everything that is not measured, and returns what one run executes.
    pub prepare: fn() -> Run,
}

/// One run of a piece; it can be repeated any number of times.
pub type Run = Box<dyn FnMut()>;

/// All pieces.
pub fn pieces() -> impl Iterator<Item = &'static Piece> {
    let pieces = [
        codec::PIECES,
        apply::PIECES,
        log::PIECES,
        snapshot::PIECES,
        edge::PIECES,
    ];
    pieces.into_iter().flatten()
}

/// The key with this number: [`KEY_BYTES`] bytes. Cheap, since pieces make keys while they run.
fn key(number: u64) -> Bytes {
    // An odd factor permutes the numbers below a power of two: neighbours do not follow each other.
    let mut left = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut key = [0; KEY_BYTES];
    for byte in &mut key {
        *byte = b"0123456789abcdef"[(left % 16) as usize];
        left /= 16;
    }
    Bytes::copy_from_slice(&key)
}

#[cfg(test)]
mod tests {
    use super::pieces;

    /// Every assertion within the pieces holds, in the first run and in later ones.
    #[test]
    fn every_piece_can_be_repeated() {
        for piece in pieces() {
            let mut run = (piece.prepare)();
            run();
            run();
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = pieces().map(|piece| piece.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
