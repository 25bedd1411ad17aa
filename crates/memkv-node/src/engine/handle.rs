//! The engine as the rest of the crate sees it: its state, and the requests that it takes.
//!
//! Decides nothing and waits for nothing but the engine. Invariants: the result of one call is of one
//! moment; no file outside this folder names the engine's library.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use memkv_disk::LogId;
use memkv_store::SystemOutcome;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::impls::EmptyNode;
use openraft::impls::leader_id_adv::LeaderId;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::{ClientWriteResult, Precondition, TransferLeaderRequest};
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{ChangeMembers, RaftMetrics, ReadPolicy, ServerState};

use super::responder::ProposalResponder;
use super::{Batch, Raft, TypeConfig, codec};
use crate::FatalError;
use crate::leadership::leader::Leader;
use crate::membership::members::Members;
use crate::report::status::Role;

/// No node has this id.
const NO_NODE: u64 = 0;

/// A member this many entries behind the log's end counts as caught up: it is closer than one request for
/// entries.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// A running engine. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Engine {
    raft: Raft,
}

/// The engine of this process, once it has started.
#[derive(Clone, Default)]
pub(crate) struct EngineSlot(Arc<OnceLock<Engine>>);

impl EngineSlot {
    pub(crate) fn get(&self) -> Option<&Engine> {
        self.0.get()
    }

    /// Puts the engine in. Whether it is the first.
    pub(super) fn set(&self, engine: Engine) -> bool {
        self.0.set(engine).is_ok()
    }

    /// Whether this node leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.get().is_some_and(Engine::is_leader)
    }
}

/// Why the engine did not do as asked, in its own text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

impl Refused {
    pub(super) fn new(why: &impl std::fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// Where a node stands in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The term of its vote, and the node that it has voted for.
    pub(crate) term: u64,
    pub(crate) voted_for: u64,
    /// The leader that it follows or is, which may be long dead.
    pub(crate) leader: Option<u64>,
    pub(crate) role: Role,
}

impl Standing {
    fn new(vote: &super::Vote, leader: Option<u64>, state: ServerState) -> Self {
        Self {
            term: vote.leader_id.term,
            voted_for: vote.leader_id.node_id,
            leader,
            role: role(state),
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// The node that it has voted for, and in which term.
    pub(crate) fn vote(&self) -> Leader {
        Leader {
            term: self.term,
            id: self.voted_for,
        }
    }
}

/// The node that a vote is for, and in which term.
fn leader(vote: &super::Vote) -> Leader {
    Leader {
        term: vote.leader_id.term,
        id: vote.leader_id.node_id,
    }
}

fn index(id: &Option<super::EngineLogId>) -> Option<u64> {
    id.as_ref().map(|id| id.index)
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner | ServerState::Shutdown => Role::Learner,
    }
}

/// How far the log has come here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) committed: Option<LogId>,
    pub(crate) applied: Option<u64>,
    pub(crate) snapshot: Option<u64>,
    pub(crate) purged: Option<u64>,
}

/// How far the logs of a leader's members agree with its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Matched {
    /// By member; nothing where that is not known yet. Empty unless this node leads.
    pub(crate) members: Vec<(u64, Option<u64>)>,
    /// The last index of the leader's own log.
    pub(crate) last: Option<u64>,
}

impl Matched {
    fn of(metrics: &RaftMetrics<TypeConfig>) -> Self {
        let members = metrics.replication.iter().flatten();
        Self {
            members: members.map(|(id, matched)| (*id, index(matched))).collect(),
            last: metrics.last_log_index,
        }
    }

    /// How far that member's log agrees.
    pub(crate) fn of_member(&self, id: u64) -> Option<u64> {
        let member = self.members.iter().find(|(member, _)| *member == id);
        member.and_then(|(_, matched)| *matched)
    }

    /// Whether that member's log agrees but for the last few entries.
    pub(crate) fn has_caught_up(&self, id: u64) -> bool {
        let pair = self.of_member(id).zip(self.last);
        pair.is_some_and(|(matched, last)| matched + CAUGHT_UP_ENTRIES >= last)
    }
}

/// All that the engine shows at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// Of an engine that has ended, that of a learner.
    pub(crate) standing: Standing,
    pub(crate) members: Members,
    pub(crate) progress: Progress,
    pub(crate) matched: Matched,
    /// How long ago this leader had its newest answer from a majority.
    pub(crate) quorum_acked_ago: Option<Duration>,
}

/// The outcome of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proposed {
    /// It was applied; these are the outcomes of its system operations, in their order.
    Applied(Vec<SystemOutcome>),
    /// Certainly not appended.
    NotAppended,
    /// Perhaps appended.
    Unknown,
}

/// What a change of the membership was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The vote that this node led under.
    pub(crate) vote: Leader,
    /// The entry that made the membership.
    pub(crate) at: Option<LogId>,
}

/// The newest [`Standing`], until the engine ends.
pub(crate) struct Changes(WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>);

impl Changes {
    pub(crate) fn now(&self) -> Standing {
        let metrics = self.0.borrow_watched();
        Standing::new(&metrics.vote, metrics.current_leader, metrics.state)
    }

    /// Resolves when it may have changed, or to `false` once the engine has ended.
    pub(crate) async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Its state.
impl Engine {
    pub(super) fn new(raft: Raft) -> Self {
        Self { raft }
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The id that it was started with.
    pub(crate) fn id(&self) -> u64 {
        *self.raft.node_id()
    }

    pub(crate) fn report(&self) -> Report {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let quorum_acked = metrics.last_quorum_acked.as_ref();
        Report {
            standing: Standing::new(&metrics.vote, metrics.current_leader, metrics.state),
            members: codec::members(&metrics.membership_config),
            progress: Progress {
                committed: metrics.local_committed.as_ref().map(codec::storage_id),
                applied: index(&metrics.last_applied),
                snapshot: index(&metrics.snapshot),
                purged: index(&metrics.purged),
            },
            matched: Matched::of(&metrics),
            quorum_acked_ago: quorum_acked.map(|at| openraft::Instant::elapsed(&**at)),
        }
    }

    /// The node's vote; of a leader, the vote that it leads under.
    pub(crate) fn vote(&self) -> Leader {
        leader(&self.raft.server_metrics().borrow_watched().vote)
    }

    pub(crate) fn is_leader(&self) -> bool {
        let metrics = self.raft.server_metrics();
        metrics.borrow_watched().state.is_leader()
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes(self.raft.server_metrics())
    }

    pub(crate) fn voters(&self) -> Vec<u64> {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().collect()
    }

    pub(crate) fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        codec::members(&metrics.borrow_watched().membership_config)
    }

    pub(crate) fn matched(&self) -> Matched {
        Matched::of(&self.raft.metrics().borrow_watched())
    }

    /// The same, if this node leads in that term.
    pub(crate) fn matched_in(&self, term: u64) -> Option<Matched> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.state.is_leader() && metrics.vote.leader_id.term == term;
        leads.then(|| Matched::of(&metrics))
    }

    /// The membership, if this node leads, has applied an entry of its own term, and no change of the
    /// membership is under way but a joint one.
    pub(crate) fn settled(&self) -> Option<(Members, Seen)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let vote = leader(&metrics.vote);
        let own = |id: &super::EngineLogId| id.leader_id.term == vote.term;
        let applied = metrics.last_applied.as_ref().is_some_and(own);
        let members = codec::members(&metrics.membership_config);
        let committed = index(&metrics.local_committed) >= members.at.map(|at| at.index);
        let seen = Seen {
            vote,
            at: members.at,
        };
        (metrics.state.is_leader() && applied && committed).then_some((members, seen))
    }

    /// How long ago this leader had its last answer from a member; nothing if there was none.
    pub(crate) fn acked_ago(&self, id: u64) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let acked = metrics.heartbeat.as_ref()?.get(&id)?.as_ref()?;
        Some(openraft::Instant::elapsed(&**acked))
    }

    /// Whether a member has answered this leader within that time; the leader itself always has.
    pub(crate) fn answered(&self, id: u64, within: Duration) -> bool {
        id == self.id() || self.acked_ago(id).is_some_and(|ago| ago < within)
    }

    /// Why it has ended; nothing while it runs.
    pub(crate) fn fatal(&self) -> Option<FatalError> {
        let running = self.raft.metrics().borrow_watched().running_state.clone();
        running.err().map(|error| match error {
            Fatal::StorageError(error) => FatalError::Disk(error.to_string()),
            other => FatalError::Engine(other.to_string()),
        })
    }

    /// Whether this node has a vote or a log; true where that cannot be told.
    pub(crate) async fn is_initialized(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(true)
    }
}

/// Requests to it. Those that return [`Refused`] fail where the engine has stopped.
impl Engine {
    /// Proposes an entry if this node still leads under that vote: one that was stamped in an older term
    /// must not be appended in a newer one. `outcome` is called once in any case, also where this fails.
    pub(crate) async fn propose(
        &self,
        batch: Bytes,
        vote: Leader,
        outcome: impl FnOnce(Proposed) + Send + 'static,
    ) -> Result<(), Refused> {
        let leader = LeaderId {
            term: vote.term,
            node_id: vote.id,
        };
        // The variants are told apart here and nowhere merged: only "forward to leader" means that
        // nothing was appended.
        let responder =
            ProposalResponder::new(move |result: Option<ClientWriteResult<TypeConfig>>| {
                outcome(match result {
                    Some(Ok(response)) => Proposed::Applied(response.data.system),
                    Some(Err(ClientWriteError::ForwardToLeader(_))) => Proposed::NotAppended,
                    Some(Err(
                        ClientWriteError::LogEntryDiscarded(_)
                        | ClientWriteError::ChangeMembershipError(_)
                        | ClientWriteError::PreconditionFailed(_),
                    ))
                    | None => Proposed::Unknown,
                });
            });
        let write = self.raft.write(Batch(batch)).with_leader(leader);
        let proposed = write.responder(responder).await;
        proposed.map_err(|error| Refused::new(&error))
    }

    /// Confirms this leader with a majority, and returns the index that a read which came before must
    /// see (ReadIndex, Raft dissertation, section 6.4).
    pub(crate) async fn read_index(&self) -> Result<u64, Refused> {
        let linearizer = self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
        let linearizer = linearizer.map_err(|error| Refused::new(&error))?;
        Ok(linearizer.read_log_id().index())
    }

    /// Asks for votes, with a pre-vote first.
    pub(crate) async fn elect(&self) -> Result<(), Refused> {
        let asked = self.raft.trigger().elect(true).await;
        asked.map_err(|error| Refused::new(&error))
    }

    /// Ends the lease of a leader that is dead; whether this node's vote is still that leader's. A transfer
    /// of leadership to an id that no node has is just the end of the lease.
    pub(crate) async fn forget_leader(&self, dead: Leader) -> bool {
        let vote = self.raft.server_metrics().borrow_watched().vote;
        if leader(&vote) != dead {
            return false;
        }
        let forget = TransferLeaderRequest::new(vote, NO_NODE, None);
        // It fails only if the engine has stopped.
        let _ = self.raft.handle_transfer_leader(forget).await;
        true
    }

    /// Hands leadership over to a voter that has all of the log.
    pub(crate) async fn transfer_to(&self, id: u64) -> Result<(), Refused> {
        let transferred = self.raft.trigger().transfer_leader(id).await;
        transferred.map_err(|error| Refused::new(&error))
    }

    /// Sends the log to another node, which has no vote.
    pub(crate) async fn add_learner(&self, id: u64, seen: &Seen) -> Result<(), Refused> {
        let added = ChangeMembers::AddNodes(BTreeMap::from([(id, EmptyNode {})]));
        self.change(added, true, seen).await
    }

    /// Makes these the voters, through a joint membership. A node that loses its vote is sent nothing more,
    /// unless it `stays`.
    pub(crate) async fn change_voters(
        &self,
        voters: BTreeSet<u64>,
        stays: bool,
        seen: &Seen,
    ) -> Result<(), Refused> {
        let voters = ChangeMembers::ReplaceAllVoters(voters);
        self.change(voters, stays, seen).await
    }

    /// Removes these learners: nothing is sent to them any more.
    pub(crate) async fn remove_learners(
        &self,
        learners: BTreeSet<u64>,
        seen: &Seen,
    ) -> Result<(), Refused> {
        self.change(ChangeMembers::RemoveNodes(learners), false, seen)
            .await
    }

    /// Changes the membership, if it is still the one that was looked at, and under the same leadership.
    async fn change(
        &self,
        change: ChangeMembers<u64, EmptyNode>,
        retain: bool,
        seen: &Seen,
    ) -> Result<(), Refused> {
        let leader = LeaderId {
            term: seen.vote.term,
            node_id: seen.vote.id,
        };
        let preconditions = [
            Precondition::CommittedLeaderId {
                committed_leader_id: leader,
            },
            Precondition::LastMembershipLogId {
                last_membership_log_id: seen.at.map(codec::engine_id),
            },
        ];
        let changed = self
            .raft
            .change_membership_if(change, retain, preconditions)
            .await;
        changed.map(drop).map_err(|error| Refused::new(&error))
    }

    /// Begins a snapshot, if none is being built.
    pub(crate) async fn snapshot(&self) -> Result<(), Refused> {
        let begun = self.raft.trigger().snapshot().await;
        begun.map_err(|error| Refused::new(&error))
    }

    /// Removes the log's entries up to this one, which a snapshot covers.
    pub(crate) async fn purge_to(&self, index: u64) -> Result<(), Refused> {
        let purged = self.raft.trigger().purge_log(index).await;
        purged.map_err(|error| Refused::new(&error))
    }

    /// Ends it, and returns when it has ended.
    pub(crate) async fn shutdown(&self) {
        // It fails only if the engine has stopped already.
        let _ = self.raft.shutdown().await;
    }
}
