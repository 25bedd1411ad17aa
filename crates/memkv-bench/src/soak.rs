//! Full load for a long time: a leader whose process lives must stay leader, and no request may fail.
//!
//! All nodes and the load share the machine's cores, so every timeout of the nodes is tested on a
//! machine without idle time.

use std::time::{Duration, Instant};

use clap::Args;

use crate::load::{Keys, Pace, Work};
use crate::protocol::Protocol;
use crate::run::{above_zero, drive, fill, full, positive};
use crate::system::{Memkv, System, To};

/// Bytes of a value.
const VALUE_BYTES: usize = 256;
const KEYS: usize = 20_000;

/// How often a line is printed.
const SLICE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Options {
    /// Minutes of load.
    #[arg(long, default_value_t = 60.0, value_parser = above_zero)]
    minutes: f64,
    /// Connections, one in two of whose requests reads.
    #[arg(long, default_value_t = 256, value_parser = positive)]
    connections: usize,
}

/// Loads until the time is over; fails at the first election or failed request.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let memkv = Memkv::start(3, "sync");
    fill(&memkv, Protocol::Resp, KEYS as u64, VALUE_BYTES).map_err(full)?;
    let first = term(&memkv)?;
    let began = Instant::now();
    let all = Duration::from_secs_f64(options.minutes * 60.0);
    println!("  minute     op/s   p99 ms  longest gap ms  term");
    while began.elapsed() < all {
        let work = Work {
            targets: memkv.addrs(To::All),
            connections: options.connections,
            depth: 1,
            pace: Pace::Batch,
            keys: Keys::Random(KEYS),
            reads_percent: 50,
            warm_up: Duration::ZERO,
            duration: SLICE.min(all.saturating_sub(began.elapsed())),
        };
        let measured = drive(Protocol::Resp, None, &work, VALUE_BYTES, || {}).map_err(full)?;
        let term = term(&memkv)?;
        let answered = measured.writes.count() + measured.reads.count();
        println!(
            "{:>8.1} {:>8.0} {:>8.2} {:>15.1} {term:>5}",
            began.elapsed().as_secs_f64() / 60.0,
            answered as f64 / measured.seconds,
            measured.writes.quantile(0.99).as_secs_f64() * 1e3,
            measured.longest_gap.as_secs_f64() * 1e3,
        );
        if measured.failed > 0 {
            let why = measured.complaint.unwrap_or_default();
            return Err(format!("{} requests failed: {why}", measured.failed));
        }
        if term != first {
            return Err(format!("an election took place: term {first}, now {term}"));
        }
    }
    println!("no election, no failed request");
    Ok(())
}

/// The highest term that any node knows.
fn term(memkv: &Memkv) -> Result<u64, String> {
    let nodes = memkv.cluster.nodes.iter();
    let terms = nodes.filter_map(|node| node.status()?["term"].as_u64());
    terms
        .max()
        .ok_or_else(|| "no node tells its term".to_owned())
}
