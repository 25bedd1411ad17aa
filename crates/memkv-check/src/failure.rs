//! Verdicts: the coverage of a check that passed, and the evidence for a reader when it failed.
//! Never decides anything.

use std::fmt::Write as _;

/// The extent of a check that passed, so that an empty proof can be told from a real one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Distinct keys.
    pub keys: usize,
    /// Operations that were answered.
    pub answered: usize,
    /// Operations of unknown outcome.
    pub unknown: usize,
    /// Operations that the store refused.
    pub not_executed: usize,
    /// Steps of search.
    pub steps: u64,
}

/// Why a history was not accepted. Operations are quoted as text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The recording is wrong, the store may be right.
    #[error("the history is malformed, fix its recorder: {problem}")]
    Malformed {
        /// The operation and its fault.
        problem: String,
    },
    /// No order of the operations explains the replies.
    #[error("{0}")]
    NotLinearizable(Box<Witness>),
    /// The budget ran out; this counts as a failure.
    #[error(
        "key {key:?} is undecided after {steps} steps of search: raise the budget, or spread the \
         operations over more keys"
    )]
    Undecided {
        /// The key.
        key: String,
        /// Steps taken on it.
        steps: u64,
    },
    /// Two writes claim the same place in the cluster-wide order.
    #[error("two writes have revision {revision}:\n  {first}\n  {second}")]
    SharedRevision {
        /// The revision.
        revision: u64,
        /// One write.
        first: String,
        /// The other.
        second: String,
    },
    /// The log's order does not explain what clients saw.
    #[error("the log does not explain what clients saw: {problem}")]
    NotTheLog {
        /// The contradiction.
        problem: String,
    },
    /// Revisions contradict real time.
    #[error(
        "revisions went back: the first operation had returned before the second was invoked, \
         but the second does not come after it in revision order:\n  {earlier}\n  {later}"
    )]
    RevisionOrder {
        /// The one that had returned.
        earlier: String,
        /// The one that was invoked afterwards.
        later: String,
    },
}

/// Evidence of a violation on one key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Witness {
    /// The key.
    pub key: String,
    /// Positions in the history of operations that cannot be explained together: the shortest
    /// failing prefix of the key's operations, or fewer where a simple rule is broken.
    pub operations: Vec<usize>,
    /// The evidence as text for a reader.
    pub text: String,
}

/// Appends the operations to `text`, one a line; of many only the last `limit`.
pub(crate) fn quote(text: &mut String, operations: &[String], limit: usize) {
    let hidden = operations.len().saturating_sub(limit);
    if hidden > 0 {
        let _ = write!(text, "\n  ... {hidden} more before these");
    }
    for operation in &operations[hidden..] {
        let _ = write!(text, "\n  {operation}");
    }
}
