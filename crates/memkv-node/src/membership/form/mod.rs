//! How a node without an identity gets one: by forming a cluster with all the others of its list,
//! or by asking a cluster that exists for a seat.
//!
//! Formation commits in two phases. All nodes start with the same list. The first of it proposes a
//! UUID and ids; every other one compares the list with its own, makes its agreement durable and
//! says so. When all have agreed, the proposer makes its own identity durable: *this is the
//! moment in which the cluster comes to exist*. Then it tells the others, each of which makes its
//! identity durable, writes the first entry of its log, and only then starts an engine under it. That
//! entry is the same for all (`codec::first_entry`), so any majority of them goes on without the
//! rest, the proposer included. The engine's own `initialize` would write another one on each node
//! (`engine_impl.rs:241` of alpha.37).
//!
//! A proposal lives in the memory of its proposer, so it is dead for certain when that process has
//! ended, or has given it up, without having made it durable; its UUID is never drawn again. So an
//! agreement is carried out as soon as any member of the cluster says that it runs, and released as
//! soon as the proposer, in the same directory, says anything but that it proposes or runs it. If
//! the proposer's directory was emptied, the cluster may have existed; it has acknowledged nothing
//! if no other member has ever run it, so the agreement is released when all of them say so, twice,
//! with more time in between than a question takes. Otherwise the node waits and says for which nodes, and
//! that it holds no data. The argument in full: `docs/decisions/0015-formation-in-two-phases.md`.
//!
//! Invariants: no node has an engine before its cluster exists, nor under an id that an earlier
//! directory may have voted under; no node is bound by two agreements; an empty node never starts a
//! cluster while it has not heard from every other node that it knows of none.

mod fate;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::leadership::rival;
use crate::lifecycle::Lifecycle;
use crate::membership::admit::is_loopback;
use crate::membership::greet::{
    Greeting, HELLO_TIMEOUT, absent, call_peer, formed, greet, greet_addresses, peer_of,
};
use crate::membership::identity::{Identity, random_uuid, uuid_text};
#[cfg(memkv_bugs)]
use crate::membership::introduce::agrees_still;
use crate::membership::introduce::{Prepare, Promise};
use crate::membership::join::{Joining, join_existing};
use crate::membership::life::{Agreement, Directory, Stage, State};
use crate::membership::list::{configured_members, durability, set_aside};
use crate::membership::record::Record;
use crate::peer::client::{PeerError, Peers};
use crate::peer::message::{Kind, MemberInfo, put_members};
#[cfg(memkv_bugs)]
use crate::replica::Replica;
use crate::report::seldom::Lines;
use crate::report::status::Phase;
use crate::{NodeConfig, Peer, StartError};
use fate::{Fate, acquaintances, bound, fate};

/// An fsync of the agreement is in it.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two rounds of asking. A cluster whose nodes are started together forms within a
/// few of them.
const PAUSE: Duration = Duration::from_millis(200);
/// The same after a refusal: the next proposal has a UUID of its own, and each costs its peers an
/// fsync.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Time between two looks at members that say that they never ran a cluster: what the proposer
/// said to one of them before its directory was emptied has arrived by then, or never does.
const BETWEEN_LOOKS: Duration = HELLO_TIMEOUT.saturating_mul(2);

/// A node alone that other machines reach listens for so long before it founds a cluster: the leader of one that it
/// is a member of calls it several times meanwhile.
const LISTEN: Duration = Duration::from_millis(500);

/// Gives this node an identity.
pub(crate) struct Formation {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) random: Arc<dyn Fn() -> u128 + Send + Sync>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) record: Arc<Record>,
    #[cfg(memkv_bugs)]
    pub(crate) replica: Arc<Replica>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) lines: Arc<Lines>,
    /// The last node that has called this one a member of a cluster.
    pub(crate) called: watch::Receiver<Option<(String, [u8; 16])>>,
    /// Where damaged data of this node lies, see [`Introducer`](super::introduce::Introducer).
    pub(crate) quarantined: Option<PathBuf>,
}

/// A node's way from the start of its process to an identity.
struct Way<'a> {
    form: &'a Formation,
    prepares: &'a mut mpsc::UnboundedReceiver<Prepare>,
    /// Drawn once per process: the leader recognises a repeated request by it.
    nonce: u64,
    began: Instant,
    /// Since when all other members say that they never ran the cluster that this node agreed to,
    /// and in which directory its proposer is.
    never_ran: Option<(Instant, Directory)>,
}

/// Waits until this node is `Running`. Returns the promise to tell the proposer that the engine is up; `None`:
/// the node is stopping.
pub(crate) async fn obtain_identity(
    form: &Formation,
    prepares: &mut mpsc::UnboundedReceiver<Prepare>,
) -> Result<Option<(Identity, Option<Promise>)>, StartError> {
    let nonce = (form.random)() as u64;
    let mut way = Way {
        form,
        prepares,
        nonce,
        began: Instant::now(),
        never_ran: None,
    };
    loop {
        let pause = match form.record.life.state() {
            State::Running(identity) => return Ok(Some((identity, None))),
            State::Stopped => return Ok(None),
            State::Blank => way.look_around().await?,
            State::Proposing(proposal) => way.propose(&proposal).await?,
            State::Prepared(agreed) => way.resolve(&agreed).await?,
        };
        let Some(pause) = pause else { continue };
        tokio::select! {
            biased;
            request = way.prepares.recv() => {
                let Some(request) = request else { return Ok(None) };
                let verdict = way.consider(&request).await?;
                if let (Ok(()), State::Running(identity)) = (&verdict, form.record.life.state()) {
                    return Ok(Some((identity, Some(request.answer))));
                }
                // The proposer asks again if it is gone.
                let _ = request.answer.send(verdict);
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

impl Way<'_> {
    /// As a blank node: joins a cluster, or proposes one.
    async fn look_around(&mut self) -> Result<Option<Duration>, StartError> {
        let form = self.form;
        let members = configured_members(&form.config);
        let mut peers = greet(&form.peers, form.config.peers.clone()).await;
        peers.extend(greet_addresses(&form.peers, &form.config.join).await);
        // At an address of the list there may be this node itself.
        peers.retain(|(peer, _)| peer.name != form.peers.me.name);
        match join_existing(&form.config, &form.peers, &peers, self.nonce).await {
            Joining::Admitted(identity) => {
                form.record.advance(State::Running(identity)).await?;
                return Ok(None);
            }
            Joining::Waits(why) => form.lifecycle.set_phase(Phase::Joining, why),
            Joining::NoCluster => {}
        }
        if formed(&peers) {
            return Ok(Some(PAUSE));
        }
        if form.config.founds_none() {
            let why = no_cluster(&form.config, &peers);
            form.lifecycle.set_phase(Phase::Joining, why);
            return Ok(Some(PAUSE));
        }
        if let Some(pause) = self.hears_of_cluster() {
            return Ok(Some(pause));
        }
        let first = members.first();
        let proposes = first.is_some_and(|first| first.name == form.peers.me.name);
        let all_answered = peers.iter().all(|(_, reply)| reply.is_ok());
        if proposes && all_answered && form.quarantined.is_none() {
            let replies = peers.iter().flat_map(|(_, reply)| reply);
            let known = replies.map(|reply| reply.highest_level);
            let level = known.fold(form.peers.levels.advertised(), u32::min);
            let proposal = Identity {
                cluster: random_uuid((form.random)()),
                node_id: 1,
                name: form.peers.me.name.clone(),
                sync: form.config.sync,
                members,
                founder: true,
                level,
            };
            form.record.life.enter(State::Proposing(proposal));
            return Ok(None);
        }
        form.lifecycle
            .set_phase(Phase::Forming, waiting(form, &peers, &members));
        Ok(Some(PAUSE))
    }

    /// As a blank node that knows no others, and founds alone: whether it must wait, because other nodes have to be
    /// listened to first, or one has called it a member of a cluster that exists.
    fn hears_of_cluster(&self) -> Option<Duration> {
        let form = self.form;
        if !form.config.peers.is_empty() {
            return None;
        }
        if let Some(why) = rival::must_not_found(&form.called) {
            form.lifecycle.set_phase(Phase::Joining, why);
            return Some(PAUSE);
        }
        let left = LISTEN.saturating_sub(self.began.elapsed());
        if left.is_zero() || is_loopback(&form.config.me.addr) {
            return None;
        }
        let words = "listening whether a cluster calls this node a member, before it founds one";
        form.lifecycle.set_phase(Phase::Forming, words.to_owned());
        Some(left)
    }

    /// As the proposer: asks all others. When all have agreed, the cluster exists. One that agreed
    /// before is asked again, because its list may have been corrected since.
    async fn propose(&mut self, proposal: &Identity) -> Result<Option<Duration>, StartError> {
        let form = self.form;
        let replies = form
            .ask_to_prepare(proposal, &form.config.peers, false)
            .await;
        let agreed = |reply: &Result<(), PeerError>| reply.is_ok();
        if replies.iter().all(|(_, reply)| agreed(reply)) {
            form.record
                .advance(State::Running(proposal.clone()))
                .await?;
            return Ok(None);
        }
        form.lifecycle
            .set_phase(Phase::Forming, needs_all(&replies));
        // A refusal will come again, and the nodes that agreed must not be bound for ever.
        let is_refusal = |reply| matches!(reply, &Err(PeerError::Refused(_)));
        let refused = replies.iter().any(|(_, reply)| is_refusal(reply));
        if refused || formed(&greet(&form.peers, form.config.peers.clone()).await) {
            form.record.life.enter(State::Blank);
            return Ok(Some(REFUSED_PAUSE));
        }
        Ok(Some(PAUSE))
    }

    /// As a node that has agreed: finds out the fate of the proposal.
    async fn resolve(&mut self, agreed: &Agreement) -> Result<Option<Duration>, StartError> {
        let form = self.form;
        let replies = greet(&form.peers, acquaintances(&form.config, &agreed.proposal)).await;
        let fate = fate(agreed, &replies);
        let ripe = match (fate, self.never_ran) {
            (Fate::NeverRan(now), Some((since, before))) if now == before => {
                since.elapsed() >= BETWEEN_LOOKS
            }
            (Fate::NeverRan(now), _) => {
                self.never_ran = Some((Instant::now(), now));
                false
            }
            _ => {
                self.never_ran = None;
                false
            }
        };
        match fate {
            Fate::Exists => {
                form.record.life.learn();
                let identity = agreed.proposal.clone();
                if identity.sync != form.config.sync {
                    return Err(StartError::Identity(format!(
                        "this node agreed to durability \"{}\", and its configuration says \"{}\" \
                         now: set it back",
                        durability(identity.sync),
                        durability(form.config.sync),
                    )));
                }
                form.record.advance(State::Running(identity)).await?;
                Ok(None)
            }
            Fate::Dead => self.release(agreed, "its proposer has given it up").await,
            Fate::NeverRan(_) if ripe => {
                self.release(
                    agreed,
                    "its proposer's directory was emptied, and no member ran it",
                )
                .await
            }
            Fate::Open | Fate::NeverRan(_) | Fate::Unknown => {
                form.lifecycle
                    .set_phase(Phase::Forming, bound(agreed, fate, &replies));
                Ok(Some(PAUSE))
            }
        }
    }

    async fn release(
        &mut self,
        agreed: &Agreement,
        why: &str,
    ) -> Result<Option<Duration>, StartError> {
        self.never_ran = None;
        let cluster = uuid_text(&agreed.proposal.cluster);
        if let Some(left_out) = self.form.lines.not_formed.say() {
            let node = &self.form.peers.me.name;
            tracing::info!(%node, left_out, "cluster {cluster} will not be formed: {why}");
        }
        self.form.record.advance(State::Blank).await?;
        Ok(None)
    }

    /// The answer to a proposal. `Ok` is durable.
    async fn consider(&mut self, request: &Prepare) -> Result<Result<(), String>, StartError> {
        let cluster = request.agreement.proposal.cluster;
        if let State::Prepared(agreed) = self.form.record.life.state() {
            let same = agreed == request.agreement;
            if same && !request.carried_out {
                return Ok(Ok(()));
            }
            // Another proposal, or news of this one: find out its fate first.
            self.resolve(&agreed).await?;
        }
        match self.form.record.life.state() {
            State::Blank if !request.carried_out => {
                if let Err(why) = confirm(&self.form.peers, &request.agreement).await {
                    return Ok(Err(why));
                }
                let agreed = request.agreement.clone();
                self.form.record.advance(State::Prepared(agreed)).await?;
                #[cfg(memkv_bugs)]
                if crate::bugs::active(crate::bugs::Bug::AgreeWhileRunning) {
                    let running = State::Running(request.agreement.proposal.clone());
                    self.form.record.advance(running).await?;
                }
                Ok(Ok(()))
            }
            State::Running(identity) if identity.cluster == cluster => Ok(Ok(())),
            State::Prepared(agreed) => Ok(Err(format!(
                "{} has agreed to form cluster {}: {}",
                self.form.peers.me.name,
                uuid_text(&agreed.proposal.cluster),
                self.form.lifecycle.phase().1,
            ))),
            _ => Ok(Err(format!(
                "{} has not agreed to cluster {}",
                self.form.peers.me.name,
                uuid_text(&cluster),
            ))),
        }
    }
}

/// Whether the proposer still makes this proposal. One that arrives late, when the cluster exists
/// and this node's directory was emptied, would give the node the id that it had before, and with
/// it the votes and acknowledgements that it has forgotten. While the proposal is only proposed, no
/// node has an engine under it.
async fn confirm(peers: &Peers, agreement: &Agreement) -> Result<(), String> {
    let proposal = &agreement.proposal;
    let proposer = proposal.members.first().map(peer_of);
    let proposer = proposer.ok_or("a proposal without members")?;
    let greeting = greet(peers, vec![proposer]).await.pop();
    let (proposer, reply) = greeting.ok_or("the proposer was not asked")?;
    let reply = reply?;
    let stands = reply.stage == Stage::Proposing && reply.cluster == Some(proposal.cluster);
    if !stands || reply.directory != agreement.proposer {
        return Err(format!(
            "{} does not propose cluster {} any more",
            proposer.name,
            uuid_text(&proposal.cluster),
        ));
    }
    Ok(())
}

/// The reason why a node that could form a cluster waits.
fn waiting<T>(
    form: &Formation,
    peers: &[(Peer, Result<T, String>)],
    members: &[MemberInfo],
) -> String {
    if let Some(path) = &form.quarantined {
        return set_aside(&form.peers.me.name, path);
    }
    let absent = absent(peers);
    if absent.is_empty() {
        let first = members.first().map_or("", |member| member.name.as_str());
        format!("waiting for {first} to propose the cluster")
    } else {
        format!("a new cluster needs all of its nodes once: waiting for {absent}")
    }
}

/// The reason why a node that is to join waits: it never founds a cluster.
fn no_cluster(config: &NodeConfig, peers: &[Greeting]) -> String {
    let absent = absent(peers);
    if config.join.is_empty() && absent.is_empty() {
        return "this node's directory is empty, and it founds no cluster (found is \"never\"): mount its disk, or \
                give it `join` with the addresses of nodes of its cluster"
            .to_owned();
    }
    match absent.is_empty() {
        true => {
            "the nodes at the addresses of `join` belong to no cluster yet: this node waits for one"
                .to_owned()
        }
        false => format!("waiting for the cluster that this node is to join: {absent}"),
    }
}

fn needs_all(replies: &[(Peer, Result<(), PeerError>)]) -> String {
    let absent = absent(replies);
    format!("a new cluster needs all of its nodes once: waiting for {absent}")
}

impl Formation {
    async fn ask_to_prepare(
        &self,
        proposal: &Identity,
        peers: &[Peer],
        carried_out: bool,
    ) -> Vec<(Peer, Result<(), PeerError>)> {
        let asked = peers.iter().map(|peer| async move {
            let agreed = call_peer(&self.peers, peer, Kind::Prepare, PREPARE_TIMEOUT, |out| {
                out.put_slice(&proposal.cluster);
                out.put_u8(u8::from(proposal.sync));
                out.put_u32_le(proposal.level);
                put_members(out, &proposal.members);
                out.put_slice(&self.record.life.directory);
                out.put_u8(u8::from(carried_out));
            });
            (peer.clone(), agreed.await.map(drop))
        });
        join_all(asked).await
    }

    /// As the proposer of a cluster that exists: tells the members, which find out by themselves if
    /// this does not reach them.
    pub(crate) async fn tell_all(&self, identity: &Identity) {
        let others = identity
            .members
            .iter()
            .filter(|member| member.id != identity.node_id);
        let others: Vec<Peer> = others.map(peer_of).collect();
        let told = self.ask_to_prepare(identity, &others, true);
        // One that does not answer must not hold up the others.
        let _ = tokio::time::timeout(HELLO_TIMEOUT, told).await;
    }

    /// Answers proposals as a node that runs: its identity can no longer change.
    pub(crate) async fn serve_prepares(
        self: Arc<Self>,
        identity: Identity,
        mut prepares: mpsc::UnboundedReceiver<Prepare>,
    ) {
        while let Some(Prepare {
            agreement, answer, ..
        }) = prepares.recv().await
        {
            #[cfg(memkv_bugs)]
            if agrees_still(&self.replica) {
                let next = agreement.proposal.clone();
                let saved = self.record.save(&State::Running(next.clone())).await;
                self.peers.change_identity(next);
                let _ = answer.send(saved.map_err(|error| error.to_string()));
                continue;
            }
            let verdict = if agreement.proposal.cluster == identity.cluster {
                Ok(())
            } else {
                Err(format!(
                    "{} is a member of cluster {} already",
                    self.peers.me.name,
                    uuid_text(&identity.cluster),
                ))
            };
            // The proposer asks again if it is gone.
            let _ = answer.send(verdict);
        }
    }
}
