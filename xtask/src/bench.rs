//! `cargo xtask bench`: builds everything for release and lets `memkv-bench` measure it.

use std::process::Command;

use crate::cargo;

/// Builds and runs the load generator with `arguments`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let known = |what: &String| what == "http" || what == "snapshot";
    if !arguments.first().is_some_and(known) {
        return Err(
            "usage: cargo xtask bench http [--seconds N] [--connections N,N,...]\n       \
             cargo xtask bench snapshot [--keys N] [--windows N]"
                .to_owned(),
        );
    }
    let binaries = cargo::release_binaries()?;
    cargo::run(&mut cargo::cargo([
        "build",
        "--release",
        "--locked",
        "-p",
        "memkv-bench",
    ]))?;
    let program = binaries.join("memkv-bench");
    cargo::run(
        Command::new(program)
            .args(arguments)
            .env("MEMKV_BIN_DIR", binaries),
    )
}
