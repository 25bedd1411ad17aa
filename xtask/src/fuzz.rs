//! The fuzz targets under libFuzzer, where there is a nightly compiler with cargo-fuzz. Elsewhere
//! this says so: the same targets run in the tests of the crates over corpus and seeded inputs.

use std::fs;
use std::process::Command;

use crate::cargo::{root, run, target_dir};
use crate::tally::Ran;

/// The targets; each has a corpus of the same name.
const TARGETS: [&str; 8] = [
    "frames", "requests", "commands", "http", "txn", "config", "peers", "recovery",
];

/// Seconds per target in `cargo xtask test`: with the building it stays a small part of the whole.
const SECONDS: u32 = 10;

/// Fuzzes each target for some seconds.
pub(crate) fn run_all() -> Result<Ran, String> {
    if !is_there() {
        let why = "no nightly toolchain with cargo-fuzz; the unit tests have run the same targets";
        return Ok(Ran::No(why));
    }
    for target in TARGETS {
        // libFuzzer writes what it finds into the first directory: not into the corpus.
        let found = target_dir().join("fuzz").join(target);
        fs::create_dir_all(&found).map_err(|error| format!("{}: {error}", found.display()))?;
        let mut fuzz = Command::new("cargo");
        fuzz.args(["+nightly", "fuzz", "run", target]);
        fuzz.arg(&found).arg(format!("fuzz/corpus/{target}"));
        fuzz.arg("--").arg(format!("-max_total_time={SECONDS}"));
        run(fuzz.current_dir(root()))?;
    }
    Ok(Ran::Yes)
}

/// Asks rustup first, because asking for a missing toolchain may install it.
fn is_there() -> bool {
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then_some(text)
    };
    let toolchains = output("rustup", &["toolchain", "list"]).unwrap_or_default();
    let has_nightly = toolchains.lines().any(|line| line.starts_with("nightly"));
    has_nightly && output("cargo", &["+nightly", "fuzz", "--version"]).is_some()
}
