//! `memkv-bench compare`: measures every row of [`rows`], each system in turn and several times, and
//! writes the results as a page of the documentation.
//!
//! Systems of a row run at the same time, but only one has work; a sample is repeated if other
//! processes took more than a twelfth of the machine. A whole run writes the page; a run of
//! some rows only prints.

mod markdown;
mod plot;
mod rows;
mod svg;
mod times;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use crate::load::{Keys, LoadError, Pace, Work};
use crate::memory::bytes_per_key;
use crate::run::{above_zero, fill, full, measure, positive};
use crate::sample::Sample;
use crate::statistics::{Spread, median};
use crate::system::{Name, System};
pub(crate) use markdown::{machine, replace_section, thousands};
use rows::{Figure, Goal, Load, PLOTS, ROWS, Row, Run, SWEEP};
use times::Timed;

/// The markers of the section in the page.
const MARKER: &str = "`cargo xtask bench compare`";

/// Bytes of a value, and keys that the load is spread over.
const VALUE_BYTES: usize = 256;
const KEYS: usize = 20_000;

/// Bytes of a value and number of keys where bytes per key are measured.
const MEMORY_VALUE_BYTES: usize = 64;
const MEMORY_KEYS: u64 = 1_000_000;

const WARM_UP: Duration = Duration::from_millis(500);

/// Share of the machine that other work may take, and the number of attempts to stay below it. On a
/// machine that is never quiet the least disturbed sample counts.
const OTHER_MAX: f64 = 0.08;
const TRIES: usize = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// Only rows and plots whose titles hold one of these texts; the page is then not written.
    #[arg(long, value_delimiter = ',')]
    rows: Vec<String>,
    /// Seconds of a sample.
    #[arg(long, default_value_t = 4.0, value_parser = above_zero)]
    seconds: f64,
    /// Samples of each run.
    #[arg(long, default_value_t = 3, value_parser = positive)]
    times: usize,
    /// Kills of a leader.
    #[arg(long, default_value_t = 20)]
    trials: usize,
    /// Keys of the restarts.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Where `performance.md` and `performance/` are.
    #[arg(long, default_value = "docs")]
    docs: PathBuf,
    /// Write every sample to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The result of one repetition of a run.
enum Measure {
    Load(Sample),
    BytesPerKey(f64),
}

impl Measure {
    fn figure(&self, figure: Figure) -> f64 {
        match (self, figure) {
            (Measure::Load(sample), Figure::Rate) => sample.rate,
            (Measure::Load(sample), Figure::P50) => sample.p50_ms,
            (Measure::Load(sample), Figure::P99) => sample.p99_ms,
            (Measure::Load(sample), Figure::Cpu) => sample.cpu_us,
            (Measure::BytesPerKey(bytes), Figure::BytesPerKey) => *bytes,
            _ => f64::NAN,
        }
    }
}

/// All samples of some runs: by label, in the order of the rounds.
#[derive(Default)]
struct Measures(BTreeMap<&'static str, Vec<Measure>>);

impl Measures {
    fn values(&self, run: &str, figure: Figure) -> Vec<f64> {
        let measures = self.0.get(run).map_or(&[][..], Vec::as_slice);
        measures.iter().map(|one| one.figure(figure)).collect()
    }

    fn spread(&self, run: &str, figure: Figure) -> Spread {
        Spread::of(&self.values(run, figure))
    }

    /// The figure of a goal, which is a quotient of two medians, or a median; and the range of its
    /// values in the single rounds.
    fn reached(&self, goal: &Goal) -> Spread {
        let own = self.values(goal.run, goal.figure);
        let Some(against) = goal.against else {
            return Spread::of(&own);
        };
        let other = self.values(against, goal.figure);
        let quotients: Vec<f64> = own
            .iter()
            .zip(&other)
            .map(|(own, other)| own / other)
            .collect();
        Spread {
            median: median(&own) / median(&other),
            ..Spread::of(&quotients)
        }
    }

    /// Requests that failed.
    fn failed(&self, run: &str) -> u64 {
        let measures = self.0.get(run).map_or(&[][..], Vec::as_slice);
        let failed = measures.iter().map(|measure| match measure {
            Measure::Load(sample) => sample.failed + sample.unanswered,
            Measure::BytesPerKey(_) => 0,
        });
        failed.sum()
    }

    /// The largest share that other work took.
    fn most_other(&self, run: &str) -> f64 {
        let measures = self.0.get(run).map_or(&[][..], Vec::as_slice);
        let others = measures.iter().map(|measure| match measure {
            Measure::Load(sample) => sample.other,
            Measure::BytesPerKey(_) => 0.0,
        });
        others.fold(0.0, f64::max)
    }

    fn json(&self) -> Value {
        let runs = self.0.iter().map(|(label, measures)| {
            let measures = measures.iter().map(|measure| match measure {
                Measure::Load(sample) => sample.json(),
                Measure::BytesPerKey(bytes) => json!({ "bytes_per_key": bytes }),
            });
            ((*label).to_owned(), measures.collect::<Vec<_>>().into())
        });
        Value::Object(runs.collect())
    }
}

/// Everything.
#[derive(Default)]
struct Results {
    rows: Vec<(&'static Row, Measures)>,
    times: Vec<Timed>,
    /// For each plot, the measures at each number of connections.
    plots: Vec<(&'static rows::Plot, Vec<(usize, Measures)>)>,
}

/// Runs all rows, or some.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let began = Instant::now();
    let machine = machine()?;
    println!("{machine}");
    let wanted = |title: &str| {
        options.rows.is_empty()
            || options
                .rows
                .iter()
                .any(|text| title.contains(text.as_str()))
    };
    let mut results = Results::default();
    for row in ROWS.iter().filter(|row| wanted(row.title)) {
        println!("\n{}\n{}", row.title, Sample::HEAD);
        let measures = rounds(row.runs, options)?;
        markdown::print_goals(row, &measures);
        results.rows.push((row, measures));
    }
    results.times = times::measure(options, wanted)?;
    for plot in PLOTS.iter().filter(|plot| wanted(plot.title)) {
        println!(
            "\n{}: throughput against latency\n{}",
            plot.title,
            Sample::HEAD
        );
        results.plots.push((plot, sweep(plot.runs, options)?));
    }
    if results.is_empty() {
        return Err(format!("no row's title holds any of {:?}", options.rows));
    }
    println!("\nall of it took {:.0} s", began.elapsed().as_secs_f64());
    if let Some(path) = &options.json {
        write(path, &format!("{:#}\n", results.json(&machine)))?;
    }
    if options.rows.is_empty() {
        publish(&options.docs, &machine, &results, options)?;
    }
    Ok(())
}

impl Results {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.times.is_empty() && self.plots.is_empty()
    }

    fn json(&self, machine: &str) -> Value {
        let rows = self.rows.iter();
        let plots = self.plots.iter().map(|(plot, points)| {
            let points = points.iter();
            let points =
                points.map(|(connections, measures)| (connections.to_string(), measures.json()));
            (plot.title.to_owned(), Value::Object(points.collect()))
        });
        json!({
            "machine": machine.lines().collect::<Vec<_>>(),
            "rows": rows.map(|(row, measures)| (row.title.to_owned(), measures.json())).collect::<serde_json::Map<_, _>>(),
            "times": self.times.iter().map(Timed::json).collect::<Vec<_>>(),
            "plots": plots.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Writes the page and its plots.
fn publish(docs: &Path, machine: &str, results: &Results, options: &Options) -> Result<(), String> {
    let page = docs.join("performance.md");
    let text = fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?;
    let section = markdown::section(machine, results, options);
    let text = replace_section(&text, MARKER, &section)
        .ok_or_else(|| format!("{} has no markers to write between", page.display()))?;
    let dir = docs.join("performance");
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    for (plot, points) in &results.plots {
        write(
            &dir.join(plot.file).with_extension("svg"),
            &plot::draw(plot, points),
        )?;
    }
    write(&page, &text)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    println!("writing {}", path.display());
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

/// The systems of some runs, all started.
struct Systems(Vec<((Name, usize), Box<dyn System>)>);

impl Systems {
    fn start(runs: &[Run]) -> Result<Systems, String> {
        let mut systems = Systems(Vec::new());
        for run in runs.iter().filter(|run| run.load != Load::Memory) {
            let key = (run.system, run.nodes);
            if systems.0.iter().all(|(found, _)| *found != key) {
                systems.0.push((key, run.system.start(run.nodes, "sync")?));
            }
        }
        let filled = |run: &&Run| run.reads_percent > 0 && run.system != Name::Bare;
        for run in runs.iter().filter(filled) {
            let system = systems.of(run);
            fill(system, run.system.protocol(), KEYS as u64, VALUE_BYTES).map_err(full)?;
        }
        Ok(systems)
    }

    fn of(&self, run: &Run) -> &dyn System {
        let key = (run.system, run.nodes);
        let found = self.0.iter().find(|(found, _)| *found == key);
        &*found.expect("every system of a row was started").1
    }
}

/// Every run of a row in turn, with the requested repetitions.
fn rounds(runs: &[Run], options: &Options) -> Result<Measures, String> {
    let systems = Systems::start(runs)?;
    let mut measures = Measures::default();
    for _ in 0..options.times {
        for run in runs {
            let measure = match run.load {
                Load::Memory => {
                    let bytes = bytes_per_key(run.system, MEMORY_KEYS, MEMORY_VALUE_BYTES)?;
                    println!("{:<12} {bytes:>8.0} bytes per key", run.label);
                    Measure::BytesPerKey(bytes)
                }
                Load::Closed(connections, depth) => Measure::Load(quiet(run.label, || {
                    let work = work(run, (connections, depth), Pace::Batch, options.seconds);
                    load(systems.of(run), run, &work)
                })?),
                Load::HalfOfMaximum(connections) => Measure::Load(quiet(run.label, || {
                    let work = |pace, seconds| work(run, (connections, 1), pace, seconds);
                    let system = systems.of(run);
                    let most = load(system, run, &work(Pace::Batch, options.seconds / 2.0))?.rate;
                    load(system, run, &work(Pace::Rate(most / 2.0), options.seconds))
                })?),
            };
            measures.0.entry(run.label).or_default().push(measure);
        }
    }
    Ok(measures)
}

/// The same at every number of connections.
fn sweep(runs: &[Run], options: &Options) -> Result<Vec<(usize, Measures)>, String> {
    let systems = Systems::start(runs)?;
    let mut points = Vec::new();
    for connections in SWEEP {
        let mut measures = Measures::default();
        for _ in 0..options.times {
            for run in runs {
                // Half the time: no goal depends on a point of a plot.
                let work = work(run, (*connections, 1), Pace::Batch, options.seconds / 2.0);
                let sample = quiet(run.label, || load(systems.of(run), run, &work))?;
                let measures = measures.0.entry(run.label).or_default();
                measures.push(Measure::Load(sample));
            }
        }
        points.push((*connections, measures));
    }
    Ok(points)
}

/// A sample that little else disturbed.
fn quiet(label: &str, sample: impl Fn() -> Result<Sample, LoadError>) -> Result<Sample, String> {
    let mut best: Option<Sample> = None;
    for _ in 0..TRIES {
        let mut sample = sample().map_err(full)?;
        sample.system = label.to_owned();
        println!("{sample}");
        if best.as_ref().is_none_or(|best| sample.other < best.other) {
            best = Some(sample);
        }
        if best.as_ref().is_some_and(|best| best.other <= OTHER_MAX) {
            break;
        }
    }
    best.ok_or_else(|| "no sample was taken".to_owned())
}

fn load(system: &dyn System, run: &Run, work: &Work) -> Result<Sample, LoadError> {
    measure(system, run.protocol, run.to, work, VALUE_BYTES)
}

fn work(run: &Run, (connections, depth): (usize, usize), pace: Pace, seconds: f64) -> Work {
    Work {
        targets: Vec::new(),
        connections,
        depth,
        pace,
        keys: Keys::Random(KEYS),
        reads_percent: run.reads_percent,
        warm_up: WARM_UP,
        duration: Duration::from_secs_f64(seconds),
    }
}
