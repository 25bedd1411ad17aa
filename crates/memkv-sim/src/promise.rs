//! The promises, one name for each check that can see it broken.
//!
//! The text of a violation begins with that of its promise. Every deliberate bug names the promises that
//! it breaks, so that a check which no longer works shows, even where another one fails by accident.

use std::fmt;

macro_rules! promises {
    ($($name:ident: $words:literal,)+) => {
        /// A promise that some check holds the run against.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Promise {
            $(#[doc = $words] $name,)+
        }

        impl Promise {
            /// The text of the promise.
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)+
                }
            }
        }
    };
}

promises! {
    ConsensusNeverWaits: "consensus never waits for a disk",
    LogMatching: "log matching",
    StateMachineSafety: "state machine safety",
    AcknowledgedStays: "an acknowledged entry stays where it was acknowledged",
    ElectionSafety: "election safety",
    CommittedIsDurable: "committed implies durable on a majority",
    LeaderCompleteness: "leader completeness",
    AppliesWhatItKnows: "no node applies what its build does not know",
    StateGoesForward: "a state only goes forward",
    EqualStates: "equal logs make equal states",
    KnownBeforeTold: "a commit is known before it is told",
    DurableSurvives: "what was durable survives",
    CrashIsNoCorruption: "a crash never looks like corruption",
    StartsAfterCrash: "a node starts from whatever a crash leaves",
    FailsOnlyWithDisk: "a node fails only with its disk",
    NewcomerGivesUpSeat: "only a newcomer gives its seat up",
    RemovedOnlyIfRemoved: "a node is told that it was removed only if it was",
    TableHoldsEngine: "no id leaves the member table while the engine holds it",
    OldDiskIsOne: "a disk is taken for an old one only if it is one",
    OldDiskIsFound: "a disk that went back in time is set aside",
    SetAsideOnlyIfDifferent: "a node is set aside only if its store differs",
    DifferentIsFound: "a store that differs from a majority's is set aside",
    WrongStoreReadsNoMore: "a node that knows its store to be wrong reads no more",
    EntriesCanBeRead: "a committed entry can be read",
    StopsAtSameEntry: "a node stops again at the same entry, with the same words",
    TooOldOnlyIfTooOld: "a build is called too old only if it is",
    RaisedWhenAllKnow: "a level is raised once every build knows it",
    EqualListsForm: "nodes with equal lists form a cluster",
    IdentityIsEngines: "an identity is that of its engine",
    IdentityStays: "an identity never changes under an engine",
    OneCluster: "there is one cluster",
    IdGivenOnce: "a node id is given once",
    ReplacedByMajority: "a member is replaced by a majority",
    ConfirmedByVoters: "reads are confirmed by voters",
    ConfirmedWhenSettled: "reads are confirmed under a settled membership",
    LogTimeIsWritten: "log time is written down",
    ClockGoesOnBehind: "a process goes on behind the one before",
    LogTimeKeepsUp: "log time keeps up with real time",
    LogTimeSurvives: "log time survives a change of leader",
    NotLate: "a key goes within 100 ms of its deadline",
    NeverEarly: "a key never expires early",
    ExecutedOnce: "the log is executed once",
    EveryEntrySeen: "the simulator sees every entry",
    LogHoldsWhatWasSent: "the log holds what clients sent",
    ClientsSawTheLog: "clients saw what the log did",
    StoreHoldsTheLog: "the store holds what the log made",
    Linearizable: "linearizable",
    LinearizableByRevision: "linearizable in the order of revisions",
    NothingLost: "no acknowledged write is lost",
    EveryCallEnds: "every call ends",
    HealedServes: "a healed cluster serves",
    HealedConverges: "a healed cluster converges",
    OrderOfAClient: "a client's writes keep their order",
    ValueIsAsWritten: "a value is what was written",
    ReplyIsKept: "a reply is kept until its client has it",
    StopAnswers: "a node that stops in order answers what it has taken",
    AnswersWhatItShould: "a write answers what it should",
    SeenWhole: "a command is seen whole",
    Atomic: "transactions are atomic",
    GapsAreRefused: "a session's numbers run without a gap",
    OneSession: "a boot opens one session",
    RightsHold: "nothing is executed under a right that was taken away",
    FirstOutcomeStays: "a number that was executed keeps its outcome",
    OneRun: "a seed is one run",
    NothingPanics: "nothing ever panics",
    AdmittedIfItKnows: "a node is admitted only if it knows the level",
    SalvageHoldsAcknowledged: "a salvage holds what was acknowledged on its disk",
    SalvageIsAState: "a salvage is a state that the cluster has had",
    BestHoldsAll: "the first of several disks holds all that any of them holds",
    RevisionsGoOn: "no revision is given out again after a restore",
    RestoreIsWhole: "a restore is whole",
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}
