//! Says why there is no leader, in words that tell the operator what to do, and notices that this
//! node's place was given to another while it was away.
//!
//! Never changes anything but words: who votes and who leads is the engine's business.

use std::sync::Arc;
use std::time::Duration;

use crate::greet::greet;
use crate::identity::uuid_text;
use crate::life::Stage;
use crate::node::Inner;
use crate::wire::HelloReply;
use crate::{FatalError, Peer};

/// How often peers are asked while there is no leader. An election that goes well takes less.
const INTERVAL: Duration = Duration::from_secs(1);

/// Asks around while there is no leader, until the node stops.
pub(crate) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if inner.leader_id().is_some() {
            inner.diagnosis.lock().clear();
            continue;
        }
        let replies = greet(&inner).await;
        if let Some(replaced) = heir(&inner, &replies) {
            inner.fail(FatalError::Replaced(replaced));
            return;
        }
        let words = match mixed(&inner, &replies) {
            Some(words) => words,
            // A newcomer that no leader has found yet lacks none.
            None if !is_initialized(&inner).await => String::new(),
            None => diagnosis(inner.peers.members().len(), &replies),
        };
        let changed = {
            let mut current = inner.diagnosis.lock();
            let changed = *current != words;
            current.clone_from(&words);
            changed
        };
        if changed && !words.is_empty() {
            tracing::warn!(node = %inner.peers.me.name, "no leader: {words}");
        }
    }
}

/// Whether this node has a vote or a log.
async fn is_initialized(inner: &Inner) -> bool {
    match inner.raft.get() {
        Some(raft) => raft.is_initialized().await.unwrap_or(true),
        None => false,
    }
}

/// Ids only grow, so a higher id under this node's name in its own cluster is proof.
fn heir(inner: &Inner, replies: &[(Peer, Result<HelloReply, String>)]) -> Option<String> {
    let my_id = inner.peers.my_id();
    let cluster = inner.peers.cluster();
    let me = &inner.peers.me.name;
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

/// Whether peers belong to another cluster than this node.
fn mixed(inner: &Inner, replies: &[(Peer, Result<HelloReply, String>)]) -> Option<String> {
    let mine = inner.peers.cluster()?;
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
fn diagnosis(members: usize, replies: &[(Peer, Result<HelloReply, String>)]) -> String {
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
            leader: None,
            members: Vec::new(),
        })
    }

    #[test]
    fn the_words_name_who_is_missing_and_what_helps() {
        let refused = || Err("connection refused".to_owned());
        let words = diagnosis(3, &[(peer("b"), refused()), (peer("c"), refused())]);
        assert_eq!(
            words,
            "1 of 3 nodes are usable, 2 are needed; not reachable: b at b:1 (connection \
             refused), c at c:1 (connection refused)"
        );
        let words = diagnosis(2, &[(peer("b"), reply(false))]);
        assert!(words.contains("with an empty directory: b. In a cluster of two"));
        let words = diagnosis(3, &[(peer("b"), reply(false)), (peer("c"), refused())]);
        assert!(words.contains("with an empty directory: b. An emptied node is replaced"));
        let words = diagnosis(3, &[(peer("b"), reply(true)), (peer("c"), refused())]);
        assert_eq!(words, "an election is under way");
    }
}
