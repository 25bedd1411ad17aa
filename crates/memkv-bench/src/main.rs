//! `memkv-bench`: throughput, latency and CPU time of a real three-node cluster. Development only.
//!
//! Starts the release binaries itself, so that every run measures the same thing: three nodes on
//! this machine, `durability` as shipped (fsync before every acknowledgement), closed loop: each
//! connection sends its next request when it has the answer to the last. The load generator shares
//! the machine's cores with the servers; the CPU column counts the servers only.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "a command line tool")]

mod cpu;
mod latency;
mod load;
mod request;
mod snapshot;

use std::time::Duration;

use clap::{Parser, ValueEnum};
use memkv_tests::Cluster;
use serde_json::json;

use crate::load::{Load, Outcome};
use crate::request::Kind;

/// Log segments that do not make compaction part of what is measured.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Parser)]
#[command(about = "Throughput, latency and CPU time of a three-node cluster on this machine")]
enum Command {
    /// Over HTTP: the seed's JSON interface and the REST interface.
    Http(Options),
    /// What a snapshot of the whole data set costs the writers.
    Snapshot(snapshot::Options),
}

#[derive(Parser)]
struct Options {
    /// Seconds per row, after one second to warm up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections, one row each.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1024])]
    connections: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Nodes that the connections go to.
    #[arg(long, value_enum, default_value_t = To::Leader)]
    to: To,
    /// `sync` (as shipped) or `os` (no fsync).
    #[arg(long, default_value = "sync")]
    durability: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// The leader alone.
    Leader,
    /// All nodes in turn: two thirds of the requests are forwarded.
    All,
}

fn main() {
    match Command::parse() {
        Command::Http(options) => http(&options),
        Command::Snapshot(options) => snapshot::run(&options),
    }
}

fn http(options: &Options) {
    let settings = json!({ "max_log_size": SEGMENT_BYTES, "durability": options.durability });
    let mut cluster = Cluster::configured_with(3, &settings);
    cluster.start_all();
    let leader = cluster.leader();
    let targets: Vec<(String, String)> = cluster
        .nodes
        .iter()
        .enumerate()
        .filter(|(place, _)| options.to == To::All || *place == leader)
        .map(|(_, node)| (node.addr.clone(), node.id.clone()))
        .collect();
    let servers: Vec<u32> = cluster
        .nodes
        .iter_mut()
        .map(|node| node.process().id())
        .collect();

    println!(
        "three nodes, durability {}, values of {} bytes, {} s per row, closed loop",
        options.durability, options.value_bytes, options.seconds
    );
    println!("{}", Outcome::HEAD);
    for kind in [Kind::SeedSet, Kind::RestPut, Kind::SeedGet] {
        for connections in &options.connections {
            let load = Load {
                kind,
                connections: *connections,
                value_bytes: options.value_bytes,
                warm_up: Duration::from_secs(1),
                duration: Duration::from_secs(options.seconds),
            };
            println!("{}", load.run(&targets, &servers));
        }
    }
}
