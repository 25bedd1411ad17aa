//! From `kill -9` of the leader to the first write that a survivor acknowledges, again and again;
//! the killed node is back and has caught up before the next trial.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};

use crate::probe::Probe;
use crate::statistics::Spread;
use crate::system::{Etcd, Memkv};

#[derive(Args)]
pub(crate) struct Options {
    /// The system.
    #[arg(long, value_enum, default_value = "memkv")]
    system: Failover,
    /// Kills.
    #[arg(long, default_value_t = 20)]
    trials: usize,
}

/// Systems that elect a new leader by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Failover {
    Memkv,
    Etcd,
}

/// Prints each time, and their median and range.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let spread = Spread::of(&trials(options.system, options.trials)?);
    println!(
        "median {:.2} s, from {:.2} to {:.2}",
        spread.median, spread.low, spread.high
    );
    Ok(())
}

/// The times in seconds.
pub(crate) fn trials(system: Failover, trials: usize) -> Result<Vec<f64>, String> {
    let mut seconds = Vec::new();
    match system {
        Failover::Memkv => {
            let mut memkv = Memkv::start(3, "sync");
            for _ in 0..trials {
                let leader = memkv.cluster.leader();
                let survivors = memkv.addrs_without(leader);
                let took = time(&Probe::resp_write(), &survivors, || {
                    memkv.cluster.nodes[leader].kill();
                })?;
                report("memkv", took, &mut seconds);
                memkv.cluster.start_all();
            }
        }
        Failover::Etcd => {
            let mut etcd = Etcd::start(3)?;
            for _ in 0..trials {
                let leader = etcd.leader();
                let survivors: Vec<SocketAddr> = (0..3)
                    .filter(|index| *index != leader)
                    .map(|index| etcd.addr(index))
                    .collect();
                let took = time(&Probe::etcd_write(), &survivors, || etcd.kill_node(leader))?;
                report("etcd", took, &mut seconds);
                etcd.start_node(leader)?;
                // All three know the same leader again.
                etcd.leader();
            }
        }
    }
    Ok(seconds)
}

fn time(probe: &Probe, survivors: &[SocketAddr], kill: impl FnOnce()) -> Result<Duration, String> {
    probe.first_answer(survivors)?;
    let killed = Instant::now();
    kill();
    Ok(probe.first_answer(survivors)? - killed)
}

fn report(system: &str, took: Duration, seconds: &mut Vec<f64>) {
    println!("{system:<9} {:>6.3} s", took.as_secs_f64());
    seconds.push(took.as_secs_f64());
}
