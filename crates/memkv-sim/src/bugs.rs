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
    /// Where a search for it begins. A rare one is met soon at the seed that met it last; where the code has changed
    /// since, the search is as long as one from the first seed on.
    from: u64,
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
            bug!($name, $layer::$bug breaks $($promise),+; from 1)
        };
        ($name:literal, $layer:ident::$bug:ident breaks $($promise:ident),+; from $from:literal) => {
            Bug {
                name: $name,
                breaks: &[$(Promise::$promise),+],
                from: $from,
                switch_on: || $layer::set(Some($layer::Bug::$bug)),
            }
        };
    }
    &[
        bug!("skip-fsync", disk::SkipFsync breaks DurableSurvives),
        bug!("truncate-at-bad-checksum", disk::TruncateAtBadChecksum breaks DurableSurvives; from 36),
        bug!("ignore-level", node::IgnoreLevel breaks AppliesWhatItKnows; from 6),
        bug!("raise-unasked", store::RaiseUnasked breaks RaisedWhenAllKnow; from 9),
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
        bug!("confirm-any-vote", node::ConfirmAnyVote breaks Linearizable, LinearizableByRevision, ClientsSawTheLog; from 52),
        bug!("trust-old-disk", node::TrustOldDisk breaks OldDiskIsFound; from 109),
        bug!("wait-for-the-log", node::WaitForTheLog breaks ConsensusNeverWaits),
        bug!("stop-at-first-seat", node::StopAtFirstSeat breaks HealedConverges; from 15),
        bug!("table-before-engine", node::TableBeforeEngine breaks TableHoldsEngine; from 8),
        bug!("ignore-removal", node::IgnoreRemoval breaks HealedConverges; from 189),
        bug!("ignore-moves", node::IgnoreMoves breaks HealedConverges; from 7),
        bug!("trust-persisted-clock", node::TrustPersistedClock breaks ClockGoesOnBehind),
        bug!("trust-own-store", node::TrustOwnStore breaks DifferentIsFound),
        bug!("believe-one-report", node::BelieveOneReport breaks SetAsideOnlyIfDifferent),
        bug!("forget-commit", node::ForgetCommit breaks Linearizable, LinearizableByRevision, ClientsSawTheLog),
        bug!("agree-while-running", node::AgreeWhileRunning breaks IdentityIsEngines, IdentityStays, OneCluster, ElectionSafety),
        bug!("confirm-without-vote", node::ConfirmWithoutVote breaks ConfirmedByVoters),
        bug!("confirm-unsettled", node::ConfirmUnsettled breaks ConfirmedWhenSettled; from 15),
        bug!("publish-commit-late", node::PublishCommitLate breaks KnownBeforeTold; from 10),
        bug!("admit-known-id", store::AdmitKnownId breaks IdGivenOnce; from 15),
        bug!("reopen-session", store::ReopenSession breaks OneSession; from 29),
        bug!("metadata-at-once", disk::MetadataAtOnce breaks StartsAfterCrash; from 22),
        bug!("refuse-by-local-memory", store::RefuseByLocalMemory breaks ClientsSawTheLog, EqualStates, SetAsideOnlyIfDifferent; from 14),
        bug!("tear-at-cap", store::TearAtCap breaks ClientsSawTheLog, Atomic; from 14),
        bug!("cost-by-history", store::CostByHistory breaks EqualStates, SetAsideOnlyIfDifferent),
        bug!("stamp-at-sending", node::StampAtSending breaks RightsHold; from 13),
        bug!("send-as-operator", node::SendAsOperator breaks RightsHold),
        bug!("queue-anew", node::QueueAnew breaks RightsHold, OrderOfAClient; from 13),
        bug!("refuse-before-dedup", store::RefuseBeforeDedup breaks FirstOutcomeStays; from 29),
        bug!("ignore-credential", store::IgnoreCredential breaks RightsHold),
        bug!("skip-gap", store::SkipGap breaks GapsAreRefused; from 10),
        bug!("acknowledge-too-much", node::AcknowledgeTooMuch breaks ReplyIsKept; from 12),
        bug!("drop-in-flight", node::DropInFlight breaks StopAnswers; from 65),
        bug!("rank-by-committed", backup::RankByCommitted breaks BestHoldsAll),
        bug!("restore-revisions", node::RestoreRevisions breaks RevisionsGoOn),
        bug!("frontier-too-low", disk::FrontierTooLow breaks DurableSurvives; from 63),
        bug!("frontier-too-high", disk::FrontierTooHigh breaks CrashIsNoCorruption; from 43),
    ]
};
#[cfg(not(memkv_bugs))]
const BUGS: &[Bug] = &[];

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUGS.iter().map(|bug| bug.name)
}

/// The seed at which a search for a bug begins.
pub fn first_seed(name: &str) -> u64 {
    let bug = BUGS.iter().find(|bug| bug.name == name);
    bug.map_or(1, |bug| bug.from)
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
