//! What a snapshot costs the writers: the longest gap between two acknowledged writes, in windows
//! in which a snapshot of the whole data set was taken and in windows in which none was, in turn
//! and in one run.
//!
//! The segments are so small that the cluster takes a snapshot after every few windows, so both
//! kinds of window come by themselves.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::Parser;
use memkv_tests::Cluster;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::load::{ask, connect};

/// Bytes of a value, as in the memory figures of other systems.
const VALUE_BYTES: usize = 64;
/// Connections that fill the data set.
const FILL_CONNECTIONS: u64 = 64;
/// How often the leader is asked for its newest snapshot.
const POLL: Duration = Duration::from_millis(50);
/// A window begins this long before a snapshot's end at the latest; building takes less.
const BUILD_MAX: Duration = Duration::from_secs(2);

#[derive(Parser)]
pub(crate) struct Options {
    /// Keys of 16 bytes, with values of 64.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Connections that write during the measurement.
    #[arg(long, default_value_t = 16)]
    connections: u64,
    /// Windows of each kind.
    #[arg(long, default_value_t = 5)]
    windows: usize,
    /// Seconds of a window.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
}

/// When the leader's newest snapshot changed.
type Changes = Arc<Mutex<Vec<Instant>>>;

pub(crate) fn run(options: &Options) {
    // A megabyte or two is written in a second: a snapshot every ten to twenty seconds.
    let settings = json!({
        "max_log_size": 4 * 1024 * 1024,
        "max_log_count": 4,
        "snapshot_growth_percent": 1,
    });
    let mut cluster = Cluster::configured_with(3, &settings);
    cluster.start_all();
    let leader = cluster.leader();
    let addr = cluster.nodes[leader].addr.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let filled = Instant::now();
    LocalSet::new().block_on(&runtime, fill(addr.clone(), options.keys));
    println!(
        "{} keys of 16 bytes, values of {VALUE_BYTES}, three nodes, durability sync, filled in {:.0} s",
        options.keys,
        filled.elapsed().as_secs_f64()
    );

    let changes = Changes::default();
    let stop = Arc::new(AtomicBool::new(false));
    let (seen, stopped) = (changes.clone(), stop.clone());
    let node = cluster.nodes.swap_remove(leader);
    let watcher = std::thread::spawn(move || {
        let mut last = Value::Null;
        while !stopped.load(Ordering::Relaxed) {
            let newest = node.status().map(|status| status["snapshot_index"].clone());
            if let Some(newest) = newest
                && newest != last
            {
                if !last.is_null() {
                    seen.lock().expect("no thread panics").push(Instant::now());
                }
                last = newest;
            }
            std::thread::sleep(POLL);
        }
        node
    });
    LocalSet::new().block_on(&runtime, measure(options, addr, &changes));
    stop.store(true, Ordering::Relaxed);
    drop(watcher.join());
}

fn put(key: u64) -> String {
    format!(
        "PUT /v1/kv/{key:016} HTTP/1.1\r\nHost: memkv\r\nContent-Length: {VALUE_BYTES}\r\n\
         Connection: Keep-Alive\r\n\r\n{}",
        "v".repeat(VALUE_BYTES)
    )
}

async fn fill(addr: String, keys: u64) {
    let mut tasks = Vec::new();
    for first in 0..FILL_CONNECTIONS {
        let addr = addr.clone();
        tasks.push(tokio::task::spawn_local(async move {
            let mut stream = connect(&addr)
                .await
                .expect("the leader accepts connections");
            let mut buffer = Vec::new();
            for key in (first..keys).step_by(FILL_CONNECTIONS as usize) {
                let asked = ask(&mut stream, put(key).as_bytes(), &mut buffer).await;
                asked.expect("the leader answers");
            }
        }));
    }
    for task in tasks {
        task.await.expect("filling does not panic");
    }
}

/// The writers' view: when a write was last acknowledged, and the longest wait since it was reset.
struct Gap {
    last: Cell<Instant>,
    longest: Cell<Duration>,
}

async fn measure(options: &Options, addr: String, changes: &Changes) {
    let gap = Rc::new(Gap {
        last: Cell::new(Instant::now()),
        longest: Cell::new(Duration::ZERO),
    });
    for connection in 0..options.connections {
        let (addr, gap, keys) = (addr.clone(), gap.clone(), options.keys);
        tokio::task::spawn_local(async move {
            let mut stream = connect(&addr)
                .await
                .expect("the leader accepts connections");
            let mut buffer = Vec::new();
            for number in connection.. {
                // Fibonacci hashing spreads consecutive numbers over the keys.
                let key = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % keys;
                let asked = ask(&mut stream, put(key).as_bytes(), &mut buffer).await;
                asked.expect("the leader answers");
                let now = Instant::now();
                gap.longest
                    .set(gap.longest.get().max(now - gap.last.replace(now)));
            }
        });
    }
    println!("{:>8} {:>10} {:>10}", "window", "snapshot", "gap ms");
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let window = Duration::from_secs(options.seconds);
    // A run that never meets one kind of window must end all the same.
    for number in 0..options.windows * 10 {
        if with.len() >= options.windows && without.len() >= options.windows {
            break;
        }
        let begin = Instant::now();
        gap.longest.set(Duration::ZERO);
        tokio::time::sleep(window).await;
        let (end, longest) = (Instant::now(), gap.longest.get());
        // A snapshot that ends soon after the window was being built in it.
        tokio::time::sleep(BUILD_MAX).await;
        let taken = changes
            .lock()
            .expect("no thread panics")
            .iter()
            .any(|at| *at >= begin && *at <= end + BUILD_MAX);
        let millis = longest.as_secs_f64() * 1e3;
        println!(
            "{number:>8} {:>10} {millis:>10.1}",
            if taken { "yes" } else { "no" }
        );
        if taken {
            with.push(millis)
        } else {
            without.push(millis)
        }
    }
    let (with, without) = (median(with), median(without));
    println!(
        "median of the longest gaps: {with:.1} ms with a snapshot, {without:.1} ms without: {:+.1} ms",
        with - without
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
