//! The deliberate bugs by name, to show that the simulator finds them. In a build without
//! `--cfg memkv_bugs` there are none.

/// A bug's name on the command line, and how it is switched on.
#[cfg(memkv_bugs)]
const BUGS: [(&str, fn()); 30] = {
    use memkv_raft::{bugs as raft, storage::bugs as storage, store::bugs as store};
    [
        ("skip-fsync", || storage::set(Some(storage::Bug::SkipFsync))),
        ("truncate-at-bad-checksum", || {
            storage::set(Some(storage::Bug::TruncateAtBadChecksum))
        }),
        ("ignore-level", || raft::set(Some(raft::Bug::IgnoreLevel))),
        ("raise-unasked", || {
            store::set(Some(store::Bug::RaiseUnasked))
        }),
        ("propose-unreadable", || {
            raft::set(Some(raft::Bug::ProposeUnreadable))
        }),
        ("drop-dedup", || store::set(Some(store::Bug::DropDedup))),
        ("acknowledge-before-commit", || {
            raft::set(Some(raft::Bug::AcknowledgeBeforeCommit))
        }),
        ("read-without-quorum", || {
            raft::set(Some(raft::Bug::ReadWithoutQuorum))
        }),
        ("wiped-node-votes", || {
            raft::set(Some(raft::Bug::WipedNodeVotes))
        }),
        ("ignore-watch", || store::set(Some(store::Bug::IgnoreWatch))),
        ("expire-by-own-clock", || {
            store::set(Some(store::Bug::ExpireByOwnClock))
        }),
        ("read-without-view", || {
            store::set(Some(store::Bug::ReadWithoutView))
        }),
        ("stamp-wall-clock", || {
            raft::set(Some(raft::Bug::StampWallClock))
        }),
        ("drop-ticks", || raft::set(Some(raft::Bug::DropTicks))),
        ("forget-clock", || raft::set(Some(raft::Bug::ForgetClock))),
        ("confirm-any-vote", || {
            raft::set(Some(raft::Bug::ConfirmAnyVote))
        }),
        ("trust-old-disk", || {
            raft::set(Some(raft::Bug::TrustOldDisk))
        }),
        ("wait-for-the-log", || {
            raft::set(Some(raft::Bug::WaitForTheLog))
        }),
        ("stop-at-first-seat", || {
            raft::set(Some(raft::Bug::StopAtFirstSeat))
        }),
        ("trust-written-clock", || {
            raft::set(Some(raft::Bug::TrustWrittenClock))
        }),
        ("trust-own-store", || {
            raft::set(Some(raft::Bug::TrustOwnStore))
        }),
        ("believe-one-report", || {
            raft::set(Some(raft::Bug::BelieveOneReport))
        }),
        ("forget-commit", || raft::set(Some(raft::Bug::ForgetCommit))),
        ("agree-while-running", || {
            raft::set(Some(raft::Bug::AgreeWhileRunning))
        }),
        ("confirm-without-vote", || {
            raft::set(Some(raft::Bug::ConfirmWithoutVote))
        }),
        ("confirm-unsettled", || {
            raft::set(Some(raft::Bug::ConfirmUnsettled))
        }),
        ("declare-commit-late", || {
            raft::set(Some(raft::Bug::DeclareCommitLate))
        }),
        ("admit-known-id", || {
            store::set(Some(store::Bug::AdmitKnownId))
        }),
        ("reopen-session", || {
            store::set(Some(store::Bug::ReopenSession))
        }),
        ("metadata-at-once", || {
            storage::set(Some(storage::Bug::MetadataAtOnce))
        }),
    ]
};
#[cfg(not(memkv_bugs))]
const BUGS: [(&str, fn()); 0] = [];

/// All names.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUGS.iter().map(|(name, _)| *name)
}

/// Switches a bug on for the whole process.
///
/// # Errors
/// If there is no such bug in this build; the text lists those that there are.
pub fn switch_on(name: &str) -> Result<(), String> {
    match BUGS.iter().find(|(known, _)| *known == name) {
        Some((_, switch)) => {
            switch();
            Ok(())
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
