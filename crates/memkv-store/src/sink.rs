//! The output of the state machine: the effects of `apply`, for the node that runs it.
//!
//! A sink never feeds anything back: if it could influence the state, nodes with different sinks would
//! diverge.

use crate::{DecodeError, Reply, SessionId, SystemOutcome};

/// Receives the effects of one applied batch, in the order of the batch.
pub trait Sink {
    /// The command was executed just now.
    fn reply(&mut self, session: SessionId, seq: u64, reply: &Reply);

    /// The command had been executed before. `reply` is its answer of then, or `None` if the origin had
    /// acknowledged that answer or the cache had no room to keep it.
    fn duplicate(&mut self, session: SessionId, seq: u64, reply: Option<&Reply>);

    /// None of these `count` commands of a group was executed: all of it, or for [`Rejected::Rights`] its rest.
    fn rejected(&mut self, session: SessionId, first_seq: u64, count: u64, why: Rejected);

    /// The batch's system operation number `ordinal`, counted from 0, had this outcome.
    fn system(&mut self, ordinal: usize, outcome: &SystemOutcome);

    /// The batch could not be read. It changed nothing and does not count as applied: nothing after
    /// it may be applied.
    fn malformed(&mut self, why: &DecodeError);
}

/// Drops every effect: for replaying a log for which no client waits.
impl Sink for () {
    fn reply(&mut self, _: SessionId, _: u64, _: &Reply) {}
    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
    fn rejected(&mut self, _: SessionId, _: u64, _: u64, _: Rejected) {}
    fn system(&mut self, _: usize, _: &SystemOutcome) {}
    fn malformed(&mut self, _: &DecodeError) {}
}

/// Why commands of a group were not executed by this entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The session was never opened, was closed, or was replaced by a later boot of its node.
    #[error("the session is not open (never opened, closed or replaced); open a new one")]
    UnknownSession,
    /// Commands before this group are missing, so executing it would change their order.
    #[error("the group does not follow the last executed command; {expected} is expected next")]
    Gap {
        /// The sequence number that the session executes next.
        expected: u64,
    },
    /// A principal of the group no longer stands. The numbers before the rejected ones, if the group had
    /// any, were executed before and are answered; the rejected ones are not used up.
    #[error("a right was taken away since the commands were judged; judge them again")]
    Rights {
        /// The revision of the table of users that refused them.
        revision: u64,
    },
}
