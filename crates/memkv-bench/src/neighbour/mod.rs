//! The cost of one demanding client for the others: p50 and p99 of sixteen clients' SETs and GETs,
//! alone and beside a client that loops MSET, MGET, a large SET, a large GET, or a transaction of
//! large COPYs. memkv and Valkey in turn, in the same run.

mod client;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;

use self::client::{Client, Kind, Running};
use crate::compare::{machine, replace_section};
use crate::load::{Keys, Pace, Work};
use crate::protocol::Protocol;
use crate::run::{above_zero, fill, full, measure, positive};
use crate::sample::Sample;
use crate::statistics::Spread;
use crate::system::{Name, System, To};

/// The markers of the section in the page.
const MARKER: &str = "`cargo xtask bench neighbour`";

const CONNECTIONS: usize = 16;
const VALUE_BYTES: usize = 256;
const KEYS: usize = 20_000;
const WARM_UP: Duration = Duration::from_millis(500);
/// Longer than the first answer of any neighbour takes.
const FIRST_ANSWER: Duration = Duration::from_secs(60);

/// The largest ratio of memkv's p99 to Valkey's beside the same neighbour.
const OF_VALKEY: f64 = 0.5;
/// The largest ratio of the p99 of GET beside neighbours that keep the store busy to that of GET alone.
const OF_ALONE: f64 = 3.0;

#[derive(Args)]
pub(crate) struct Options {
    /// Seconds of a sample.
    #[arg(long, default_value_t = 4.0, value_parser = above_zero)]
    seconds: f64,
    /// Samples of each row.
    #[arg(long, default_value_t = 3, value_parser = positive)]
    times: usize,
    /// Only neighbours whose names hold one of these texts.
    #[arg(long, value_delimiter = ',')]
    beside: Vec<String>,
    /// Leave Valkey out.
    #[arg(long)]
    alone: bool,
    /// Where `performance.md` is; without it nothing is written.
    #[arg(long)]
    docs: Option<PathBuf>,
}

/// The load of sixteen clients, and their neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    reads: bool,
    /// Index of the neighbour in [`Kind::ALL`]; without it the clients are alone.
    beside: Option<usize>,
}

impl Row {
    fn kind(self) -> Option<Kind> {
        self.beside.and_then(|index| Kind::ALL.get(index).copied())
    }

    fn name(self) -> &'static str {
        self.kind().map_or("alone", Kind::name)
    }
}

/// The results of a system's samples of a row, in milliseconds and per second.
#[derive(Default)]
struct Figures {
    p50s: Vec<f64>,
    p99s: Vec<f64>,
    rounds: Vec<f64>,
}

type Measured = BTreeMap<(Row, &'static str), Figures>;

const MEMKV: &str = "memkv";
const VALKEY: &str = "Valkey+WAIT";

/// Measures all rows, and prints their results.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let machine = machine()?;
    println!("{machine}");
    let mut systems = vec![(MEMKV, Name::Memkv.start(3, "sync")?)];
    if !options.alone {
        systems.push((VALKEY, Name::Valkey.start(3, "sync")?));
    }
    let mut neighbours = Vec::new();
    for (_, system) in &systems {
        fill(&**system, Protocol::Resp, KEYS as u64, VALUE_BYTES).map_err(full)?;
        let addr = system.addrs(To::Leader)[0];
        let mut client = Client::connect(addr, system.wait().is_some())?;
        client.prepare()?;
        neighbours.push(client);
    }
    let is_wanted = |kind: &Kind| {
        let named = |text: &String| kind.name().contains(text.as_str());
        options.beside.is_empty() || options.beside.iter().any(named)
    };
    let indexes = (0..Kind::ALL.len()).filter(|index| is_wanted(&Kind::ALL[*index]));
    let beside: Vec<Option<usize>> = std::iter::once(None).chain(indexes.map(Some)).collect();
    let mut measured = Measured::new();
    println!("\n{}", Sample::HEAD);
    for _ in 0..options.times {
        for beside in &beside {
            for reads in [false, true] {
                let row = Row {
                    reads,
                    beside: *beside,
                };
                for ((label, system), client) in systems.iter().zip(&mut neighbours) {
                    let (sample, rounds) = sample(&**system, client, row, options)?;
                    println!("{sample}  {label}, {}: {rounds:.1}/s", row.name());
                    let figures = measured.entry((row, *label)).or_default();
                    figures.p50s.push(sample.p50_ms);
                    figures.p99s.push(sample.p99_ms);
                    figures.rounds.push(rounds);
                }
            }
        }
    }
    let table = table(&measured);
    println!("\n{table}");
    match &options.docs {
        Some(docs) => publish(docs, &machine, &table, options),
        None => Ok(()),
    }
}

/// One sample, and the neighbour's rounds per second.
fn sample(
    system: &dyn System,
    client: &mut Client,
    row: Row,
    options: &Options,
) -> Result<(Sample, f64), String> {
    let work = Work {
        targets: Vec::new(),
        connections: CONNECTIONS,
        depth: 1,
        pace: Pace::Batch,
        keys: Keys::Random(KEYS),
        reads_percent: if row.reads { 100 } else { 0 },
        warm_up: WARM_UP,
        duration: Duration::from_secs_f64(options.seconds),
    };
    let load = || measure(system, Protocol::Resp, To::Leader, &work, VALUE_BYTES).map_err(full);
    let Some(kind) = row.kind() else {
        return Ok((load()?, 0.0));
    };
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let running = Running::start(scope, client, kind, &stop, &done);
        let limit = Instant::now() + FIRST_ANSWER;
        while done.load(Ordering::Relaxed) == 0 && !running.has_failed() && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
        let sample = load();
        let rounds = (done.load(Ordering::Relaxed) - before) as f64;
        let rounds = rounds / began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        running.end()?;
        Ok((sample?, rounds))
    })
}

/// The goal of a row, its result, and whether the result is enough.
fn goals(row: Row, measured: &Measured) -> Vec<(String, bool)> {
    let p99 = |row, label| {
        let figures = measured.get(&(row, label));
        figures.map(|figures| Spread::of(&figures.p99s).median)
    };
    let Some(own) = p99(row, MEMKV) else {
        return Vec::new();
    };
    let mut goals = Vec::new();
    let mut goal = |other: Option<f64>, most: f64, what: &str| {
        if let Some(other) = other {
            let times = own / other;
            goals.push((format!("{times:.2}x {what} (<= {most}x)"), times <= most));
        }
    };
    if row.beside.is_some() {
        goal(p99(row, VALKEY), OF_VALKEY, "Valkey's");
    }
    let keeps_store_busy = matches!(row.kind(), Some(Kind::Mset | Kind::Mget | Kind::Copies));
    if row.reads && keeps_store_busy {
        let alone = Row {
            beside: None,
            ..row
        };
        goal(p99(alone, MEMKV), OF_ALONE, "alone");
    }
    goals
}

/// In Markdown, medians with the least and the most.
fn table(measured: &Measured) -> String {
    let cell = |values: &[f64]| {
        let spread = Spread::of(values);
        format!(
            "{:.2} ({:.2} to {:.2})",
            spread.median, spread.low, spread.high
        )
    };
    let mut text = String::from(
        "| Clients | Neighbour | System | p50 ms | p99 ms | Neighbour's rounds/s | p99 of memkv | |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for ((row, label), figures) in measured {
        let goals = match *label {
            MEMKV => goals(*row, measured),
            _ => Vec::new(),
        };
        let shown: Vec<&str> = goals.iter().map(|(text, _)| text.as_str()).collect();
        let verdict = match (goals.is_empty(), goals.iter().all(|(_, reached)| *reached)) {
            (true, _) => "",
            (_, true) => "reached",
            (_, false) => "not reached",
        };
        let rounds = match row.beside {
            Some(_) => format!("{:.1}", Spread::of(&figures.rounds).median),
            None => String::new(),
        };
        text.push_str(&format!(
            "| 16 x {} | {} | {label} | {} | {} | {rounds} | {} | {verdict} |\n",
            if row.reads { "GET" } else { "SET" },
            row.name(),
            cell(&figures.p50s),
            cell(&figures.p99s),
            shown.join("; "),
        ));
    }
    text
}

/// Writes the section of the page.
fn publish(
    docs: &std::path::Path,
    machine: &str,
    table: &str,
    options: &Options,
) -> Result<(), String> {
    let page = docs.join("performance.md");
    let failed = |error| format!("{}: {error}", page.display());
    let text = fs::read_to_string(&page).map_err(failed)?;
    let section = format!(
        "\nWritten by `cargo xtask bench neighbour --seconds {} --times {} --docs docs`.\n\n{machine}\n{table}\n",
        options.seconds, options.times,
    );
    let text = replace_section(&text, MARKER, &section)
        .ok_or_else(|| format!("{} has no markers to write between", page.display()))?;
    fs::write(&page, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(p99: f64) -> Figures {
        Figures {
            p50s: vec![1.0],
            p99s: vec![p99],
            rounds: vec![9.0],
        }
    }

    #[test]
    fn a_row_is_held_against_valkey_and_reads_against_themselves_alone() {
        let row = |reads, beside| Row { reads, beside };
        let mut measured = Measured::new();
        measured.insert((row(true, None), MEMKV), figures(2.0));
        measured.insert((row(true, None), VALKEY), figures(1.0));
        measured.insert((row(true, Some(0)), MEMKV), figures(6.0));
        measured.insert((row(true, Some(0)), VALKEY), figures(11.0));
        measured.insert((row(false, Some(2)), MEMKV), figures(9.0));
        let reached = |row| {
            let goals = goals(row, &measured);
            goals.iter().map(|(_, ok)| *ok).collect::<Vec<_>>()
        };
        assert_eq!(reached(row(true, None)), Vec::<bool>::new());
        assert_eq!(reached(row(true, Some(0))), vec![false, true]);
        assert_eq!(reached(row(false, Some(2))), Vec::<bool>::new());
        let text = table(&measured);
        assert!(text.contains("| 16 x GET | MSET of 100,000 keys | memkv | 1.00 (1.00 to 1.00)"));
        assert!(
            text.contains("3.00x alone (<= 3x) | not reached |"),
            "{text}"
        );
    }
}
