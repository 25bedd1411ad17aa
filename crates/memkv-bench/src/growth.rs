//! The cost of an operation as the work grows: with the number of keys, the size of values, the
//! number of connections and the number of nodes. One table for each, and a section of
//! `docs/performance.md`.
//!
//! CPU time tells more here than rates: it grows if an algorithm is worse than it should be, and it
//! does not depend on whether cores or disk are the limit.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::compare::{machine, replace_section, thousands};
use crate::load::{Keys, Pace, Work};
use crate::machine::{Meter, resident_bytes};
use crate::protocol::Protocol;
use crate::run::{above_zero, fill, full, measure};
use crate::sample::Sample;
use crate::system::{Memkv, System, To};

/// The markers of the section in the page.
const MARKER: &str = "`cargo xtask bench growth`";

/// Bytes of a value where something else grows.
const VALUE_BYTES: usize = 64;

/// Keys where something else grows.
const KEYS: u64 = 20_000;

/// Keys where values grow: a mebibyte each must fit three times, with the log.
const LARGE_KEYS: u64 = 200;

#[derive(Args)]
pub(crate) struct Options {
    /// The most keys.
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Seconds of a sample.
    #[arg(long, default_value_t = 3.0, value_parser = above_zero)]
    seconds: f64,
    /// Where `performance.md` is; without it nothing is written.
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// One table.
struct Table {
    title: String,
    head: &'static [&'static str],
    lines: Vec<Vec<String>>,
}

impl Table {
    fn new(title: &str, head: &'static [&'static str]) -> Table {
        println!("\n{title}\n{}", Sample::HEAD);
        Table {
            title: title.to_owned(),
            head,
            lines: Vec::new(),
        }
    }

    /// In Markdown.
    fn text(&self) -> String {
        let row = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = self.head.iter().map(|cell| (*cell).to_owned()).collect();
        let rule = vec!["---".to_owned(); head.len()];
        let lines: String = self.lines.iter().map(|line| row(line)).collect();
        format!("{}:\n\n{}{}{lines}", self.title, row(&head), row(&rule))
    }
}

/// The load of a system.
struct Load {
    connections: usize,
    depth: usize,
    keys: u64,
    value_bytes: usize,
}

impl Load {
    fn sample(&self, memkv: &Memkv, reads: bool, seconds: f64) -> Result<Sample, String> {
        let work = Work {
            targets: Vec::new(),
            connections: self.connections,
            depth: self.depth,
            pace: Pace::Batch,
            keys: Keys::Random(usize::try_from(self.keys).unwrap_or(usize::MAX)),
            reads_percent: if reads { 100 } else { 0 },
            warm_up: Duration::from_millis(500),
            duration: Duration::from_secs_f64(seconds),
        };
        let sample = measure(memkv, Protocol::Resp, To::Leader, &work, self.value_bytes);
        let sample = sample.map_err(full)?;
        println!("{sample}");
        if sample.failed > 0 {
            let why = sample.complaint.unwrap_or_default();
            return Err(format!("{} requests failed: {why}", sample.failed));
        }
        Ok(sample)
    }

    /// CPU time of all nodes per key that is written for the first time, in microseconds.
    fn fill(&self, memkv: &Memkv) -> Result<f64, String> {
        let servers = memkv.processes();
        let mut meter = Meter::new(&servers);
        meter.mark();
        let filled = fill(memkv, Protocol::Resp, self.keys, self.value_bytes).map_err(full)?;
        meter.mark();
        if filled.failed > 0 {
            let why = filled.complaint.unwrap_or_default();
            return Err(format!("{} writes failed: {why}", filled.failed));
        }
        Ok(meter.used().servers.as_secs_f64() * 1e6 / self.keys as f64)
    }
}

/// Measures all tables.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let machine = machine()?;
    let tables = [
        keys(options)?,
        values(options)?,
        connections(options)?,
        nodes(options)?,
    ];
    let texts: Vec<String> = tables.iter().map(Table::text).collect();
    let text = texts.join("\n");
    println!("\n{text}");
    let Some(docs) = &options.docs else {
        return Ok(());
    };
    let page = docs.join("performance.md");
    let failed = |error: std::io::Error| format!("{}: {error}", page.display());
    let command = format!(
        "cargo xtask bench growth --keys {} --seconds {} --docs docs",
        options.keys, options.seconds
    );
    let section = format!("Written by `{command}`.\n\n{machine}\n\n{text}");
    let whole = fs::read_to_string(&page).map_err(failed)?;
    let whole = replace_section(&whole, MARKER, &section)
        .ok_or_else(|| format!("{} has no markers to write between", page.display()))?;
    println!("writing {}", page.display());
    fs::write(&page, whole).map_err(failed)
}

fn rate(sample: &Sample) -> String {
    thousands(sample.rate)
}

fn micros(micros: f64) -> String {
    format!("{micros:.1}")
}

/// Powers of ten from `first` up to `last`.
fn tens(first: u64, last: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(first), |number| number.checked_mul(10))
        .take_while(move |number| *number <= last)
}

fn keys(options: &Options) -> Result<Table, String> {
    let mut table = Table::new(
        "Keys of 16 bytes with values of 64, three nodes, c64 P16",
        &[
            "Keys",
            "new: CPU us",
            "SET/s",
            "CPU us",
            "GET/s",
            "CPU us",
            "bytes per key and node",
        ],
    );
    for keys in tens(1_000, options.keys) {
        let memkv = Memkv::start(3, "sync");
        let empty = resident_bytes(&memkv.processes());
        let load = Load {
            connections: 64,
            depth: 16,
            keys,
            value_bytes: VALUE_BYTES,
        };
        let new = load.fill(&memkv)?;
        let taken = resident_bytes(&memkv.processes()).saturating_sub(empty);
        let set = load.sample(&memkv, false, options.seconds)?;
        let get = load.sample(&memkv, true, options.seconds)?;
        // Below a hundred thousand keys, the node's other memory hides that of the keys.
        let each = match keys {
            ..100_000 => "-".to_owned(),
            _ => format!("{:.0}", taken as f64 / 3.0 / keys as f64),
        };
        table.lines.push(vec![
            keys.to_string(),
            micros(new),
            rate(&set),
            micros(set.cpu_us),
            rate(&get),
            micros(get.cpu_us),
            each,
        ]);
    }
    Ok(table)
}

fn values(options: &Options) -> Result<Table, String> {
    let mut table = Table::new(
        "Values, 200 keys, three nodes, c16 P1",
        &[
            "Bytes",
            "SET/s",
            "MB/s",
            "p50 ms",
            "CPU us",
            "CPU ns per byte",
            "GET/s",
            "CPU us",
            "CPU ns per byte",
        ],
    );
    for value_bytes in [16, 256, 4 << 10, 64 << 10, 1 << 20] {
        let memkv = Memkv::start(3, "sync");
        let load = Load {
            connections: 16,
            depth: 1,
            keys: LARGE_KEYS,
            value_bytes,
        };
        load.fill(&memkv)?;
        let set = load.sample(&memkv, false, options.seconds)?;
        let get = load.sample(&memkv, true, options.seconds)?;
        let per_byte = |sample: &Sample| format!("{:.2}", sample.cpu_us * 1e3 / value_bytes as f64);
        table.lines.push(vec![
            value_bytes.to_string(),
            rate(&set),
            format!("{:.1}", set.rate * value_bytes as f64 / 1e6),
            format!("{:.2}", set.p50_ms),
            micros(set.cpu_us),
            per_byte(&set),
            rate(&get),
            micros(get.cpu_us),
            per_byte(&get),
        ]);
    }
    Ok(table)
}

fn connections(options: &Options) -> Result<Table, String> {
    let mut table = Table::new(
        "Connections, 20,000 keys, values of 64 bytes, three nodes, P1",
        &[
            "Connections",
            "SET/s",
            "p50 ms",
            "CPU us",
            "GET/s",
            "p50 ms",
            "CPU us",
            "MiB of all nodes",
        ],
    );
    // The harness needs some connections of its own.
    let memkv = Memkv::start_with(3, &json!({ "max_connections": 20_000 }));
    let load = |connections| Load {
        connections,
        depth: 1,
        keys: KEYS,
        value_bytes: VALUE_BYTES,
    };
    load(1).fill(&memkv)?;
    for connections in tens(1, 10_000) {
        let load = load(usize::try_from(connections).unwrap_or(usize::MAX));
        let set = load.sample(&memkv, false, options.seconds)?;
        let get = load.sample(&memkv, true, options.seconds)?;
        table.lines.push(vec![
            connections.to_string(),
            rate(&set),
            format!("{:.2}", set.p50_ms),
            micros(set.cpu_us),
            rate(&get),
            format!("{:.2}", get.p50_ms),
            micros(get.cpu_us),
            format!("{:.0}", get.resident_bytes as f64 / 1048576.0),
        ]);
    }
    Ok(table)
}

fn nodes(options: &Options) -> Result<Table, String> {
    let mut table = Table::new(
        "Nodes, 20,000 keys, values of 64 bytes, c64 P1",
        &["Nodes", "SET/s", "p50 ms", "CPU us", "GET/s", "CPU us"],
    );
    for nodes in [1, 3, 5] {
        let memkv = Memkv::start(nodes, "sync");
        let load = Load {
            connections: 64,
            depth: 1,
            keys: KEYS,
            value_bytes: VALUE_BYTES,
        };
        load.fill(&memkv)?;
        let set = load.sample(&memkv, false, options.seconds)?;
        let get = load.sample(&memkv, true, options.seconds)?;
        table.lines.push(vec![
            nodes.to_string(),
            rate(&set),
            format!("{:.2}", set.p50_ms),
            micros(set.cpu_us),
            rate(&get),
            micros(get.cpu_us),
        ]);
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::{Table, tens};

    #[test]
    fn powers_of_ten_end_at_the_last() {
        assert_eq!(tens(1_000, 99_999).collect::<Vec<_>>(), [1_000, 10_000]);
        assert_eq!(tens(1, u64::MAX).count(), 20);
    }

    #[test]
    fn a_table_is_markdown() {
        let table = Table {
            title: "Keys".to_owned(),
            head: &["a", "b"],
            lines: vec![vec!["1".to_owned(), "2".to_owned()]],
        };
        assert_eq!(
            table.text(),
            "Keys:\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n"
        );
    }
}
