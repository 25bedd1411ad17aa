//! The deliberate bug of this crate, which proves that the simulator finds such bugs.
//! Never part of a plain build: only with `--cfg memkv_bugs`.

use std::sync::atomic::{AtomicBool, Ordering};

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// What a disk alone does not know to be committed counts for nothing.
    RankByCommitted,
}

static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Switches the bug on, or off, for the whole process.
pub fn set(bug: Option<Bug>) {
    ACTIVE.store(bug.is_some(), Ordering::SeqCst);
}

/// Whether the bug is on.
pub fn active(_: Bug) -> bool {
    ACTIVE.load(Ordering::SeqCst)
}
