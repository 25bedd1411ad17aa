//! The end of a run: faults stop, and the cluster must come to rest in one state that holds
//! everything it ever promised.
//!
//! Liveness is judged here only: before, a cluster may be too broken to answer. All time limits are
//! simulated.

use std::sync::Arc;
use std::time::Duration;

use memkv_check::Op;
use memkv_check::ledger::Final;
use memkv_node::{Inspection, Node, Phase};
use memkv_store::{Member, MemberState, Store};
use tokio::time::Instant;

use crate::client::{Workload, key_name, value_id};
use crate::cluster::{Cluster, name};
use crate::host::Death;
use crate::nemesis::growth;
use crate::promise::Promise;
use crate::{redis, translate};

/// How long a healed cluster may take to serve on every node: a few elections, a replacement (whose
/// predecessor must have been silent for up to 3 s, one after the other in a cluster of five), and
/// the transfer of a snapshot.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a follower stays away at the end of a run: pauses that grow would have grown by then.
const AWAY: Duration = Duration::from_secs(1);
/// How long before that it has served: it looks once a second for members that have moved, and writes down once a
/// second what it has found, so that its next process asks them at their addresses.
const SERVED: Duration = Duration::from_millis(2_500);
/// How long it then takes to start, be found, and get the entries that it has missed.
const REJOIN: Duration = Duration::from_millis(400);
/// How often it is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// Clients of the last phase; the others count from 1.
const PROCESS: u64 = 1_000;

/// A key of the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) key: String,
    /// Without padding.
    pub(crate) value: String,
    pub(crate) revision: u64,
    pub(crate) deadline_ms: Option<u64>,
}

/// The state of every node in the end.
pub(crate) struct Rest {
    /// The plain keys.
    pub(crate) content: Vec<Final>,
    /// All keys, by name.
    pub(crate) held: Vec<Held>,
    pub(crate) revision: u64,
    pub(crate) applied: u64,
    /// Log time.
    pub(crate) log_ms: u64,
    /// Simulated time from the end of the faults until all nodes served.
    pub(crate) recovery: Duration,
}

/// Waits for rest; `None` if a promise was broken on the way.
pub(crate) async fn settle(cluster: &Arc<Cluster>, workload: &Arc<Workload>) -> Option<Rest> {
    let healed_at = Instant::now();
    one_state(cluster, workload).await?;
    let recovery = healed_at.elapsed();
    cluster
        .trace
        .line(format_args!("settled after {recovery:?}"));
    rejoin(cluster, workload).await?;
    let mut rest = one_state(cluster, workload).await?;
    if cluster.swarm.final_power_loss {
        cluster.trace.count("power losses at the end");
        for slot in 0..cluster.nodes() {
            cluster.kill(slot, Death::Power, "power loss at the end");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        (0..cluster.nodes()).for_each(|slot| cluster.start(slot));
        rest = one_state(cluster, workload).await?;
    }
    Some(Rest { recovery, ..rest })
}

/// A follower goes, misses something, and must have it soon after it is back.
async fn rejoin(cluster: &Arc<Cluster>, workload: &Arc<Workload>) -> Option<()> {
    if cluster.nodes() < 3 {
        // Without it there is no majority.
        return Some(());
    }
    tokio::time::sleep(SERVED).await;
    let Some(leader) = cluster.leader() else {
        // An election is under way: no moment for this.
        return Some(());
    };
    let follower = usize::from(leader == 0);
    cluster.trace.count("followers away at the end");
    cluster.kill(follower, Death::Process, "away at the end");
    let back = Instant::now() + AWAY;
    answers(cluster, workload, leader, Instant::now() + LIMIT).await?;
    tokio::time::sleep_until(back).await;
    cluster.start(follower);
    let what = "a follower that is back has what it missed";
    within(cluster, Instant::now() + REJOIN, what, || {
        same_state(cluster)
    })
    .await
}

async fn one_state(cluster: &Arc<Cluster>, workload: &Arc<Workload>) -> Option<Rest> {
    let deadline = Instant::now() + LIMIT;
    within(
        cluster,
        deadline,
        "all nodes serve, each with a vote",
        || serving(cluster),
    )
    .await?;
    for slot in 0..cluster.nodes() {
        answers(cluster, workload, slot, deadline).await?;
    }
    // Reads on every node of everything: they enter the history and are judged there.
    for slot in 0..cluster.nodes() {
        for key in 0..cluster.swarm.keys {
            if let Some(node) = cluster.node(slot) {
                let process = PROCESS + slot as u64;
                workload
                    .read(process, slot, &node, key_name(key), Op::Get)
                    .await;
            }
        }
        if let Some(node) = cluster.node(slot) {
            workload
                .look_at_all(PROCESS + slot as u64, slot, &node)
                .await;
        }
    }
    within(cluster, deadline, "all nodes have applied the same", || {
        same_state(cluster)
    })
    .await?;
    let (_, node) = cluster.live().into_iter().next()?;
    let keys = cluster.swarm.keys;
    Some(node.read_stale(|store| Rest {
        content: content(store, keys),
        held: held(store, keys),
        revision: store.revision(),
        applied: store.applied_index(),
        log_ms: node.log_time_ms(),
        recovery: Duration::ZERO,
    }))
}

/// Every key. A key under a name that no client uses shows in the number of keys.
fn held(store: &Store, keys: usize) -> Vec<Held> {
    let names = (0..keys).map(key_name).chain(redis::all_keys());
    let held = names.filter_map(|key| {
        let held = store.get(key.as_bytes())?;
        Some(Held {
            value: translate::text(held.value),
            revision: held.mod_revision,
            deadline_ms: held.deadline_ms,
            key,
        })
    });
    let mut held: Vec<Held> = held.collect();
    held.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    for number in held.len()..store.len() {
        held.push(Held {
            key: format!("unknown key {number}"),
            value: String::new(),
            revision: 0,
            deadline_ms: None,
        });
    }
    held
}

fn content(store: &Store, keys: usize) -> Vec<Final> {
    let names = (0..keys).map(key_name);
    let held = names.filter_map(|key| {
        let held = store.get(key.as_bytes())?;
        // A value that no client wrote has no id; the largest one is never drawn.
        let value = value_id(held.value).unwrap_or(u64::MAX);
        Some(Final {
            key,
            value,
            revision: held.mod_revision,
        })
    });
    held.collect()
}

/// A write and a read through this node.
async fn answers(
    cluster: &Arc<Cluster>,
    workload: &Arc<Workload>,
    slot: usize,
    deadline: Instant,
) -> Option<()> {
    let process = PROCESS + slot as u64;
    let key = key_name(0);
    loop {
        // Operations for each time: a fault that was set before may still end the process.
        if let Some(node) = cluster.node(slot) {
            let written = workload.write(process, slot, &node, key.clone()).await;
            let read = workload.read(process, slot, &node, key.clone(), Op::Get);
            if written.is_some() && read.await {
                return Some(());
            }
        }
        if cluster.violation().is_some() {
            return None;
        }
        if Instant::now() >= deadline {
            let seen = format!(
                "{} answers no write and read: {}",
                name(slot),
                describe(cluster)
            );
            cluster.violated(Promise::HealedServes, seen);
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until `done`.
async fn within(
    cluster: &Arc<Cluster>,
    deadline: Instant,
    what: &str,
    done: impl Fn() -> bool,
) -> Option<()> {
    while !done() {
        if cluster.violation().is_some() {
            return None;
        }
        if Instant::now() >= deadline {
            let seen = format!("not in time: {what}: {}", describe(cluster));
            cluster.violated(Promise::HealedConverges, seen);
            return None;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Some(())
}

/// Whether every host runs a node that serves and votes, and nothing is pending.
pub(crate) fn serving(cluster: &Cluster) -> bool {
    let nodes = cluster.live();
    nodes.len() == cluster.nodes()
        && nodes.iter().all(|(slot, node)| {
            let Some(now) = node.inspect() else {
                return false;
            };
            node.status().phase == Phase::Serving
                && now.voters.len() == 1
                && has_grown(cluster, &now)
                && !now.divergence_alarm
                && cluster.hosts[*slot].lock().loss.is_none()
                && node.read_stale(|store| {
                    let mut rows = store.member_table().rows();
                    rows.all(|row| {
                        row.state == MemberState::Member && is_at_home(cluster, row.member)
                    })
                })
        })
}

/// Whether the table has a member where its host is.
fn is_at_home(cluster: &Cluster, member: &Member) -> bool {
    (0..cluster.nodes()).any(|slot| member.name == name(slot) && member.addr == cluster.addr(slot))
}

/// Whether every node votes; in a cluster that has grown one may have to wait, since voters are odd in number.
fn has_grown(cluster: &Cluster, now: &Inspection) -> bool {
    let (nodes, voters) = (cluster.nodes(), &now.voters[0]);
    let votes = voters.contains(&now.node_id);
    match cluster.swarm.founders {
        None => voters.len() == nodes && votes,
        Some(_) => {
            let waits = now.learners.contains(&now.node_id);
            let all = voters.len() + now.learners.len() == nodes;
            all && (votes || waits) && growth::is_grown(nodes, voters.len())
        }
    }
}

/// Whether all nodes have applied everything that is committed, and to the same effect.
fn same_state(cluster: &Cluster) -> bool {
    let state = |node: &Node| {
        let committed = node.inspect()?.committed?;
        let applied = node.read_stale(Store::applied_index);
        let digest = node.read_stale(Store::digest);
        (committed.index == applied).then_some((applied, digest))
    };
    let states: Vec<_> = cluster.live().iter().map(|(_, node)| state(node)).collect();
    states.len() == cluster.nodes()
        && states[0].is_some()
        && states.iter().all(|state| *state == states[0])
}

/// A short description of every node.
pub(crate) fn describe(cluster: &Cluster) -> String {
    let node = |slot: usize| {
        let Some(node) = cluster.node(slot) else {
            return format!("{} is down", name(slot));
        };
        let status = node.status();
        let inspection = node.inspect();
        format!(
            "{} (id {}) {:?} {:?} \"{}\" term {} leader {:?} commit {} applied {} last {:?} voters {:?}",
            status.name,
            status.node_id,
            status.phase,
            status.role,
            status.message,
            status.term,
            status.leader,
            status.commit_index,
            status.applied_index,
            inspection
                .as_ref()
                .and_then(|now| now.log.last())
                .map(|id| id.index),
            inspection.map(|now| now.voters),
        )
    };
    (0..cluster.nodes())
        .map(node)
        .collect::<Vec<_>>()
        .join("; ")
}
