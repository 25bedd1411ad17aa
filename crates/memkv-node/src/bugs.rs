//! Deliberate bugs, compiled in only by the simulator's build: each breaks a promise that the
//! simulator must then find broken. Marker for the test that shows their absence elsewhere:
//! `memkv-deliberate-bug`.

use std::sync::atomic::{AtomicU8, Ordering};

/// A bug of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Answers a write when it is sent, not when it is applied.
    AcknowledgeBeforeCommit = 1,
    /// A node takes part in a cluster whose feature level its build does not know.
    IgnoreLevel = 2,
    /// The leader proposes what no build can read.
    ProposeUnreadable = 3,
    /// Answers a read without asking a quorum.
    ReadWithoutQuorum = 4,
    /// A node with an empty directory takes its old id and votes.
    WipedNodeVotes = 5,
    /// The leader stamps entries with its wall clock.
    StampWallClock = 6,
    /// No entry is proposed for a deadline.
    DropTicks = 7,
    /// A process does not go on from the log time that the one before wrote down.
    ForgetClock = 8,
    /// A follower confirms the reads of a leader although it has voted for another one since.
    ConfirmAnyVote = 9,
    /// A leader's read index is the one that its leadership began with.
    ForgetCommit = 10,
    /// A node that starts again does not ask whether its disk is an old one.
    TrustOldDisk = 11,
    /// Entries that are not in memory are read on the thread of consensus.
    WaitForTheLog = 12,
    /// The leader works on the first newcomer's seat only, and no newcomer ever gives its seat up.
    StopAtFirstSeat = 13,
    /// A process goes on with the log time that was written down, as if no leader was slewed back.
    TrustPersistedClock = 14,
    /// A node runs as soon as it has agreed to a proposal, and agrees to others while it runs.
    AgreeWhileRunning = 15,
    /// A node whose store is another than a majority's goes on.
    TrustOwnStore = 16,
    /// A node believes one other node's checkpoints, not a majority's only.
    BelieveOneReport = 17,
    /// A node without a vote is asked to confirm reads like one that has one.
    ConfirmWithoutVote = 18,
    /// Reads are confirmed by the voters of a membership that the log changes.
    ConfirmUnsettled = 19,
    /// A commit index is made known after a peer has been told of it.
    PublishCommitLate = 20,
    /// A group tells the cluster to forget the replies of all that it sends itself.
    AcknowledgeTooMuch = 21,
    /// A command carries the revision of the users that its node has when it sends it, not that under which it
    /// was judged.
    StampAtSending = 22,
    /// A command that was refused for its user is queued again, without being judged again.
    QueueAnew = 23,
    /// The seat of a node that leaves goes from the member table while the engine still holds it.
    TableBeforeEngine = 30,
    /// A node that was removed goes on, and starts again.
    IgnoreRemoval = 31,
    /// A node that stops waits for the outcome of no command that it has taken.
    DropInFlight = 32,
    /// A node that has moved is not looked for at the address that it tells.
    IgnoreMoves = 33,
    /// Every command of a user is sent as one of the operator, which stands in every table.
    SendAsOperator = 34,
    /// A restore goes on with the revisions of its backup, as if the old cluster had given out none since.
    RestoreRevisions = 45,
}

static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Turns a bug on, or all off.
pub fn set(bug: Option<Bug>) {
    ACTIVE.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

/// Whether a bug is on.
pub fn active(bug: Bug) -> bool {
    std::hint::black_box("memkv-deliberate-bug");
    ACTIVE.load(Ordering::SeqCst) == bug as u8
}
