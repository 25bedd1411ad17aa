//! `cargo xtask sim`: builds the simulator and hands it the arguments.
//!
//! Its build differs from a plain one in two flags: `tokio_unstable`, which lets a seed decide the
//! scheduler's choices, and `memkv_bugs`, which compiles the deliberate bugs in. It therefore has a
//! target directory of its own, and a plain build contains neither.

use std::path::PathBuf;
use std::process::Command;

use crate::cargo;

/// Text that every deliberate bug carries into the binary it is compiled into.
pub(crate) const BUG_MARKER: &[u8] = b"memkv-deliberate-bug";

/// Builds and runs the simulator with `arguments`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    cargo::run(Command::new(build()?).args(arguments))
}

/// Builds the simulator and returns its path.
pub(crate) fn build() -> Result<PathBuf, String> {
    Ok(build_package("memkv-sim")?.join("memkv-sim"))
}

/// Builds the server with the deliberate bugs, and returns the directory that holds it.
pub(crate) fn build_server() -> Result<PathBuf, String> {
    build_package("memkv-server")
}

/// Runs the tests that find the deliberate bugs which the simulator cannot reach, and the one that this
/// build's memory decides nothing.
pub(crate) fn test_bugs() -> Result<(), String> {
    let crates = ["-p", "memkv-disk", "-p", "memkv-store"];
    let mut tests = with_bugs("test");
    cargo::run(
        tests
            .args(crates)
            .args(["--test", "bugs", "--test", "slots"]),
    )
}

/// Runs the scenarios of whole clusters, which need the simulator's flags; `tests` gets their output.
pub(crate) fn scenarios(line: impl FnMut(&str)) -> Result<(), String> {
    let mut tests = with_bugs("test");
    cargo::run_lines(tests.args(["-p", "memkv-sim", "--test", "scenarios"]), line)
}

fn build_package(package: &str) -> Result<PathBuf, String> {
    let mut build = with_bugs("build");
    cargo::run(build.args(["-p", package, "--bins"]))
        .map_err(|error| format!("{package} did not build with the deliberate bugs: {error}"))?;
    Ok(target().join("release"))
}

fn target() -> PathBuf {
    cargo::target_dir().join("sim")
}

/// Cargo, set up for what has the deliberate bugs.
fn with_bugs(subcommand: &str) -> Command {
    let mut build = cargo::cargo([
        subcommand,
        "--release",
        "--locked",
        // The engine's state is wrapped in a type that checks it at every access; that alone takes
        // a third of the time, and what it checks the simulator's invariants see from outside.
        "--config",
        "profile.release.package.validit.debug-assertions=false",
    ]);
    build.env("CARGO_TARGET_DIR", target());
    build.env("RUSTFLAGS", "--cfg tokio_unstable --cfg memkv_bugs");
    // Assertions are the simulator's eyes; link-time optimisation only makes its build slower.
    build.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
    build.env("CARGO_PROFILE_RELEASE_LTO", "off");
    build.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    build
}
