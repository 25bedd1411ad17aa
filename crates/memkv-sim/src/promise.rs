//! The promises, one name for each check that can see it broken.
//!
//! The text of a violation begins with that of its promise. Every deliberate bug names the promises that
//! it breaks, so that a check which no longer works shows, even where another one fails by accident.

use std::fmt;

/// A promise that some check holds the run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Consensus never waits for a disk.
    ConsensusNeverWaits,
    /// Log matching.
    LogMatching,
    /// State machine safety.
    StateMachineSafety,
    /// An acknowledged entry stays where it was acknowledged.
    AcknowledgedStays,
    /// Election safety.
    ElectionSafety,
    /// Committed implies durable on a majority.
    CommittedIsDurable,
    /// Leader completeness.
    LeaderCompleteness,
    /// No node applies what its build does not know.
    AppliesWhatItKnows,
    /// A state only goes forward.
    StateGoesForward,
    /// Equal logs make equal states.
    EqualStates,
    /// A commit is known before it is told.
    KnownBeforeTold,
    /// What was durable survives.
    DurableSurvives,
    /// A crash never looks like corruption.
    CrashIsNoCorruption,
    /// A node starts from whatever a crash leaves.
    StartsAfterCrash,
    /// A node fails only with its disk.
    FailsOnlyWithDisk,
    /// Only a newcomer gives its seat up.
    NewcomerGivesUpSeat,
    /// A node is told that it was removed only if it was.
    RemovedOnlyIfRemoved,
    /// No id leaves the member table while the engine's membership holds it.
    TableHoldsEngine,
    /// A disk is taken for an old one only if it is one.
    OldDiskIsOne,
    /// A disk that went back in time is set aside.
    OldDiskIsFound,
    /// A node is set aside only if its store differs.
    SetAsideOnlyIfDifferent,
    /// A store that differs from a majority's is set aside.
    DifferentIsFound,
    /// A node that knows its store to be wrong reads no more.
    WrongStoreReadsNoMore,
    /// A committed entry can be read.
    EntriesCanBeRead,
    /// A node that starts again stops at the same entry with the same words.
    StopsAtSameEntry,
    /// A build is called too old only if it is.
    TooOldOnlyIfTooOld,
    /// A level is raised once every build knows it.
    RaisedWhenAllKnow,
    /// Nodes with equal lists form a cluster.
    EqualListsForm,
    /// An identity is that of its engine.
    IdentityIsEngines,
    /// An identity never changes under an engine.
    IdentityStays,
    /// There is one cluster.
    OneCluster,
    /// A node id is given once.
    IdGivenOnce,
    /// A member is replaced by a majority.
    ReplacedByMajority,
    /// Reads are confirmed by voters.
    ConfirmedByVoters,
    /// Reads are confirmed under a settled membership.
    ConfirmedWhenSettled,
    /// Log time is written down.
    LogTimeIsWritten,
    /// A process goes on behind the one before.
    ClockGoesOnBehind,
    /// Log time keeps up with real time.
    LogTimeKeepsUp,
    /// Log time survives a change of leader.
    LogTimeSurvives,
    /// A key goes within 100 ms of its deadline.
    NotLate,
    /// A key never expires early.
    NeverEarly,
    /// The log is executed once.
    ExecutedOnce,
    /// The simulator sees every entry.
    EveryEntrySeen,
    /// The log holds what clients sent.
    LogHoldsWhatWasSent,
    /// Clients saw what the log did.
    ClientsSawTheLog,
    /// The store holds what the log made.
    StoreHoldsTheLog,
    /// Linearizable.
    Linearizable,
    /// Linearizable in the order of revisions.
    LinearizableByRevision,
    /// No acknowledged write is lost.
    NothingLost,
    /// Every call ends.
    EveryCallEnds,
    /// A healed cluster serves.
    HealedServes,
    /// A healed cluster converges.
    HealedConverges,
    /// A client's writes keep their order.
    OrderOfAClient,
    /// A value is what was written.
    ValueIsAsWritten,
    /// A reply is kept until its client has it.
    ReplyIsKept,
    /// A node that stops in order answers what it has taken, as long as it may wait for that.
    StopAnswers,
    /// A write answers what it should.
    AnswersWhatItShould,
    /// A command is seen whole.
    SeenWhole,
    /// Transactions are atomic.
    Atomic,
    /// A session's numbers run without a gap.
    GapsAreRefused,
    /// A boot opens one session.
    OneSession,
    /// Nothing is executed under a right that was taken away.
    RightsHold,
    /// A number that was executed keeps its outcome.
    FirstOutcomeStays,
    /// A seed is one run.
    OneRun,
    /// Nothing ever panics.
    NothingPanics,
    /// A node is admitted only if it knows the level.
    AdmittedIfItKnows,
}

impl Promise {
    /// The text of the promise.
    pub fn words(self) -> &'static str {
        match self {
            Self::ConsensusNeverWaits => "consensus never waits for a disk",
            Self::LogMatching => "log matching",
            Self::StateMachineSafety => "state machine safety",
            Self::AcknowledgedStays => "an acknowledged entry stays where it was acknowledged",
            Self::ElectionSafety => "election safety",
            Self::CommittedIsDurable => "committed implies durable on a majority",
            Self::LeaderCompleteness => "leader completeness",
            Self::AppliesWhatItKnows => "no node applies what its build does not know",
            Self::StateGoesForward => "a state only goes forward",
            Self::EqualStates => "equal logs make equal states",
            Self::KnownBeforeTold => "a commit is known before it is told",
            Self::DurableSurvives => "what was durable survives",
            Self::CrashIsNoCorruption => "a crash never looks like corruption",
            Self::StartsAfterCrash => "a node starts from whatever a crash leaves",
            Self::FailsOnlyWithDisk => "a node fails only with its disk",
            Self::NewcomerGivesUpSeat => "only a newcomer gives its seat up",
            Self::RemovedOnlyIfRemoved => "a node is told that it was removed only if it was",
            Self::TableHoldsEngine => "no id leaves the member table while the engine holds it",
            Self::OldDiskIsOne => "a disk is taken for an old one only if it is one",
            Self::OldDiskIsFound => "a disk that went back in time is set aside",
            Self::SetAsideOnlyIfDifferent => "a node is set aside only if its store differs",
            Self::DifferentIsFound => "a store that differs from a majority's is set aside",
            Self::WrongStoreReadsNoMore => "a node that knows its store to be wrong reads no more",
            Self::EntriesCanBeRead => "a committed entry can be read",
            Self::StopsAtSameEntry => "a node stops again at the same entry, with the same words",
            Self::TooOldOnlyIfTooOld => "a build is called too old only if it is",
            Self::RaisedWhenAllKnow => "a level is raised once every build knows it",
            Self::EqualListsForm => "nodes with equal lists form a cluster",
            Self::IdentityIsEngines => "an identity is that of its engine",
            Self::IdentityStays => "an identity never changes under an engine",
            Self::OneCluster => "there is one cluster",
            Self::IdGivenOnce => "a node id is given once",
            Self::ReplacedByMajority => "a member is replaced by a majority",
            Self::ConfirmedByVoters => "reads are confirmed by voters",
            Self::ConfirmedWhenSettled => "reads are confirmed under a settled membership",
            Self::LogTimeIsWritten => "log time is written down",
            Self::ClockGoesOnBehind => "a process goes on behind the one before",
            Self::LogTimeKeepsUp => "log time keeps up with real time",
            Self::LogTimeSurvives => "log time survives a change of leader",
            Self::NotLate => "a key goes within 100 ms of its deadline",
            Self::NeverEarly => "a key never expires early",
            Self::ExecutedOnce => "the log is executed once",
            Self::EveryEntrySeen => "the simulator sees every entry",
            Self::LogHoldsWhatWasSent => "the log holds what clients sent",
            Self::ClientsSawTheLog => "clients saw what the log did",
            Self::StoreHoldsTheLog => "the store holds what the log made",
            Self::Linearizable => "linearizable",
            Self::LinearizableByRevision => "linearizable in the order of revisions",
            Self::NothingLost => "no acknowledged write is lost",
            Self::EveryCallEnds => "every call ends",
            Self::HealedServes => "a healed cluster serves",
            Self::HealedConverges => "a healed cluster converges",
            Self::OrderOfAClient => "a client's writes keep their order",
            Self::ValueIsAsWritten => "a value is what was written",
            Self::StopAnswers => "a node that stops in order answers what it has taken",
            Self::ReplyIsKept => "a reply is kept until its client has it",
            Self::AnswersWhatItShould => "a write answers what it should",
            Self::SeenWhole => "a command is seen whole",
            Self::Atomic => "transactions are atomic",
            Self::GapsAreRefused => "a session's numbers run without a gap",
            Self::OneSession => "a boot opens one session",
            Self::RightsHold => "nothing is executed under a right that was taken away",
            Self::FirstOutcomeStays => "a number that was executed keeps its outcome",
            Self::OneRun => "a seed is one run",
            Self::NothingPanics => "nothing ever panics",
            Self::AdmittedIfItKnows => "a node is admitted only if it knows the level",
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}
