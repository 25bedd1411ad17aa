//! `cargo xtask bench`: builds everything for release and lets `memkv-bench` measure it.

use std::process::Command;

use crate::{cargo, packages};

/// What can be measured, and whether the peers are measured too.
const COMMANDS: &[(&str, bool)] = &[
    ("run", true),
    ("compare", true),
    ("failover", true),
    ("growth", true),
    ("restart", false),
    ("memory", true),
    ("http", false),
    ("snapshot", false),
    ("neighbour", true),
    ("reconnect", false),
    ("soak", false),
];

/// Builds and runs the load generator with `arguments`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let first = arguments.first().map(String::as_str).unwrap_or_default();
    let Some((_, with_peers)) = COMMANDS.iter().find(|(name, _)| *name == first) else {
        let names: Vec<&str> = COMMANDS.iter().map(|(name, _)| *name).collect();
        return Err(format!(
            "usage: cargo xtask bench {} [--help] [...]",
            names.join("|")
        ));
    };
    let binaries = cargo::release_binaries()?;
    let mut program = Command::new(binaries.join("memkv-bench"));
    program.args(arguments).current_dir(cargo::root());
    if *with_peers {
        program.env("MEMKV_PEERS_DIR", packages::peers()?);
    }
    cargo::run(program.env("MEMKV_BIN_DIR", binaries))
}
