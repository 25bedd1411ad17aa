//! `memkv-sim`: runs seeds, prints what they found, and fails if anything did.
//! Never decides what a run is; see the library.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::Parser;
use memkv_sim::{Options, Promise, Report, bugs, coverage, run};
use mimalloc::MiMalloc;
use parking_lot::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What a seed's run takes if nothing else is said.
const DEFAULT_SECONDS: u64 = 30;

/// A seed allocates millions of times.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Whole memkv clusters in simulated time, from one seed each.
#[derive(Parser)]
#[command(name = "memkv-sim")]
struct Arguments {
    /// Runs this seed only.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Number of seeds to run.
    #[arg(long, default_value_t = coverage::SEEDS)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Simulated seconds under faults, for each seed.
    #[arg(long, default_value_t = DEFAULT_SECONDS)]
    seconds: u64,
    /// Switches a deliberate bug on, stops at the first seed that sees a promise broken which the bug
    /// breaks, and fails.
    #[arg(long)]
    bug: Option<String>,
    /// Looks for every deliberate bug, each in a process of its own, and fails if one is not found.
    #[arg(long, conflicts_with_all = ["bug", "seed"])]
    every_bug: bool,
    /// Writes the trace of `--seed` to this file.
    #[arg(long, requires = "seed")]
    trace: Option<std::path::PathBuf>,
    /// Seeds that run at the same time, each on a thread of its own.
    #[arg(long)]
    jobs: Option<usize>,
    /// Runs every seed again in a process of its own, and fails if its trace differs.
    #[arg(long)]
    twice: bool,
    /// Prints what floors are computed from, as rows of their table, instead of holding them.
    #[arg(long)]
    measure: bool,
    /// Prints a line for every seed.
    #[arg(long)]
    verbose: bool,
}

thread_local! {
    /// The seed that this thread runs, for the text of a panic.
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    /// What panicked first in this thread's seed: only the task ends that it happened in.
    static PANIC: std::cell::RefCell<Option<String>> = const { std::cell::RefCell::new(None) };
}

/// The results of all threads so far.
#[derive(Default)]
struct Total {
    tallies: coverage::Tallies,
    /// By seed: the promise that was broken; `None` if the seed did not run at all.
    failures: BTreeMap<u64, Option<Promise>>,
    simulated: Duration,
    busy: Duration,
    slowest_recovery: (Duration, u64),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let breaks = match arguments.bug.as_deref().map(bugs::switch_on).transpose() {
        Ok(breaks) => breaks.unwrap_or_default(),
        Err(why) => {
            eprintln!("memkv-sim: {why}");
            return ExitCode::from(2);
        }
    };
    if arguments.every_bug {
        return find_every_bug(arguments.seeds);
    }
    explain_panics();
    // Without a filter in `RUST_LOG` nothing is logged. Wall clock times would only confuse.
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::builder()
                .with_default_directive(LevelFilter::OFF.into())
                .from_env_lossy(),
        )
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    let seeds = match arguments.seed {
        Some(seed) => seed..seed + 1,
        None => arguments.from..arguments.from.saturating_add(arguments.seeds),
    };
    let total = run_all(&arguments, breaks, seeds.clone());
    conclude(&arguments, breaks, seeds.end - seeds.start, &total)
}

/// Runs this program once for each deliberate bug, because a bug is switched on for a process.
fn find_every_bug(seeds: u64) -> ExitCode {
    let mut missed = 0;
    let mut looked = 0;
    for bug in bugs::names() {
        looked += 1;
        let [seeds, from] = [seeds, bugs::first_seed(bug)].map(|number| number.to_string());
        let output = std::env::current_exe().and_then(|program| {
            Command::new(program)
                .args(["--bug", bug, "--seeds", &seeds, "--from", &from])
                .output()
        });
        // A run with a bug fails by finding it, so only its last output tells the two apart.
        let said = match output {
            Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
            Err(error) => error.to_string(),
        };
        let verdict = said.lines().last().unwrap_or_default();
        println!("{verdict}");
        missed += u32::from(!verdict.starts_with(&format!("{bug}: found")));
    }
    println!("{looked} deliberate bugs, {missed} of them not found");
    if missed == 0 && looked > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A panic must say which seed it was, and be found at its end.
fn explain_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        default(panic);
        let seed = SEED.get();
        PANIC.with_borrow_mut(|first| first.get_or_insert_with(|| panic.to_string()).len());
        eprintln!(
            "VIOLATION seed {seed}: {}\nreplay: cargo xtask sim --seed {seed}",
            Promise::NothingPanics
        );
    }));
}

/// Runs all seeds, or those up to the first that sees one of the promises broken that a bug `breaks`.
fn run_all(arguments: &Arguments, breaks: &[Promise], seeds: std::ops::Range<u64>) -> Total {
    let total = Mutex::new(Total::default());
    let next = AtomicU64::new(seeds.start);
    let enough = AtomicBool::new(false);
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.unwrap_or(available).max(1);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let broken = run_one(arguments, seed, &total);
                    if broken.is_some_and(|promise| breaks.contains(&promise)) {
                        enough.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    total.into_inner()
}

/// Runs a seed and adds it up; the promise that it found broken.
fn run_one(arguments: &Arguments, seed: u64, total: &Mutex<Total>) -> Option<Promise> {
    SEED.set(seed);
    let began = cpu_time();
    let duration = Duration::from_secs(arguments.seconds);
    let outcome = open_trace(arguments).and_then(|trace| run(seed, Options { duration, trace }));
    let took = cpu_time().saturating_sub(began);
    let panic = PANIC.take();
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            println!("seed {seed} did not run: {error}");
            total.lock().failures.insert(seed, None);
            return None;
        }
    };
    if arguments.verbose || arguments.seed.is_some() {
        describe(&report, took);
    }
    let twin = || {
        let differs = arguments.twice.then(|| compare_twin(arguments, &report))?;
        Some((Promise::OneRun, differs?))
    };
    let violation = report.violation.as_ref();
    let broken = violation
        .map(|violation| (violation.promise, violation.seen.clone()))
        .or_else(|| Some((Promise::NothingPanics, panic?)))
        .or_else(twin);
    let mut total = total.lock();
    total.add(&report, took);
    let (promise, seen) = broken?;
    let mut replay = format!("cargo xtask sim --seed {seed}");
    if arguments.seconds != DEFAULT_SECONDS {
        replay.push_str(&format!(" --seconds {}", arguments.seconds));
    }
    if let Some(bug) = &arguments.bug {
        replay.push_str(&format!(" --bug {bug}"));
    }
    println!("VIOLATION seed {seed}: {promise}: {seen}\nreplay: {replay}");
    total.failures.insert(seed, Some(promise));
    Some(promise)
}

impl Total {
    fn add(&mut self, report: &Report, took: Duration) {
        self.busy += took;
        self.simulated += report.simulated;
        coverage::add(&mut self.tallies, &report.counts);
        let recovery = report.recovery.unwrap_or_default();
        self.slowest_recovery = self.slowest_recovery.max((recovery, report.seed));
    }
}

/// Runs a seed in another process; what differs.
fn compare_twin(arguments: &Arguments, report: &Report) -> Option<String> {
    let run = || {
        let (seed, seconds) = (report.seed.to_string(), arguments.seconds.to_string());
        Command::new(std::env::current_exe()?)
            .args(["--seed", &seed, "--seconds", &seconds])
            .output()
    };
    let there = match run() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => return Some(format!("a second process did not run: {error}")),
    };
    let here = digest(report);
    (!there.contains(&here)).then(|| format!("{here} here, there {there}"))
}

/// A short description of the trace.
fn digest(report: &Report) -> String {
    let (digest, lines) = report.digest;
    format!("trace {digest:08x} of {lines} lines")
}

/// Processor time of this thread; 0 where the kernel does not tell.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn open_trace(arguments: &Arguments) -> std::io::Result<Option<std::fs::File>> {
    arguments
        .trace
        .as_ref()
        .map(std::fs::File::create)
        .transpose()
}

fn describe(report: &Report, took: Duration) {
    println!(
        "seed {} nodes {} {}, {:.1} s simulated in {:.3} s",
        report.seed,
        report.swarm.nodes,
        digest(report),
        report.simulated.as_secs_f64(),
        took.as_secs_f64()
    );
}

fn conclude(arguments: &Arguments, breaks: &[Promise], seeds: u64, total: &Total) -> ExitCode {
    for (name, tally) in &total.tallies {
        if arguments.measure {
            println!("    {}", coverage::measured(name, tally, seeds));
        } else {
            println!("{:>12} {name}", tally.total);
        }
    }
    let speed = total.simulated.as_secs_f64() / total.busy.as_secs_f64().max(f64::EPSILON);
    println!(
        "{seeds} seeds, {:.0} s simulated, {speed:.0} times real time per core; slowest recovery \
         {:.1} s (seed {})",
        total.simulated.as_secs_f64(),
        total.slowest_recovery.0.as_secs_f64(),
        total.slowest_recovery.1,
    );
    if let Some(bug) = &arguments.bug {
        return conclude_hunt(bug, breaks, seeds, total);
    }
    let missed = if arguments.seconds >= coverage::SECONDS && !arguments.measure {
        coverage::missed(&total.tallies, seeds)
    } else {
        Vec::new()
    };
    for floor in &missed {
        println!("TOO LITTLE PROOF: {floor}");
    }
    println!("{} violations", total.failures.len());
    if total.failures.is_empty() && missed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Whether what was seen is what the bug breaks. Finding it is a failure, as every violation is.
fn conclude_hunt(bug: &str, breaks: &[Promise], seeds: u64, total: &Total) -> ExitCode {
    let seen = total
        .failures
        .iter()
        .filter_map(|(seed, promise)| Some((seed, (*promise)?)));
    let (found, others): (Vec<_>, Vec<_>) = seen.partition(|(_, promise)| breaks.contains(promise));
    if let Some((seed, promise)) = found.first() {
        println!("{bug}: found by seed {seed}: {promise}");
        return ExitCode::FAILURE;
    }
    let others: BTreeSet<&str> = others.iter().map(|(_, other)| other.words()).collect();
    let others: Vec<&str> = others.into_iter().collect();
    let others = match others.is_empty() {
        true => String::new(),
        false => format!(", which have seen only: {}", others.join("; ")),
    };
    println!("{bug}: NOT found by {seeds} seeds{others}");
    ExitCode::SUCCESS
}
