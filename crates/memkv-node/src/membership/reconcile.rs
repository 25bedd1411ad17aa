//! The leader's duties towards the cluster: writes the first entry, finishes what a dead leader
//! began, and brings the engine's membership to the member table (`seats` and `plan` decide how).
//!
//! Every step looks at what the log says now and does the next thing that is missing, so it may be
//! interrupted anywhere and goes on under any leader. Invariants: nothing is decided before an entry of this
//! leader's own term is applied, nor while a change is under way; a change of the membership is made only to the
//! membership and under the leadership that it was decided on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use memkv_store::{MEMBERS_LEVEL, Member, MemberChange, SystemOp};
use tokio::task::JoinSet;

use crate::NodeConfig;
use crate::engine::handle::{Engine, Seen};
use crate::leadership::handover;
use crate::leadership::known::Leadership;
use crate::membership::members::Members;
use crate::membership::moves::{self, Found};
use crate::membership::plan::{self, Move, Wanted, Watch};
use crate::membership::seats::{self, Arrivals, Known, Step};
use crate::peer::client::Peers;
use crate::replica::Replica;
use crate::report::seldom::Lines;
use crate::write::batcher::Batcher;

/// How often the leader looks.
const INTERVAL: Duration = Duration::from_millis(250);
/// The same while the cluster waits for its first entry, which a leader cannot write before its
/// first quorum has answered.
const FORM_INTERVAL: Duration = Duration::from_millis(10);
/// A step that takes longer is not waited for: the next look finds what came of it.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Brings the engine's membership to what the log says.
#[derive(Clone)]
pub(crate) struct Reconciler {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) lines: Arc<Lines>,
    pub(crate) engine: Engine,
}

/// What this leader has seen of newcomers and of nodes that leave or get a vote.
#[derive(Default)]
struct Noted {
    arrivals: Arrivals,
    watch: Watch,
}

impl Reconciler {
    /// Reconciles whenever this node leads.
    pub(crate) async fn run(self) {
        let mut leader_changed = self.leadership.subscribe();
        let mut noted = Noted::default();
        let mut steps = JoinSet::new();
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
            while steps.try_join_next().is_some() {}
            if !self.engine.is_leader() {
                noted = Noted::default();
                continue;
            }
            if !self.replica.is_formed() {
                self.form().await;
                continue;
            }
            let decided = self.decide(&mut noted);
            if let Some((todo, seen)) = decided.filter(|_| steps.is_empty()) {
                let this = self.clone();
                steps.spawn(async move {
                    // What it has begun goes on without it.
                    let _ = tokio::time::timeout(STEP_TIMEOUT, this.take(todo, seen)).await;
                });
            }
        }
    }

    /// Looks at everything, and decides about the next step.
    fn decide(&self, noted: &mut Noted) -> Option<(Todo, Seen)> {
        // Before the table, which is then at least as new.
        let settled = self.engine.settled();
        let table = self.replica.member_table();
        let members: Vec<Member> = table.members().cloned().collect();
        let wanted = Wanted::all(&table);
        noted.arrivals.note(&members);
        let matched = self.engine.matched();
        let has = |id| matched.of_member(id).filter(|_| self.answers(id));
        noted.watch.note(&wanted, matched.last.unwrap_or(0), has);
        let (membership, seen) = settled?;
        if let [_, .., target] = &membership.configs[..] {
            return Some((Todo::FinishJoint(target.clone()), seen));
        }
        let abandoned = abandoned(&members, &membership);
        if !abandoned.is_empty() {
            return Some((Todo::Abandoned(abandoned), seen));
        }
        let view = View {
            reconciler: self,
            noted,
            voters: membership.voters(),
            membership: &membership,
        };
        let stays = |member: &&Member| {
            let leaves = |wanted: &Wanted| wanted.id == member.id && wanted.leaves();
            !wanted.iter().any(leaves)
        };
        let has_roles = table.level() >= MEMBERS_LEVEL;
        let planned = has_roles.then(|| plan::next(&wanted, &view)).flatten();
        let staying: Vec<Member> = members.iter().filter(stays).cloned().collect();
        let moved = || moves::next(&self.peers, &table);
        let todo = match planned {
            Some(planned) => Todo::Move(planned),
            None => match seats::next(&staying, &view) {
                Some(step) => Todo::Step(step),
                None => {
                    let (id, old, new) = moved()?;
                    Todo::Address { id, old, new }
                }
            },
        };
        Some((todo, seen))
    }

    /// Whether a node has answered this leader within the election timeout.
    fn answers(&self, id: u64) -> bool {
        self.engine.answered(id, self.config.election_timeout)
    }
}

/// A decision.
enum Todo {
    /// These are to be the only voters: a leader died between the two steps of a change, and the new one takes
    /// the second (`management.rs:149-195` of alpha.37 leaves it to the caller).
    FinishJoint(BTreeSet<u64>),
    /// The table has forgotten these learners.
    Abandoned(BTreeSet<u64>),
    Step(Step),
    Move(Move),
    /// This member says that it is elsewhere.
    Address {
        id: u64,
        old: String,
        new: String,
    },
}

/// The cluster as this leader knows it at this moment.
struct View<'a> {
    reconciler: &'a Reconciler,
    noted: &'a Noted,
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
        self.reconciler.engine.matched().has_caught_up(id)
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
        self.noted.arrivals.pending_for(id)
    }

    fn replace_after(&self) -> Duration {
        self.reconciler.config.replace_after
    }

    fn election_timeout(&self) -> Duration {
        self.reconciler.config.election_timeout
    }
}

impl plan::View for View<'_> {
    fn me(&self) -> u64 {
        self.reconciler.peers.my_id()
    }

    fn answers(&self, id: u64) -> bool {
        self.reconciler.answers(id)
    }

    fn close_for(&self, id: u64) -> Option<Duration> {
        self.noted.watch.close_for(id)
    }

    fn leaving_for(&self, id: u64) -> Duration {
        self.noted.watch.leaving_for(id)
    }

    fn promote_after(&self) -> Duration {
        self.reconciler.config.promote_after
    }

    fn drop_after(&self) -> Duration {
        self.reconciler.config.drop_joiner_after
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

    async fn take(&self, todo: Todo, seen: Seen) {
        let engine = &self.engine;
        match todo {
            Todo::FinishJoint(target) => match engine.change_voters(target, false, &seen).await {
                Ok(()) => {
                    tracing::info!("finished a membership change that an earlier leader had begun");
                }
                Err(error) => {
                    tracing::debug!(%error, "an unfinished membership change has to wait");
                }
            },
            Todo::Abandoned(ids) => match engine.remove_learners(ids.clone(), &seen).await {
                Ok(()) => {
                    let leader = &self.peers.me.name;
                    tracing::info!(abandoned = ?ids, %leader, "removed abandoned learners");
                }
                Err(error) => tracing::debug!(%error, "removing abandoned learners has to wait"),
            },
            Todo::Step(step) => self.take_step(step, &seen).await,
            Todo::Move(step) => self.make_move(step, &seen).await,
            Todo::Address { id, old, new } => self.write_down(id, &old, new).await,
        }
    }

    /// Writes down a member's new address, once it answers there.
    async fn write_down(&self, node: u64, old: &str, addr: String) {
        let name = self.peers.name_of(node);
        match moves::look(&self.peers, node, old, &addr).await {
            Found::Moved => {
                let op = SystemOp::SetAddress {
                    node,
                    addr: addr.clone(),
                };
                if let Ok(Ok(outcome)) = self.batcher.propose_system(op).await {
                    tracing::info!(%name, id = node, %old, %addr, ?outcome, "a member has moved");
                }
            }
            Found::Unreachable(why) => {
                self.peers.addresses.pass_over();
                if let Some(left_out) = self.lines.moved.say() {
                    tracing::warn!(
                        %name, id = node, %addr, %why, left_out,
                        "a member says that it has moved, and does not answer at its new address: give it one \
                         that all others reach (advertise_addr)"
                    );
                }
                tokio::time::sleep(INTERVAL * 4).await;
            }
            Found::Twice => {
                self.peers.addresses.pass_over();
                if let Some(left_out) = self.lines.moved.say() {
                    tracing::error!(
                        %name, id = node, %old, %addr, left_out,
                        "a member answers at two addresses: its directory was copied, and two processes have its \
                         id. Stop one of them and delete its directory"
                    );
                }
                tokio::time::sleep(INTERVAL * 4).await;
            }
        }
    }

    /// Takes the next step of a replacement.
    async fn take_step(&self, step: Step, seen: &Seen) {
        let name = |id: u64| self.peers.name_of(id);
        match step {
            Step::Record { old, new } => {
                let op = SystemOp::ReplaceNode { old, new };
                if let Ok(Ok(outcome)) = self.batcher.propose_system(op).await {
                    tracing::info!(name = %name(new), old, new, ?outcome, "replaced a node");
                }
            }
            Step::AddLearner { new } => self.add_learner(new, seen).await,
            Step::Drop { old } => self.remove_learner(old, seen).await,
            Step::Promote { new, voters } => {
                match self.engine.change_voters(voters, false, seen).await {
                    Ok(()) => {
                        tracing::info!(name = %name(new), id = new, "the newcomer votes now");
                    }
                    Err(error) => tracing::debug!(%error, "the replacement has to wait"),
                }
            }
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

    /// Takes the next step of growing, shrinking or moving.
    async fn make_move(&self, step: Move, seen: &Seen) {
        let name = |id: u64| self.peers.name_of(id);
        match step {
            Move::AddLearner(id) => self.add_learner(id, seen).await,
            Move::RemoveLearner(id) => self.remove_learner(id, seen).await,
            Move::Voters { voters, stays } => {
                let names: Vec<String> = voters.iter().map(|id| name(*id)).collect();
                match self.engine.change_voters(voters, stays, seen).await {
                    Ok(()) => {
                        tracing::info!(voters = %names.join(", "), "the voters are others now")
                    }
                    Err(error) => tracing::debug!(%error, "changing the voters has to wait"),
                }
            }
            Move::HandOver => {
                let within = handover::TRANSFER_TIMEOUT;
                let told = (&*self.lines, &*self.replica.timeline);
                let fits = |id: &u64| {
                    let (table, me) = (self.replica.member_table(), self.peers.my_id());
                    let voters = self.engine.members().voters();
                    let answers = |id: u64| self.answers(id);
                    handover::may_follow(*id, me, &voters, &table, answers)
                };
                handover::hand_over(&self.engine, &self.peers, told, within, fits).await;
            }
            Move::Settle(node) => {
                self.propose(MemberChange::Settle { node }, "a node has joined")
                    .await
            }
            Move::GiveUp(node) => {
                let words = "a node that was to join is silent for too long, and is not waited for";
                self.propose(MemberChange::Leave { node }, words).await;
            }
            Move::TakeOut(node) => {
                let name = name(node);
                let op = SystemOp::RemoveNode { node };
                if let Ok(Ok(outcome)) = self.batcher.propose_system(op).await {
                    tracing::info!(%name, id = node, ?outcome, "a node has left the cluster");
                }
            }
        }
    }

    async fn add_learner(&self, id: u64, seen: &Seen) {
        if let Err(error) = self.engine.add_learner(id, seen).await {
            tracing::debug!(%error, "adding a learner has to wait");
        }
    }

    async fn remove_learner(&self, id: u64, seen: &Seen) {
        if let Err(error) = self.engine.remove_learners([id].into(), seen).await {
            tracing::debug!(%error, "removing a learner has to wait");
        }
    }

    async fn propose(&self, change: MemberChange, words: &str) {
        let node = match change {
            MemberChange::Settle { node } | MemberChange::Leave { node } => node,
            _ => 0,
        };
        let name = self.peers.name_of(node);
        let op = SystemOp::Members(change);
        if let Ok(Ok(outcome)) = self.batcher.propose_system(op).await {
            tracing::info!(%name, id = node, ?outcome, "{words}");
        }
    }
}

/// Learners that the table no longer names: their admission was replaced or given up.
fn abandoned(members: &[Member], membership: &Members) -> BTreeSet<u64> {
    let known: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
    membership.learners.difference(&known).copied().collect()
}
