//! What must hold of members and of the reads that they confirm: which node has an id, which nodes are asked
//! whether a leader still leads, and when a change of membership may begin.
//!
//! Only looks, like `invariants`, and at single requests as they are sent. Invariant of its own: ids
//! are never given twice, so an id that was a voter once is the same node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use memkv_node::{Inspection, addressee, kind_of};

use crate::cluster::{Cluster, name};
use crate::promise::Promise;

/// A round of confirmations is over by then, in microseconds: after 5 ms other voters are asked in
/// place of slow ones, with the membership of the round's beginning.
const ROUND: u64 = 60_000;
/// A leader that begins a change has heard a majority within its election timeout, a second, and this
/// is looked at a little later.
const HEARD_WITHIN: Duration = Duration::from_millis(1_300);

type Verdict = Result<(), (Promise, String)>;

/// What was seen of members.
#[derive(Default)]
pub(crate) struct Witness {
    /// The host of each node id.
    hosts: BTreeMap<u64, usize>,
    /// Every node id that was ever a voter's.
    voted: BTreeSet<u64>,
    /// By host.
    changes: BTreeMap<usize, Change>,
}

/// A membership in a host's log.
#[derive(Default, Clone, Copy)]
struct Change {
    process: u64,
    /// Index of its entry.
    at: u64,
    /// When it was first seen not to be applied, in microseconds.
    unsettled_since: Option<u64>,
    is_joint: bool,
}

impl Witness {
    /// Looks at a node.
    pub(crate) fn look(
        &mut self,
        slot: usize,
        process: u64,
        now: &Inspection,
        cluster: &Cluster,
    ) -> Verdict {
        self.voted.extend(now.voters.iter().flatten());
        let owner = *self.hosts.entry(now.node_id).or_insert(slot);
        if owner != slot {
            let (one, other, id) = (name(owner), name(slot), now.node_id);
            let seen = format!("{one} was node {id}, and now {other} is");
            return Err((Promise::IdGivenOnce, seen));
        }
        let trace = &cluster.trace;
        if now.leads.is_some() && now.told > now.visible {
            trace.count("looks at a commit told before it is applied");
        }
        let before = self.note(slot, process, now, cluster);
        let after = self.changes[&slot];
        if now.leads.is_none() || before.process != process {
            return Ok(());
        }
        if after.unsettled_since.is_some() {
            trace.count("looks at a change that is not settled");
        }
        let silent = now.quorum_silent_for.unwrap_or_default();
        if silent > HEARD_WITHIN && !now.learners.is_empty() {
            trace.count("looks at a newcomer without a majority");
        }
        if after.is_joint && !before.is_joint && silent > HEARD_WITHIN {
            let seen = format!(
                "{} began to replace a member, and has heard no majority for {silent:?}",
                name(slot)
            );
            return Err((Promise::ReplacedByMajority, seen));
        }
        Ok(())
    }

    /// Notes the membership in a node's log; gives what was known before.
    fn note(&mut self, slot: usize, process: u64, now: &Inspection, cluster: &Cluster) -> Change {
        let before = self.changes.get(&slot).copied().unwrap_or_default();
        let (at, settled_at) = now.membership_at;
        let since = before
            .unsettled_since
            .filter(|_| (before.process, before.at) == (process, at))
            .unwrap_or_else(|| cluster.trace.micros());
        let change = Change {
            process,
            at,
            unsettled_since: (at > settled_at).then_some(since),
            is_joint: now.voters.len() > 1,
        };
        self.changes.insert(slot, change);
        before
    }

    /// A request leaves a node.
    pub(crate) fn sends(&mut self, from: usize, request: &Bytes, cluster: &Cluster) -> Verdict {
        if kind_of(request) != "Confirm" {
            return Ok(());
        }
        let Some(now) = cluster.node(from).and_then(|node| node.inspect()) else {
            return Ok(());
        };
        let process = cluster.hosts[from].lock().generation;
        self.voted.extend(now.voters.iter().flatten());
        self.note(from, process, &now, cluster);
        if !now.learners.is_empty() {
            let trace = &cluster.trace;
            trace.count("confirmations asked for while a newcomer has no vote");
        }
        let (asker, asked) = (name(from), addressee(request));
        if !self.voted.contains(&asked) {
            let seen = format!("{asker} asks node {asked}, which never had a vote");
            return Err((Promise::ConfirmedByVoters, seen));
        }
        let unsettled = self.changes[&from].unsettled_since;
        if let Some(since) = unsettled.filter(|since| cluster.trace.micros() - since > ROUND) {
            let (at, settled_at) = now.membership_at;
            let seen = format!(
                "{asker} asks node {asked}; its log has a change of membership at {at} since {since} \
                 us, and what it has applied is that of {settled_at}"
            );
            return Err((Promise::ConfirmedWhenSettled, seen));
        }
        Ok(())
    }
}
