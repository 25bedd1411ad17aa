//! Deliberate bugs, which prove that the tests above this crate find such bugs.
//! Never part of a plain build: only with `--cfg memkv_bugs`.

use std::sync::atomic::{AtomicU8, Ordering};

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Records are acknowledged without fdatasync.
    SkipFsync = 1,
    /// A bad record anywhere in the log is taken for a torn tail.
    TruncateAtBadChecksum = 2,
    /// Records are written before the vote that they depend on.
    VoteAfterRecords = 3,
    /// Both copies of the metadata are written before either is synced.
    MetadataAtOnce = 4,
    /// Of two segments with one first index, recovery takes the older one.
    OlderOfTwoSegments = 5,
    /// Records state a frontier that is one record too low.
    FrontierTooLow = 6,
    /// Records state a frontier that is one record too high.
    FrontierTooHigh = 7,
}

static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// Switches one bug on, or all off, for the whole process.
pub fn set(bug: Option<Bug>) {
    ACTIVE.store(bug.map_or(0, |bug| bug as u8), Ordering::SeqCst);
}

/// Whether a bug is on.
pub fn active(bug: Bug) -> bool {
    ACTIVE.load(Ordering::SeqCst) == bug as u8
}

/// Points at which a panic can be ordered: one for each kind of task of a node, and for the steps of a
/// client's request. Two order another fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PanicPoint {
    /// A connection executes a command of Redis.
    Command = 1,
    /// A connection answers an HTTP request.
    Request = 2,
    /// A connection reads the store.
    Reading = 3,
    /// A connection holds the session's lock.
    Writing = 4,
    /// The listener accepts a connection.
    Accept = 5,
    /// A peer's connection begins.
    Peer = 6,
    /// A round of reads.
    Round = 7,
    /// A task on the consensus thread.
    Consensus = 8,
    /// An entry is applied.
    Apply = 9,
    /// The log's thread.
    Log = 10,
    /// Work that blocks.
    Blocking = 11,
    /// The next entry holds bytes that no build can read.
    Unreadable = 12,
    /// The next command of a client becomes one of the next feature level.
    NextLevel = 13,
    /// The thread that puts a snapshot's blocks into a store.
    Loading = 14,
}

static ORDERED: AtomicU8 = AtomicU8::new(0);

/// Orders one panic or other fault at the point of this name; returns whether there is such a point.
pub fn order_panic(name: &str) -> bool {
    let point = match name {
        "command" => PanicPoint::Command,
        "request" => PanicPoint::Request,
        "reading" => PanicPoint::Reading,
        "writing" => PanicPoint::Writing,
        "accept" => PanicPoint::Accept,
        "peer" => PanicPoint::Peer,
        "round" => PanicPoint::Round,
        "consensus" => PanicPoint::Consensus,
        "apply" => PanicPoint::Apply,
        "log" => PanicPoint::Log,
        "blocking" => PanicPoint::Blocking,
        "unreadable" => PanicPoint::Unreadable,
        "next-level" => PanicPoint::NextLevel,
        "loading" => PanicPoint::Loading,
        _ => return false,
    };
    ORDERED.store(point as u8, Ordering::SeqCst);
    true
}

/// Panics if that was ordered here, once.
pub fn pass(point: PanicPoint) {
    assert!(!take(point), "a deliberate panic: {point:?}");
}

/// Whether a fault was ordered here; once.
pub fn take(point: PanicPoint) -> bool {
    let ordered = point as u8;
    let taken = ORDERED.compare_exchange(ordered, 0, Ordering::SeqCst, Ordering::SeqCst);
    taken.is_ok()
}
