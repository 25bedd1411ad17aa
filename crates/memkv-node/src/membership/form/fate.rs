//! The fate of a proposal, as far as a node that has agreed to it can tell from the answers of others.
//! Only judges answers; it never asks and never changes anything.

use crate::membership::greet::{Greeting, absent, peer_of};
use crate::membership::identity::{Identity, uuid_text};
use crate::membership::life::{Agreement, Directory, Stage};
use crate::peer::message::{HelloReply, MemberInfo};
use crate::{NodeConfig, Peer};

/// The members of a proposed cluster, where the proposal and where the configuration have them, and
/// all other nodes that the configuration names; without this node.
pub(super) fn acquaintances(config: &NodeConfig, proposal: &Identity) -> Vec<Peer> {
    let members = proposal.members.iter().map(peer_of);
    let mut all: Vec<Peer> = members.chain(config.peers.iter().cloned()).collect();
    all.retain(|peer| peer.name != config.me.name);
    all.sort();
    all.dedup();
    all
}

/// The fate of a proposal that this node has agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The cluster exists.
    Exists,
    /// It does not, and never will.
    Dead,
    /// Its proposer waits for the others.
    Open,
    /// Its proposer has this other directory now, and no other member has ever run it.
    NeverRan(Directory),
    /// Those that could tell do not answer.
    Unknown,
}

pub(super) fn fate(agreed: &Agreement, replies: &[Greeting]) -> Fate {
    let proposal = &agreed.proposal;
    let answered = || replies.iter().filter_map(|(_, reply)| reply.as_ref().ok());
    let is_about = |reply: &HelloReply| reply.cluster == Some(proposal.cluster);
    if answered().any(|reply| reply.stage == Stage::Running && is_about(reply)) {
        return Fate::Exists;
    }
    // Under any name and at any address: it is the directory that proposed.
    let proposer = answered().find(|reply| reply.directory == agreed.proposer);
    if let Some(proposer) = proposer {
        let stands = proposer.stage == Stage::Proposing && is_about(proposer);
        return if stands { Fate::Open } else { Fate::Dead };
    }
    let others = proposal
        .members
        .iter()
        .filter(|member| member.name != proposal.name);
    let found = |member: &MemberInfo| answered().find(|reply| reply.name == member.name);
    let all_say = others.clone().all(|member| found(member).is_some());
    let successor = others.clone().next().and_then(found);
    match successor {
        Some(successor) if all_say => Fate::NeverRan(successor.directory),
        _ => Fate::Unknown,
    }
}

/// The reason why a node that has agreed waits.
pub(super) fn bound(agreed: &Agreement, fate: Fate, replies: &[Greeting]) -> String {
    let proposer = agreed.proposal.members.first();
    let proposer = proposer.map_or("its proposer", |member| member.name.as_str());
    let cluster = uuid_text(&agreed.proposal.cluster);
    match fate {
        Fate::Unknown => {
            let founds = |name: &str| agreed.proposal.members.iter().any(|m| m.name == name);
            let founders = replies.iter().filter(|(peer, _)| founds(&peer.name));
            format!(
                "this node has agreed to {proposer}'s proposal to form cluster {cluster}, and waits \
                 to hear what became of it from {}. It holds no data yet: if they never come back, \
                 empty its directory",
                absent(founders)
            )
        }
        Fate::NeverRan(_) => format!(
            "this node has agreed to form cluster {cluster}, and the directory of {proposer} was \
             emptied since: making sure that no node serves that cluster"
        ),
        _ => format!(
            "this node has agreed to form cluster {cluster}: waiting for {proposer} to have the \
             agreement of all"
        ),
    }
}
