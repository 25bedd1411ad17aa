//! Deliberate bugs, which prove that the tests above this crate find such bugs.
//! Never part of a plain build: only with `--cfg memkv_bugs`.

use std::sync::atomic::{AtomicU8, Ordering};

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Records are acknowledged without fdatasync.
    SkipFsync = 1,
    /// A bad record anywhere in the log is taken for a torn tail.
    TruncateAtBadChecksum = 2,
}

static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Switches one bug on, or all off, for the whole process.
pub fn set(bug: Option<Bug>) {
    ACTIVE.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

/// Whether a bug is on.
pub fn active(bug: Bug) -> bool {
    ACTIVE.load(Ordering::SeqCst) == bug as u8
}
