//! What a node says of itself. Never blocks and never asks a peer, so that it answers without a
//! leader.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use memkv_disk::LogId;

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
    /// Highest feature level that it announces; 0 before it has advertised any.
    pub highest_level: u32,
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
    /// What the node waits for, in words; empty while it serves.
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
    /// `true`: fsync before every acknowledgement.
    pub sync: bool,
    /// The cluster's feature level, as far as it is in use here.
    pub level: u32,
    /// All members, in the order of their names.
    pub members: Vec<MemberStatus>,
}

impl crate::node::Inner {
    /// See [`crate::Node::status`].
    pub(crate) fn status(&self) -> NodeStatus {
        let (phase, mut message) = self.phase();
        if message.is_empty() {
            message = self.divergence.alarm();
        }
        if message.is_empty() {
            message = self.space.detail();
        }
        let diagnosed = !self.diagnosis.lock().is_empty();
        let says_why = message.is_empty() || (diagnosed && phase != Phase::Stopped);
        if says_why && self.leader_id().is_none() {
            message = format!("no leader: {}", self.no_leader());
        }
        let (role, term, commit, voters) = match self.engine.get() {
            None => (Role::Learner, 0, 0, BTreeSet::new()),
            Some(engine) => {
                let report = engine.report();
                let commit = report.progress.committed.map_or(0, |id| id.index);
                let standing = report.standing;
                (
                    standing.role,
                    standing.term,
                    commit,
                    report.members.voters(),
                )
            }
        };
        let leader_id = self.leader_id();
        let table = self.replica.member_table();
        let highest_of = |id| {
            table
                .advertised(id)
                .map_or(0, |advertised| advertised.highest)
        };
        let mut members: Vec<MemberStatus> = self
            .peers
            .members()
            .into_iter()
            .map(|member| MemberStatus {
                role: if Some(member.id) == leader_id {
                    Role::Leader
                } else if voters.contains(&member.id) {
                    Role::Follower
                } else {
                    Role::Learner
                },
                highest_level: highest_of(member.id),
                id: member.id,
                name: member.name,
                addr: member.addr,
            })
            .collect();
        if members.is_empty() {
            // No agreement yet: what the configuration says.
            members = self
                .config
                .peers
                .iter()
                .chain([&self.config.me])
                .map(|peer| MemberStatus {
                    id: 0,
                    name: peer.name.clone(),
                    addr: peer.addr.clone(),
                    role: Role::Learner,
                    highest_level: 0,
                })
                .collect();
        }
        members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let leader = leader_id.map(|id| self.peers.name_of(id));
        let (revision, keys) = {
            let published = self.replica.applied_state();
            (published.revision, published.keys)
        };
        NodeStatus {
            name: self.peers.me.name.clone(),
            node_id: self.peers.my_id(),
            cluster: self.peers.cluster(),
            phase,
            message,
            role,
            leader,
            term,
            commit_index: commit,
            applied_index: self.replica.applied_index(),
            snapshot: self.storage.snapshots.latest().map(|meta| meta.last),
            log_segments: self.storage.log.segment_count(),
            revision,
            keys,
            building_snapshot: self.counters.building.load(Ordering::Relaxed),
            disk_low: self.space.is_low(),
            sync: self.config.sync,
            level: self.levels().in_use(),
            members,
        }
    }
}
