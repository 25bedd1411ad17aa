//! The time until memkv serves again with a large data set: a follower after a restart, the whole
//! cluster after a restart, and a follower whose disk is empty, from its admission as a learner to
//! the leader's commit index.

use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use memkv_black_box::Node;
use serde_json::Value;

use crate::probe::Probe;
use crate::protocol::Protocol;
use crate::run::{fill, full};
use crate::statistics::Spread;
use crate::system::{Memkv, System, To};

/// Bytes of a value, as in the figures of other systems.
const VALUE_BYTES: usize = 64;

/// Interval between two requests for the nodes' status.
const POLL: Duration = Duration::from_millis(5);

/// A node must have been silent for ten seconds before it is replaced; two minutes are long enough
/// for everything.
const LIMIT: Duration = Duration::from_secs(120);

#[derive(Args)]
pub(crate) struct Options {
    /// Keys of 16 bytes, with values of 64.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    times: usize,
}

/// Seconds.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) follower: Vec<f64>,
    pub(crate) cluster: Vec<f64>,
    pub(crate) wiped: Vec<f64>,
}

/// Prints each time, and the medians.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let found = trials(options.keys, options.times)?;
    for (name, seconds) in [
        ("a follower's restart to serving", &found.follower),
        ("all nodes' restart to serving", &found.cluster),
        ("a wiped follower, admission to in sync", &found.wiped),
    ] {
        let spread = Spread::of(seconds);
        println!(
            "{name}: median {:.2} s, from {:.2} to {:.2}",
            spread.median, spread.low, spread.high
        );
    }
    Ok(())
}

/// Measures each of the three so many times, in turn.
pub(crate) fn trials(keys: u64, times: usize) -> Result<Found, String> {
    let mut memkv = Memkv::start(3, "sync");
    let filled = fill(&memkv, Protocol::Resp, keys, VALUE_BYTES).map_err(full)?;
    println!("{keys} keys filled in {:.1} s", filled.seconds);
    let mut found = Found::default();
    for _ in 0..times {
        let took = restart_follower(&mut memkv)?;
        report("follower", took, &mut found.follower);
        let took = restart_all(&mut memkv)?;
        report("cluster", took, &mut found.cluster);
        let took = wipe_follower(&mut memkv)?;
        report("wiped", took, &mut found.wiped);
    }
    Ok(found)
}

fn report(what: &str, took: Duration, seconds: &mut Vec<f64>) {
    println!("{what:<9} {:>6.3} s", took.as_secs_f64());
    seconds.push(took.as_secs_f64());
}

fn restart_follower(memkv: &mut Memkv) -> Result<Duration, String> {
    let follower = memkv.cluster.followers()[0];
    let addr = memkv.addr(follower);
    memkv.cluster.nodes[follower].kill();
    let began = Instant::now();
    memkv.cluster.nodes[follower].start();
    Ok(Probe::resp_read().first_answer(&[addr])? - began)
}

fn restart_all(memkv: &mut Memkv) -> Result<Duration, String> {
    memkv.cluster.wait_serving();
    for node in &mut memkv.cluster.nodes {
        node.kill();
    }
    let began = Instant::now();
    for node in &mut memkv.cluster.nodes {
        node.start();
    }
    Ok(Probe::resp_write().first_answer(&memkv.addrs(To::All))? - began)
}

fn wipe_follower(memkv: &mut Memkv) -> Result<Duration, String> {
    memkv.cluster.wait_serving();
    let leader = memkv.cluster.leader();
    let follower = memkv.cluster.followers()[0];
    memkv.cluster.nodes[follower].kill();
    memkv.cluster.nodes[follower].wipe();
    memkv.cluster.nodes[follower].start();
    let nodes = &memkv.cluster.nodes;
    let name = nodes[follower].id.clone();
    let limit = Instant::now() + LIMIT;
    poll(limit, "the wiped node is admitted", || {
        let status = nodes[leader].status()?;
        let mut members = status["members"].as_array()?.iter();
        members
            .any(|member| member["name"] == name.as_str() && member["role"] == "learner")
            .then_some(())
    })?;
    let admitted = Instant::now();
    poll(limit, "the wiped node is in sync", || {
        let (index, wanted) = (
            index(&nodes[follower], "applied_index")?,
            index(&nodes[leader], "commit_index")?,
        );
        (index >= wanted).then_some(())
    })?;
    let took = admitted.elapsed();
    // Only a voter may be restarted next.
    poll(limit, "the wiped node is a member again", || {
        let status = nodes[follower].status()?;
        (status["role"] == "follower").then_some(())
    })?;
    Ok(took)
}

fn index(node: &Node, name: &str) -> Option<u64> {
    node.status()
        .as_ref()
        .and_then(|status: &Value| status[name].as_u64())
}

fn poll(
    limit: Instant,
    what: &str,
    mut condition: impl FnMut() -> Option<()>,
) -> Result<(), String> {
    while condition().is_none() {
        if Instant::now() > limit {
            return Err(format!("not within {LIMIT:?}: {what}"));
        }
        thread::sleep(POLL);
    }
    Ok(())
}
