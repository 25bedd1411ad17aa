//! The way of a read: `barrier` waits for an index that a round of the leader has confirmed (`rounds`,
//! `leadership_check`), and until this node has applied that far. `long_read` reads many keys of one state.
//!
//! Never uses a lease. Invariant: a read sees what was acknowledged anywhere before it began.

pub(crate) mod barrier;
pub(crate) mod commit_interest;
pub(crate) mod leadership_check;
pub(crate) mod long_read;
pub(crate) mod published;
pub(crate) mod rounds;
