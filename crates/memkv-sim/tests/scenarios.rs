//! The scenarios in `scenarios/`: each shows what its transcript says, under several seeds, and shows
//! something else under the deliberate bug that it names. `cargo xtask scenarios` builds them.
//!
//! `MEMKV_BLESS=1` writes the output into the files instead, and never in CI. Only with
//! `--cfg tokio_unstable`: otherwise the scheduler's choices are no part of a seed.

#![cfg(all(tokio_unstable, memkv_bugs))]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use memkv_sim::bugs;
use memkv_sim::scenario::{Outcome, run};

/// A scenario shows the same under each, or it shows chance.
const SEEDS: [u64; 3] = [1, 2, 3];
/// What precedes the name of a deliberate bug that a scenario must notice.
const FAILS_WITH: &str = "# Fails with: ";

/// A bug is switched on for the whole process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|broken| broken.into_inner())
}

/// All scripts, by name; `MEMKV_SCENARIO` chooses those whose names hold it.
fn scripts() -> Vec<(PathBuf, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let wanted = std::env::var("MEMKV_SCENARIO").unwrap_or_default();
    let entries = fs::read_dir(dir).expect("the scenarios");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.retain(|path| name(path).contains(&wanted));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("UTF-8");
        (path, text)
    };
    let scripts: Vec<_> = paths.into_iter().map(read).collect();
    assert!(!scripts.is_empty(), "no scenario is called {wanted}");
    scripts
}

fn name(path: &Path) -> &str {
    path.file_stem()
        .and_then(|name| name.to_str())
        .expect("UTF-8")
}

fn played(path: &Path, script: &str, seed: u64) -> Outcome {
    run(script, seed).unwrap_or_else(|why| panic!("{}, {why}", name(path)))
}

/// The first line in which two texts differ.
fn difference(expected: &str, shown: &str) -> Option<String> {
    let (mut expected, mut shown) = (expected.lines(), shown.lines());
    for number in 1.. {
        match (expected.next(), shown.next()) {
            (None, None) => return None,
            (expected, shown) if expected == shown => {}
            (expected, shown) => {
                let (expected, shown) = (expected.unwrap_or("end"), shown.unwrap_or("end"));
                return Some(format!(
                    "line {number}: expected `{expected}`, shown `{shown}`"
                ));
            }
        }
    }
    None
}

#[test]
fn scenarios_show_what_they_say() {
    let _alone = alone();
    let blesses = std::env::var_os("MEMKV_BLESS").is_some_and(|set| set == "1");
    assert!(
        !blesses || std::env::var_os("CI").is_none(),
        "CI compares transcripts, it never writes them: unset MEMKV_BLESS"
    );
    let mut failures = Vec::new();
    for (path, mut script) in scripts() {
        for seed in SEEDS {
            let outcome = played(&path, &script, seed);
            if blesses && seed == SEEDS[0] && outcome.transcript != script {
                fs::write(&path, &outcome.transcript).expect("the script can be written");
                script.clone_from(&outcome.transcript);
            }
            let differs = difference(&script, &outcome.transcript);
            let broken = outcome.violation.map(|violation| violation.to_string());
            for what in differs.into_iter().chain(broken) {
                failures.push(format!("{}, seed {seed}: {what}", name(&path)));
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn a_scenario_fails_with_the_bug_that_it_names() {
    let _alone = alone();
    let mut failures = Vec::new();
    let mut bugs_tried = 0;
    for (path, script) in scripts() {
        let named = script
            .lines()
            .filter_map(|line| line.strip_prefix(FAILS_WITH));
        for bug in named.flat_map(|bugs| bugs.split(", ")) {
            bugs::switch_on(bug).unwrap_or_else(|why| panic!("{}: {why}", name(&path)));
            let outcome = run(&script, SEEDS[0]);
            bugs::switch_off();
            bugs_tried += 1;
            // A node that never came to play a part has no name.
            let noticed = match outcome {
                Ok(outcome) => difference(&script, &outcome.transcript),
                Err(why) => Some(why),
            };
            match noticed {
                None => failures.push(format!("{} does not notice {bug}", name(&path))),
                Some(what) => println!("{} with {bug}: {what}", name(&path)),
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
    assert!(bugs_tried > 0 || std::env::var_os("MEMKV_SCENARIO").is_some());
}

#[test]
fn every_scenario_opens_with_its_claim() {
    for (path, script) in scripts() {
        assert!(script.starts_with("# "), "{} says no claim", name(&path));
    }
}
