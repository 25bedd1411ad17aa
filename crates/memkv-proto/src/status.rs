//! A node's view of itself and its cluster: the JSON of `GET /v1/status`.
//! Never a promise: it is the view of one node at the time of the request, and a partitioned node may be
//! wrong.
//!
//! Invariant: an older or newer node's status can be read: unknown fields are ignored, and fields that
//! are not essential may be missing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::Durability;

/// A node's part in consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Replicates its log to the others.
    Leader,
    /// Votes, and follows a leader or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Receives the log and has no vote.
    Learner,
}

impl Role {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Learner => "learner",
        }
    }

    /// Whether a node in this role counts for a quorum.
    pub fn votes(self) -> bool {
        self != Self::Learner
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The stage of a node's life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// A new cluster waits until all nodes of its list have answered.
    Forming,
    /// A new node waits until the cluster admits it.
    Joining,
    /// It takes part.
    #[default]
    Serving,
    /// Its disk is damaged or went back in time: it neither votes nor acknowledges.
    Quarantined,
}

impl Phase {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forming => "forming",
            Self::Joining => "joining",
            Self::Serving => "serving",
            Self::Quarantined => "quarantined",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One member of the cluster, as the asked node knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The node's name (the original's `id`).
    pub name: String,
    /// `host:port` where it answers.
    pub addr: String,
    /// Its part; for other nodes than the asked one, `leader`, `follower` or `learner`.
    pub role: Role,
    /// The highest feature level that it announces; 0 before it has announced any.
    #[serde(default)]
    pub highest_feature_level: u32,
    /// Where it is: `joining`, `member` or `leaving`; empty if the asked node does not know.
    #[serde(default)]
    pub state: String,
    /// Entries of the log that it lacks; the leader alone says so.
    #[serde(default)]
    pub lag: Option<u64>,
    /// Whether it has answered lately; the leader alone says so.
    #[serde(default)]
    pub answers: Option<bool>,
}

/// The answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The asked node's name (the original's `id`).
    pub name: String,
    /// The asked node's part in consensus.
    pub role: Role,
    /// Name of the leader that the asked node knows, if any.
    pub leader: Option<String>,
    /// Current term.
    pub term: u64,
    /// Index of the last entry that the asked node knows to be committed; 0 = none.
    pub commit_index: u64,
    /// Index of the last entry applied to the asked node's store; 0 = none.
    pub applied_index: u64,
    /// All members, the asked node included.
    pub members: Vec<Member>,
    /// The durability of an acknowledged write in this cluster.
    pub durability: Durability,
    /// The asked node's version of memkv.
    pub version: String,
    /// The cluster's feature level, as far as the asked node uses it; 0 if it does not say.
    #[serde(default)]
    pub feature_level: u32,
    /// The cluster's UUID; none before it was formed.
    #[serde(default)]
    pub cluster: Option<String>,
    /// The asked node's id in consensus; 0 = none yet.
    #[serde(default)]
    pub node_id: u64,
    /// The last revision that the asked node has applied.
    #[serde(default)]
    pub revision: u64,
    /// Keys in the asked node's store.
    #[serde(default)]
    pub keys: u64,
    /// What the keys cost, in bytes, as the memory cap counts.
    #[serde(default)]
    pub keys_cost: u64,
    /// The memory cap in force: at it, commands that may grow the keys are refused.
    #[serde(default)]
    pub maxmemory: Option<u64>,
    /// What makes room at the cap: `noeviction` or `volatile-ttl`.
    #[serde(default)]
    pub maxmemory_policy: String,
    /// Whether the process is near the limit of its memory.
    #[serde(default)]
    pub memory_low: bool,
    /// How far the asked node is.
    #[serde(default)]
    pub phase: Phase,
    /// The reason for which it waits, as text; empty if it does not wait.
    #[serde(default)]
    pub message: String,
    /// Index that the last snapshot covers; 0 = none.
    #[serde(default)]
    pub snapshot_index: u64,
    /// Log segments on disk.
    #[serde(default)]
    pub log_segments: u64,
    /// What an operator must do something about, as text.
    #[serde(default)]
    pub alarms: Vec<String>,
}

impl Status {
    /// The JSON of the answer.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a struct of strings and numbers always serializes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_essential_fields_are_enough_and_others_are_ignored() {
        let json = r#"{"name":"n1","role":"follower","leader":null,"term":3,"commit_index":7,
            "applied_index":6,"members":[{"name":"n1","addr":"h:1","role":"learner","rtt":1}],
            "durability":"os","version":"0.1.0","later":{"x":[]}}"#;
        let status: Status = serde_json::from_str(json).unwrap();
        assert_eq!(
            (status.role, status.leader, status.term),
            (Role::Follower, None, 3)
        );
        assert_eq!(status.members[0].role, Role::Learner);
        assert_eq!(
            (&*status.members[0].state, status.members[0].lag),
            ("", None)
        );
        assert_eq!(
            (status.durability, status.phase),
            (Durability::Os, Phase::Serving)
        );
    }

    #[test]
    fn survives_a_round_trip_in_lower_case() {
        let status = Status {
            name: "n1".into(),
            role: Role::Leader,
            leader: Some("n1".into()),
            term: 1,
            commit_index: 2,
            applied_index: 2,
            members: vec![Member {
                name: "n1".into(),
                addr: "h:1".into(),
                role: Role::Leader,
                highest_feature_level: 2,
                state: "member".into(),
                lag: Some(0),
                answers: Some(true),
            }],
            durability: Durability::Sync,
            version: "0.1.0".into(),
            feature_level: 1,
            cluster: Some("c".into()),
            node_id: 1,
            revision: 2,
            keys: 1,
            keys_cost: 98,
            maxmemory: Some(1 << 30),
            maxmemory_policy: "noeviction".into(),
            memory_low: true,
            phase: Phase::Quarantined,
            message: "waits".into(),
            snapshot_index: 0,
            log_segments: 1,
            alarms: vec!["low".into()],
        };
        let json = status.to_json();
        assert!(json.contains(r#""role":"leader""#) && json.contains(r#""phase":"quarantined""#));
        assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    }
}
