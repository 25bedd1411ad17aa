//! `cargo xtask test`: everything that must pass, in the order in which a failure is cheapest to
//! find. Later steps run even if earlier ones failed, so that one run finds every failure.

use std::fs;
use std::path::Path;

use crate::cargo::{self, cargo, release_binaries, root, run_lines, target_dir};
use crate::programs::{self, Program};
use crate::tally::{Counts, Tally};
use crate::{deps, fuzz, instructions, links, packages, sim, supply, tidy};

/// Seeds that are run a second time in another process: one would do, but a difference may be rare.
const TWIN_SEEDS: &str = "20";

/// Seeds within which each deliberate bug must be found, by the promise that it breaks.
const BUG_SEEDS: &str = "200";

/// Rounds of the crash test per run; `cargo xtask crash` runs more.
const CRASH_ROUNDS: &str = "20";

/// Programs of unit tests that run at the same time. Some have one test that takes minutes on one core.
const UNIT_TESTS: usize = 2;

/// Black-box tests that run at the same time. Each starts a cluster; with more, two cores starve
/// the clusters until their own time limits pass.
const BLACK_BOX_TESTS: usize = 2;

/// Test programs beside which no other runs: they compare times, fill the memory, or use the ports of a page.
const ALONE: [&str; 5] = [
    "bench",
    "documented_commands",
    "failover",
    "memory",
    "security",
];

/// Format, lints and tidy.
pub(crate) fn check() -> Result<(), String> {
    let mut tally = Tally::default();
    checks(&mut tally);
    tally.finish()
}

/// Variables that make tests write their expectations, or leave some of them out.
const MUST_BE_UNSET: [&str; 2] = ["MEMKV_BLESS", "MEMKV_SCENARIO"];

/// Everything.
pub(crate) fn run() -> Result<(), String> {
    let mut set = MUST_BE_UNSET.iter();
    if let Some(name) = set.find(|name| std::env::var_os(name).is_some()) {
        return Err(format!(
            "{name} is set: the tests would not compare everything; unset it"
        ));
    }
    let mut tally = Tally::default();
    tally.step("programs that the tests call", packages::ensure);
    checks(&mut tally);
    let mut programs = Vec::new();
    tally.step("test programs", || {
        programs = programs::build()?;
        Ok(())
    });
    // Those of the binaries need what is built last.
    let of_binaries = |one: &Program| one.package == root().join("tests");
    let (of_binaries, units): (Vec<_>, Vec<_>) = programs.into_iter().partition(of_binaries);
    tally.tests("unit tests", |counts| {
        let documented = run_lines(
            cargo(["test", "--workspace", "--locked", "--doc"]).arg("--no-fail-fast"),
            |line| counts.line(line),
        );
        let units = programs::run_beside(&units, UNIT_TESTS, &[], |line| counts.line(line));
        units.and(documented)
    });
    tally.step_where_possible("fuzz targets", fuzz::run_all);
    // As many seeds as its floors need.
    tally.step("simulator", || sim::test(&[]));
    tally.step("a seed has one trace", || {
        sim::test(&["--seeds", TWIN_SEEDS, "--twice"])
    });
    tally.step("simulator finds every deliberate bug", || {
        sim::test(&["--every-bug", "--seeds", BUG_SEEDS])
    });
    tally.tests("scenarios", |counts| {
        sim::scenarios(|line| counts.line(line))
    });
    tally.step("crates find the bugs that it cannot reach", sim::test_bugs);
    tally.step("release binaries", || release_binaries().map(drop));
    tally.step(
        "deliberate bugs are in the simulator only",
        no_bugs_in_release,
    );
    tally.step(
        "instructions of the hot path",
        || instructions::run_all(&[]),
    );
    tally.tests("tests of the binaries", |counts| {
        test_binaries(of_binaries, counts)
    });
    tally.finish()
}

/// Runs the test programs that call the binaries.
fn test_binaries(programs: Vec<Program>, counts: &mut Counts) -> Result<(), String> {
    let skips = target_dir().join("skipped-tests");
    fs::write(&skips, "").map_err(|error| format!("{}: {error}", skips.display()))?;
    let envs = [
        ("MEMKV_BIN_DIR", target_dir().join("release")),
        ("MEMKV_BUGS_BIN_DIR", sim::build_tested()?),
        ("MEMKV_INTEROP_DIR", packages::interop_dir()),
        ("MEMKV_CRASH_ROUNDS", CRASH_ROUNDS.into()),
        ("MEMKV_SKIP_FILE", skips.clone()),
    ];
    let envs_of = |threads: &str| {
        let threads = ("RUST_TEST_THREADS", threads.into());
        envs.iter().cloned().chain([threads]).collect::<Vec<_>>()
    };
    let is_alone = |one: &Program| ALONE.iter().any(|name| one.is(name));
    let (alone, beside): (Vec<_>, Vec<_>) = programs.into_iter().partition(is_alone);
    let two = programs::run_beside(&beside, BLACK_BOX_TESTS, &envs_of("1"), |line| {
        counts.line(line);
    });
    let threads = BLACK_BOX_TESTS.to_string();
    let outcome = programs::run_each(&alone, &envs_of(&threads), |line| counts.line(line));
    let outcome = outcome.and(two);
    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    print!("{skipped}");
    counts.skip(skipped.lines().count());
    outcome
}

fn checks(tally: &mut Tally) {
    tally.step("format", || {
        cargo::run(&mut cargo(["fmt", "--all", "--", "--check"]))
    });
    tally.step("lints", || {
        let lints = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ];
        cargo::run(&mut cargo(lints))
    });
    tally.step("layers", deps::check);
    tally.step("foreign crates", supply::check);
    tally.step("tidy", tidy::check);
    tally.step("links", links::check);
}

/// The binary that people run holds no deliberate bug, and the simulator's holds them: if the
/// marker were missing from both, this test would show nothing.
fn no_bugs_in_release() -> Result<(), String> {
    let plain = target_dir().join("release").join("memkv_server");
    if contains(&plain, sim::BUG_MARKER)? {
        return Err(format!(
            "{} was built with the deliberate bugs",
            plain.display()
        ));
    }
    let simulator = sim::build_tested()?.join(sim::NAME);
    if !contains(&simulator, sim::BUG_MARKER)? {
        return Err(format!(
            "{} does not hold the deliberate bugs",
            simulator.display()
        ));
    }
    Ok(())
}

fn contains(file: &Path, needle: &[u8]) -> Result<bool, String> {
    let bytes = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(bytes.windows(needle.len()).any(|window| window == needle))
}
