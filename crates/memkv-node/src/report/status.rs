//! A node's view of itself, for operators and clients. Types only; `describe` fills them in.

use memkv_disk::LogId;
use memkv_store::MemberState;

/// Raft role, as the paper names it, with learners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Orders commands.
    Leader,
    /// Follows a leader and votes.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows a leader and does not vote; also a node that has no cluster yet.
    Learner,
}

/// How far a node has come in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Waits until all nodes of its list agree to form a cluster.
    Forming,
    /// Asks an existing cluster for a seat, or catches up in it.
    Joining,
    /// Serves.
    Serving,
    /// Was stopped by a fatal error.
    Stopped,
}

/// A member of the cluster, as this node knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Node id; 0 when it is not known yet.
    pub id: u64,
    /// Operator's name for it.
    pub name: String,
    /// Where it listens.
    pub addr: String,
    /// Leader, follower or learner, as far as this node knows.
    pub role: Role,
    /// Highest feature level that it advertises; 0 before it has advertised any.
    pub highest_level: u32,
    /// Where it is between admission and removal; none before the cluster has a member table.
    pub state: Option<MemberState>,
    /// Entries that it lacks; known to the leader only.
    pub lag: Option<u64>,
    /// Whether it has answered within the election timeout; known to the leader only.
    pub answers: Option<bool>,
}

/// A node's view of itself and of its cluster.
#[derive(Debug, Clone)]
pub struct NodeStatus {
    /// This node's name.
    pub name: String,
    /// Its id; 0 before it has one.
    pub node_id: u64,
    /// Cluster's UUID.
    pub cluster: Option<[u8; 16]>,
    /// Life phase.
    pub phase: Phase,
    /// The reason why the node waits, as a sentence; empty while it serves.
    pub message: String,
    /// Raft role.
    pub role: Role,
    /// Name of the leader that this node follows or is.
    pub leader: Option<String>,
    /// Raft term.
    pub term: u64,
    /// Highest index known to be committed; 0 when none is.
    pub commit_index: u64,
    /// Highest index applied here; 0 when none is.
    pub applied_index: u64,
    /// Last entry that the newest snapshot covers.
    pub snapshot: Option<LogId>,
    /// Segment files of the log.
    pub log_segments: usize,
    /// Last cluster-wide revision applied here.
    pub revision: u64,
    /// Keys.
    pub keys: usize,
    /// A snapshot is being built.
    pub building_snapshot: bool,
    /// This node's disk is low, so that it takes on nothing that grows.
    pub disk_low: bool,
    /// What the keys cost and may cost, as far as this node has applied.
    pub memory: memkv_store::Memory,
    /// This process is near the limit of its memory, so that growth stops for a while.
    pub memory_low: bool,
    /// `true`: fsync before every acknowledgement.
    pub sync: bool,
    /// The cluster's feature level, as far as it is in use here.
    pub level: u32,
    /// All members, in the order of their names.
    pub members: Vec<MemberStatus>,
    /// Nodes that vote, as far as this node's log says.
    pub voters: usize,
    /// Those of them that have answered the leader within the election timeout. Known to the leader; a node that
    /// knows no leader counts itself alone.
    pub voters_answering: Option<usize>,
}
