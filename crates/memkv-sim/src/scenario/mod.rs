//! Scenarios as scripts: one whole simulated cluster, driven by a text and described by a text.
//!
//! A script is its own transcript. A line is a comment (`#`), empty, a command, or the output of the
//! command above it, which is indented by two spaces. Running a script drops the old output and puts
//! the new one in its place. `commands` says which commands there are.
//!
//! Invariants: the output of a script is the same for every seed, since it names nodes by the part that
//! they play and never tells of a time or an id; every command ends within a limit of simulated time.

mod commands;
mod request;
mod waits;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use memkv_disk::disk::guard;
use tokio::task::JoinHandle;

use crate::cluster::{self, Cluster, Violation};
use crate::disk::SimDisk;
use crate::nemesis::false_start::Kept;
use crate::net::{Cuts, Weather};
use crate::run::{look, runtime};
use crate::swarm::Swarm;
use crate::trace::Trace;

/// What a script's run was.
#[derive(Debug)]
pub struct Outcome {
    /// The script with its output.
    pub transcript: String,
    /// The first promise that an invariant saw broken.
    pub violation: Option<Violation>,
}

/// Runs a script under a seed.
///
/// # Errors
/// If the script has a line that is no command, with its number and what is wrong; or if the runtime
/// cannot be built.
pub fn run(script: &str, seed: u64) -> Result<Outcome, String> {
    let runtime = runtime(seed).map_err(|error| error.to_string())?;
    // The one thread is that of every node's consensus.
    let _scope = guard::forbid();
    runtime.block_on(play(script, seed))
}

async fn play(script: &str, seed: u64) -> Result<Outcome, String> {
    let mut lines = (1..).zip(script.lines()).filter(|(_, line)| {
        let is_output = line.starts_with("  ");
        !is_output
    });
    let mut transcript = String::new();
    let mut stage: Option<Stage> = None;
    for (number, line) in &mut lines {
        let _ = writeln!(transcript, "{line}");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let failed = |why: String| format!("line {number}: `{line}`: {why}");
        let Some(stage) = &mut stage else {
            let words: Vec<&str> = line.split_whitespace().collect();
            stage = Some(Stage::new(&words, seed).map_err(failed)?);
            continue;
        };
        for output in stage.command(line).await.map_err(failed)? {
            let _ = writeln!(transcript, "  {output}");
        }
    }
    let stage = stage.ok_or("the script has no command")?;
    if !stage.pending.is_empty() {
        return Err("requests are under way at the end: collect them with `answers`".to_owned());
    }
    stage.looker.abort();
    let cluster = &stage.cluster;
    guard::allow(|| cluster.invariants.check(cluster));
    cluster.tear_down();
    Ok(Outcome {
        transcript,
        violation: cluster.violation(),
    })
}

/// A cluster and what its script knows of it.
struct Stage {
    cluster: Arc<Cluster>,
    looker: JoinHandle<()>,
    /// The parts that nodes play; a later name of a node is shown instead of an earlier one.
    parts: Vec<(String, usize)>,
    /// The ids that the nodes had when all of them first served.
    first_ids: BTreeMap<usize, u64>,
    /// Requests whose answers have not been shown.
    pending: Vec<(String, JoinHandle<String>)>,
    /// Copies of disks.
    copies: BTreeMap<usize, SimDisk>,
    /// Disks that are not in use.
    kept: BTreeMap<usize, Kept>,
    /// How often an event had happened when the script last waited for it.
    seen: BTreeMap<String, u64>,
}

impl Stage {
    /// `nodes N`, and perhaps `replace-after D`.
    fn new(words: &[&str], seed: u64) -> Result<Self, String> {
        let (nodes, replace_after) = match words {
            ["nodes", nodes] => (nodes, "2s"),
            ["nodes", nodes, "replace-after", after] => (nodes, *after),
            _ => return Err("a script begins with `nodes N [replace-after TIME]`".to_owned()),
        };
        let nodes = nodes.parse().ok().filter(|nodes| (1..=5).contains(nodes));
        let nodes = nodes.ok_or("a cluster has 1 to 5 nodes")?;
        let swarm = swarm(nodes, waits::time(replace_after)?);
        let trace = Arc::new(Trace::new(None));
        let cluster = Cluster::new(seed, swarm, trace);
        let weak = Arc::downgrade(&cluster);
        cluster.net.witness(Box::new(move |from, request| {
            if let Some(cluster) = weak.upgrade() {
                guard::allow(|| cluster.invariants.sends(from, request, &cluster));
            }
        }));
        Ok(Self {
            looker: tokio::spawn(look(cluster.clone())),
            parts: (0..nodes).map(|slot| (cluster::name(slot), slot)).collect(),
            cluster,
            first_ids: BTreeMap::new(),
            pending: Vec::new(),
            copies: BTreeMap::new(),
            kept: BTreeMap::new(),
            seen: BTreeMap::new(),
        })
    }

    /// The node that plays a part.
    fn slot(&self, part: &str) -> Result<usize, String> {
        let mut parts = self.parts.iter().rev();
        let found = parts.find(|(name, _)| name == part);
        let found = found.ok_or_else(|| format!("no node is called {part}"))?;
        Ok(found.1)
    }

    fn slots(&self, parts: &[&str]) -> Result<Vec<usize>, String> {
        match parts {
            ["all"] => Ok((0..self.cluster.nodes()).collect()),
            [] => Err("name at least one node".to_owned()),
            parts => parts.iter().map(|part| self.slot(part)).collect(),
        }
    }

    /// What a script calls a node.
    fn part(&self, slot: usize) -> &str {
        let mut parts = self.parts.iter().rev();
        parts
            .find(|(_, of)| *of == slot)
            .map_or("?", |(name, _)| name)
    }

    /// A node's text with nodes and clusters named as the script does.
    fn shown(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for slot in 0..self.cluster.nodes() {
            shown = shown.replace(&cluster::addr(slot, 0), "its address");
        }
        for slot in 0..self.cluster.nodes() {
            shown = shown.replace(&cluster::name(slot), self.part(slot));
        }
        let words = shown.split(' ').map(|word| {
            let is_uuid = word.len() >= 36 && word.matches('-').count() == 4;
            if is_uuid { "UUID" } else { word }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Replaces all cuts, or heals all links.
    fn cut(&self, cuts: Option<Cuts>) {
        match cuts {
            Some(cuts) => self.cluster.net.cut(cuts),
            None => self.cluster.net.heal(),
        }
    }
}

/// A cluster on a good network and good disks, whose log is compacted early.
fn swarm(nodes: usize, replace_after: Duration) -> Swarm {
    Swarm {
        nodes,
        faults: Vec::new(),
        fault_every: Duration::ZERO,
        founders: None,
        early_faults: false,
        wrong_lists: false,
        lists_stay_wrong: false,
        weather: Weather {
            latency_us: 1_000,
            jitter_us: 500,
            spike: 0,
            spike_ms: 0,
            loss: 0,
            duplicate: 0,
            ghost: 0,
        },
        disk_us: 500,
        clients: 0,
        floods: false,
        keys: 0,
        think: Duration::ZERO,
        reads_percent: 0,
        redis_percent: 0,
        caps: false,
        users: false,
        value_bytes: 0,
        max_log_size: 64 * 1024,
        log_cache_bytes: 64 * 1024,
        max_log_count: 1,
        snapshot_growth_percent: 0,
        replace_after,
        old_builds_percent: 0,
        raise_level_after: Duration::from_secs(3600),
        final_power_loss: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_gets_its_output_and_loses_an_old_one() {
        let script =
            "# A claim.\n\nnodes 1\n  old\nstart n1\nwait serving all\nn1: SET a b\n  old\n";
        let outcome = run(script, 1).expect("a script");
        let expected = "# A claim.\n\nnodes 1\nstart n1\nwait serving all\nn1: SET a b\n  OK @1\n";
        assert_eq!(outcome.transcript, expected);
        assert_eq!(outcome.violation, None);
    }

    #[test]
    fn a_wait_that_ends_at_its_limit_is_shown() {
        let script = "nodes 3\nstart n1 n2\nwait leader L within 3s\n";
        let outcome = run(script, 1).expect("a script");
        let end = "  not within 3s: there is no such leader\n";
        assert_eq!(outcome.transcript, [script, end].concat());
    }

    #[test]
    fn a_line_that_is_no_command_is_named() {
        let fault = |script: &str| run(script, 1).expect_err("no script");
        assert_eq!(
            fault("nodes 1\n\nstrat n1\n"),
            "line 3: `strat n1`: this is no command"
        );
        assert!(fault("nodes 1\nkill n2\n").contains("no node is called n2"));
        assert!(fault("nodes 1\nn1: GIT a\n").contains("requests are"));
        assert!(fault("start all\n").contains("a script begins with"));
        assert!(fault("nodes 1\nn1: GET a &\n").contains("collect them"));
        assert!(fault("# Nothing.\n").contains("no command"));
    }
}
