//! The events of a node's timeline, typed: what happened, under a kind that programs go by, in words for people.
//!
//! Never records anything (`timeline` does). Invariant: each event has one kind, and a kind never changes its
//! meaning from one version to the next.

use std::fmt;
use std::time::Duration;

/// What happened to a node, or to its cluster as the node has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The process has opened its directory.
    Started {
        /// The cluster's feature level, as far as the directory knows.
        level: u32,
        /// How often a process has opened this directory, this time included.
        boot: u64,
    },
    /// The cluster's first entry was applied.
    Formed {
        /// Names of the founders.
        members: String,
    },
    /// This node asks for votes.
    Stands {
        /// The term that it asks for.
        term: u64,
        /// The reason, as far as the node knows it.
        why: String,
    },
    /// This node was elected.
    Leads {
        /// The term.
        term: u64,
        /// The reason, as far as the node knows it.
        why: String,
    },
    /// This node follows another one.
    Follows {
        /// The term.
        term: u64,
        /// The leader's name.
        leader: String,
        /// The reason, as far as the node knows it.
        why: String,
    },
    /// This node knows no leader.
    NoLeader {
        /// The reason, as far as the node knows it.
        why: String,
    },
    /// The process of the leader is gone.
    LeaderGone {
        /// Its name.
        leader: String,
    },
    /// This leader hands leadership over.
    HandsOver {
        /// The name of the node that is to lead.
        to: String,
    },
    /// The cluster has admitted a node.
    Admitted {
        /// Its name.
        name: String,
        /// Where it listens.
        addr: String,
        /// `voter` or `replica`.
        role: &'static str,
    },
    /// An admitted node has caught up.
    Joined {
        /// Its name.
        name: String,
    },
    /// A member is to leave.
    Leaving {
        /// Its name.
        name: String,
    },
    /// A member has left.
    Removed {
        /// Its name.
        name: String,
    },
    /// A member is to have another role.
    Role {
        /// Its name.
        name: String,
        /// `voter` or `replica`.
        role: &'static str,
    },
    /// A member listens elsewhere.
    Moved {
        /// Its name.
        name: String,
        /// Where it listens now.
        addr: String,
    },
    /// Other nodes vote than before.
    Voters {
        /// Their names.
        voters: String,
    },
    /// The cluster's feature level was raised.
    Level {
        /// The level.
        level: u32,
    },
    /// This node has written a snapshot.
    SnapshotWritten {
        /// The last entry that it covers.
        index: u64,
        /// Its length.
        bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// This node has taken over the leader's snapshot.
    SnapshotReceived {
        /// The last entry that it covers.
        index: u64,
        /// How long its installation took.
        took: Duration,
    },
    /// Calls that make the log durable took long.
    SlowDisk {
        /// How many.
        syncs: u64,
        /// Each took longer than this,
        above: Duration,
        /// and they came within this time.
        within: Duration,
    },
    /// The disk is short of space.
    DiskLow {
        /// Free bytes.
        free: u64,
        /// Whether nothing more is taken.
        is_full: bool,
    },
    /// The disk has space again.
    DiskBack {
        /// Free bytes.
        free: u64,
    },
    /// The process takes nearly all of its memory.
    MemoryLow {
        /// Bytes that it takes.
        resident: u64,
        /// Bytes that it may take.
        limit: u64,
    },
    /// It takes less again.
    MemoryBack {
        /// Bytes that it takes.
        resident: u64,
    },
    /// The keys have come near their cap.
    CapNear {
        /// Their cost, as a share of the cap.
        percent: u64,
    },
    /// They cost much less than the cap again.
    CapBack {
        /// Their cost, as a share of the cap.
        percent: u64,
    },
    /// The wall clock has jumped.
    ClockStepped {
        /// By so many milliseconds, against a clock that only runs.
        by_ms: i64,
    },
    /// The nodes' stores differ.
    Diverged {
        /// The alarm.
        alarm: String,
    },
    /// They differ no more, or it is known which is wrong.
    Converged,
    /// A client takes a backup of this node.
    BackupBegun {
        /// The user.
        user: String,
    },
    /// It has all of it.
    BackupDone {
        /// Bytes that were sent.
        bytes: u64,
        /// How long it took.
        took: Duration,
    },
    /// It has not got all of it.
    BackupBroken {
        /// Bytes that were sent.
        bytes: u64,
    },
    /// This node is stopping.
    Draining {
        /// The reason.
        why: String,
    },
}

impl Event {
    /// The word that programs go by.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Started { .. } => "started",
            Event::Formed { .. } => "formed",
            Event::Stands { .. } => "candidate",
            Event::Leads { .. } => "leader",
            Event::Follows { .. } => "follower",
            Event::NoLeader { .. } => "no_leader",
            Event::LeaderGone { .. } => "leader_gone",
            Event::HandsOver { .. } => "handing_over",
            Event::Admitted { .. } => "member_admitted",
            Event::Joined { .. } => "member_joined",
            Event::Leaving { .. } => "member_leaving",
            Event::Removed { .. } => "member_removed",
            Event::Role { .. } => "member_role",
            Event::Moved { .. } => "member_moved",
            Event::Voters { .. } => "voters",
            Event::Level { .. } => "level",
            Event::SnapshotWritten { .. } => "snapshot_written",
            Event::SnapshotReceived { .. } => "snapshot_received",
            Event::SlowDisk { .. } => "slow_disk",
            Event::DiskLow { .. } => "disk_low",
            Event::DiskBack { .. } => "disk_ok",
            Event::MemoryLow { .. } => "memory_low",
            Event::MemoryBack { .. } => "memory_ok",
            Event::CapNear { .. } => "cap_near",
            Event::CapBack { .. } => "cap_ok",
            Event::ClockStepped { .. } => "clock_step",
            Event::Diverged { .. } => "diverged",
            Event::Converged => "converged",
            Event::BackupBegun { .. } => "backup_begun",
            Event::BackupDone { .. } => "backup_done",
            Event::BackupBroken { .. } => "backup_broken",
            Event::Draining { .. } => "draining",
        }
    }

    /// Whether an operator should look.
    pub fn warns(&self) -> bool {
        matches!(
            self,
            Event::NoLeader { .. }
                | Event::LeaderGone { .. }
                | Event::SlowDisk { .. }
                | Event::DiskLow { .. }
                | Event::MemoryLow { .. }
                | Event::CapNear { .. }
                | Event::ClockStepped { .. }
                | Event::Diverged { .. }
                | Event::BackupBroken { .. }
        )
    }
}

/// Words for people.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = env!("CARGO_PKG_VERSION");
        match self {
            Event::Started { level, boot } => {
                write!(
                    f,
                    "memkv {version} started, feature level {level}, start {boot}"
                )
            }
            Event::Formed { members } => write!(f, "the cluster is formed by {members}"),
            Event::Stands { term, why } => write!(f, "asks for votes in term {term}: {why}"),
            Event::Leads { term, why } => write!(f, "leads in term {term}: {why}"),
            Event::Follows { term, leader, why } => {
                write!(f, "follows {leader} in term {term}: {why}")
            }
            Event::NoLeader { why } => write!(f, "knows no leader: {why}"),
            Event::LeaderGone { leader } => write!(f, "the process of the leader {leader} is gone"),
            Event::HandsOver { to } => write!(f, "hands leadership over to {to}"),
            Event::Admitted { name, addr, role } => {
                write!(f, "{name} at {addr} is to join as {role}")
            }
            Event::Joined { name } => write!(f, "{name} has joined"),
            Event::Leaving { name } => write!(f, "{name} is to leave"),
            Event::Removed { name } => write!(f, "{name} has left"),
            Event::Role { name, role } => write!(f, "{name} is to be a {role}"),
            Event::Moved { name, addr } => write!(f, "{name} listens at {addr} now"),
            Event::Voters { voters } => write!(f, "the voters are {voters}"),
            Event::Level { level } => write!(f, "the feature level is {level} now"),
            Event::SnapshotWritten { index, bytes, took } => {
                write!(
                    f,
                    "wrote a snapshot through entry {index}: {bytes} bytes in {took:.1?}"
                )
            }
            Event::SnapshotReceived { index, took } => {
                write!(
                    f,
                    "took over the leader's snapshot through entry {index} in {took:.1?}"
                )
            }
            Event::BackupBegun { user } => write!(f, "{user} takes a backup"),
            Event::BackupDone { bytes, took } => {
                write!(f, "the backup is taken: {bytes} bytes in {took:.1?}")
            }
            Event::BackupBroken { bytes } => {
                write!(f, "the backup broke off after {bytes} bytes")
            }
            Event::Draining { why } => write!(f, "is stopping: {why}"),
            trouble => trouble.tell_trouble(f),
        }
    }
}

impl Event {
    /// The same for what is short, slow or wrong, and for its end.
    fn tell_trouble(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        match self {
            Event::SlowDisk {
                syncs,
                above,
                within,
            } => write!(
                f,
                "{syncs} fsyncs of the log took over {above:?} each within {within:.0?}"
            ),
            Event::DiskLow { free, is_full } => {
                let state = if *is_full { "full" } else { "low" };
                write!(f, "disk space is {state}: {} MiB are free", mib(*free))
            }
            Event::DiskBack { free } => {
                write!(f, "there is disk space again: {} MiB are free", mib(*free))
            }
            Event::MemoryLow { resident, limit } => write!(
                f,
                "the process takes {} of its {} MiB of memory: growth stops",
                mib(*resident),
                mib(*limit)
            ),
            Event::MemoryBack { resident } => write!(
                f,
                "there is memory again: the process takes {} MiB",
                mib(*resident)
            ),
            Event::CapNear { percent } => write!(f, "the keys cost {percent} % of maxmemory"),
            Event::CapBack { percent } => write!(f, "the keys cost {percent} % of maxmemory again"),
            Event::ClockStepped { by_ms } => write!(f, "the wall clock has jumped by {by_ms} ms"),
            Event::Diverged { alarm } => f.write_str(alarm),
            Event::Converged => {
                f.write_str("the stores differ no more, or it is known which is wrong")
            }
            other => f.write_str(other.kind()),
        }
    }
}
