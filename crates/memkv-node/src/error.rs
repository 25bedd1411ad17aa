//! The errors of a node, as callers need to tell them apart: whether a command was executed, and
//! whether the node can go on. `memkv-proto`'s table maps these to HTTP, RESP and exit codes.

use memkv_disk::OpenError;

/// The cluster is at a level that this build does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster of this node is at feature level {level}, and memkv {} knows levels up to {highest}: \
     start this node with the version that the other nodes run. A level never falls. Nothing that was \
     acknowledged is lost",
    env!("CARGO_PKG_VERSION")
)]
pub struct TooOld {
    /// The cluster's level.
    pub level: u32,
    /// The highest that this build knows.
    pub highest: u32,
}

/// Why a command or a read got no answer from the state machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Certainly not executed, now or later.
    #[error("no leader: {detail}; nothing was executed")]
    NoLeader {
        /// Which nodes were reached and which were not.
        detail: String,
    },
    /// Certainly not executed: the queue in front of the log is full.
    #[error(
        "overloaded: {queued} bytes of commands wait for the log; nothing was executed, try again"
    )]
    Overloaded {
        /// Bytes that wait.
        queued: usize,
    },
    /// Executed, or to be executed, or not: a leader may have appended it.
    #[error("the outcome is not known: {detail}; read before you try again")]
    Unknown {
        /// The event.
        detail: String,
    },
    /// Certainly not executed: the disks of a majority are nearly full.
    #[error(
        "disk space is low on a majority of the nodes: only what removes keys is taken until there is more; nothing was executed"
    )]
    DiskFull,
    /// Certainly not executed: the disks of a majority are full.
    #[error(
        "the disks of a majority of the nodes are full: every write is refused until there is space; nothing was executed"
    )]
    DiskExhausted,
    /// Certainly not executed: nodes are near the limit of their memory.
    #[error(
        "memory is nearly used up on a node: what may grow the keys is refused for 30 s, or while a \
         majority is short; nothing was executed"
    )]
    OutOfMemory,
    /// Certainly not executed: too large for this cluster's limits.
    #[error("{what} is {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest size allowed.
        limit: usize,
    },
    /// Certainly not executed: this version's own decoder does not accept the command.
    #[error("this version of memkv cannot read the command back: {detail}; nothing was executed")]
    Unreadable {
        /// The part that could not be read.
        detail: String,
    },
    /// Certainly not executed: the command belongs to a feature level that the cluster does not use yet.
    #[error(
        "the command needs feature level {needs}, and the cluster is at level {level}: {waits_for}; \
         nothing was executed"
    )]
    NeedsLevel {
        /// The level that the command belongs to.
        needs: u32,
        /// The level in use.
        level: u32,
        /// Which nodes are to be upgraded, as a sentence.
        waits_for: String,
    },
    /// Certainly not executed, now or later: a right was taken from the user since the command was accepted.
    #[error("the user has no permission for this any more; nothing was executed")]
    NoPermission,
    /// Certainly not executed: the node is stopping.
    #[error("the node is stopping; nothing was executed")]
    Stopping,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used. The text says what to do.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The snapshot or the log holds something that this version cannot read.
    #[error("cannot load the data directory: {0}")]
    Load(String),
    /// The directory belongs to another node or cluster.
    #[error("{0}")]
    Identity(String),
    /// This build is older than what the cluster uses.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// A setting is out of range.
    #[error("bad configuration: {0}")]
    Config(String),
    /// The engine did not start.
    #[error("the consensus engine did not start: {0}")]
    Engine(String),
}

/// Why a running node must stop at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FatalError {
    /// A write or an fsync failed: what is on the disk is no longer known (fsync must not be
    /// retried: Rebello et al., ATC'20).
    #[error(
        "disk failure: {0}; the node stops at once, because after a failed fsync nobody knows what is on the disk"
    )]
    Disk(String),
    /// A committed entry cannot be read, so nothing after it can be applied.
    #[error(
        "log entry {index} of term {term} cannot be read: {why}. A newer version of memkv may have \
         written it: start this node with the version that the other nodes run. Nothing was lost, and \
         neither this entry nor any after it was applied"
    )]
    Unreadable {
        /// The entry's index.
        index: u64,
        /// The entry's term.
        term: u64,
        /// The part that could not be read.
        why: String,
    },
    /// The cluster uses what this build does not know.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// The cluster gave this node's place to another.
    #[error("{0}")]
    Replaced(String),
    /// The data directory is an old copy. It is marked: the next start sets it aside.
    #[error(
        "{0}. The next start sets this directory aside, and the cluster replaces the node. Where all nodes were put back to copies on purpose, remove the files `peers` and `condemned` of every node first"
    )]
    OldDisk(String),
    /// The cluster has given up the seat that it had kept for this node. The directory is marked: the
    /// next start sets it aside.
    #[error("{0}. The next start sets this directory aside and asks for a new seat")]
    NoSeat(String),
    /// The node was removed from its cluster. The directory is marked: the next start sets it aside.
    #[error(
        "{0}. It takes part in nothing any more. `memkv_client member add` with its name lets it come back: the next start sets this directory aside, and asks to join if its configuration says `join`"
    )]
    Removed(String),
    /// This node's store is another than a majority's. The directory is marked: the next start sets it
    /// aside.
    #[error(
        "{0}. Nothing is read here any more. The next start sets this directory aside, and the cluster replaces the node. Check this machine's memory"
    )]
    Diverged(String),
    /// Another process takes part in the cluster as this node. Nothing is marked: this directory is as good as that.
    #[error(
        "{0}. Two votes of one node could elect two leaders, so this one does not start. Nothing was changed here. Delete this directory if it is the copy; else stop the other process first"
    )]
    Copied(String),
    /// Another cluster is where this one's other nodes should be.
    #[error("{0}. Nothing was changed here")]
    SecondCluster(String),
    /// The engine stopped.
    #[error("the consensus engine stopped: {0}")]
    Engine(String),
}
