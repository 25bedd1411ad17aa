//! How an empty node gets a place in a cluster that exists, as the one that asks and as the leader
//! that gives it.
//!
//! Invariants: the id is the index of the log entry that admits the node, so it was never used; a
//! member that answers loses its place to nothing that takes its name.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::BufMut;
use futures_util::future::BoxFuture;
use memkv_store::{Refusal, SystemOp, SystemOutcome};

use crate::bytes_io::{Reader, put_blob};
use crate::formation::durability;
use crate::greet::call_peer;
use crate::identity::{Identity, uuid_text};
use crate::node::Inner;
use crate::wire::{self, Envelope, HelloReply, Kind, MemberInfo};
use crate::{Frame, Peer, Phase, levels};

/// A log entry is in it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

type Answer = BoxFuture<'static, Frame>;

/// Answers an empty node that asks for a place.
pub(crate) fn join(inner: &Arc<Inner>, envelope: Envelope, body: &mut Reader) -> Answer {
    let fields = (|| {
        Ok::<_, crate::bytes_io::DecodeError>((
            body.text("address")?,
            body.bool("durability")?,
            body.u64("nonce")?,
            body.u32("highest level")?,
        ))
    })();
    let (addr, sync, nonce, highest) = match fields {
        Ok(fields) => fields,
        Err(error) => return Box::pin(ready(wire::refused(&error.to_string()))),
    };
    let inner = inner.clone();
    Box::pin(async move {
        match admit(&inner, envelope.name, addr, sync, (nonce, highest)).await {
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
    (nonce, highest): (u64, u32),
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
    let level = inner.levels().in_use();
    levels::check(level, highest).map_err(|_| Refusal::TooOld { level, highest }.to_string())?;
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
        highest,
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
            if let Some(left_out) = inner.lines.admitted.say() {
                tracing::info!(
                    %name, id, replaces = listed.id, left_out,
                    "admitted a node with an empty directory"
                );
            }
            let cluster = identity.cluster;
            Ok(Identity {
                cluster,
                node_id: id,
                name,
                sync,
                members,
                founder: false,
                level,
            })
        }
        Ok(SystemOutcome::Refused { why }) => Err(why.to_string()),
        Ok(other) => Err(format!("unexpected outcome {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// If a peer belongs to a cluster that exists, asks it for a place.
pub(crate) async fn join_existing(
    inner: &Inner,
    peers: &[(Peer, Result<HelloReply, String>)],
    nonce: u64,
) -> Option<Identity> {
    let formed: Vec<&HelloReply> = peers
        .iter()
        .filter_map(|(_, reply)| reply.as_ref().ok())
        .filter(|reply| reply.is_formed())
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
            level: memkv_store::FIRST_LEVEL,
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
    let needs_me = formed.iter().any(|reply| {
        let names = |name: &str| reply.members.iter().any(|member| member.name == name);
        names(me) && names(&reply.name) && reply.members.len() == 2
    });
    let why = match leader {
        None => format!(
            "this node's directory is empty, and cluster {cluster} has no leader to ask for a place"
        ),
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
    // A leader that is alone admits no node: that takes a majority. It leads on until it hears of another.
    let why = if needs_me {
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
        out.put_u32_le(inner.levels().highest);
    });
    let mut body = asked.await.map_err(|error| error.to_string())?;
    match body.blob("identity").and_then(Identity::decode) {
        Ok(Some(identity)) => Ok(identity),
        Ok(None) => Err("the leader sent no identity".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
