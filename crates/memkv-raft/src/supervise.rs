//! The leader's duties towards the cluster: writes the first entry, finishes what a dead leader
//! began, and swaps silent members for their successors (`seats` decides how).
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
use crate::seats::{self, Arrivals, Known, Step};

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
    let mut arrivals = Arrivals::default();
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
            look(&inner, &raft, &mut arrivals).await;
        } else {
            arrivals.forget();
        }
    }
}

async fn look(inner: &Arc<Inner>, raft: &Raft, arrivals: &mut Arrivals) {
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
    let mut membership = membership(raft);
    if membership.get_joint_config().len() > 1 {
        finish_joint(raft, &membership).await;
        return;
    }
    arrivals.note(&members);
    let abandoned = abandoned(&members, &membership);
    if !abandoned.is_empty() {
        remove_abandoned(inner, raft, abandoned).await;
        membership = self::membership(raft);
    }
    let view = View {
        inner,
        raft,
        arrivals,
        voters: membership.voter_ids().collect(),
        membership: &membership,
    };
    if let Some(step) = seats::next(&members, &view) {
        take(inner, raft, &members, step).await;
    }
}

/// The engine's newest membership.
fn membership(raft: &Raft) -> Membership {
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    metrics.membership_config.membership().clone()
}

/// What this leader knows of its cluster at this moment.
struct View<'a> {
    inner: &'a Inner,
    raft: &'a Raft,
    arrivals: &'a Arrivals,
    membership: &'a Membership,
    voters: BTreeSet<u64>,
}

impl Known for View<'_> {
    fn voters(&self) -> &BTreeSet<u64> {
        &self.voters
    }

    fn is_sent_the_log(&self, id: u64) -> bool {
        self.membership.get_node(&id).is_some()
    }

    fn has_caught_up(&self, id: u64) -> bool {
        let metrics = self.raft.metrics();
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

    fn silent_for(&self, id: u64) -> Duration {
        self.inner.silent_for(id)
    }

    fn pending_for(&self, id: u64) -> Duration {
        self.arrivals.pending_for(id)
    }

    fn replace_after(&self) -> Duration {
        self.inner.config.replace_after
    }

    fn election_timeout(&self) -> Duration {
        self.inner.config.election_timeout
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
        level: identity.level,
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

/// What the book no longer knows: learners whose admission was replaced or given up.
fn abandoned(members: &[Member], membership: &Membership) -> BTreeSet<u64> {
    let known: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
    let learners = membership.learner_ids();
    learners.filter(|id| !known.contains(id)).collect()
}

/// Takes them out of the engine.
async fn remove_abandoned(inner: &Inner, raft: &Raft, abandoned: BTreeSet<u64>) {
    let removal = ChangeMembers::RemoveNodes(abandoned.clone());
    match raft.change_membership(removal, false).await {
        Ok(_) => {
            let leader = &inner.peers.me.name;
            tracing::info!(?abandoned, %leader, "removed abandoned learners");
        }
        Err(error) => tracing::debug!(%error, "removing abandoned learners has to wait"),
    }
}

/// Takes the next step of a replacement.
async fn take(inner: &Inner, raft: &Raft, members: &[Member], step: Step) {
    let name = |id: u64| {
        let member = members.iter().find(|member| member.id == id);
        member.map_or_else(String::new, |member| member.name.clone())
    };
    match step {
        Step::Record { old, new } => {
            let op = SystemOp::ReplaceNode { old, new };
            if let Ok(Ok(outcome)) = inner.batcher.propose_system(op).await {
                tracing::info!(name = %name(old), old, new, ?outcome, "replaced a node");
            }
        }
        Step::AddLearner { new } => {
            let learner = openraft::impls::EmptyNode {};
            if let Err(error) = raft.add_learner(new, learner, false).await {
                tracing::debug!(%error, "adding a learner has to wait");
            }
        }
        Step::Promote { new, voters } => match raft.change_membership(voters, false).await {
            Ok(_) => tracing::info!(name = %name(new), id = new, "the newcomer votes now"),
            Err(error) => tracing::debug!(%error, "the replacement has to wait"),
        },
        Step::GiveUp { old, new } => {
            let op = SystemOp::GiveUpSeat { node: new };
            if let Ok(Ok(outcome)) = inner.batcher.propose_system(op).await {
                tracing::info!(
                    name = %name(old), stays = old, gone = new, ?outcome,
                    "a newcomer has lost its seat: it is silent, and the node that it was to replace is back"
                );
            }
        }
    }
}
