//! Why a system operation changed nothing: the reasons, with the next step of an operator in their text.
//!
//! Invariant: a refused operation has no effect.

use crate::SessionId;
use crate::member_table::{MAX_EXPECTED, MAX_MEMBERS, MAX_VOTERS};

/// Why a system operation changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Form came to a store that is not empty.
    #[error("the cluster is formed already or holds data; form a new one on empty directories")]
    AlreadyFormed,
    /// The operation needs a cluster.
    #[error("the cluster is not formed yet; form it first")]
    NotFormed,
    /// The members given to Form are not a valid table.
    #[error("the members are not valid: {why}; correct the configured list of nodes")]
    InvalidMembers {
        /// The invariant that they break.
        why: &'static str,
    },
    /// The node has a session of this boot or a later one.
    #[error("the node has session {session} of boot {boot}, which is not lower; was it copied?")]
    BootNotHigher {
        /// The session that stays.
        session: SessionId,
        /// The boot that opened it.
        boot: u64,
    },
    /// There is no such session.
    #[error("session {session} is not open; it may have been closed or replaced")]
    UnknownSession {
        /// The session asked for.
        session: SessionId,
    },
    /// There is no such node in the table.
    #[error("node {node} is not in the member table; it was never admitted or was removed")]
    UnknownNode {
        /// The node asked for.
        node: u64,
    },
    /// The node is pending where a current member is needed, or the other way round.
    #[error(
        "node {node} does not have the standing for this; only a pending node replaces a member or \
         gives its seat up"
    )]
    WrongStanding {
        /// The node.
        node: u64,
    },
    /// Another current member has the name.
    #[error("the name is taken by node {by}; remove that one first or use another name")]
    NameTaken {
        /// The member that has it.
        by: u64,
    },
    /// The table has no room.
    #[error("the member table holds {MAX_MEMBERS} nodes already; remove abandoned ones first")]
    TableFull,
    /// The last current member cannot go.
    #[error("node {node} is the last member; a cluster without members cannot exist")]
    LastMember {
        /// The node.
        node: u64,
    },
    /// The cluster has this level already, or a higher one.
    #[error("the cluster is at feature level {level} already; a level never falls")]
    LevelNotHigher {
        /// The cluster's level.
        level: u32,
    },
    /// The named nodes are not exactly those in the table.
    #[error("other nodes are in the member table by now; look again before raising the level")]
    OtherMembers,
    /// A node of the table has not advertised the level with its present boot.
    #[error("node {node} advertises feature level {advertised} (0: none yet); upgrade it first")]
    NotAdvertised {
        /// The node.
        node: u64,
        /// The level that it has advertised.
        advertised: u32,
    },
    /// The node's build knows less than the cluster uses.
    #[error(
        "the cluster is at feature level {level}, and this build knows levels up to {highest}: run \
         the version that the other nodes run"
    )]
    TooOld {
        /// The cluster's level.
        level: u32,
        /// The highest that the node knows.
        highest: u32,
    },
    /// The node is joining or leaving.
    #[error("node {node} is joining or leaving; only a node that has joined can do this")]
    NotSettled {
        /// The node.
        node: u64,
    },
    /// Without this node no node would be meant to vote.
    #[error("node {node} is the only one that is to vote; promote another node first")]
    LastVoter {
        /// The node.
        node: u64,
    },
    /// No more nodes may vote.
    #[error(
        "{MAX_VOTERS} nodes vote or are to vote, and more make each write slower; demote one first"
    )]
    TooManyVoters,
    /// Only a node that leaves may be taken out.
    #[error("node {node} is not leaving; let it leave first")]
    NotLeaving {
        /// The node.
        node: u64,
    },
    /// The name was removed from the cluster.
    #[error("{name} was removed from this cluster; `member add {name}` lets it come back")]
    NameRemoved {
        /// The name.
        name: String,
    },
    /// The cluster admits expected names only.
    #[error("this cluster admits only nodes that are expected; `member add {name}` expects it")]
    NotExpected {
        /// The name.
        name: String,
    },
    /// The name is not expected.
    #[error("no node named {name} is in the cluster or expected; look at `member list`")]
    UnknownName {
        /// The name.
        name: String,
    },
    /// No more names may be expected.
    #[error("{MAX_EXPECTED} names are expected already; remove those that will not come first")]
    TooManyExpected,
    /// The entry's index is not free as an id; another entry's will be.
    #[error("the entry's index cannot serve as an id for this; propose it again")]
    Retry,
}
