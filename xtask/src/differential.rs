//! `cargo xtask differential`: memkv against redis-server alone, with as many commands as asked for.

use crate::cargo;

/// Commands without `--commands`.
const DEFAULT_COMMANDS: u64 = 1_000_000;

/// Runs the differential test of `tests/` against release binaries.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let mut commands = DEFAULT_COMMANDS;
    let mut seed = None;
    for pair in arguments.chunks(2) {
        let number = |text: &String| {
            text.parse::<u64>()
                .map_err(|_| format!("not a number: `{text}`"))
        };
        match pair {
            [flag, value] if flag == "--commands" => commands = number(value)?,
            [flag, value] if flag == "--seed" => seed = Some(number(value)?),
            _ => {
                return Err("usage: cargo xtask differential [--commands N] [--seed S]".to_owned());
            }
        }
    }
    let binaries = cargo::release_binaries()?;
    let mut test = cargo::cargo(["test", "--locked", "-p", "memkv-tests"]);
    test.args(["--test", "differential", "--"]);
    test.args(["--exact", "memkv_answers_as_redis_does", "--nocapture"]);
    test.env("MEMKV_BIN_DIR", binaries)
        .env("MEMKV_DIFFERENTIAL_COMMANDS", commands.to_string());
    if let Some(seed) = seed {
        test.env("MEMKV_DIFFERENTIAL_SEED", seed.to_string());
    }
    cargo::run(&mut test)
}
