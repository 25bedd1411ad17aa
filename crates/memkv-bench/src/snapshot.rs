//! The cost of a snapshot for writers: the 99th percentile of their latency and the longest gap
//! between two acknowledged writes, in windows in which a snapshot of the whole data set was taken
//! and in windows in which none was, in turn and in one run.
//!
//! The segments are so small that the cluster takes a snapshot after every few windows, so both
//! kinds of window occur without further action.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use memkv_black_box::Http;
use serde_json::{Value, json};

use crate::load::{Keys, Pace, Work};
use crate::protocol::Protocol;
use crate::run::{drive, fill, full, positive};
use crate::statistics::median;
use crate::system::{Memkv, System, To};

/// Bytes of a value, as in the memory figures of other systems.
const VALUE_BYTES: usize = 64;
/// Interval between two requests for the leader's newest snapshot.
const POLL: Duration = Duration::from_millis(50);
/// A window begins this long before a snapshot's end at the latest; building takes less.
const BUILD_MAX: Duration = Duration::from_secs(6);

#[derive(Parser)]
pub(crate) struct Options {
    /// Keys of 16 bytes, with values of 64.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Connections that write during the measurement.
    #[arg(long, default_value_t = 16, value_parser = positive)]
    connections: usize,
    /// Windows of each kind.
    #[arg(long, default_value_t = 5)]
    windows: usize,
    /// Seconds of a window.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

/// When the leader's newest snapshot changed.
type Changes = Arc<Mutex<Vec<Instant>>>;

/// Figures of one kind of window, in milliseconds.
#[derive(Default)]
struct Windows {
    gaps: Vec<f64>,
    p99s: Vec<f64>,
}

/// Runs until there are enough windows of both kinds.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    // Two megabytes or three are written in a second: a snapshot every fifteen to thirty seconds.
    let memkv = Memkv::start_with(
        3,
        &json!({
            "max_log_size": 8 * 1024 * 1024,
            "max_log_count": 4,
            "snapshot_growth_percent": 1,
        }),
    );
    let filled = fill(&memkv, Protocol::Resp, options.keys, VALUE_BYTES).map_err(full)?;
    println!(
        "{} keys of 16 bytes, values of {VALUE_BYTES}, three nodes, durability sync, filled in {:.0} s",
        options.keys, filled.seconds
    );
    let changes = Changes::default();
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, stopped) = (changes.clone(), stop.clone());
    let leader = memkv.addrs(To::Leader)[0].to_string();
    let watcher = std::thread::spawn(move || watch(&leader, &seen, &stopped));
    let outcome = measure(options, &memkv, &changes);
    stop.store(true, Ordering::Relaxed);
    drop(watcher.join());
    outcome
}

fn watch(leader: &str, seen: &Changes, stopped: &AtomicBool) {
    let mut last = Value::Null;
    while !stopped.load(Ordering::Relaxed) {
        let status = Http::once(leader, "GET", "/v1/status", b"").ok();
        let status = status.and_then(|response| serde_json::from_slice(&response.body).ok());
        if let Some(newest) = status.map(|status: Value| status["snapshot_index"].clone())
            && newest != last
        {
            if !last.is_null() {
                seen.lock().expect("no thread panics").push(Instant::now());
            }
            last = newest;
        }
        std::thread::sleep(POLL);
    }
}

fn measure(options: &Options, memkv: &Memkv, changes: &Changes) -> Result<(), String> {
    let work = |duration| Work {
        targets: memkv.addrs(To::Leader),
        connections: options.connections,
        depth: 1,
        pace: Pace::Batch,
        keys: Keys::Random(usize::try_from(options.keys).unwrap_or(usize::MAX)),
        reads_percent: 0,
        warm_up: Duration::ZERO,
        duration,
    };
    let window = work(Duration::from_secs(options.seconds));
    let after = work(BUILD_MAX);
    let load = |work| drive(Protocol::Resp, None, work, VALUE_BYTES, || {}).map_err(full);
    println!(
        "{:>8} {:>10} {:>10} {:>10}",
        "window", "snapshot", "gap ms", "p99 ms"
    );
    let (mut with, mut without) = (Windows::default(), Windows::default());
    // A run without one kind of window must end too.
    for number in 0..options.windows * 10 {
        if with.gaps.len() >= options.windows && without.gaps.len() >= options.windows {
            break;
        }
        let begin = Instant::now();
        let measured = load(&window)?;
        let end = Instant::now();
        // A snapshot that ends soon after the window was being built in it.
        load(&after)?;
        let taken = changes
            .lock()
            .expect("no thread panics")
            .iter()
            .any(|at| *at >= begin && *at <= end + BUILD_MAX);
        let gap = measured.longest_gap.as_secs_f64() * 1e3;
        let p99 = measured.writes.quantile(0.99).as_secs_f64() * 1e3;
        println!(
            "{number:>8} {:>10} {gap:>10.1} {p99:>10.2}",
            if taken { "yes" } else { "no" }
        );
        let windows = if taken { &mut with } else { &mut without };
        windows.gaps.push(gap);
        windows.p99s.push(p99);
    }
    let (gap, gap_without) = (median(&with.gaps), median(&without.gaps));
    println!(
        "median of the longest gaps: {gap:.1} ms with a snapshot, {gap_without:.1} ms without: {:+.1} ms",
        gap - gap_without
    );
    let (p99, p99_without) = (median(&with.p99s), median(&without.p99s));
    println!(
        "median of the 99th percentiles: {p99:.2} ms with a snapshot, {p99_without:.2} ms without: {:.2}x",
        p99 / p99_without
    );
    Ok(())
}
