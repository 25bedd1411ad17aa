//! The whole cluster at a glance: every node's status, and one sentence on its health.
//!
//! Never more than what the nodes said when they were asked: a node that is unreachable from here
//! may be fine for the others. Invariant: each member occurs once.

use std::collections::BTreeMap;

use memkv_proto::{Durability, Member, Phase, Role, Status};
use tokio::task::JoinSet;

use crate::Client;

/// The reason for the lack of a node's status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Silence {
    /// It cannot be reached, or does not answer.
    #[error("{0}")]
    NoAnswer(String),
    /// It answers with something else, such as that it wants a password.
    #[error("{0}")]
    Refuses(String),
}

/// One node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name; empty if only its address is known.
    pub name: String,
    /// `host:port`: the address in the member list, else the endpoint that was asked.
    pub addr: String,
    /// What it said, or why it did not say how it is.
    pub status: Result<Status, Silence>,
    /// Whether it is a member with a vote, as far as the others say.
    pub votes: bool,
    /// The highest feature level that it announces, as far as the others say; 0 if they know of none.
    pub highest_level: u32,
    /// Where it is between admission and removal, as far as the others say; else empty.
    pub state: String,
    /// Entries of the log that it lacks, if the leader says so.
    pub lag: Option<u64>,
    /// Whether it answers the leader, if that says so.
    pub answers: Option<bool>,
}

impl NodeView {
    /// Its name, or its address if that is all that is known.
    pub fn label(&self) -> &str {
        if self.name.is_empty() {
            &self.addr
        } else {
            &self.name
        }
    }

    /// The feature level that it uses, if it answers and says so.
    pub fn level(&self) -> Option<u32> {
        let level = self.status.as_ref().ok()?.feature_level;
        (level > 0).then_some(level)
    }

    /// Whether it answers and takes part.
    pub fn serves(&self) -> bool {
        self.status
            .as_ref()
            .is_ok_and(|status| status.phase == Phase::Serving)
    }
}

/// How well the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All nodes serve.
    Healthy,
    /// It serves, with fewer nodes than it has.
    Degraded,
    /// It does not serve yet: its nodes are still gathering.
    Forming,
    /// It does not serve writes or linearizable reads.
    Unavailable,
}

impl Health {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Forming => "forming",
            Self::Unavailable => "unavailable",
        }
    }
}

/// All nodes that are known, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// The nodes.
    pub nodes: Vec<NodeView>,
    /// Name of the leader that the nodes of the highest term know.
    pub leader: Option<String>,
}

/// Asks the endpoints, then the members that they name and that have not answered yet.
pub(crate) async fn view(client: &Client) -> ClusterView {
    let first = ask(client, client.endpoints().addrs().iter().cloned()).await;
    let members = best(first.iter().filter_map(|(_, status)| status.as_ref().ok()))
        .map(|status| status.members.clone())
        .unwrap_or_default();
    let answered = |member: &&Member| {
        let named = |(_, status): &(String, Result<Status, Silence>)| {
            status
                .as_ref()
                .is_ok_and(|status| status.name == member.name)
        };
        !first
            .iter()
            .any(|asked| named(asked) || asked.0 == member.addr)
    };
    let missing: Vec<_> = members
        .iter()
        .filter(answered)
        .map(|m| m.addr.clone())
        .collect();
    let second = ask(client, missing.into_iter()).await;
    merge(members, first.into_iter().chain(second))
}

/// Asks all addresses at the same time.
async fn ask(
    client: &Client,
    addrs: impl Iterator<Item = String>,
) -> Vec<(String, Result<Status, Silence>)> {
    let mut asked = JoinSet::new();
    for (index, addr) in addrs.enumerate() {
        let ask = client.ask_status(addr.clone());
        asked.spawn(async move { (index, addr, ask.await) });
    }
    let mut answers = BTreeMap::new();
    while let Some(answer) = asked.join_next().await {
        // A task can only fail when the runtime shuts down.
        let Ok((index, addr, status)) = answer else {
            continue;
        };
        answers.insert(index, (addr, status));
    }
    answers.into_values().collect()
}

/// The node that knows most: of the highest term, the one that has applied most.
fn best<'a>(statuses: impl Iterator<Item = &'a Status>) -> Option<&'a Status> {
    statuses.max_by_key(|status| (status.term, status.leader.is_some(), status.applied_index))
}

/// One row per member, then one per node that answered or was asked and is no member.
fn merge(
    members: Vec<Member>,
    asked: impl Iterator<Item = (String, Result<Status, Silence>)>,
) -> ClusterView {
    let mut nodes: Vec<NodeView> = members
        .into_iter()
        .map(|member| NodeView {
            name: member.name,
            addr: member.addr,
            status: Err(Silence::NoAnswer("not asked".to_owned())),
            votes: member.role.votes(),
            highest_level: member.highest_feature_level,
            state: member.state,
            lag: member.lag,
            answers: member.answers,
        })
        .collect();
    for (addr, status) in asked {
        let known = nodes.iter_mut().find(|node| match &status {
            Ok(status) => node.name == status.name,
            Err(_) => node.addr == addr,
        });
        match known {
            // Two endpoints may be the same node; an answer is worth more than none.
            Some(node) if node.status.is_err() => node.status = status,
            Some(_) => {}
            None => {
                let name = status
                    .as_ref()
                    .map_or(String::new(), |status| status.name.clone());
                nodes.push(NodeView {
                    name,
                    addr,
                    status,
                    votes: false,
                    highest_level: 0,
                    state: String::new(),
                    lag: None,
                    answers: None,
                });
            }
        }
    }
    nodes.sort_by(|a, b| (a.name.is_empty(), &a.name).cmp(&(b.name.is_empty(), &b.name)));
    let statuses = || nodes.iter().filter_map(|node| node.status.as_ref().ok());
    let term = statuses().map(|status| status.term).max();
    let mut newest = statuses().filter(|status| Some(status.term) == term);
    let leader = newest.find_map(|status| status.leader.clone());
    let mut view = ClusterView { nodes, leader };
    view.believe_leader();
    view
}

impl ClusterView {
    /// Takes over what the leader alone knows of the others.
    fn believe_leader(&mut self) {
        let leader = self.nodes.iter().find(|node| self.leads(node));
        let said = leader.and_then(|node| node.status.as_ref().ok());
        let members = said.map(|status| status.members.clone());
        for node in &mut self.nodes {
            let of_node = |member: &&Member| member.name == node.name;
            let member = members.iter().flatten().find(of_node);
            node.lag = member.and_then(|member| member.lag);
            node.answers = member.and_then(|member| member.answers);
        }
    }

    /// What is said where no node says how it is.
    fn silence(&self) -> &'static str {
        let mut nodes = self.nodes.iter();
        match nodes.any(|node| matches!(node.status, Err(Silence::Refuses(_)))) {
            true => {
                "no node says how the cluster is: they answer, and refuse this for the reasons above"
            }
            false => {
                "no node answers: start the nodes, or name others with --endpoints or MEMKV_ENDPOINTS"
            }
        }
    }

    /// How well the cluster is, and a sentence that says so, why, and what to do.
    pub fn health(&self) -> (Health, String) {
        let answering = self.nodes.iter().filter(|node| node.status.is_ok()).count();
        if answering == 0 {
            return (Health::Unavailable, self.silence().to_owned());
        }
        let voters: Vec<_> = self.nodes.iter().filter(|node| node.votes).collect();
        let serving = voters.iter().filter(|node| node.serves()).count();
        let (total, needed) = (voters.len(), voters.len() / 2 + 1);
        let start = self.start(&voters);
        if self.leader.is_none() {
            if let Some(message) = self.forming() {
                return (Health::Forming, format!("forming: {message}"));
            }
            let sentence = if serving >= needed {
                format!("no leader: {serving} of {total} voters serve, an election is under way")
            } else {
                format!(
                    "no leader: {serving} of {total} voters reachable, {needed} are needed{start}"
                )
            };
            return (Health::Unavailable, sentence);
        }
        let counted = format!(
            "{serving} of {total} {}",
            if total == 1 { "voter" } else { "voters" }
        );
        if serving < needed {
            let sentence = format!("degraded: only {counted} reachable from here{start}");
            return (Health::Degraded, sentence);
        }
        let verb = if total == 1 { "serves" } else { "serve" };
        let spare = match serving - needed {
            0 => "no node may fail".to_owned(),
            spare => format!("{spare} of them may fail now"),
        };
        if serving == total {
            let sentence = format!("healthy: {counted} {verb}; {spare}");
            return (Health::Healthy, sentence);
        }
        let missing: Vec<_> = voters
            .iter()
            .filter(|node| !node.serves())
            .map(|node| match &node.status {
                Ok(status) => format!("{} is {}", node.label(), status.phase),
                Err(_) => format!("{} does not answer", node.label()),
            })
            .collect();
        let sentence = format!(
            "degraded: {counted} {verb}; {spare}: {}{start}",
            missing.join(", ")
        );
        (Health::Degraded, sentence)
    }

    /// What an operator should know besides, a line each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for node in &self.nodes {
            match &node.status {
                Err(reason) if node.answers == Some(true) => notes.push(format!(
                    "{}: {reason}; it answers the leader, so the way from here is broken",
                    node.label()
                )),
                Err(reason) => notes.push(format!("{}: {reason}", node.label())),
                Ok(status) if !status.message.is_empty() => {
                    notes.push(format!(
                        "{}: {}: {}",
                        node.label(),
                        status.phase,
                        status.message
                    ));
                }
                Ok(_) => {}
            }
        }
        let mut statuses = self
            .nodes
            .iter()
            .filter_map(|node| node.status.as_ref().ok());
        if statuses.any(|status| status.durability == Durability::Os) {
            notes.push("durability \"os\": a power loss can lose acknowledged writes".to_owned());
        }
        notes
    }

    /// Whether this node is the leader that the others know.
    pub fn leads(&self, node: &NodeView) -> bool {
        let itself = node
            .status
            .as_ref()
            .is_ok_and(|status| status.role == Role::Leader);
        itself && self.leader.as_deref() == Some(&node.name)
    }

    /// `; start n2 or n3`, or nothing if all are there.
    fn start(&self, voters: &[&NodeView]) -> String {
        let down: Vec<_> = voters
            .iter()
            .filter(|node| node.status.is_err())
            .map(|node| node.label())
            .collect();
        if down.is_empty() {
            String::new()
        } else {
            format!("; start {}", down.join(" or "))
        }
    }

    /// What the cluster waits for before it exists, if it does.
    fn forming(&self) -> Option<String> {
        let mut statuses = self
            .nodes
            .iter()
            .filter_map(|node| node.status.as_ref().ok());
        let waiting = statuses.find(|status| status.phase == Phase::Forming)?;
        if waiting.message.is_empty() {
            return Some("the nodes wait for each other".to_owned());
        }
        Some(waiting.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, role: Role) -> Member {
        Member {
            state: String::new(),
            lag: None,
            answers: None,
            highest_feature_level: 1,
            name: name.into(),
            addr: format!("{name}:1"),
            role,
        }
    }

    fn status(name: &str, leader: Option<&str>, term: u64) -> Status {
        let role = if leader == Some(name) {
            Role::Leader
        } else {
            Role::Follower
        };
        let json = format!(
            r#"{{"name":"{name}","role":"{role}","leader":null,"term":{term},"commit_index":5,
            "applied_index":5,"members":[],"durability":"sync","version":"0"}}"#
        );
        let status: Status = serde_json::from_str(&json).unwrap();
        Status {
            leader: leader.map(str::to_owned),
            ..status
        }
    }

    fn view(asked: &[(&str, Option<Status>)]) -> ClusterView {
        let members = ["n1", "n2", "n3"].map(|name| member(name, Role::Follower));
        let asked = asked.iter().map(|(name, status)| {
            (
                format!("{name}:1"),
                status
                    .clone()
                    .ok_or_else(|| Silence::NoAnswer("connection refused".to_owned())),
            )
        });
        merge(members.to_vec(), asked)
    }

    fn up(name: &'static str, leader: Option<&str>) -> (&'static str, Option<Status>) {
        (name, Some(status(name, leader, 3)))
    }

    #[test]
    fn sentences() {
        let n2 = Some("n2");
        for (asked, health, sentence) in [
            (
                vec![up("n1", n2), up("n2", n2), up("n3", n2)],
                Health::Healthy,
                "healthy: 3 of 3 voters serve; 1 of them may fail now",
            ),
            (
                vec![up("n1", n2), up("n2", n2), ("n3", None)],
                Health::Degraded,
                "degraded: 2 of 3 voters serve; no node may fail: n3 does not answer; start n3",
            ),
            (
                vec![up("n1", n2), ("n2", None), ("n3", None)],
                Health::Degraded,
                "degraded: only 1 of 3 voters reachable from here; start n2 or n3",
            ),
            (
                vec![up("n1", None), ("n2", None), ("n3", None)],
                Health::Unavailable,
                "no leader: 1 of 3 voters reachable, 2 are needed; start n2 or n3",
            ),
            (
                vec![up("n1", None), up("n2", None), ("n3", None)],
                Health::Unavailable,
                "no leader: 2 of 3 voters serve, an election is under way",
            ),
            (
                vec![("n1", None), ("n2", None), ("n3", None)],
                Health::Unavailable,
                "no node answers: start the nodes, or name others with --endpoints or MEMKV_ENDPOINTS",
            ),
        ] {
            assert_eq!(view(&asked).health(), (health, sentence.to_owned()));
        }
    }

    #[test]
    fn nodes_that_answer_with_a_refusal_are_not_to_be_started() {
        let refusal = Silence::Refuses("not authorized: this cluster has users".to_owned());
        let asked = [
            ("n1:1".to_owned(), Err(refusal)),
            (
                "n2:1".to_owned(),
                Err(Silence::NoAnswer("refused".to_owned())),
            ),
        ];
        let (health, sentence) = merge(Vec::new(), asked.into_iter()).health();
        assert_eq!(health, Health::Unavailable);
        assert!(
            sentence.contains("they answer, and refuse this"),
            "{sentence}"
        );
    }

    #[test]
    fn a_cluster_that_is_not_formed_says_for_whom_it_waits() {
        let mut waiting = status("n1", None, 0);
        waiting.phase = Phase::Forming;
        waiting.message = "n3 has not answered".into();
        let view = view(&[("n1", Some(waiting)), ("n2", None)]);
        assert_eq!(
            view.health(),
            (Health::Forming, "forming: n3 has not answered".to_owned())
        );
    }

    #[test]
    fn each_node_has_its_level_and_the_highest_that_the_others_know() {
        let n1 = Status {
            feature_level: 1,
            ..status("n1", Some("n1"), 3)
        };
        let silent = status("n2", Some("n1"), 3);
        let mut members = ["n1", "n2", "n3"].map(|name| member(name, Role::Follower));
        members[0].highest_feature_level = 2;
        members[1].highest_feature_level = 0;
        let asked = [
            ("n1:1".to_owned(), Ok(n1)),
            ("n2:1".to_owned(), Ok(silent)),
            (
                "n4:1".to_owned(),
                Err(Silence::NoAnswer("refused".to_owned())),
            ),
        ];
        let view = merge(members.to_vec(), asked.into_iter());
        let levels = view
            .nodes
            .iter()
            .map(|node| (node.label(), node.level(), node.highest_level));
        assert_eq!(
            levels.collect::<Vec<_>>(),
            [
                ("n1", Some(1), 2),
                ("n2", None, 0),
                ("n3", None, 1),
                ("n4:1", None, 0)
            ]
        );
    }

    #[test]
    fn the_highest_term_names_the_leader() {
        let old = status("n1", Some("n1"), 3);
        let view = view(&[("n1", Some(old)), ("n2", Some(status("n2", Some("n2"), 4)))]);
        assert_eq!(view.leader.as_deref(), Some("n2"));
        let leads: Vec<_> = view.nodes.iter().map(|node| view.leads(node)).collect();
        assert_eq!(leads, [false, true, false]);
    }

    #[test]
    fn a_node_that_was_asked_under_another_address_occurs_once() {
        let asked = [
            ("localhost:1".to_owned(), Ok(status("n1", None, 1))),
            (
                "n1:1".to_owned(),
                Err(Silence::NoAnswer("refused".to_owned())),
            ),
            (
                "other:1".to_owned(),
                Err(Silence::NoAnswer("refused".to_owned())),
            ),
        ];
        let view = merge(vec![member("n1", Role::Follower)], asked.into_iter());
        let labels: Vec<_> = view.nodes.iter().map(NodeView::label).collect();
        assert_eq!(labels, ["n1", "other:1"]);
        assert!(view.nodes[0].status.is_ok());
    }

    #[test]
    fn the_leader_alone_says_who_lags_and_answers() {
        let mut seen = ["n1", "n2", "n3"].map(|name| member(name, Role::Follower));
        seen[2].state = "leaving".into();
        let stale = status("n1", Some("n2"), 3);
        let mut n2 = status("n2", Some("n2"), 3);
        n2.members = seen.to_vec();
        n2.members[2].lag = Some(7);
        n2.members[2].answers = Some(true);
        let asked = [
            ("n1:1".to_owned(), Ok(stale)),
            ("n2:1".to_owned(), Ok(n2)),
            (
                "n3:1".to_owned(),
                Err(Silence::NoAnswer("refused".to_owned())),
            ),
        ];
        let view = merge(seen.to_vec(), asked.into_iter());
        let n3 = &view.nodes[2];
        assert_eq!((&*n3.state, n3.lag), ("leaving", Some(7)));
        assert!(
            view.notes()[0].contains("answers the leader"),
            "{:?}",
            view.notes()
        );
        assert_eq!(view.nodes[0].lag, None);
    }

    #[test]
    fn learners_do_not_count_and_os_durability_is_noted() {
        let asked = [(
            "n1:1".to_owned(),
            Ok(Status {
                durability: Durability::Os,
                ..status("n1", Some("n1"), 1)
            }),
        )];
        let members = vec![member("n1", Role::Leader), member("n2", Role::Learner)];
        let view = merge(members, asked.into_iter());
        assert_eq!(
            view.health().1,
            "healthy: 1 of 1 voter serves; no node may fail"
        );
        assert_eq!(view.notes().len(), 2, "{:?}", view.notes());
    }
}
