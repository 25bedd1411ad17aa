//! Tools that threads and tasks share: locks that know whether a panic may have left them half changed, the
//! order in which they are taken, and ways to let other tasks run.

pub mod contain;
pub mod lock;
pub(crate) mod lock_order;
pub(crate) mod yielding;
