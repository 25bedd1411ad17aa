//! Messages to subscribers: what clients publish (`publish`), and what is announced of keys that change
//! (`announce`). Nothing of it is in the log.

pub(crate) mod announce;
pub(crate) mod publish;
