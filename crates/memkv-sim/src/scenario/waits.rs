//! What a script can wait for. Every wait ends when its condition holds, or at a limit of simulated time,
//! which the transcript then shows. Never changes anything in the cluster.

use std::time::Duration;

use memkv_node::{Node, Phase};
use memkv_store::Store;
use tokio::time::Instant;

use super::Stage;
use crate::cluster::name;
use crate::nemesis::false_start::pending;
use crate::settle;

/// How often a condition is looked at: tokio's timers resolve no less.
const LOOK: Duration = Duration::from_millis(1);
/// Longer than formation, several elections and the replacement of a node take together.
const LIMIT: Duration = Duration::from_secs(30);

type Condition<'a> = Box<dyn Fn(&Stage) -> bool + 'a>;

/// `500ms` or `3s`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let number = |text: &str| text.parse::<u64>().ok();
    let millis = text.strip_suffix("ms").and_then(number);
    let seconds = || text.strip_suffix('s').and_then(number);
    millis
        .map(Duration::from_millis)
        .or_else(|| seconds().map(Duration::from_secs))
        .ok_or_else(|| format!("{text} is no time: write 500ms or 3s"))
}

impl Stage {
    /// Everything after `wait`.
    pub(super) async fn wait(&mut self, words: &[&str]) -> Result<Vec<String>, String> {
        let (what, limit) = match words {
            [what @ .., "within", limit] => (what, time(limit)?),
            what => (what, LIMIT),
        };
        match what {
            ["leader", leader, rest @ ..] => self.wait_leader(leader, rest, limit).await,
            ["serving", parts @ ..] => {
                let slots = self.slots(parts)?;
                let all = slots.len() == self.cluster.nodes();
                let serve: Condition<'_> = Box::new(move |stage| {
                    slots.iter().all(|slot| stage.serves(*slot))
                        && (!all || settle::serving(&stage.cluster))
                });
                let output = self.until(limit, "they do not all serve", serve).await;
                self.note_first_ids();
                Ok(output)
            }
            ["applied", parts @ ..] => {
                let slots = self.slots(parts)?;
                let level: Condition<'_> = Box::new(move |stage| stage.are_level(&slots));
                Ok(self.until(limit, "their states differ", level).await)
            }
            ["change", part] => {
                let slot = self.slot(part)?;
                let is_under_way: Condition<'_> = Box::new(move |stage| {
                    let now = stage.cluster.node(slot).and_then(|node| node.inspect());
                    now.is_some_and(|now| now.membership_at.0 > now.membership_at.1)
                });
                let missing = "no change of members is under way";
                Ok(self.until(limit, missing, is_under_way).await)
            }
            ["newcomer", part] => {
                let slot = self.slot(part)?;
                let is_admitted: Condition<'_> =
                    Box::new(move |stage| pending(&stage.cluster, slot).is_some());
                Ok(self
                    .until(limit, "no newcomer is admitted", is_admitted)
                    .await)
            }
            ["event", event @ ..] => {
                let event = event.join(" ");
                let before = self.seen.get(&event).copied().unwrap_or(0);
                let happens: Condition<'_> =
                    Box::new(|stage| stage.cluster.trace.times(&event) > before);
                let output = self.until(limit, "it does not happen", happens).await;
                let now = self.cluster.trace.times(&event);
                self.seen.insert(event, now);
                Ok(output)
            }
            _ => Err("wait for leader, serving, applied, change, newcomer or event".to_owned()),
        }
    }

    /// `leader L [other than X] [followers A B ..]`.
    async fn wait_leader(
        &mut self,
        leader: &str,
        rest: &[&str],
        limit: Duration,
    ) -> Result<Vec<String>, String> {
        let (other_than, followers) = match rest {
            ["other", "than", other, rest @ ..] => (Some(self.slot(other)?), rest),
            rest => (None, rest),
        };
        let followers = match followers {
            [] => &[][..],
            ["followers" | "follower", followers @ ..] => followers,
            _ => return Err("wait leader L [other than X] [followers A B ..]".to_owned()),
        };
        let leads: Condition<'_> = Box::new(move |stage| {
            let leader = stage.cluster.leader();
            leader.is_some() && leader != other_than
        });
        let output = self.until(limit, "there is no such leader", leads).await;
        let Some(slot) = self.cluster.leader().filter(|_| output.is_empty()) else {
            return Ok(output);
        };
        let others = (0..self.cluster.nodes()).filter(|other| {
            let is_left = Some(*other) != other_than;
            *other != slot && is_left
        });
        let others: Vec<usize> = others.collect();
        self.parts.push(((*leader).to_owned(), slot));
        let named = followers.iter().zip(others);
        self.parts
            .extend(named.map(|(name, slot)| ((*name).to_owned(), slot)));
        Ok(output)
    }

    async fn until(&self, limit: Duration, missing: &str, holds: Condition<'_>) -> Vec<String> {
        let deadline = Instant::now() + limit;
        while !holds(self) {
            if Instant::now() >= deadline {
                return vec![format!("not within {limit:?}: {missing}")];
            }
            tokio::time::sleep(LOOK).await;
        }
        Vec::new()
    }

    /// Whether a node serves and votes.
    fn serves(&self, slot: usize) -> bool {
        let node = self.cluster.node(slot);
        node.is_some_and(|node| {
            let now = node.inspect();
            node.status().phase == Phase::Serving
                && now.is_some_and(|now| {
                    now.voters.len() == 1 && now.voters[0].contains(&now.node_id)
                })
        })
    }

    /// Whether these nodes have applied all that any node knows to be committed, to one effect.
    fn are_level(&self, slots: &[usize]) -> bool {
        let committed = |node: &Node| node.inspect()?.committed.map(|id| id.index);
        let live = self.cluster.live();
        let most = live.iter().filter_map(|(_, node)| committed(node)).max();
        let state = |slot: &usize| {
            let node = self.cluster.node(*slot)?;
            let applied = node.read_stale(Store::applied_index);
            Some((applied, node.read_stale(Store::digest)))
        };
        let states: Vec<_> = slots.iter().map(state).collect();
        let is_last = |state: &Option<(u64, u64)>| {
            *state == states[0] && state.map(|(applied, _)| applied) == most
        };
        states.iter().all(is_last)
    }

    fn note_first_ids(&mut self) {
        if self.first_ids.is_empty() && settle::serving(&self.cluster) {
            let live = self.cluster.live().into_iter();
            self.first_ids = live
                .map(|(slot, node)| (slot, node.status().node_id))
                .collect();
        }
    }

    /// The holder of a seat, as the leader knows it: whether it votes, and whether it is the node that held
    /// the seat first.
    pub(super) fn seat(&self, slot: usize) -> String {
        let leader = self
            .cluster
            .leader()
            .and_then(|slot| self.cluster.node(slot));
        let Some((leader, now)) = leader.and_then(|node| Some((node.clone(), node.inspect()?)))
        else {
            return "no leader".to_owned();
        };
        let name = name(slot);
        let (member, newcomer) = leader.read_stale(|store| {
            let table = store.member_table();
            let id = |member: Option<&memkv_store::Member>| member.map(|member| member.id);
            (id(table.by_name(&name)), id(table.pending_by_name(&name)))
        });
        let votes = |id: &u64| now.voters.iter().any(|voters| voters.contains(id));
        let which = match member == self.first_ids.get(&slot).copied() {
            true => "first id",
            false => "new id",
        };
        let vote = match member.as_ref().is_some_and(votes) {
            true => "votes",
            false => "has no vote",
        };
        let newcomer = newcomer.map_or("", |_| ", a newcomer is admitted");
        format!("{which}, {vote}{newcomer}")
    }
}
