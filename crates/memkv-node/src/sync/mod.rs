//! What threads and tasks share: locks that know what a panic may leave behind, the order in which they
//! are taken, and ways to let other tasks run.

pub mod contain;
pub mod lock;
pub(crate) mod lock_order;
pub(crate) mod yielding;
