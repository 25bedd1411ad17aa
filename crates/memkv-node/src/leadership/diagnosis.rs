//! Tells why there is no leader and what the operator can do, and detects that this node was removed, or that
//! its seat was given to another node, or given up, while it was away, or that another process is this node.
//!
//! Never changes votes or leadership: that is the engine's business. Invariant: what ends the node
//! here is proved by the cluster's own member table, however old the copy that a peer has of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::storage::DataDirectory;
use crate::engine::handle::Engine;
use crate::leadership::known::Leadership;
use crate::lifecycle::Lifecycle;
use crate::membership::greet::{Greeting, greet, greet_addresses, peer_of};
use crate::membership::identity::uuid_text;
use crate::membership::life::Stage;
use crate::peer::client::Peers;
use crate::peer::message::HelloReply;
use crate::replica::Replica;
use crate::report::seldom::Lines;
use crate::{FatalError, Peer};

/// How often peers are asked while there is no leader. An election that goes well takes less.
const INTERVAL: Duration = Duration::from_secs(1);

/// Asks the other nodes why there is no leader.
pub(crate) struct Diagnosis {
    /// The nodes of the configuration, without this one.
    pub(crate) configured: Vec<Peer>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) directory: DataDirectory,
    pub(crate) lines: Arc<Lines>,
}

/// Asks the other nodes while there is no leader, until the node stops.
pub(crate) async fn run(diagnosis: Diagnosis, engine: Engine) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        if diagnosis.leadership.leader_id().is_some() {
            diagnosis.lifecycle.diagnose("");
            told.clear();
            continue;
        }
        let replies = greet(&diagnosis.peers, diagnosis.others()).await;
        if let Some(why) = removed(&diagnosis.peers, diagnosis.was_member(), &replies) {
            let error = diagnosis.directory.condemn(why, FatalError::Removed).await;
            diagnosis.lifecycle.fail(error);
            return;
        }
        if let Some(replaced) = heir(&diagnosis.peers, &replies) {
            diagnosis.lifecycle.fail(FatalError::Replaced(replaced));
            return;
        }
        if let Some(why) = no_seat(&diagnosis.peers, &replies) {
            let error = diagnosis.directory.condemn(why, FatalError::NoSeat).await;
            diagnosis.lifecycle.fail(error);
            return;
        }
        let words = match mixed(&diagnosis.peers, &replies) {
            Some(words) => words,
            // A newcomer that no leader has found yet lacks none.
            None if !engine.is_initialized().await => String::new(),
            None => explain(diagnosis.peers.members().len(), &replies),
        };
        diagnosis.lifecycle.diagnose(&words);
        if words != told && !words.is_empty() && diagnosis.lines.diagnoses.say().is_some() {
            tracing::warn!(node = %diagnosis.peers.me.name, "no leader: {words}");
            told = words;
        }
    }
}

impl Diagnosis {
    /// The nodes that it knows of, from the configuration and from the cluster, without this one.
    fn others(&self) -> Vec<Peer> {
        let members = self.peers.members();
        let mut others: Vec<Peer> = members.iter().map(peer_of).collect();
        others.extend(self.configured.iter().cloned());
        others.retain(|other| other.name != self.peers.me.name);
        others.sort();
        others.dedup();
        others
    }

    /// Whether this node had joined its cluster, as far as it has applied.
    fn was_member(&self) -> bool {
        let founded = self.peers.identity().is_some_and(|it| it.founder);
        let table = self.replica.member_table();
        let member = table.member(self.peers.my_id());
        founded || member.is_some_and(|member| !member.pending)
    }
}

/// Why a node that was a member is none any more, if that is so: its id is gone, and ids do not come back. A node
/// of its own name that took its seat is told of by `heir`.
fn removed(peers: &Peers, was_member: bool, replies: &[Greeting]) -> Option<String> {
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::IgnoreRemoval) {
        return None;
    }
    let identity = peers.identity().filter(|_| was_member)?;
    let (me, my_id) = (&peers.me.name, identity.node_id);
    let knows = |reply: &HelloReply| {
        let named = reply.members.iter().any(|member| member.name == *me);
        let is_ours = reply.is_formed() && reply.cluster == Some(identity.cluster);
        is_ours && lacks(reply, my_id) && !named
    };
    let (peer, _) = replies
        .iter()
        .find(|(_, reply)| reply.as_ref().is_ok_and(knows))?;
    Some(format!(
        "{} says that {me} (node id {my_id}) was removed from the cluster",
        peer.name,
    ))
}

/// Ids only grow, so a higher id under this node's name in its own cluster is proof.
fn heir(peers: &Peers, replies: &[(Peer, Result<HelloReply, String>)]) -> Option<String> {
    let my_id = peers.my_id();
    let cluster = peers.cluster();
    let me = &peers.me.name;
    for (peer, reply) in replies {
        let Ok(reply) = reply else { continue };
        if reply.cluster != cluster || !reply.is_formed() {
            continue;
        }
        let mine = reply.members.iter().any(|member| member.id == my_id);
        let heir = reply
            .members
            .iter()
            .find(|member| member.name == *me && member.id > my_id);
        if let (false, Some(heir)) = (mine, heir) {
            return Some(format!(
                "{} says that node id {my_id} was replaced by id {} under the name {me}: this \
                 directory is out of date. Move it away and start on an empty one",
                peer.name, heir.id,
            ));
        }
    }
    None
}

/// Why this node, which was admitted to the cluster, has no seat in it any more, if that is so: its id
/// is none of a higher one's members, and ids do not come back. It never had a vote (`seats`), so the
/// cluster misses nothing that only it has.
fn no_seat(peers: &Peers, replies: &[(Peer, Result<HelloReply, String>)]) -> Option<String> {
    let identity = peers.identity()?;
    if identity.founder {
        return None;
    }
    let (me, my_id) = (&peers.me.name, identity.node_id);
    let knows = |reply: &HelloReply| {
        reply.is_formed() && reply.cluster == Some(identity.cluster) && lacks(reply, my_id)
    };
    let (peer, reply) = replies.iter().find_map(|(peer, reply)| {
        let reply = reply.as_ref().ok().filter(|reply| knows(reply))?;
        Some((peer, reply))
    })?;
    let stays = reply.members.iter().find(|member| member.name == *me);
    let because = stays.map_or_else(String::new, |stays| {
        format!(
            ", because the {me} that it was to replace (node id {}) is back",
            stays.id
        )
    });
    Some(format!(
        "{} says that node id {my_id} has no seat in the cluster any more{because}: this directory \
         was silent for too long",
        peer.name,
    ))
}

/// Why a node that starts must not take part.
pub(crate) enum Unfit {
    /// It was removed.
    Removed(String),
    /// Another process takes part as this node.
    Copied(String),
}

/// Asks before the engine exists, so that such a node asks for no vote and gives none.
pub(crate) async fn unfit(diagnosis: &Diagnosis) -> Option<Unfit> {
    let replies = greet(&diagnosis.peers, diagnosis.others()).await;
    let removed = removed(&diagnosis.peers, diagnosis.was_member(), &replies);
    match removed {
        Some(why) => Some(Unfit::Removed(why)),
        None => copied(diagnosis, &replies).await.map(Unfit::Copied),
    }
}

/// Whether another process takes part as this node, where this node was or where the others say that it is: its
/// directory was copied.
///
/// It may be this process that answers there, under another name of its address; it follows no leader before its engine
/// exists. This process's own address is not asked, and one that cannot be reached from here is not found; the leader
/// finds it if both can be reached from there.
async fn copied(diagnosis: &Diagnosis, replies: &[Greeting]) -> Option<String> {
    let peers = &diagnosis.peers;
    let identity = peers.identity()?;
    let (me, cluster) = (identity.node_id, Some(identity.cluster));
    let formed = replies.iter().filter_map(|(_, reply)| reply.as_ref().ok());
    let ours = formed.filter(|reply| reply.is_formed() && reply.cluster == cluster);
    let known = ours
        .flat_map(|reply| &reply.members)
        .chain(&identity.members);
    let mine = known.filter(|member| member.id == me);
    let mut addrs: BTreeSet<String> = mine.map(|member| member.addr.clone()).collect();
    let table = diagnosis.replica.member_table();
    addrs.extend(table.member(me).map(|member| member.addr.clone()));
    addrs.remove(&peers.me.addr);
    let addrs: Vec<String> = addrs.into_iter().collect();
    let mut answers = greet_addresses(peers, &addrs).await.into_iter();
    answers.find_map(|(peer, reply)| {
        let is_other = |it: &HelloReply| it.id == me && it.cluster == cluster && it.leader.is_some();
        reply.ok().filter(is_other)?;
        let (name, addr) = (&peers.me.name, &peer.addr);
        Some(format!(
            "another process at {addr} takes part in the cluster as {name} (node id {me}): this node's directory was \
             copied, or its machine"
        ))
    })
}

/// Whether a peer's member table says that this id is gone for good.
fn lacks(reply: &HelloReply, id: u64) -> bool {
    reply.highest_id >= id && !reply.members.iter().any(|member| member.id == id)
}

/// Whether peers belong to another cluster than this node.
fn mixed(peers: &Peers, replies: &[(Peer, Result<HelloReply, String>)]) -> Option<String> {
    let mine = peers.cluster()?;
    let foreign: Vec<String> = replies
        .iter()
        .filter_map(|(peer, reply)| {
            let cluster = reply
                .as_ref()
                .ok()
                .filter(|reply| reply.is_formed())?
                .cluster
                .filter(|cluster| *cluster != mine)?;
            Some(format!("{} to {}", peer.name, uuid_text(&cluster)))
        })
        .collect();
    if foreign.is_empty() {
        return None;
    }
    Some(format!(
        "this node's directory belongs to cluster {}, but {}: start it on an empty directory to \
         join theirs, or correct its list of nodes",
        uuid_text(&mine),
        foreign.join(", "),
    ))
}

/// Why a cluster of `members` has no leader, as far as its other nodes tell.
fn explain(members: usize, replies: &[(Peer, Result<HelloReply, String>)]) -> String {
    let mut empty = Vec::new();
    let mut absent = Vec::new();
    for (peer, reply) in replies {
        match reply {
            Ok(reply) if reply.stage == Stage::Blank => empty.push(peer.name.clone()),
            // One that has agreed to form the cluster finds out that it exists.
            Ok(_) => {}
            Err(why) => absent.push(format!("{} at {} ({why})", peer.name, peer.addr)),
        }
    }
    let usable = members.saturating_sub(empty.len() + absent.len());
    let needed = members / 2 + 1;
    if usable >= needed {
        return "an election is under way".to_owned();
    }
    let mut words = format!("{usable} of {members} nodes are usable, {needed} are needed");
    if !absent.is_empty() {
        words += &format!("; not reachable: {}", absent.join(", "));
    }
    if !empty.is_empty() {
        let what = if members == 2 {
            "In a cluster of two that needs the operator: restore its directory, or start both nodes \
             on empty directories and load a copy of the data"
        } else {
            "An emptied node is replaced once a majority without it is up"
        };
        words += &format!("; with an empty directory: {}. {what}", empty.join(", "));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> Peer {
        Peer {
            name: name.to_owned(),
            addr: format!("{name}:1"),
        }
    }

    fn reply(formed: bool) -> Result<HelloReply, String> {
        Ok(HelloReply {
            name: String::new(),
            id: 1,
            directory: [2; 16],
            stage: if formed { Stage::Running } else { Stage::Blank },
            cluster: Some([1; 16]),
            highest_level: 1,
            leader: None,
            members: Vec::new(),
            highest_id: 7,
        })
    }

    #[test]
    fn an_id_is_gone_only_for_who_knew_it() {
        let reply = reply(true).unwrap();
        assert!(lacks(&reply, 7), "it has seen 7 and has none");
        assert!(!lacks(&reply, 8), "it has not come so far");
        let members = vec![crate::peer::message::MemberInfo {
            id: 7,
            name: "c".to_owned(),
            addr: "c:1".to_owned(),
        }];
        assert!(!lacks(&HelloReply { members, ..reply }, 7));
    }

    #[test]
    fn the_words_name_who_is_missing_and_what_helps() {
        let refused = || Err("connection refused".to_owned());
        let words = explain(3, &[(peer("b"), refused()), (peer("c"), refused())]);
        assert_eq!(
            words,
            "1 of 3 nodes are usable, 2 are needed; not reachable: b at b:1 (connection \
             refused), c at c:1 (connection refused)"
        );
        let words = explain(2, &[(peer("b"), reply(false))]);
        assert!(words.contains("with an empty directory: b. In a cluster of two"));
        let words = explain(3, &[(peer("b"), reply(false)), (peer("c"), refused())]);
        assert!(words.contains("with an empty directory: b. An emptied node is replaced"));
        let words = explain(3, &[(peer("b"), reply(true)), (peer("c"), refused())]);
        assert_eq!(words, "an election is under way");
    }

    #[tokio::test]
    async fn a_member_whose_id_is_gone_was_removed() {
        let fakes = crate::peer::fake::Fakes::new(crate::peer::fake::Script::Silence);
        let mine = crate::peer::fake::identity();
        let cluster = Some(mine.cluster);
        let told = |reply: HelloReply, was_member| {
            let replies = [(peer("b"), Ok(reply))];
            removed(&fakes.peers, was_member, &replies)
        };
        let gone = || HelloReply {
            cluster,
            ..reply(true).unwrap()
        };
        let why = told(gone(), true).unwrap();
        assert!(
            why.contains("b says that n1 (node id 1) was removed"),
            "{why}"
        );
        assert_eq!(told(gone(), false), None, "it had not joined");
        assert_eq!(
            told(
                HelloReply {
                    highest_id: 0,
                    ..gone()
                },
                true
            ),
            None
        );
        assert_eq!(
            told(
                HelloReply {
                    stage: Stage::Blank,
                    ..gone()
                },
                true
            ),
            None
        );
        assert_eq!(told(reply(true).unwrap(), true), None, "another cluster");
        let members = vec![crate::peer::message::MemberInfo {
            id: 7,
            name: "n1".to_owned(),
            addr: "n1:1".to_owned(),
        }];
        assert_eq!(
            told(HelloReply { members, ..gone() }, true),
            None,
            "it has an heir"
        );
    }
}
