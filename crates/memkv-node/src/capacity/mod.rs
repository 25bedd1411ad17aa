//! The care of a node for memory: what it announces that it has for keys, the cap that follows from all
//! announcements, and what the process really takes.

pub(crate) mod cap;
pub(crate) mod meter;
pub(crate) mod watch;
