//! A few seeds as part of the ordinary tests; `cargo xtask sim` runs many.

use std::process::Command;
use std::time::Duration;

use memkv_sim::{Options, Report, run};

/// Simulated time under faults: enough for formation, some faults and a replacement.
const DURATION: Duration = Duration::from_secs(8);

fn simulate(seed: u64) -> Report {
    let options = Options {
        duration: DURATION,
        trace: None,
    };
    let report = run(seed, options).expect("a runtime");
    if let Some(violation) = &report.violation {
        panic!("{violation}\nreplay: cargo xtask sim --seed {seed}");
    }
    report
}

#[test]
fn seeds_keep_every_promise_and_do_something() {
    let mut sizes = std::collections::BTreeSet::new();
    for seed in 1..=6 {
        let report = simulate(seed);
        sizes.insert(report.swarm.nodes);
        let count = |name| report.counts.get(name).copied().unwrap_or(0);
        assert!(report.simulated >= DURATION);
        assert!(
            report.recovery.is_some(),
            "seed {seed} did not come to rest"
        );
        assert!(count("writes") > 0 && count("reads") > 0, "seed {seed}");
        assert!(count("elections") > 0, "seed {seed} had no leader");
    }
    assert!(sizes.len() > 1, "all clusters had {sizes:?} nodes");
}

/// The scheduler's choices are part of a seed only with `--cfg tokio_unstable`.
#[cfg(tokio_unstable)]
#[test]
fn a_seed_is_the_same_run_in_every_process() {
    for seed in 7..=9 {
        let here = simulate(seed);
        let (digest, lines) = here.digest;
        let output = replay(&["--seed", &seed.to_string(), "--seconds", "8"]);
        let expected = format!("trace {digest:08x} of {lines} lines");
        assert!(
            output.contains(&expected),
            "{expected} here, there {output}"
        );
    }
}

/// What the program prints.
fn replay(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_memkv-sim"))
        .args(arguments)
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn a_single_seed_writes_its_trace() {
    let path = std::env::temp_dir().join(format!("memkv-sim-trace-{}", std::process::id()));
    let file = path.to_string_lossy().into_owned();
    let output = replay(&["--seed", "4", "--seconds", "2", "--trace", &file]);
    let trace = std::fs::read_to_string(&path).expect("a trace");
    std::fs::remove_file(&path).expect("the trace is ours");
    assert!(
        output.contains(&format!("of {} lines", trace.lines().count())),
        "{output}"
    );
    assert!(trace.contains("leads in term"), "{trace}");
}

#[cfg(not(memkv_bugs))]
#[test]
fn a_plain_build_has_no_bugs_to_switch_on() {
    assert_eq!(memkv_sim::bugs::names().count(), 0);
    assert!(memkv_sim::bugs::switch_on("skip-fsync").is_err());
}
