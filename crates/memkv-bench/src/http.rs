//! `memkv-bench http`: what memkv does over HTTP, a line for each request of its two interfaces.

use std::time::Duration;

use clap::Args;

use crate::load::{Keys, Pace, Work};
use crate::protocol::Protocol;
use crate::run::{fill, full, measure, positive};
use crate::sample::Sample;
use crate::system::{Memkv, To};

/// Keys that requests are spread over, as in the figures of the original.
const KEYS: usize = 10_000;

#[derive(Args)]
pub(crate) struct Options {
    /// Seconds per line, after one second to warm up.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Connections, a line for each number.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 1024], value_parser = positive)]
    connections: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Nodes that the connections go to.
    #[arg(long, value_enum, default_value = "leader")]
    to: To,
    /// `sync` (as shipped) or `os` (no fsync).
    #[arg(long, default_value = "sync")]
    durability: String,
}

/// Runs all lines.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let memkv = Memkv::start(3, &options.durability);
    fill(&memkv, Protocol::Rest, KEYS as u64, options.value_bytes).map_err(full)?;
    println!(
        "three nodes, durability {}, values of {} bytes, {} s per row, closed loop",
        options.durability, options.value_bytes, options.seconds
    );
    println!("{}", Sample::HEAD);
    for (name, protocol, reads_percent) in [
        ("seed set", Protocol::Compat, 0),
        ("REST put", Protocol::Rest, 0),
        ("seed get", Protocol::Compat, 100),
    ] {
        for connections in &options.connections {
            let work = Work {
                targets: Vec::new(),
                connections: *connections,
                depth: 1,
                pace: Pace::Batch,
                keys: Keys::Random(KEYS),
                reads_percent,
                warm_up: Duration::from_secs(1),
                duration: Duration::from_secs(options.seconds),
            };
            let sample = measure(&memkv, protocol, options.to, &work, options.value_bytes);
            let mut sample = sample.map_err(full)?;
            sample.system = name.to_owned();
            println!("{sample}");
        }
    }
    Ok(())
}
