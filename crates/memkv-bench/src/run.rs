//! `memkv-bench run`: one load against one system, a line for each number of connections and depth.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::load::{self, Keys, LoadError, Measured, Pace, Work};
use crate::machine::{Meter, resident_bytes};
use crate::protocol::RespClient;
use crate::sample::Sample;
use crate::system::{Memkv, Protocol, System, Target, To};

/// Connections and depth that keys are filled with: quick, and no system minds.
const FILL: (usize, usize) = (16, 64);

#[derive(Args)]
pub(crate) struct Options {
    /// Start this system, and stop it afterwards.
    #[arg(long, value_enum, conflicts_with = "target")]
    system: Option<Name>,
    /// Nodes of the system.
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Load servers that run already; several addresses get the connections in turn.
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        required_unless_present = "system"
    )]
    target: Vec<String>,
    /// Processes of the target whose CPU time and memory count.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// Protocol of the target.
    #[arg(long, value_enum, default_value = "resp")]
    protocol: Protocol,
    /// Nodes of the system that are loaded.
    #[arg(long, value_enum, default_value = "leader")]
    to: To,
    /// `sync` (as shipped) or `os` (no fsync); memkv only.
    #[arg(long, default_value = "sync")]
    durability: String,
    /// Send `WAIT` for so many replicas after the writes of a batch.
    #[arg(long)]
    wait: Option<u64>,
    #[command(flatten)]
    load: LoadOptions,
    /// Write all lines to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct LoadOptions {
    /// Connections; a line for each number.
    #[arg(short, long, value_delimiter = ',', default_values_t = [1, 64, 1024])]
    connections: Vec<usize>,
    /// Requests in one write, whose answers are awaited together; a line for each number.
    #[arg(short = 'P', long, value_delimiter = ',', default_values_t = [1])]
    pipeline: Vec<usize>,
    /// Keep the pipeline full instead: each answer is followed by the next request.
    #[arg(long, conflicts_with = "rate")]
    window: bool,
    /// Send so many requests in a second whether or not the server keeps up; latency counts from
    /// the time at which each was due.
    #[arg(long)]
    rate: Option<f64>,
    /// Percent of the requests that read.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    reads: u8,
    /// Keys that requests are spread over.
    #[arg(long, default_value_t = 20_000)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Seconds that count.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Seconds before them that do not count.
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
}

/// A system that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// The release binaries.
    Memkv,
}

/// Runs all lines.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let system: Box<dyn System> = match options.system {
        Some(Name::Memkv) => Box::new(Memkv::start(options.nodes, &options.durability)),
        None => Box::new(Target::new(&options.target, &options.pid, options.wait)?),
    };
    let load = &options.load;
    if load.reads > 0 {
        fill(
            &*system,
            options.protocol,
            load.keys as u64,
            load.value_bytes,
        )
        .map_err(full)?;
    }
    println!("{}", Sample::HEAD);
    let mut samples = Vec::new();
    for depth in &load.pipeline {
        for connections in &load.connections {
            let work = load.work(*connections, *depth);
            let sample = measure(
                &*system,
                options.protocol,
                options.to,
                &work,
                load.value_bytes,
            );
            let sample = sample.map_err(full)?;
            println!("{sample}");
            samples.push(sample.json());
        }
    }
    match &options.json {
        Some(path) => fs::write(path, format!("{:#}\n", Value::from(samples)))
            .map_err(|error| format!("{}: {error}", path.display())),
        None => Ok(()),
    }
}

impl LoadOptions {
    fn work(&self, connections: usize, depth: usize) -> Work {
        Work {
            targets: Vec::new(),
            connections,
            depth,
            pace: match self.rate {
                Some(rate) => Pace::Rate(rate),
                None if self.window => Pace::Window,
                None => Pace::Batch,
            },
            keys: Keys::Random(self.keys),
            reads_percent: usize::from(self.reads),
            warm_up: Duration::from_secs_f64(self.warm_up),
            duration: Duration::from_secs_f64(self.seconds),
        }
    }
}

/// Runs one load against a system; `work` does not need its targets.
pub(crate) fn measure(
    system: &dyn System,
    protocol: Protocol,
    to: To,
    work: &Work,
    value_bytes: usize,
) -> Result<Sample, LoadError> {
    let mut work = work.clone();
    work.targets = system.addrs(to);
    let shown = (work.connections, work.depth);
    let servers = system.processes();
    let mut meter = Meter::new(&servers);
    let measured = drive(protocol, system.wait(), &work, value_bytes, || meter.mark())?;
    let resident = resident_bytes(&servers);
    Ok(Sample::new(
        system.name(),
        shown,
        &work,
        &measured,
        meter.used(),
        resident,
    ))
}

/// Writes each of so many keys once.
pub(crate) fn fill(
    system: &dyn System,
    protocol: Protocol,
    keys: u64,
    value_bytes: usize,
) -> Result<Measured, LoadError> {
    let work = Work {
        targets: system.addrs(To::Leader),
        connections: FILL.0,
        depth: FILL.1,
        pace: Pace::Batch,
        keys: Keys::Each(keys),
        reads_percent: 0,
        warm_up: Duration::ZERO,
        duration: Duration::ZERO,
    };
    drive(protocol, system.wait(), &work, value_bytes, || {})
}

fn drive(
    protocol: Protocol,
    wait: Option<u64>,
    work: &Work,
    value_bytes: usize,
    mark: impl FnMut(),
) -> Result<Measured, LoadError> {
    match protocol {
        Protocol::Resp => load::run(work, || RespClient::new(value_bytes, wait), mark),
    }
}

/// An error with its causes.
pub(crate) fn full(error: LoadError) -> String {
    let mut text = error.to_string();
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(&error);
    while let Some(found) = cause {
        text.push_str(&format!(": {found}"));
        cause = found.source();
    }
    text
}
