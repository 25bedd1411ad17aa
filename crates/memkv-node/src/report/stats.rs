//! A node's numbers, for metrics. Nothing here decides anything.

use std::time::Duration;

use memkv_metrics::Counted;

/// The longest of what the node has waited for since it was asked last; zero if there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peaks {
    /// One call that made the log durable.
    pub fsync: Duration,
    /// Applying a run of entries.
    pub apply: Duration,
    /// A time without a leader that has ended.
    pub leaderless: Duration,
}

/// Another member, as this node has heard it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStats {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub addr: String,
    /// Whether the last call to it got no answer.
    pub fails: bool,
    /// Since its last answer or request; none if there was none.
    pub last_contact: Option<Duration>,
    /// The shortest call of the last seconds.
    pub round_trip: Option<Duration>,
    /// Bytes of requests to it.
    pub sent: u64,
    /// Bytes of its answers and requests.
    pub received: u64,
    /// Entries that it lacks of this leader's log, and since when it lacks the first of them, as far as this node
    /// remembers; none if this node does not lead.
    pub lag: Option<(u64, Duration)>,
}

/// A node's counters at about one moment, since its process began.
#[derive(Debug, Clone, Default)]
pub struct NodeStats {
    /// How often another leader than before was heard of, this node among them.
    pub leader_changes: u64,
    /// Groups of commands that wait here, as the leader, for the next entry.
    pub proposals_pending: u64,
    /// Groups of commands that came back without having been applied, and were sent again or
    /// answered so.
    pub proposals_failed: u64,
    /// Commands that were sent to another node, the leader.
    pub forwarded: u64,
    /// Entries that each other member lacks, by its name; empty unless this node leads.
    pub peer_lag: Vec<(String, u64)>,
    /// Snapshots that were built here.
    pub snapshots_built: u64,
    /// Snapshots of a leader that were installed here.
    pub snapshots_installed: u64,
    /// Free bytes of the disk, if it was looked at yet.
    pub disk_free: Option<u64>,
    /// Whether that is too little to accept more.
    pub disk_low: bool,
    /// The most memory that the process may take, if it is known.
    pub memory_limit: Option<u64>,
    /// Commands of this node that were refused at the memory cap.
    pub growth_refused: u64,
    /// Rounds in which this node's store was compared with another node's.
    pub divergence_checks: u64,
    /// Whether stores differ, and it is not known which node is right.
    pub divergence_alarm: bool,
    /// Published messages that a peer did not confirm.
    pub publications_unconfirmed: u64,
    /// How often the wall clock has jumped.
    pub clock_steps: u64,
    /// Duration of the log's fsyncs.
    pub fsync: Counted,
    /// Duration of applying, a run of entries at a time.
    pub apply: Counted,
    /// Reads that shared a confirmation, each confirmation counted once.
    pub read_batch: Counted,
    /// The other members, in the order of their names.
    pub peers: Vec<PeerStats>,
}
