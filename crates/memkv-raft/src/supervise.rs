//! The leader's duties towards the cluster: writes the first entry, finishes what a dead leader
//! began, and swaps silent members for their successors.
//!
//! Every step looks at what the log says now and does the next thing that is missing, so it may be
//! interrupted anywhere and goes on under any leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use memkv_store::{Member, SystemOp};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;

use crate::engine::{Membership, Raft};
use crate::node::Inner;

/// How often the leader looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// The same while the cluster waits for its first entry, which a leader cannot write before its
/// first quorum has answered.
const FORM_INTERVAL: Duration = Duration::from_millis(10);
/// A learner this many entries behind the log's end counts as caught up: it is closer than one
/// request for entries.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// Looks after the cluster whenever this node leads.
pub(crate) async fn run(inner: Arc<Inner>, raft: Raft) {
    let mut leader_changed = inner.leader.subscribe();
    loop {
        let interval = if inner.is_formed() {
            INTERVAL
        } else {
            FORM_INTERVAL
        };
        tokio::select! {
            biased;
            changed = leader_changed.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(interval) => {}
        }
        if inner.leads() {
            look(&inner, &raft).await;
        }
    }
}

async fn look(inner: &Arc<Inner>, raft: &Raft) {
    let (formed, members) = {
        let book = inner.replica.book();
        (
            book.cluster().is_some(),
            book.members().cloned().collect::<Vec<Member>>(),
        )
    };
    if !formed {
        form(inner).await;
        return;
    }
    let membership = raft
        .metrics()
        .borrow_watched()
        .membership_config
        .membership()
        .clone();
    if membership.get_joint_config().len() > 1 {
        finish_joint(raft, &membership).await;
        return;
    }
    collect_abandoned(inner, raft, &members, &membership).await;
    for newcomer in members.iter().filter(|member| member.pending) {
        let old = members
            .iter()
            .find(|member| !member.pending && member.name == newcomer.name);
        if let Some(old) = old {
            replace(inner, raft, &members, &membership, old, newcomer).await;
            // One at a time.
            return;
        }
    }
}

/// The first entry of a cluster's log: its UUID and address book.
async fn form(inner: &Inner) {
    let Some(identity) = inner.peers.identity() else {
        return;
    };
    let members = identity
        .members
        .iter()
        .map(|member| Member {
            id: member.id,
            name: member.name.clone(),
            addr: member.addr.clone(),
            pending: false,
        })
        .collect();
    let op = SystemOp::Form {
        cluster: identity.cluster,
        durability_sync: identity.sync,
        members,
    };
    match inner.batcher.propose_system(op).await {
        Ok(Ok(outcome)) => tracing::debug!(?outcome, "wrote the cluster's first entry"),
        Ok(Err(error)) => tracing::debug!(%error, "the first entry has to wait"),
        Err(_) => {}
    }
}

/// A leader died between the two steps of a change: the new one takes the second
/// (`management.rs:149-195` of alpha.37 leaves it to the caller).
async fn finish_joint(raft: &Raft, membership: &Membership) {
    let Some(target) = membership.get_joint_config().last().cloned() else {
        return;
    };
    match raft.change_membership(target, false).await {
        Ok(_) => tracing::info!("finished a membership change that an earlier leader had begun"),
        Err(error) => tracing::debug!(%error, "an unfinished membership change has to wait"),
    }
}

/// Takes out of the engine what the book no longer knows: learners whose admission was replaced.
async fn collect_abandoned(
    inner: &Inner,
    raft: &Raft,
    members: &[Member],
    membership: &Membership,
) {
    let known: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
    let abandoned: BTreeSet<u64> = membership
        .learner_ids()
        .filter(|id| !known.contains(id))
        .collect();
    if abandoned.is_empty() {
        return;
    }
    tracing::info!(?abandoned, leader = %inner.peers.me.name, "removing abandoned learners");
    let removal = ChangeMembers::RemoveNodes(abandoned);
    if let Err(error) = raft.change_membership(removal, false).await {
        tracing::debug!(%error, "removing abandoned learners has to wait");
    }
}

/// The next step of putting `newcomer` in the place of `old`: learner, caught up, one joint change,
/// address book.
async fn replace(
    inner: &Inner,
    raft: &Raft,
    members: &[Member],
    membership: &Membership,
    old: &Member,
    newcomer: &Member,
) {
    let voters: BTreeSet<u64> = membership.voter_ids().collect();
    let leaving = leaving(&voters, members, old.id);
    let votes = voters.contains(&newcomer.id);
    if votes && leaving.is_empty() {
        let op = SystemOp::ReplaceNode {
            old: old.id,
            new: newcomer.id,
        };
        if let Ok(Ok(outcome)) = inner.batcher.propose_system(op).await {
            tracing::info!(name = %old.name, old = old.id, new = newcomer.id, ?outcome, "replaced a node");
        }
        return;
    }
    let is_silent = |id: &u64| inner.silent_for(*id) >= inner.config.replace_after;
    if !is_silent(&old.id) || !leaving.iter().all(is_silent) {
        // It came back: two nodes claim one name, and the one with the data stays.
        return;
    }
    if membership.get_node(&newcomer.id).is_none() {
        let learner = openraft::impls::EmptyNode {};
        if let Err(error) = raft.add_learner(newcomer.id, learner, false).await {
            tracing::debug!(%error, "adding a learner has to wait");
        }
        return;
    }
    let ready = votes || caught_up(raft, newcomer.id);
    if !ready || !majority_without(inner, &voters, &leaving) {
        return;
    }
    let target: BTreeSet<u64> = voters
        .difference(&leaving)
        .copied()
        .chain([newcomer.id])
        .collect();
    match raft.change_membership(target, false).await {
        Ok(_) => tracing::info!(name = %old.name, id = newcomer.id, "the newcomer votes now"),
        Err(error) => tracing::debug!(%error, "the replacement has to wait"),
    }
}

/// The voters that must go for a newcomer: the member of record `old`, and earlier newcomers of its
/// name that were wiped after they came to vote and before the book said so. The book has forgotten
/// those, and nobody else is missing from it.
fn leaving(voters: &BTreeSet<u64>, members: &[Member], old: u64) -> BTreeSet<u64> {
    let stays = |id: &u64| *id != old && members.iter().any(|member| member.id == *id);
    voters.iter().copied().filter(|id| !stays(id)).collect()
}

fn caught_up(raft: &Raft, id: u64) -> bool {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let Some(last) = metrics.last_log_index else {
        return false;
    };
    let matched = metrics
        .replication
        .as_ref()
        .and_then(|all| all.get(&id)?.as_ref());
    matched.is_some_and(|matched| matched.index + CAUGHT_UP_ENTRIES >= last)
}

/// Whether a majority of the voters is alive when those in `without` are not counted.
fn majority_without(inner: &Inner, voters: &BTreeSet<u64>, without: &BTreeSet<u64>) -> bool {
    let alive = voters
        .difference(without)
        .filter(|id| inner.silent_for(**id) < inner.config.election_timeout)
        .count();
    alive > voters.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, pending: bool) -> Member {
        Member {
            id,
            name: name.to_owned(),
            addr: "127.0.0.1:1".to_owned(),
            pending,
        }
    }

    #[test]
    fn a_newcomer_that_was_wiped_before_the_book_named_it_goes_with_the_next() {
        let book = [
            member(1, "a", false),
            member(2, "b", false),
            member(3, "c", false),
            member(9, "c", true),
        ];
        let leaving_of = |voters: &[u64]| leaving(&voters.iter().copied().collect(), &book, 3);
        assert_eq!(leaving_of(&[1, 2, 3]), BTreeSet::from([3]));
        // 7 was a newcomer too, and had taken the vote of 3.
        assert_eq!(leaving_of(&[1, 2, 7]), BTreeSet::from([7]));
        assert_eq!(leaving_of(&[1, 2, 9]), BTreeSet::new());
    }
}
