//! Deliberate bugs, compiled in only with `--cfg memkv_bugs`, to show that the proofs find them.
//!
//! A plain build holds nothing of this. At most one bug is active, for the whole process.

use std::sync::atomic::{AtomicU8, Ordering};

/// A deliberate bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Commands that a session has already executed are executed again.
    DropDedup = 1,
    /// The feature level is raised whatever the nodes have announced.
    RaiseUnasked = 40,
    /// A key that was watched and has changed stops no transaction.
    IgnoreWatch = 2,
    /// A read hides a key when the node's own clock reaches the deadline, not when a stamp does.
    ExpireByOwnClock = 3,
    /// A read that looks several times sees what was written in between.
    ReadWithoutView = 4,
}

static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Switches one bug on, or all off.
pub fn set(bug: Option<Bug>) {
    ACTIVE.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

/// Whether `bug` is switched on.
pub fn active(bug: Bug) -> bool {
    ACTIVE.load(Ordering::SeqCst) == bug as u8
}
