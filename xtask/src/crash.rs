//! `cargo xtask crash`: the black-box crash test alone, with as many rounds as asked for.

use crate::cargo;

/// Rounds without `--rounds`.
const DEFAULT_ROUNDS: u32 = 200;

/// Runs the crash test of `tests/` against release binaries.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let rounds = match arguments {
        [] => DEFAULT_ROUNDS,
        [flag, rounds] if flag == "--rounds" => rounds
            .parse()
            .map_err(|_| format!("--rounds wants a number, not `{rounds}`"))?,
        _ => return Err("usage: cargo xtask crash [--rounds N]".to_owned()),
    };
    let binaries = cargo::release_binaries()?;
    let mut test = cargo::cargo(["test", "--locked", "-p", "memkv-tests", "--test", "crash"]);
    test.args(["--", "--nocapture"]);
    test.env("MEMKV_BIN_DIR", binaries)
        .env("MEMKV_CRASH_ROUNDS", rounds.to_string());
    cargo::run(&mut test)
}
