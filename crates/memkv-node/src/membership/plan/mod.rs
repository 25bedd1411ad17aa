//! The next step that brings the engine's membership to the member table: what is decided, without doing it.
//! For tables with roles; how a node takes the seat of one of its own name is in `seats`.
//!
//! Invariants: the voters change only while a majority of the old and of the new ones answers; a seat goes from
//! the table only after the engine's membership holds its node no more; promotion makes the number of voters
//! odd.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use memkv_store::{MAX_VOTERS, MemberState, MemberTable, Role};
use tokio::time::Instant;

use super::seats::Known;

/// Nodes that get a snapshot or a long log at the same time, at most: each transfer takes its share of the
/// leader's disk and network.
const TRANSFERS: usize = 2;

/// How long a node that leaves and answers has to finish what its clients have asked for, as long as one that stops.
/// It refuses what comes meanwhile, and its clients go to other nodes.
pub(crate) const DRAIN: Duration = Duration::from_secs(1);

/// A node of the table with what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) id: u64,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) state: MemberState,
}

impl Wanted {
    /// All nodes of a table.
    pub(crate) fn all(table: &MemberTable) -> Vec<Wanted> {
        let node = |row: memkv_store::Row<'_>| Wanted {
            id: row.member.id,
            name: row.member.name.clone(),
            role: row.role,
            state: row.state,
        };
        table.rows().map(node).collect()
    }

    pub(crate) fn leaves(&self) -> bool {
        self.state == MemberState::Leaving
    }

    /// Whether it belongs to the cluster and is to vote.
    fn is_to_vote(&self) -> bool {
        self.state == MemberState::Member && self.role == Role::Voter
    }
}

/// A step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Move {
    /// The log is sent to this node.
    AddLearner(u64),
    /// The log is sent to this node no more.
    RemoveLearner(u64),
    /// These vote from now on. A node that loses its vote gets the log further on if it `stays`.
    Voters { voters: BTreeSet<u64>, stays: bool },
    /// Another voter leads: this node's own vote is to go.
    HandOver,
    /// The node has joined.
    Settle(u64),
    /// The node that joins is silent for too long: it leaves.
    GiveUp(u64),
    /// The seat goes from the table.
    TakeOut(u64),
}

/// The knowledge of the leader that `seats` does not need.
pub(crate) trait View: Known {
    /// This node.
    fn me(&self) -> u64;
    /// How long a node has been close behind the leader without interruption, if it is now.
    fn close_for(&self, id: u64) -> Option<Duration>;
    /// How long this leader has known that a node leaves.
    fn leaving_for(&self, id: u64) -> Duration;
    /// How long a node must have been close behind before it gets a vote.
    fn promote_after(&self) -> Duration;
    /// A node that joins and is silent for this long is dropped.
    fn drop_after(&self) -> Duration;

    /// Whether this leader had an answer of the node within the election timeout. A leader that has just been
    /// elected has heard of none that did not answer it.
    fn answers(&self, id: u64) -> bool;

    /// Whether a majority of these voters is alive.
    fn majority_answers(&self, voters: &BTreeSet<u64>) -> bool {
        let alive = voters.iter().filter(|id| self.answers(**id)).count();
        alive > voters.len() / 2
    }

    /// Whether the voters may become these: both majorities are needed for that.
    fn may_become(&self, voters: &BTreeSet<u64>) -> bool {
        self.majority_answers(self.voters()) && self.majority_answers(voters)
    }
}

/// The next step, for the first node that does not have to wait. Nodes that take the seat of another one of
/// their name are not looked at.
pub(crate) fn next(nodes: &[Wanted], view: &impl View) -> Option<Move> {
    nodes
        .iter()
        .find_map(|node| leave(nodes, node, view))
        .or_else(|| nodes.iter().find_map(|node| join(nodes, node, view)))
        .or_else(|| nodes.iter().find_map(|node| demote(nodes, node, view)))
        .or_else(|| promote(nodes, view))
}

/// Engine first, then the table.
fn leave(nodes: &[Wanted], node: &Wanted, view: &impl View) -> Option<Move> {
    if node.state != MemberState::Leaving {
        return None;
    }
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::TableBeforeEngine) {
        return Some(Move::TakeOut(node.id));
    }
    if !view.is_sent_the_log(node.id) {
        return Some(Move::TakeOut(node.id));
    }
    let drains = view.answers(node.id) && view.leaving_for(node.id) < DRAIN;
    if drains {
        return None;
    }
    match view.voters().contains(&node.id) {
        true => without(nodes, node.id, view, false),
        false => Some(Move::RemoveLearner(node.id)),
    }
}

/// A member whose role is that of a replica keeps the log and loses its vote.
fn demote(nodes: &[Wanted], node: &Wanted, view: &impl View) -> Option<Move> {
    let votes = view.voters().contains(&node.id);
    let is_to = node.role == Role::Replica && node.state == MemberState::Member;
    match votes && is_to {
        true => without(nodes, node.id, view, true),
        false => None,
    }
}

/// The vote of `id` goes, to a node that is to vote and close behind if there is one.
fn without(nodes: &[Wanted], id: u64, view: &impl View, stays: bool) -> Option<Move> {
    let voters = view.voters();
    // That it is close behind now is enough: the number of voters must not fall meanwhile.
    let heir = close(nodes, view, Duration::ZERO).next();
    if id == view.me() {
        let others: BTreeSet<u64> = voters
            .iter()
            .copied()
            .filter(|other| *other != id)
            .collect();
        if others.iter().any(|other| view.answers(*other)) {
            return Some(Move::HandOver);
        }
        // It is the only voter that answers: another one gets a vote first.
        let voters: BTreeSet<u64> = voters.iter().copied().chain(heir).collect();
        let possible = heir.is_some() && view.may_become(&voters);
        return possible.then_some(Move::Voters {
            voters,
            stays: true,
        });
    }
    let left = voters.iter().copied().filter(|voter| *voter != id);
    let voters: BTreeSet<u64> = left.chain(heir).collect();
    view.may_become(&voters)
        .then_some(Move::Voters { voters, stays })
}

/// A node that joins gets the log, and has joined once it has caught up. A demoted node gets the log again.
fn join(nodes: &[Wanted], node: &Wanted, view: &impl View) -> Option<Move> {
    let id = node.id;
    match node.state {
        MemberState::Leaving => None,
        MemberState::Member if view.is_sent_the_log(id) || loses_seat(nodes, node) => None,
        MemberState::Member => Some(Move::AddLearner(id)),
        // `seats` cares for it.
        MemberState::Joining if takes_seat(nodes, node) => None,
        MemberState::Joining => {
            let silent = view.silent_for(id).min(view.pending_for(id));
            if silent >= view.drop_after() {
                return Some(Move::GiveUp(id));
            }
            if !view.is_sent_the_log(id) {
                return (transfers(nodes, view) < TRANSFERS).then_some(Move::AddLearner(id));
            }
            view.close_for(id).map(|_| Move::Settle(id))
        }
    }
}

/// Whether a node joins in the place of a member of its own name.
fn takes_seat(nodes: &[Wanted], newcomer: &Wanted) -> bool {
    let has_name = |node: &Wanted| node.state == MemberState::Member && node.name == newcomer.name;
    nodes.iter().any(has_name)
}

/// Whether another node joins in the place of this one.
fn loses_seat(nodes: &[Wanted], member: &Wanted) -> bool {
    let joins = |node: &Wanted| node.state == MemberState::Joining && node.name == member.name;
    nodes.iter().any(joins)
}

/// Nodes that join, get the log and answer, and have not caught up yet. One that is silent takes no place.
fn transfers(nodes: &[Wanted], view: &impl View) -> usize {
    let takes = |node: &&Wanted| {
        let id = node.id;
        let joins = node.state == MemberState::Joining && view.is_sent_the_log(id);
        joins && view.answers(id) && view.close_for(id).is_none()
    };
    nodes.iter().filter(takes).count()
}

/// Nodes that are to vote, do not, and have been close behind for so long, by ascending id.
fn close(nodes: &[Wanted], view: &impl View, wanted: Duration) -> impl Iterator<Item = u64> {
    let is_close = move |node: &&Wanted| {
        let close = view.close_for(node.id);
        node.is_to_vote()
            && !view.voters().contains(&node.id)
            && close.is_some_and(|close| close >= wanted)
    };
    nodes.iter().filter(is_close).map(|node| node.id)
}

/// One votes alone until two others are ready, and so on: an even number of voters survives no more losses
/// than the odd one below it, and needs one answer more.
fn promote(nodes: &[Wanted], view: &impl View) -> Option<Move> {
    let voters = view.voters();
    let wanted = if voters.len().is_multiple_of(2) { 1 } else { 2 };
    let ready = close(nodes, view, view.promote_after());
    let new: Vec<u64> = ready.take(wanted).collect();
    let voters: BTreeSet<u64> = voters.iter().copied().chain(new.iter().copied()).collect();
    let possible = new.len() == wanted && voters.len() <= MAX_VOTERS && view.may_become(&voters);
    possible.then_some(Move::Voters {
        voters,
        stays: true,
    })
}

/// What this leader has seen of the nodes over time. Another leader counts anew.
#[derive(Default)]
pub(crate) struct Watch {
    /// Since when a node is close behind.
    close: BTreeMap<u64, Instant>,
    /// Since when a node leaves.
    leaving: BTreeMap<u64, Instant>,
    /// The last index of the leader's log at earlier looks, of the last second and a look before.
    lasts: Vec<(Instant, u64)>,
}

/// A node is close behind if it has what the leader had this long ago.
const CLOSE: Duration = Duration::from_secs(1);

impl Watch {
    /// Notes the state of the nodes now: `has` is how far the log of each agrees with the leader's, if it
    /// answers; `last` the end of the leader's log.
    pub(crate) fn note(&mut self, nodes: &[Wanted], last: u64, has: impl Fn(u64) -> Option<u64>) {
        let now = Instant::now();
        self.lasts.push((now, last));
        let old = self
            .lasts
            .iter()
            .rposition(|(at, _)| now.duration_since(*at) >= CLOSE);
        self.lasts.drain(..old.unwrap_or(0));
        let wanted = self.lasts.first().map_or(last, |(_, last)| *last);
        let is_close = |id: u64| has(id).is_some_and(|has| has >= wanted);
        self.close.retain(|id, _| is_close(*id));
        for node in nodes.iter().filter(|node| is_close(node.id)) {
            self.close.entry(node.id).or_insert(now);
        }
        let leaves = |node: &&Wanted| node.state == MemberState::Leaving;
        let leaving: BTreeSet<u64> = nodes.iter().filter(leaves).map(|node| node.id).collect();
        self.leaving.retain(|id, _| leaving.contains(id));
        for id in leaving {
            self.leaving.entry(id).or_insert(now);
        }
    }

    pub(crate) fn close_for(&self, id: u64) -> Option<Duration> {
        self.close.get(&id).map(Instant::elapsed)
    }

    pub(crate) fn leaving_for(&self, id: u64) -> Duration {
        self.leaving
            .get(&id)
            .map_or(Duration::ZERO, Instant::elapsed)
    }
}
