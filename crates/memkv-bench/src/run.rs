//! `memkv-bench run`: one load against one system, a line for each number of connections and depth.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::load::{self, Keys, LoadError, Measured, Pace, Work};
use crate::machine::{Meter, resident_bytes};
use crate::protocol::{EtcdClient, HttpClient, Interface, Protocol, RespClient};
use crate::sample::Sample;
use crate::system::{Name, System, Target, To};

/// Connections and depth with which keys are filled: quick, and within the limits of every system. Values from
/// [`LARGE_BYTES`] on come one at a time: pipelines of them would fill a server's queue.
const FILL: (usize, usize) = (16, 64);
const FILL_LARGE: (usize, usize) = (4, 1);
const LARGE_BYTES: usize = 16 << 10;

/// Values that fit into one frame of HTTP/2 together with their headers.
const ETCD_VALUE_BYTES: usize = 16_000;

/// Connections to etcd at most.
const ETCD_CONNECTIONS: usize = 16;

#[derive(Args)]
pub(crate) struct Options {
    /// Start this system, and stop it afterwards.
    #[arg(long, value_enum, conflicts_with = "target")]
    system: Option<Name>,
    /// Nodes of the system.
    #[arg(long, default_value_t = 3, value_parser = positive)]
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
    /// The protocol; without it the system's own, and RESP with a target.
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
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
    #[arg(short, long, value_delimiter = ',', default_values_t = [1, 64, 1024], value_parser = positive)]
    connections: Vec<usize>,
    /// Requests in one write, whose answers are awaited together; a line for each number.
    #[arg(short = 'P', long, value_delimiter = ',', default_values_t = [1], value_parser = positive)]
    pipeline: Vec<usize>,
    /// Keep the pipeline full instead: each answer is followed by the next request.
    #[arg(long, conflicts_with = "rate")]
    window: bool,
    /// Send so many requests in a second whether or not the server keeps up; latency counts from
    /// the time at which each was due.
    #[arg(long, value_parser = above_zero)]
    rate: Option<f64>,
    /// Percent of the requests that read.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=100))]
    reads: u8,
    /// Keys that requests are spread over.
    #[arg(long, default_value_t = 20_000, value_parser = positive)]
    keys: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 256)]
    value_bytes: usize,
    /// Seconds that count.
    #[arg(long, default_value_t = 4.0, value_parser = above_zero)]
    seconds: f64,
    /// Milliseconds before them that do not count.
    #[arg(long, default_value_t = 500)]
    warm_up_ms: u64,
}

/// A whole number from 1 on.
pub(crate) fn positive(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "it must be a whole number from 1 on".to_owned())
}

/// A number above 0, and not so large that no time is left between two requests.
pub(crate) fn above_zero(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    let number = number.filter(|number| *number > 0.0 && *number < 1e8);
    number.ok_or_else(|| "it must be a number above 0 and below a hundred million".to_owned())
}

/// Runs all lines.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let own = options.system.map_or(Protocol::Resp, Name::protocol);
    let protocol = options.protocol.unwrap_or(own);
    let system = match options.system {
        Some(name) => name.start(options.nodes, &options.durability)?,
        None => Box::new(Target::new(&options.target, &options.pid, options.wait)?),
    };
    let load = &options.load;
    if protocol == Protocol::Etcd && load.value_bytes > ETCD_VALUE_BYTES {
        return Err(format!(
            "over etcd's protocol a value has {ETCD_VALUE_BYTES} bytes at most"
        ));
    }
    if load.reads > 0 {
        fill(&*system, protocol, load.keys as u64, load.value_bytes).map_err(full)?;
    }
    println!("{}", Sample::HEAD);
    let mut samples = Vec::new();
    for depth in &load.pipeline {
        for connections in &load.connections {
            let work = load.work(*connections, *depth);
            let sample = measure(&*system, protocol, options.to, &work, load.value_bytes);
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
            warm_up: Duration::from_millis(self.warm_up_ms),
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
    if work.targets.is_empty() {
        return Err(LoadError::NoTarget);
    }
    let shown = (work.connections, work.depth);
    if protocol == Protocol::Etcd {
        share_connections(&mut work);
    }
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
    let (connections, depth) = match value_bytes {
        ..LARGE_BYTES => FILL,
        _ => FILL_LARGE,
    };
    let work = Work {
        targets: system.addrs(To::Leader),
        connections,
        depth,
        pace: Pace::Batch,
        keys: Keys::Each(keys),
        reads_percent: 0,
        warm_up: Duration::ZERO,
        duration: Duration::ZERO,
    };
    let mut work = work;
    if protocol == Protocol::Etcd {
        share_connections(&mut work);
    }
    drive(protocol, system.wait(), &work, value_bytes, || {})
}

/// Runs one load as it is.
pub(crate) fn drive(
    protocol: Protocol,
    wait: Option<u64>,
    work: &Work,
    value_bytes: usize,
    mark: impl FnMut(),
) -> Result<Measured, LoadError> {
    let interface = match protocol {
        Protocol::Resp => return load::run(work, || RespClient::new(value_bytes, wait), mark),
        Protocol::Etcd => return load::run(work, || EtcdClient::new(value_bytes), mark),
        // The id of a node is its port here, as in the original's files.
        Protocol::Compat => Interface::Compat(work.targets[0].port().to_string()),
        Protocol::Rest => Interface::Rest,
    };
    load::run(work, || HttpClient::new(&interface, value_bytes), mark)
}

/// etcd's clients put many requests on one connection: the requests of more connections than these are
/// in flight on these. A pipeline has no meaning there.
fn share_connections(work: &mut Work) {
    let in_flight = work.connections * work.depth;
    work.connections = work.connections.min(ETCD_CONNECTIONS);
    work.depth = in_flight.div_ceil(work.connections);
    if work.pace == Pace::Batch {
        work.pace = Pace::Window;
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

#[cfg(test)]
mod tests {
    use super::{ETCD_CONNECTIONS, above_zero, positive, share_connections};
    use crate::load::{Keys, Pace, Work};
    use std::time::Duration;

    #[test]
    fn etcd_has_as_many_requests_in_flight_on_fewer_connections() {
        for (connections, depth, wanted) in [
            (1, 1, (1, 1)),
            (64, 1, (ETCD_CONNECTIONS, 4)),
            (1024, 1, (ETCD_CONNECTIONS, 64)),
            (4, 16, (4, 16)),
        ] {
            let mut work = Work {
                targets: Vec::new(),
                connections,
                depth,
                pace: Pace::Batch,
                keys: Keys::Random(1),
                reads_percent: 0,
                warm_up: Duration::ZERO,
                duration: Duration::ZERO,
            };
            share_connections(&mut work);
            assert_eq!((work.connections, work.depth), wanted);
            assert_eq!(work.pace, Pace::Window);
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        assert_eq!(positive("3"), Ok(3));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("x").is_err());
        assert_eq!(above_zero("0.5"), Ok(0.5));
        for text in ["0", "-1", "NaN", "inf", "1e9", "x"] {
            assert!(above_zero(text).is_err(), "{text}");
        }
    }
}
