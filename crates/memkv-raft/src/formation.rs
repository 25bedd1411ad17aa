//! How a node without an identity gets one: by forming a cluster with all the others of its list,
//! or by asking a cluster that exists for a place.
//!
//! Formation: all nodes start with the same list. The one with the smallest name proposes a UUID
//! and ids; every other one compares the list with its own, makes it durable and agrees; only when
//! all have agreed does the proposer alone initialize the engine (each `initialize` writes its own
//! first log entry: `engine_impl.rs:241` of alpha.37). Every step is durable before it is
//! answered, so any crash leaves a state that goes on.
//!
//! Invariants: a node that has a vote or a log never agrees to another cluster; no node agrees to a
//! proposal that its proposer does not stand by at that moment; an empty node never starts a cluster
//! while it has not heard from every other node that it knows of none.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use futures_util::future::{BoxFuture, join_all};
use memkv_store::{SystemOp, SystemOutcome};
use tokio::sync::{mpsc, oneshot};

use crate::bytes_io::{Reader, put_blob};
use crate::identity::{Identity, random_uuid, uuid_text};
use crate::node::Inner;
use crate::peers::PeerError;
use crate::status::Phase;
use crate::wire::{self, Envelope, HelloReply, Kind, MemberInfo, put_members, read_members};
use crate::{Frame, Lane, Peer, StartError};

/// How long a peer may take to introduce itself.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);
/// An fsync of the identity is in it.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);
/// A log entry is in it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two rounds of asking. A cluster whose nodes are started together forms within a
/// few of them.
const PAUSE: Duration = Duration::from_millis(200);

/// A proposal to form a cluster, and where the answer goes.
pub(crate) struct Prepare {
    proposal: Identity,
    answer: oneshot::Sender<Result<(), String>>,
}

type Answer = BoxFuture<'static, Frame>;

fn answer(frame: Frame) -> Answer {
    Box::pin(ready(frame))
}

/// Answers what nodes without a common cluster may say to each other.
pub(crate) fn introduction(inner: &Arc<Inner>, envelope: Envelope, mut body: Reader) -> Answer {
    match envelope.kind {
        Kind::Prepare => prepare(inner, &mut body),
        Kind::Join => join(inner, envelope, &mut body),
        _ => {
            let inner = inner.clone();
            Box::pin(async move {
                let reply = inner.hello().await;
                wire::ok(|out| reply.put(out))
            })
        }
    }
}

impl Inner {
    /// What this node says of itself.
    async fn hello(&self) -> HelloReply {
        let identity = self.peers.identity();
        HelloReply {
            name: self.peers.me.name.clone(),
            id: self.peers.my_id(),
            cluster: identity.map(|identity| identity.cluster),
            formed: self.is_initialized().await,
            leader: self.leader_id(),
            members: self.peers.members(),
        }
    }
}

/// The list that this node was configured with, as a cluster that it would form: sorted by name,
/// with ids from 1.
fn configured_members(inner: &Inner) -> Vec<MemberInfo> {
    let mut list: Vec<&Peer> = inner
        .config
        .peers
        .iter()
        .chain([&inner.config.me])
        .collect();
    list.sort();
    (1..)
        .zip(list)
        .map(|(id, peer)| MemberInfo {
            id,
            name: peer.name.clone(),
            addr: peer.addr.clone(),
        })
        .collect()
}

fn names(members: &[MemberInfo]) -> String {
    let each: Vec<String> = members
        .iter()
        .map(|member| format!("{} at {}", member.name, member.addr))
        .collect();
    each.join(", ")
}

fn set_aside(name: &str, path: &std::path::Path) -> String {
    format!(
        "the data of {name} was damaged and lies in {}: {name} joins a cluster that has a leader, and \
         founds none. If the data is lost everywhere, move that directory away on every node to \
         begin anew",
        path.display(),
    )
}

fn durability(sync: bool) -> &'static str {
    if sync { "sync" } else { "os" }
}

// As the one that is asked.

fn prepare(inner: &Arc<Inner>, body: &mut Reader) -> Answer {
    let fields = (|| {
        Ok::<_, crate::bytes_io::DecodeError>((
            body.array("cluster")?,
            body.bool("durability")?,
            read_members(body)?,
        ))
    })();
    let (cluster, sync, members) = match fields {
        Ok(fields) => fields,
        Err(error) => return answer(wire::refused(&error.to_string())),
    };
    let mine = configured_members(inner);
    if members != mine {
        return answer(wire::refused(&format!(
            "the lists of nodes differ: {} has [{}], the proposer has [{}]; give all nodes the \
             same list",
            inner.peers.me.name,
            names(&mine),
            names(&members),
        )));
    }
    if let Some(path) = &inner.quarantined {
        return answer(wire::refused(&set_aside(&inner.peers.me.name, path)));
    }
    if sync != inner.config.sync {
        return answer(wire::refused(&format!(
            "durability differs: {} is set to \"{}\", the proposer to \"{}\"; give all nodes the \
             same",
            inner.peers.me.name,
            durability(inner.config.sync),
            durability(sync),
        )));
    }
    let Some(me) = members
        .iter()
        .find(|member| member.name == inner.peers.me.name)
    else {
        return answer(wire::refused("the list does not name this node"));
    };
    let proposal = Identity {
        cluster,
        node_id: me.id,
        name: me.name.clone(),
        sync,
        members,
        founder: true,
    };
    let (tx, rx) = oneshot::channel();
    let sent = inner.prepares.send(Prepare {
        proposal,
        answer: tx,
    });
    Box::pin(async move {
        if sent.is_err() {
            return wire::refused("the node is stopping");
        }
        match rx.await {
            Ok(Ok(())) => wire::ok(|_| {}),
            Ok(Err(why)) => wire::refused(&why),
            Err(_) => wire::refused("the node is stopping"),
        }
    })
}

fn join(inner: &Arc<Inner>, envelope: Envelope, body: &mut Reader) -> Answer {
    let fields = (|| {
        Ok::<_, crate::bytes_io::DecodeError>((
            body.text("address")?,
            body.bool("durability")?,
            body.u64("nonce")?,
        ))
    })();
    let (addr, sync, nonce) = match fields {
        Ok(fields) => fields,
        Err(error) => return answer(wire::refused(&error.to_string())),
    };
    let inner = inner.clone();
    Box::pin(async move {
        match admit(&inner, envelope.name, addr, sync, nonce).await {
            Ok(identity) => wire::ok(|out| put_blob(out, &identity.encode())),
            Err(why) => wire::refused(&why),
        }
    })
}

/// Gives an empty node of a known name and address a new id. Only the leader does; the member that
/// it will replace must have been silent, so that a copied configuration evicts nobody.
async fn admit(
    inner: &Inner,
    name: String,
    addr: String,
    sync: bool,
    nonce: u64,
) -> Result<Identity, String> {
    let identity = inner.peers.identity().ok_or("this node is empty itself")?;
    if !inner.leads() {
        return Err("this node does not lead".to_owned());
    }
    if sync != identity.sync {
        return Err(format!(
            "this cluster's durability is \"{}\", {name} is set to \"{}\"",
            durability(identity.sync),
            durability(sync),
        ));
    }
    let listed = inner.replica.book().by_name(&name).cloned();
    let listed = listed.ok_or_else(|| {
        format!("this cluster has no member named {name}: adding one needs the operator")
    })?;
    if listed.addr != addr {
        return Err(format!(
            "this cluster knows {name} at {}, not at {addr}: a node keeps its address when it is \
             replaced",
            listed.addr,
        ));
    }
    // A newcomer that takes this place already must be silent, too: it may have the vote before the
    // book says so, and a request that comes late must not evict it.
    let newcomer = {
        let book = inner.replica.book();
        let pending = book.pending_by_name(&name);
        pending.map(|pending| pending.id)
    };
    let silences = [Some(listed.id), newcomer].into_iter().flatten();
    let silent = silences.map(|id| inner.silent_for(id)).min();
    if let Some(silent) = silent.filter(|silent| *silent < inner.config.replace_after) {
        return Err(format!(
            "the {name} that this cluster knows was heard {} s ago; it is replaced after {} s of \
             silence",
            silent.as_secs(),
            inner.config.replace_after.as_secs(),
        ));
    }
    let op = SystemOp::AdmitNode {
        name: name.clone(),
        addr: addr.clone(),
        nonce,
    };
    let outcome = inner.batcher.propose_system(op).await;
    match outcome.map_err(|_| "the node is stopping".to_owned())? {
        Ok(SystemOutcome::NodeAdmitted { id }) => {
            let mut members = inner.peers.members();
            if !members.iter().any(|member| member.id == id) {
                members.push(MemberInfo {
                    id,
                    name: name.clone(),
                    addr,
                });
            }
            tracing::info!(%name, id, replaces = listed.id, "admitted a node with an empty directory");
            let cluster = identity.cluster;
            Ok(Identity {
                cluster,
                node_id: id,
                name,
                sync,
                members,
                founder: false,
            })
        }
        Ok(SystemOutcome::Refused { why }) => Err(why.to_string()),
        Ok(other) => Err(format!("unexpected outcome {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

// As the one that asks.

async fn call_peer(
    inner: &Inner,
    peer: &Peer,
    kind: Kind,
    timeout: Duration,
    put: impl FnOnce(&mut bytes::BytesMut),
) -> Result<Reader, PeerError> {
    let mut request = inner.peers.envelope(kind, 0);
    put(&mut request);
    let request = Frame(vec![request.freeze()]);
    inner
        .peers
        .call_addr(&peer.name, &peer.addr, Lane::Control, request, timeout)
        .await
}

/// Asks all configured peers who they are, in the order of the configuration.
pub(crate) async fn greet(inner: &Inner) -> Vec<(Peer, Result<HelloReply, String>)> {
    let asked = inner.config.peers.iter().map(|peer| async move {
        let reply = call_peer(inner, peer, Kind::Hello, HELLO_TIMEOUT, |_| {}).await;
        let reply = reply
            .map_err(|error| error.to_string())
            .and_then(|mut body| HelloReply::read(&mut body).map_err(|error| error.to_string()));
        let reply = reply.and_then(|reply| {
            if reply.name == peer.name {
                Ok(reply)
            } else {
                Err(format!(
                    "{} answers there: check the list of nodes",
                    reply.name
                ))
            }
        });
        (peer.clone(), reply)
    });
    join_all(asked).await
}

/// Waits until this node has an identity, and makes it durable. `None`: the node is stopping.
pub(crate) async fn obtain_identity(
    inner: &Arc<Inner>,
    prepares: &mut mpsc::UnboundedReceiver<Prepare>,
) -> Result<Option<Identity>, StartError> {
    let members = configured_members(inner);
    let proposer = members
        .first()
        .is_some_and(|first| first.name == inner.peers.me.name);
    // Drawn once per process: the leader recognises a repeated request by it.
    let nonce = (inner.env.random)() as u64;
    loop {
        let peers = greet(inner).await;
        if let Some(identity) = join_existing(inner, &peers, nonce).await {
            inner.save_identity(&identity).await?;
            return Ok(Some(identity));
        }
        let foreign = peers
            .iter()
            .any(|(_, reply)| reply.as_ref().is_ok_and(|r| r.formed));
        let all_answered = peers.iter().all(|(_, reply)| reply.is_ok());
        if proposer && all_answered && !foreign && inner.quarantined.is_none() {
            let identity = Identity {
                cluster: random_uuid((inner.env.random)()),
                node_id: 1,
                name: inner.peers.me.name.clone(),
                sync: inner.config.sync,
                members,
                founder: true,
            };
            inner.save_identity(&identity).await?;
            return Ok(Some(identity));
        }
        if !foreign {
            inner.set_phase(Phase::Forming, waiting(inner, &peers, &members));
        }
        tokio::select! {
            biased;
            request = prepares.recv() => {
                let Some(Prepare { proposal, answer }) = request else { return Ok(None) };
                // The proposer asks again if it is gone; the same for both answers.
                if let Err(why) = confirm(inner, &proposal).await {
                    let _ = answer.send(Err(why));
                    continue;
                }
                inner.save_identity(&proposal).await?;
                let _ = answer.send(Ok(()));
                return Ok(Some(proposal));
            }
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Whether the proposer still makes this proposal. One that arrives late, when the cluster exists
/// and this node's directory was emptied, would give the node the id that it had before, and with
/// it the votes and acknowledgements that it has forgotten. The proposer initializes only after
/// all have agreed, so as long as it has not, this node has promised nothing under that id.
async fn confirm(inner: &Inner, proposal: &Identity) -> Result<(), String> {
    let proposer = proposal.members.first().map(|member| Peer {
        name: member.name.clone(),
        addr: member.addr.clone(),
    });
    let proposer = proposer.ok_or("a proposal without members")?;
    let reply = call_peer(inner, &proposer, Kind::Hello, HELLO_TIMEOUT, |_| {}).await;
    let mut body = reply.map_err(|error| error.to_string())?;
    let reply = HelloReply::read(&mut body).map_err(|error| error.to_string())?;
    if reply.formed || reply.cluster != Some(proposal.cluster) {
        return Err(format!(
            "{} does not propose cluster {} any more",
            proposer.name,
            uuid_text(&proposal.cluster),
        ));
    }
    Ok(())
}

/// What a node that could form a cluster waits for.
fn waiting<T>(
    inner: &Inner,
    peers: &[(Peer, Result<T, String>)],
    members: &[MemberInfo],
) -> String {
    if let Some(path) = &inner.quarantined {
        return set_aside(&inner.peers.me.name, path);
    }
    let absent = absent(peers);
    if absent.is_empty() {
        format!("waiting for {} to propose the cluster", members[0].name)
    } else {
        format!("a new cluster needs all of its nodes once: waiting for {absent}")
    }
}

fn absent<T>(peers: &[(Peer, Result<T, String>)]) -> String {
    let absent: Vec<String> = peers
        .iter()
        .filter_map(|(peer, reply)| {
            reply
                .as_ref()
                .err()
                .map(|why| format!("{} at {} ({why})", peer.name, peer.addr))
        })
        .collect();
    absent.join(", ")
}

/// If a peer belongs to a cluster that exists, asks it for a place.
async fn join_existing(
    inner: &Inner,
    peers: &[(Peer, Result<HelloReply, String>)],
    nonce: u64,
) -> Option<Identity> {
    let formed: Vec<&HelloReply> = peers
        .iter()
        .filter_map(|(_, reply)| reply.as_ref().ok())
        .filter(|r| r.formed)
        .collect();
    let first = formed.first()?;
    let cluster = first.cluster.as_ref().map_or_else(String::new, uuid_text);
    let me = &inner.peers.me.name;
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::WipedNodeVotes)
        && let Some(old) = first.members.iter().find(|member| member.name == *me)
    {
        return first.cluster.map(|cluster| Identity {
            cluster,
            node_id: old.id,
            name: me.clone(),
            sync: inner.config.sync,
            members: first.members.clone(),
            founder: true,
        });
    }
    if formed.iter().any(|reply| reply.cluster != first.cluster) {
        let problem = "its peers belong to different clusters; correct the list of nodes";
        inner.set_phase(Phase::Joining, problem.to_owned());
        return None;
    }
    let leader = formed.iter().find_map(|reply| {
        let id = reply.leader?;
        reply.members.iter().find(|member| member.id == id)
    });
    let rest = first
        .members
        .iter()
        .filter(|member| member.name != *me)
        .count();
    let why = match leader {
        None => format!("this node's directory is empty; cluster {cluster} has no leader to ask"),
        Some(leader) => {
            let peer = Peer {
                name: leader.name.clone(),
                addr: leader.addr.clone(),
            };
            match ask_for_place(inner, &peer, nonce).await {
                Ok(identity) => return Some(identity),
                Err(why) => format!("cluster {cluster}, leader {}: {why}", peer.name),
            }
        }
    };
    let why = if rest < 2 {
        format!(
            "this node's directory is empty, and cluster {cluster} cannot vote without it: in a \
             cluster of two a lost node needs the operator. Restore its directory, or start both \
             nodes on empty directories and load a copy of the data ({why})"
        )
    } else {
        why
    };
    inner.set_phase(Phase::Joining, why);
    None
}

async fn ask_for_place(inner: &Inner, leader: &Peer, nonce: u64) -> Result<Identity, String> {
    let asked = call_peer(inner, leader, Kind::Join, JOIN_TIMEOUT, |out| {
        put_blob(out, inner.peers.me.addr.as_bytes());
        out.put_u8(u8::from(inner.config.sync));
        out.put_u64_le(nonce);
    });
    let mut body = asked.await.map_err(|error| error.to_string())?;
    match body.blob("identity").and_then(Identity::decode) {
        Ok(Some(identity)) => Ok(identity),
        Ok(None) => Err("the leader sent no identity".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// As the proposer: gets everybody's agreement. Goes on for ever; any node may be down.
pub(crate) async fn prepare_all(inner: &Inner, identity: &Identity) {
    let mut missing: Vec<Peer> = inner.config.peers.clone();
    while !missing.is_empty() {
        let asked = missing.iter().map(|peer| async move {
            let agreed = call_peer(inner, peer, Kind::Prepare, PREPARE_TIMEOUT, |out| {
                out.put_slice(&identity.cluster);
                out.put_u8(u8::from(identity.sync));
                put_members(out, &identity.members);
            });
            (
                peer.clone(),
                agreed.await.map(drop).map_err(|error| error.to_string()),
            )
        });
        let replies = join_all(asked).await;
        missing = replies
            .iter()
            .filter(|(_, reply)| reply.is_err())
            .map(|(peer, _)| peer.clone())
            .collect();
        if missing.is_empty() {
            return;
        }
        let message = format!(
            "a new cluster needs all of its nodes once: waiting for {}",
            absent(&replies)
        );
        inner.set_phase(Phase::Forming, message);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Serves proposals to a node that has an identity: repeats its agreement, or changes its mind
/// while it has neither a vote nor a log.
pub(crate) async fn serve_prepares(
    inner: Arc<Inner>,
    mut prepares: mpsc::UnboundedReceiver<Prepare>,
) {
    while let Some(Prepare { proposal, answer }) = prepares.recv().await {
        let mine = inner.peers.identity();
        let verdict = match mine {
            Some(mine) if mine.cluster == proposal.cluster => Ok(()),
            Some(mine) if inner.is_initialized().await || !mine.founder => Err(format!(
                "{} is a member of cluster {} already",
                inner.peers.me.name,
                uuid_text(&mine.cluster),
            )),
            _ => match confirm(&inner, &proposal).await {
                Ok(()) => inner
                    .save_identity(&proposal)
                    .await
                    .map_err(|error| error.to_string()),
                Err(why) => Err(why),
            },
        };
        // The proposer asks again if it is gone.
        let _ = answer.send(verdict);
    }
}
