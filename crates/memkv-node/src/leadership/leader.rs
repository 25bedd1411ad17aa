//! A leader, as votes and messages name it.

/// The node that leads in a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) term: u64,
    pub(crate) id: u64,
}
