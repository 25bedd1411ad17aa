//! A look behind the node's interface for the simulator's invariants. Never used by the product,
//! and never changes anything.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use memkv_disk::{LogId, LogReader};

use crate::Node;
use crate::membership::life::State;
use crate::peer::message::Envelope;
use crate::time::log_clock::ClockInspection;

/// The state of a node at one moment.
#[doc(hidden)]
#[derive(Clone)]
pub struct Inspection {
    /// This node's id.
    pub node_id: u64,
    /// That of its engine.
    pub engine_id: u64,
    /// Term of its vote.
    pub term: u64,
    /// The node that it has voted for.
    pub voted_for: u64,
    /// Term and node id of the vote that it leads under.
    pub leads: Option<(u64, u64)>,
    /// Last entry that it knows to be committed.
    pub committed: Option<LogId>,
    /// Index of the last entry that is applied here; 0 for none.
    pub applied: u64,
    /// Voters of the membership in force; two sets while it is joint.
    pub voters: Vec<BTreeSet<u64>>,
    /// Members without a vote, in the same membership.
    pub learners: BTreeSet<u64>,
    /// Index of the entry that made this membership, and of the one that made the membership which is
    /// applied here.
    pub membership_at: (u64, u64),
    /// The highest index that a peer may know from this process to be committed.
    pub told: u64,
    /// Index of the last entry of which a read here may have seen something.
    pub visible: u64,
    /// Commands whose answers came out of a snapshot.
    pub answered_by_snapshot: u64,
    /// Last entry that is durable here, in the log or in a snapshot.
    pub durable: Option<LogId>,
    /// Its log.
    pub log: LogReader,
    /// Its log clock.
    pub clock: ClockInspection,
    /// It proposes nothing, because a majority or itself has no space left on its disks.
    pub refuses_for_space: bool,
    /// How often it has refused a leader's entries for lack of space.
    pub entries_refused: u64,
    /// How long ago a quorum was last known to follow it, if it leads.
    pub quorum_silent_for: Option<Duration>,
    /// Rounds in which its store was compared with another's.
    pub divergence_checks: u64,
    /// Stores differ, and it is not known which node is right.
    pub divergence_alarm: bool,
}

impl Node {
    /// `None` while the node has no identity, and so no engine.
    #[doc(hidden)]
    pub fn inspect(&self) -> Option<Inspection> {
        let group = &self.group;
        let engine = group.engine.get()?;
        let report = engine.report();
        let (standing, members) = (report.standing, report.members);
        let vote = standing.vote();
        let published = group.replica.applied_state();
        let membership_at = (members.index(), published.membership.index());
        Some(Inspection {
            node_id: group.process.peers.my_id(),
            engine_id: engine.id(),
            term: vote.term,
            voted_for: vote.id,
            leads: standing.leads().then_some((vote.term, vote.id)),
            committed: report.progress.committed,
            applied: group.replica.applied_index(),
            voters: members.configs,
            learners: members.learners,
            membership_at,
            told: group.reads.barrier.published.commit(),
            visible: published.last_applied.map_or(0, |id| id.index),
            answered_by_snapshot: group.writes.session.answered_by_snapshot(),
            durable: self.durable(),
            log: group.storage.log.clone(),
            clock: group.clock.inspect(),
            refuses_for_space: group.writes.batcher.refuses_for_space(engine),
            entries_refused: group.process.space.refused(),
            quorum_silent_for: report.quorum_acked_ago,
            divergence_checks: group.divergence.rounds(),
            divergence_alarm: !group.divergence.alarm().is_empty(),
        })
    }

    /// Whether it has agreed to a cluster, or belongs to one.
    #[doc(hidden)]
    pub fn is_bound(&self) -> bool {
        !matches!(
            self.group.introducer.record.life.state(),
            State::Blank | State::Proposing(_)
        )
    }

    /// Term and index up to which a node has told this one that it is durable.
    #[doc(hidden)]
    pub fn remembers(&self, id: u64) -> Option<(u64, u64)> {
        let mark = self.group.memory.recall(id)?.mark;
        Some((mark.term, mark.index))
    }

    /// Whether this node tells its peers false checkpoints from now on.
    #[cfg(memkv_bugs)]
    #[doc(hidden)]
    pub fn lie(&self, lies: bool) {
        let told = &self.group.divergence.lies;
        told.store(lies, std::sync::atomic::Ordering::Relaxed);
    }

    /// Last entry that is durable here, in the log or in a snapshot.
    #[doc(hidden)]
    pub fn durable(&self) -> Option<LogId> {
        self.group.storage.durable()
    }
}

/// Names of requests by their number on the wire.
const KINDS: [&str; 17] = [
    "?",
    "Append",
    "Vote",
    "PreVote",
    "TransferLeader",
    "SnapshotChunk",
    "SnapshotInstall",
    "Propose",
    "OpenSession",
    "ReadIndex",
    "Hello",
    "Prepare",
    "Join",
    "Publish",
    "Attend",
    "Confirm",
    "Recall",
];

/// Name of a request's kind.
#[doc(hidden)]
pub fn kind_of(request: &Bytes) -> &'static str {
    let number = request.get(1).copied().unwrap_or(0);
    KINDS.get(usize::from(number)).copied().unwrap_or(KINDS[0])
}

/// The node id that a request is meant for; 0 for any node at that address, and for bytes that are no request.
#[doc(hidden)]
pub fn addressee(request: &Bytes) -> u64 {
    Envelope::decode(request.clone()).map_or(0, |(envelope, _)| envelope.to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::message::Kind;

    #[test]
    fn kinds_have_their_names() {
        let kinds = [
            Kind::Append,
            Kind::SnapshotInstall,
            Kind::Join,
            Kind::Publish,
            Kind::Attend,
            Kind::Confirm,
        ];
        for kind in kinds {
            let request = Bytes::from(vec![1, kind as u8]);
            assert_eq!(kind_of(&request), format!("{kind:?}"));
        }
        assert_eq!(kind_of(&Bytes::new()), "?");
    }
}
