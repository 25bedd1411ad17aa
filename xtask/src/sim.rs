//! `cargo xtask sim`: builds the simulator and hands it the arguments.
//!
//! Its build differs from a plain one in two flags: `tokio_unstable`, which lets a seed decide the
//! scheduler's choices, and `memkv_bugs`, which compiles the deliberate bugs in. It therefore has a
//! target directory of its own, and a plain build contains neither.

use std::path::PathBuf;
use std::process::Command;

use crate::cargo;

/// The simulator's program.
pub(crate) const NAME: &str = "memkv-sim";

/// Text that every deliberate bug carries into the binary it is compiled into.
pub(crate) const BUG_MARKER: &[u8] = b"memkv-deliberate-bug";

/// All that the tests run with the deliberate bugs. Crates are built for a selection of packages and kinds of targets;
/// another selection builds most of them once more, so every step has this one.
const EVERYTHING: &[&str] = &[NAME, "memkv-server", "memkv-disk", "memkv-store"];

/// Their test programs: scenarios of whole clusters, which need the simulator's flags, the bugs which the simulator
/// cannot reach, and the test that this build's memory decides nothing.
const SCENARIOS: &[&str] = &["scenarios"];
const BUGS: &[&str] = &["bugs", "slots"];

/// Builds and runs the simulator with `arguments`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let simulator = built(with_bugs("build", &[NAME]).arg("--bins"))?.join(NAME);
    cargo::run(Command::new(simulator).args(arguments))
}

/// The same, built together with what the other tests need.
pub(crate) fn test(arguments: &[&str]) -> Result<(), String> {
    cargo::run(Command::new(build_tested()?.join(NAME)).args(arguments))
}

/// Builds the simulator and the server with the deliberate bugs, and returns the directory that holds them.
pub(crate) fn build_tested() -> Result<PathBuf, String> {
    let mut build = with_bugs("build", EVERYTHING);
    build.arg("--bins");
    select(&mut build, &[SCENARIOS, BUGS].concat());
    built(&mut build)
}

/// Runs the tests that find the deliberate bugs which the simulator cannot reach.
pub(crate) fn test_bugs() -> Result<(), String> {
    let mut tests = with_bugs("test", EVERYTHING);
    select(&mut tests, BUGS);
    cargo::run(&mut tests)
}

/// Runs the scenarios of whole clusters; `tests` gets their output.
pub(crate) fn scenarios(line: impl FnMut(&str)) -> Result<(), String> {
    let mut tests = with_bugs("test", EVERYTHING);
    select(&mut tests, SCENARIOS);
    cargo::run_lines(&mut tests, line)
}

fn built(build: &mut Command) -> Result<PathBuf, String> {
    cargo::run(build).map_err(|error| format!("the deliberate bugs did not build: {error}"))?;
    Ok(target().join("release"))
}

fn select(command: &mut Command, tests: &[&str]) {
    for test in tests {
        command.args(["--test", test]);
    }
}

fn target() -> PathBuf {
    cargo::target_dir().join("sim")
}

/// Cargo, set up for what has the deliberate bugs.
fn with_bugs(subcommand: &str, packages: &[&str]) -> Command {
    let mut build = cargo::cargo([
        subcommand,
        "--release",
        "--locked",
        // The engine's state is wrapped in a type that checks it at every access; that alone takes
        // a third of the time, and what it checks the simulator's invariants see from outside.
        "--config",
        "profile.release.package.validit.debug-assertions=false",
    ]);
    for package in packages {
        build.args(["-p", package]);
    }
    build.env("CARGO_TARGET_DIR", target());
    build.env("RUSTFLAGS", "--cfg tokio_unstable --cfg memkv_bugs");
    // Assertions are the simulator's eyes; link-time optimisation only makes its build slower.
    build.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
    build.env("CARGO_PROFILE_RELEASE_LTO", "off");
    build.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    build
}
