//! The deliberate bugs by name, to show that the simulator finds them. In a build without
//! `--cfg memkv_bugs` there are none.
//!
//! Each names the promises that it breaks. A violation of another promise shows nothing: it may be an
//! accident.

use crate::Promise;

/// A deliberate bug.
struct Bug {
    /// Its name on the command line.
    name: &'static str,
    /// The promises that it breaks: a violation of one of these must be seen.
    breaks: &'static [Promise],
    switch_on: fn(),
}

#[cfg(memkv_bugs)]
const BUGS: &[Bug] = {
    use memkv_backup::bugs as backup;
    use memkv_disk::bugs as disk;
    use memkv_node::bugs as node;
    use memkv_store::bugs as store;
    macro_rules! bug {
        ($name:literal, $layer:ident::$bug:ident breaks $($promise:ident),+) => {
            Bug {
                name: $name,
                breaks: &[$(Promise::$promise),+],
                switch_on: || $layer::set(Some($layer::Bug::$bug)),
            }
        };
    }
    &[
        bug!("skip-fsync", disk::SkipFsync breaks DurableSurvives),
        bug!("truncate-at-bad-checksum", disk::TruncateAtBadChecksum breaks DurableSurvives),
        bug!("ignore-level", node::IgnoreLevel breaks AppliesWhatItKnows),
        bug!("raise-unasked", store::RaiseUnasked breaks RaisedWhenAllKnow),
        bug!("propose-unreadable", node::ProposeUnreadable breaks EntriesCanBeRead),
        bug!("drop-dedup", store::DropDedup breaks ExecutedOnce),
        bug!("acknowledge-before-commit", node::AcknowledgeBeforeCommit breaks Linearizable, NothingLost),
        bug!("read-without-quorum", node::ReadWithoutQuorum breaks Linearizable, LinearizableByRevision, ClientsSawTheLog),
        bug!("wiped-node-votes", node::WipedNodeVotes breaks AcknowledgedStays, LeaderCompleteness, CommittedIsDurable),
        bug!("ignore-watch", store::IgnoreWatch breaks ClientsSawTheLog),
        bug!("expire-by-own-clock", store::ExpireByOwnClock breaks NeverEarly, ClientsSawTheLog),
        bug!("read-without-view", store::ReadWithoutView breaks ClientsSawTheLog, SeenWhole),
        bug!("read-within-command", store::ReadWithinCommand breaks SeenWhole, ClientsSawTheLog),
        bug!("stamp-wall-clock", node::StampWallClock breaks NeverEarly, LogTimeKeepsUp, LogTimeSurvives),
        bug!("drop-ticks", node::DropTicks breaks NotLate),
        bug!("forget-clock", node::ForgetClock breaks LogTimeSurvives, NeverEarly),
        bug!("confirm-any-vote", node::ConfirmAnyVote breaks Linearizable, LinearizableByRevision, ClientsSawTheLog),
        bug!("trust-old-disk", node::TrustOldDisk breaks OldDiskIsFound),
        bug!("wait-for-the-log", node::WaitForTheLog breaks ConsensusNeverWaits),
        bug!("stop-at-first-seat", node::StopAtFirstSeat breaks HealedConverges),
        bug!("table-before-engine", node::TableBeforeEngine breaks TableHoldsEngine),
        bug!("ignore-removal", node::IgnoreRemoval breaks HealedConverges),
        bug!("ignore-moves", node::IgnoreMoves breaks HealedConverges),
        bug!("trust-persisted-clock", node::TrustPersistedClock breaks ClockGoesOnBehind),
        bug!("trust-own-store", node::TrustOwnStore breaks DifferentIsFound),
        bug!("believe-one-report", node::BelieveOneReport breaks SetAsideOnlyIfDifferent),
        bug!("forget-commit", node::ForgetCommit breaks Linearizable, LinearizableByRevision, ClientsSawTheLog),
        bug!("agree-while-running", node::AgreeWhileRunning breaks IdentityIsEngines, IdentityStays, OneCluster, ElectionSafety),
        bug!("confirm-without-vote", node::ConfirmWithoutVote breaks ConfirmedByVoters),
        bug!("confirm-unsettled", node::ConfirmUnsettled breaks ConfirmedWhenSettled),
        bug!("publish-commit-late", node::PublishCommitLate breaks KnownBeforeTold),
        bug!("admit-known-id", store::AdmitKnownId breaks IdGivenOnce),
        bug!("reopen-session", store::ReopenSession breaks OneSession),
        bug!("metadata-at-once", disk::MetadataAtOnce breaks StartsAfterCrash),
        bug!("refuse-by-local-memory", store::RefuseByLocalMemory breaks ClientsSawTheLog, EqualStates, SetAsideOnlyIfDifferent),
        bug!("tear-at-cap", store::TearAtCap breaks ClientsSawTheLog, Atomic),
        bug!("cost-by-history", store::CostByHistory breaks EqualStates, SetAsideOnlyIfDifferent),
        bug!("stamp-at-sending", node::StampAtSending breaks RightsHold),
        bug!("send-as-operator", node::SendAsOperator breaks RightsHold),
        bug!("queue-anew", node::QueueAnew breaks RightsHold, OrderOfAClient),
        bug!("refuse-before-dedup", store::RefuseBeforeDedup breaks FirstOutcomeStays),
        bug!("ignore-credential", store::IgnoreCredential breaks RightsHold),
        bug!("skip-gap", store::SkipGap breaks GapsAreRefused),
        bug!("acknowledge-too-much", node::AcknowledgeTooMuch breaks ReplyIsKept),
        bug!("drop-in-flight", node::DropInFlight breaks StopAnswers),
        bug!("rank-by-committed", backup::RankByCommitted breaks BestHoldsAll),
        bug!("restore-revisions", node::RestoreRevisions breaks RevisionsGoOn),
        bug!("frontier-too-low", disk::FrontierTooLow breaks DurableSurvives),
        bug!("frontier-too-high", disk::FrontierTooHigh breaks CrashIsNoCorruption),
    ]
};
#[cfg(not(memkv_bugs))]
const BUGS: &[Bug] = &[];

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUGS.iter().map(|bug| bug.name)
}

/// Switches all bugs off.
pub fn switch_off() {
    #[cfg(memkv_bugs)]
    {
        memkv_backup::bugs::set(None);
        memkv_disk::bugs::set(None);
        memkv_node::bugs::set(None);
        memkv_store::bugs::set(None);
    }
}

/// Switches a bug on for the whole process, and gives the promises that it breaks.
///
/// # Errors
/// If there is no such bug in this build; the text lists those that there are.
pub fn switch_on(name: &str) -> Result<&'static [Promise], String> {
    match BUGS.iter().find(|bug| bug.name == name) {
        Some(bug) => {
            (bug.switch_on)();
            Ok(bug.breaks)
        }
        None if BUGS.is_empty() => {
            Err("this build has no deliberate bugs: use `cargo xtask sim --bug NAME`".to_owned())
        }
        None => {
            let known: Vec<&str> = names().collect();
            Err(format!(
                "there is no bug {name}; there are {}",
                known.join(", ")
            ))
        }
    }
}
