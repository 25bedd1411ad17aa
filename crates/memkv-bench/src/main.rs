//! `memkv-bench`: throughput, latency, CPU time and memory of memkv and of its peers. Development
//! only.
//!
//! Starts release binaries itself, so that every run measures the same thing, or loads servers that
//! run already. The load generator shares the machine's cores with the servers, and its cost is shown
//! beside theirs. Never changes what it measures: memkv runs as shipped, its peers with the settings
//! that `docs/performance.md` names.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod bare;
mod compare;
mod disk;
mod failover;
mod growth;
mod http;
mod load;
mod machine;
mod memory;
mod neighbour;
mod probe;
mod protocol;
mod reconnect;
mod restart;
mod run;
mod sample;
mod snapshot;
mod soak;
mod statistics;
mod system;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(about = "Throughput, latency, CPU time and memory of memkv and of its peers")]
enum Command {
    /// One load against one system.
    Run(run::Options),
    /// memkv and its peers, every row of the goals; writes docs/performance.md.
    Compare(compare::Options),
    /// From the kill of a leader to the next acknowledged write.
    Failover(failover::Options),
    /// The time until memkv serves again with many keys.
    Restart(restart::Options),
    /// The RAM of a key.
    Memory(memory::Options),
    /// The cost of an operation with more keys, larger values, more connections, more nodes.
    Growth(growth::Options),
    /// memkv over HTTP: the original's JSON interface and the REST interface.
    Http(http::Options),
    /// The cost of a snapshot of the whole data set for writers.
    Snapshot(snapshot::Options),
    /// The cost of one demanding client for the others.
    Neighbour(neighbour::Options),
    /// Thousands of clients that connect again and authenticate at once.
    Reconnect(reconnect::Options),
    /// Full load for a long time: no election, no failed request.
    Soak(soak::Options),
    /// A server that answers every HTTP request with the same body.
    Bare(bare::Options),
}

fn main() -> ExitCode {
    let outcome = match Command::parse() {
        Command::Run(options) => run::run(&options),
        Command::Compare(options) => compare::run(&options),
        Command::Failover(options) => failover::run(&options),
        Command::Restart(options) => restart::run(&options),
        Command::Memory(options) => memory::run(&options),
        Command::Growth(options) => growth::run(&options),
        Command::Http(options) => http::run(&options),
        Command::Snapshot(options) => snapshot::run(&options),
        Command::Neighbour(options) => neighbour::run(&options),
        Command::Reconnect(options) => reconnect::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Bare(options) => bare::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
