//! The leader's duties towards the cluster: writes the first entry, finishes what a dead leader
//! began, and swaps silent members for their successors (`seats` decides how).
//!
//! Every step looks at what the log says now and does the next thing that is missing, so it may be
//! interrupted anywhere and goes on under any leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use memkv_store::{Member, SystemOp};

use crate::NodeConfig;
use crate::engine::handle::Engine;
use crate::leadership::known::Leadership;
use crate::membership::members::Members;
use crate::membership::seats::{self, Arrivals, Known, Step};
use crate::peer::client::Peers;
use crate::replica::Replica;
use crate::write::batcher::Batcher;

/// How often the leader looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// The same while the cluster waits for its first entry, which a leader cannot write before its
/// first quorum has answered.
const FORM_INTERVAL: Duration = Duration::from_millis(10);
/// A learner this many entries behind the log's end counts as caught up: it is closer than one
/// request for entries.
const CAUGHT_UP_ENTRIES: u64 = 64;

/// Brings the engine's membership to what the log says.
pub(crate) struct Reconciler {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) engine: Engine,
}

impl Reconciler {
    /// Reconciles whenever this node leads.
    pub(crate) async fn run(self) {
        let mut leader_changed = self.leadership.subscribe();
        let mut arrivals = Arrivals::default();
        loop {
            let interval = if self.replica.is_formed() {
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
            if self.engine.is_leader() {
                self.reconcile(&mut arrivals).await;
            } else {
                arrivals.forget();
            }
        }
    }

    async fn reconcile(&self, arrivals: &mut Arrivals) {
        let engine = &self.engine;
        let (formed, members) = {
            let table = self.replica.member_table();
            (
                table.cluster().is_some(),
                table.members().cloned().collect::<Vec<Member>>(),
            )
        };
        if !formed {
            self.form().await;
            return;
        }
        let mut membership = engine.members();
        if membership.configs.len() > 1 {
            finish_joint(engine, membership).await;
            return;
        }
        arrivals.note(&members);
        let abandoned = abandoned(&members, &membership);
        if !abandoned.is_empty() {
            self.remove_abandoned(abandoned).await;
            membership = engine.members();
        }
        let view = View {
            reconciler: self,
            arrivals,
            voters: membership.voters(),
            membership: &membership,
        };
        if let Some(step) = seats::next(&members, &view) {
            self.take(&members, step).await;
        }
    }
}

/// The cluster as this leader knows it at this moment.
struct View<'a> {
    reconciler: &'a Reconciler,
    arrivals: &'a Arrivals,
    membership: &'a Members,
    voters: BTreeSet<u64>,
}

impl Known for View<'_> {
    fn voters(&self) -> &BTreeSet<u64> {
        &self.voters
    }

    fn is_sent_the_log(&self, id: u64) -> bool {
        self.membership.holds(id)
    }

    fn has_caught_up(&self, id: u64) -> bool {
        let matched = self.reconciler.engine.matched();
        let Some(last) = matched.last else {
            return false;
        };
        let matched = matched.of_member(id);
        matched.is_some_and(|matched| matched + CAUGHT_UP_ENTRIES >= last)
    }

    fn silent_for(&self, id: u64) -> Duration {
        let Reconciler {
            leadership,
            engine,
            peers,
            ..
        } = self.reconciler;
        leadership.silent_for(Some(engine), peers.my_id(), id)
    }

    fn pending_for(&self, id: u64) -> Duration {
        self.arrivals.pending_for(id)
    }

    fn replace_after(&self) -> Duration {
        self.reconciler.config.replace_after
    }

    fn election_timeout(&self) -> Duration {
        self.reconciler.config.election_timeout
    }
}

impl Reconciler {
    /// The first entry of a cluster's log: its UUID and member table.
    async fn form(&self) {
        let Some(identity) = self.peers.identity() else {
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
            users: self.config.first_users.clone(),
        };
        match self.batcher.propose_system(op).await {
            Ok(Ok(outcome)) => tracing::debug!(?outcome, "wrote the cluster's first entry"),
            Ok(Err(error)) => tracing::debug!(%error, "the first entry has to wait"),
            Err(_) => {}
        }
    }

    /// Takes abandoned learners out of the engine.
    async fn remove_abandoned(&self, abandoned: BTreeSet<u64>) {
        match self.engine.remove_learners(abandoned.clone()).await {
            Ok(()) => {
                let leader = &self.peers.me.name;
                tracing::info!(?abandoned, %leader, "removed abandoned learners");
            }
            Err(error) => tracing::debug!(%error, "removing abandoned learners has to wait"),
        }
    }

    /// Takes the next step of a replacement.
    async fn take(&self, members: &[Member], step: Step) {
        let name = |id: u64| {
            let member = members.iter().find(|member| member.id == id);
            member.map_or_else(String::new, |member| member.name.clone())
        };
        match step {
            Step::Record { old, new } => {
                let op = SystemOp::ReplaceNode { old, new };
                if let Ok(Ok(outcome)) = self.batcher.propose_system(op).await {
                    tracing::info!(name = %name(old), old, new, ?outcome, "replaced a node");
                }
            }
            Step::AddLearner { new } => {
                if let Err(error) = self.engine.add_learner(new).await {
                    tracing::debug!(%error, "adding a learner has to wait");
                }
            }
            Step::Promote { new, voters } => match self.engine.change_voters(voters).await {
                Ok(()) => tracing::info!(name = %name(new), id = new, "the newcomer votes now"),
                Err(error) => tracing::debug!(%error, "the replacement has to wait"),
            },
            Step::GiveUp { old, new } => {
                let op = SystemOp::GiveUpSeat { node: new };
                if let Ok(Ok(outcome)) = self.batcher.propose_system(op).await {
                    tracing::info!(
                        name = %name(old), stays = old, gone = new, ?outcome,
                        "a newcomer has lost its seat: it is silent, and the node that it was to replace is back"
                    );
                }
            }
        }
    }
}

/// A leader died between the two steps of a change: the new one takes the second
/// (`management.rs:149-195` of alpha.37 leaves it to the caller).
async fn finish_joint(engine: &Engine, mut membership: Members) {
    let Some(target) = membership.configs.pop() else {
        return;
    };
    match engine.change_voters(target).await {
        Ok(()) => tracing::info!("finished a membership change that an earlier leader had begun"),
        Err(error) => tracing::debug!(%error, "an unfinished membership change has to wait"),
    }
}

/// Learners that the table no longer names: their admission was replaced or given up.
fn abandoned(members: &[Member], membership: &Members) -> BTreeSet<u64> {
    let known: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
    membership.learners.difference(&known).copied().collect()
}
