//! Ends a node whose cluster never had a second member when a node of another cluster answers at an address
//! of its configuration, introduces itself under a name of it, or calls this node a member of the other cluster: two
//! nodes that are meant to be one cluster must not serve as two.
//!
//! So it is where one backup was restored on several nodes, and where a founder has lost its disk beside the
//! cluster that has grown from it. Never ends a node of a cluster that has, or ever had, more members: that
//! one is protected by its majority.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::lifecycle::Lifecycle;
use crate::membership::greet::{Greeting, greet};
use crate::membership::identity::uuid_text;
use crate::peer::client::Peers;
use crate::peer::message::Envelope;
use crate::replica::Replica;
use crate::{FatalError, Peer};

/// How often the configured nodes are asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// The last node that has introduced itself as one of a cluster, and that cluster.
pub(crate) type Introduced = watch::Sender<Option<(String, [u8; 16])>>;

/// Notes the sender of an introduction that belongs to a cluster.
pub(crate) fn note(introduced: &Introduced, envelope: &Envelope) {
    if envelope.cluster == [0; 16] {
        return;
    }
    let told = Some((envelope.name.clone(), envelope.cluster));
    introduced.send_if_modified(|last| {
        let is_new = *last != told;
        *last = told;
        is_new
    });
}

/// Notes the sender of a request for a member of its cluster, which this node is not. It has looked for this node
/// under its name.
pub(crate) fn note_member_call(called: &Introduced, peers: &Peers, envelope: &Envelope) {
    if envelope.to != 0 && peers.cluster() != Some(envelope.cluster) {
        note(called, envelope);
    }
}

/// Why an empty node that knows no others must not found a cluster, if another one calls it a member.
pub(crate) fn must_not_found(
    called: &watch::Receiver<Option<(String, [u8; 16])>>,
) -> Option<String> {
    let (name, cluster) = called.borrow().clone()?;
    let cluster = uuid_text(&cluster);
    Some(format!(
        "this node's directory is empty, and {name} calls it a member of cluster {cluster}: it founds no other one. \
         If that cluster goes on, start this node with `join` and the address of {name}; if it is given up, stop \
         {name} and start this node again"
    ))
}

/// Looks for another cluster where this one's nodes should be.
pub(crate) struct Rival {
    /// The nodes of the configuration, without this one.
    pub(crate) configured: Vec<Peer>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) introduced: watch::Receiver<Option<(String, [u8; 16])>>,
    /// The last node that has called this one a member of another cluster.
    pub(crate) called: watch::Receiver<Option<(String, [u8; 16])>>,
}

impl Rival {
    /// Ends the node if there is one now; whether it did. Before the engine runs, the member table may lack what is in
    /// the log: a cluster that has grown since its last snapshot looks like one that has not. So only the nodes of
    /// the configuration are asked then, and calls from others count later.
    pub(crate) async fn ends_node_before_start(&self) -> bool {
        !self.configured.is_empty() && self.ends_node(None).await
    }

    /// Ends the node if there is one now, or if it has called this node; whether it did.
    async fn ends_node(&self, caller: Option<(String, [u8; 16])>) -> bool {
        if !self.is_alone() {
            return false;
        }
        let replies = greet(&self.peers, self.configured.clone()).await;
        // A member may have come meanwhile.
        let mine = self.peers.cluster();
        let words = words(mine, &replies).or_else(|| {
            let told = self.introduced.borrow().clone()?;
            introduced(mine, &self.configured, &told)
        });
        let words = words.or_else(|| called(mine, caller.as_ref()?));
        match words.filter(|_| self.is_alone()) {
            Some(words) => {
                self.lifecycle.fail(FatalError::SecondCluster(words));
                true
            }
            None => false,
        }
    }

    /// The same, again and again, for as long as the cluster has one member.
    pub(crate) async fn run(mut self) {
        loop {
            let caller = self.called.borrow_and_update().clone();
            if !self.is_alone() || self.ends_node(caller).await {
                return;
            }
            // The other side lives as long as this node.
            tokio::select! {
                biased;
                _ = self.introduced.changed() => {}
                _ = self.called.changed() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Whether the cluster never had a second member.
    fn is_alone(&self) -> bool {
        let identity = self.peers.identity();
        let founded_alone = identity.is_some_and(|identity| identity.members.len() <= 1);
        // Ids only grow, and the first node has 1.
        founded_alone && self.replica.member_table().highest_id() <= 1
    }
}

/// Why this node must not serve, if that is so.
fn words(mine: Option<[u8; 16]>, replies: &[Greeting]) -> Option<String> {
    let mine = mine?;
    let (peer, theirs) = replies.iter().find_map(|(peer, reply)| {
        let reply = reply.as_ref().ok().filter(|reply| reply.is_formed())?;
        let theirs = reply.cluster.filter(|theirs| *theirs != mine)?;
        Some((peer, theirs))
    })?;
    Some(explain(peer, theirs, mine))
}

/// The same for a node that has introduced itself.
fn introduced(
    mine: Option<[u8; 16]>,
    configured: &[Peer],
    (name, theirs): &(String, [u8; 16]),
) -> Option<String> {
    let mine = mine.filter(|mine| mine != theirs)?;
    let peer = configured.iter().find(|peer| peer.name == *name)?;
    Some(explain(peer, *theirs, mine))
}

/// The same for a node that has called this one a member.
fn called(mine: Option<[u8; 16]>, (name, theirs): &(String, [u8; 16])) -> Option<String> {
    let mine = mine.filter(|mine| mine != theirs)?;
    let (theirs, mine) = (uuid_text(theirs), uuid_text(&mine));
    Some(format!(
        "{name} of cluster {theirs} calls this node one of its members, and this node is the only one that cluster \
         {mine} ever had: they would serve as two clusters. If cluster {theirs} goes on, move the data directory of \
         this node away, and start it with `join` and the address of {name}; if it is given up, stop {name}"
    ))
}

fn explain(peer: &Peer, theirs: [u8; 16], mine: [u8; 16]) -> String {
    format!(
        "{name} at {addr} belongs to cluster {theirs}, and this node is the only one that cluster {mine} \
         ever had: they would serve as two clusters. Keep one of the two. Move the data directory of the \
         other away, so that it joins; or take {name} out of this node's list of nodes",
        name = peer.name,
        addr = peer.addr,
        theirs = uuid_text(&theirs),
        mine = uuid_text(&mine),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::life::Stage;
    use crate::peer::message::HelloReply;

    fn greeting(stage: Stage, cluster: u8) -> Greeting {
        let peer = Peer {
            name: "b".to_owned(),
            addr: "b:1".to_owned(),
        };
        let reply = HelloReply {
            name: "b".to_owned(),
            id: 1,
            directory: [2; 16],
            stage,
            cluster: Some([cluster; 16]),
            highest_level: 1,
            leader: None,
            members: Vec::new(),
            highest_id: 1,
        };
        (peer, Ok(reply))
    }

    #[test]
    fn another_cluster_that_exists_is_a_rival_and_nothing_else() {
        let mine = Some([1; 16]);
        assert_eq!(words(mine, &[greeting(Stage::Running, 1)]), None);
        assert_eq!(words(mine, &[greeting(Stage::Prepared, 2)]), None);
        assert_eq!(words(None, &[greeting(Stage::Running, 2)]), None);
        let absent = (greeting(Stage::Running, 2).0, Err("refused".to_owned()));
        assert_eq!(words(mine, std::slice::from_ref(&absent)), None);
        let found = words(mine, &[absent, greeting(Stage::Running, 2)]).unwrap();
        assert!(
            found.starts_with("b at b:1 belongs to cluster 02020202-"),
            "{found}"
        );
    }

    #[test]
    fn a_member_of_another_cluster_that_calls_this_node_is_a_rival() {
        let told = ("n2".to_owned(), [2; 16]);
        let words = called(Some([1; 16]), &told).unwrap();
        assert!(words.contains("n2 of cluster 02020202-"), "{words}");
        assert_eq!(called(Some([2; 16]), &told), None, "of the same cluster");
        assert_eq!(called(None, &told), None);
        let calls = Introduced::new(None);
        assert_eq!(must_not_found(&calls.subscribe()), None);
        calls.send_replace(Some(told));
        let words = must_not_found(&calls.subscribe()).unwrap();
        assert!(words.contains("`join` and the address of n2"), "{words}");
    }

    #[test]
    fn a_node_of_another_cluster_that_introduces_itself_is_a_rival_if_it_is_configured() {
        let mine = Some([1; 16]);
        let configured = [greeting(Stage::Running, 2).0];
        let told = |name: &str, cluster| (name.to_owned(), [cluster; 16]);
        assert!(introduced(mine, &configured, &told("b", 2)).is_some());
        assert_eq!(introduced(mine, &configured, &told("b", 1)), None);
        assert_eq!(introduced(mine, &configured, &told("c", 2)), None);
    }
}
