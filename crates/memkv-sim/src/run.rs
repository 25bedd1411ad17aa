//! One seed from its first to its last simulated moment: safety phase, liveness phase, judgement.
//!
//! Everything runs on one thread, in a runtime of its own with paused time, so that a seed means
//! the same run everywhere; with `--cfg tokio_unstable` that includes the scheduler's choices.

use std::sync::Arc;
use std::time::Duration;

use memkv_disk::disk::guard;

use crate::checker;
use crate::client::Workload;
use crate::cluster::{Cluster, Violation};
use crate::nemesis::Nemesis;
use crate::promise::Promise;
use crate::settle::{Rest, settle};
use crate::swarm::Swarm;
use crate::trace::{Counts, Trace};
use crate::worst_day::WorstDays;

/// How often the invariants are looked at, in simulated time.
const STEP: Duration = Duration::from_millis(20);
/// Longest time that a client waits for an answer, and a little.
const CLIENTS_END: Duration = Duration::from_secs(10);

/// With faults during formation, nodes start within this time, in milliseconds, so that formation
/// has a duration.
const START_WITHIN_MS: u64 = 2_000;

/// The parameters of a run besides its seed.
#[derive(Debug)]
pub struct Options {
    /// Simulated time under faults.
    pub duration: Duration,
    /// Where the trace's lines go.
    pub trace: Option<std::fs::File>,
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The decisions of the seed.
    pub swarm: Swarm,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// Checksum over all lines of the trace, and their number.
    pub digest: (u32, u64),
    /// How often each event happened.
    pub counts: Counts,
    /// Simulated time of the whole run.
    pub simulated: Duration,
    /// Simulated time from the end of the faults until all nodes served.
    pub recovery: Option<Duration>,
}

/// Runs a seed.
///
/// # Errors
/// If the runtime cannot be built.
pub fn run(seed: u64, options: Options) -> std::io::Result<Report> {
    let runtime = runtime(seed)?;
    // The one thread is that of every node's consensus.
    let _scope = guard::forbid();
    Ok(runtime.block_on(whole_run(seed, options)))
}

/// A runtime with paused time in which everything is a function of the seed, on this thread.
pub(crate) fn runtime(seed: u64) -> std::io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build()?;
    memkv_node::seed_engine_randomness(seed);
    Ok(runtime)
}

async fn whole_run(seed: u64, options: Options) -> Report {
    let trace = Arc::new(Trace::new(options.trace));
    let swarm = Swarm::new(seed);
    trace.line(format_args!("seed {seed}: {swarm:?}"));
    let cluster = Cluster::new(seed, swarm.clone(), trace.clone());
    let weak = Arc::downgrade(&cluster);
    cluster.net.witness(Box::new(move |from, request| {
        if let Some(cluster) = weak.upgrade() {
            guard::allow(|| cluster.invariants.sends(from, request, &cluster));
        }
    }));
    let workload = Workload::new(cluster.clone());
    let beside = [
        tokio::spawn(look(cluster.clone())),
        tokio::spawn(cluster.clone().operate()),
        tokio::spawn(cluster.clone().tend()),
        tokio::spawn(cluster.clone().mind_addresses()),
    ];
    let rest = tokio::select! {
        biased;
        () = cluster.broken() => None,
        rest = phases(&cluster, &workload, options.duration) => rest,
    };
    beside.iter().for_each(tokio::task::JoinHandle::abort);
    let simulated = Duration::from_micros(trace.micros());
    if let Some(rest) = &rest
        && cluster.violation().is_none()
    {
        guard::allow(|| check(&cluster, &workload, rest));
    }
    cluster.tear_down();
    Report {
        seed,
        swarm,
        violation: cluster.violation(),
        digest: trace.digest(),
        counts: trace.counts(),
        simulated,
        recovery: rest.map(|rest| rest.recovery),
    }
}

/// Looks at the invariants for ever.
pub(crate) async fn look(cluster: Arc<Cluster>) {
    let days = WorstDays::new(cluster.seed);
    loop {
        tokio::time::sleep(STEP).await;
        guard::allow(|| {
            cluster.invariants.check(&cluster);
            days.look(&cluster);
        });
        cluster.trace.count("looks at the invariants");
    }
}

async fn phases(
    cluster: &Arc<Cluster>,
    workload: &Arc<Workload>,
    duration: Duration,
) -> Option<Rest> {
    let swarm = &cluster.swarm;
    for slot in 0..cluster.nodes() {
        let late = if swarm.early_faults || swarm.wrong_lists {
            START_WITHIN_MS
        } else {
            0
        };
        cluster.start_after(slot, cluster.rng.millis(0, late));
    }
    let clients = workload.start();
    let nemesis = tokio::spawn(Nemesis::new(cluster.clone()).run());
    tokio::time::sleep(duration).await;
    nemesis.abort();
    Nemesis::relent(cluster);
    workload.stop();
    for client in clients {
        if tokio::time::timeout(CLIENTS_END, client).await.is_err() {
            cluster.violated(
                Promise::EveryCallEnds,
                "a client still waits for an answer".to_owned(),
            );
            return None;
        }
    }
    settle(cluster, workload).await
}

/// The checkers' verdicts on the history of the clients.
fn check(cluster: &Cluster, workload: &Workload, rest: &Rest) {
    // The last entries are younger than the last look.
    cluster.invariants.check(cluster);
    if let Err((promise, what)) = checker::plain(&workload.recorder.history(), rest) {
        cluster.violated(promise, what);
    }
    cluster
        .invariants
        .check_history(cluster, &workload.operations, rest);
}
