//! The way of a write: `session` numbers a client's command and keeps it until it is answered, `sender`
//! takes it to the leader, and the leader's `batcher` puts it into the next entry. `copies` answers how
//! many nodes have it.
//!
//! Never executes anything: that is apply's work (`engine`). Invariant: a command is executed once or not
//! at all, however often it is sent.

pub(crate) mod batcher;
pub(crate) mod checked;
pub(crate) mod copies;
pub(crate) mod sender;
pub(crate) mod session;
