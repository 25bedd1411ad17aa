//! How an empty node asks a cluster that exists for a seat: that of a wiped node of its name, or one under a new
//! name if its configuration says `join`.
//!
//! Never takes an id by itself: the leader gives it one (`admit`).

use std::time::Duration;

use bytes::BufMut;

use crate::membership::greet::call_peer;
use crate::membership::identity::{Identity, uuid_text};
use crate::peer::client::Peers;
use crate::peer::encoding::put_blob;
use crate::peer::message::{self, HelloReply, Kind};
use crate::{NodeConfig, Peer};

/// A log entry is in it.
const JOIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The result of asking a cluster that exists for a seat.
pub(crate) enum Joining {
    /// No peer belongs to a cluster.
    NoCluster,
    /// A seat under this identity.
    Admitted(Identity),
    /// No seat yet, for this reason.
    Waits(String),
}

/// If a peer belongs to a cluster that exists, asks its leader for a seat.
pub(crate) async fn join_existing(
    config: &NodeConfig,
    mine: &Peers,
    peers: &[(Peer, Result<HelloReply, String>)],
    nonce: u64,
) -> Joining {
    let formed: Vec<&HelloReply> = peers
        .iter()
        .filter_map(|(_, reply)| reply.as_ref().ok())
        .filter(|reply| reply.is_formed())
        .collect();
    let Some(first) = formed.first() else {
        return Joining::NoCluster;
    };
    let cluster = first.cluster.as_ref().map_or_else(String::new, uuid_text);
    let me = &mine.me.name;
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::WipedNodeVotes)
        && let Some(old) = first.members.iter().find(|member| member.name == *me)
    {
        if let Some(cluster) = first.cluster {
            return Joining::Admitted(Identity {
                cluster,
                node_id: old.id,
                name: me.clone(),
                sync: config.sync,
                members: first.members.clone(),
                founder: true,
                level: memkv_store::FIRST_LEVEL,
            });
        }
    }
    if formed.iter().any(|reply| reply.cluster != first.cluster) {
        let problem = "its peers belong to different clusters; correct the list of nodes";
        return Joining::Waits(problem.to_owned());
    }
    let leader = formed.iter().find_map(|reply| {
        let id = reply.leader?;
        reply.members.iter().find(|member| member.id == id)
    });
    let why = match leader {
        None => format!(
            "this node's directory is empty, and cluster {cluster} has no leader to ask for a seat"
        ),
        Some(leader) => {
            let peer = Peer {
                name: leader.name.clone(),
                addr: leader.addr.clone(),
            };
            match ask_for_seat(config, mine, &peer, nonce).await {
                Ok(identity) => return Joining::Admitted(identity),
                Err(why) => format!("cluster {cluster}, leader {}: {why}", peer.name),
            }
        }
    };
    Joining::Waits(explain(&formed, me, &cluster, why))
}

async fn ask_for_seat(
    config: &NodeConfig,
    peers: &Peers,
    leader: &Peer,
    nonce: u64,
) -> Result<Identity, String> {
    let asked = call_peer(peers, leader, Kind::Join, JOIN_TIMEOUT, |out| {
        put_blob(out, peers.me.addr.as_bytes());
        out.put_u8(u8::from(config.sync));
        out.put_u64_le(nonce);
        out.put_u32_le(peers.levels.highest);
        let joins = !config.join.is_empty();
        message::put_join_role(out, joins.then_some(config.role));
    });
    let mut body = asked.await.map_err(|error| error.to_string())?;
    match body.blob("identity").and_then(Identity::decode) {
        Ok(Some(identity)) => Ok(identity),
        Ok(None) => Err("the leader sent no identity".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The reason why no seat is given, with the remedy where only the operator has one.
fn explain(formed: &[&HelloReply], me: &str, cluster: &str, why: String) -> String {
    let needs_me = formed.iter().any(|reply| {
        let names = |name: &str| reply.members.iter().any(|member| member.name == name);
        names(me) && names(&reply.name) && reply.members.len() == 2
    });
    // A leader that is alone admits no node: that takes a majority. It leads on until it hears of another.
    if needs_me {
        format!(
            "this node's directory is empty, and cluster {cluster} cannot vote without it: in a \
             cluster of two a lost node needs the operator. Restore its directory, or start both \
             nodes on empty directories and load a copy of the data ({why})"
        )
    } else {
        why
    }
}
