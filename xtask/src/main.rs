//! Developer commands: `cargo xtask COMMAND`.
//!
//! `test` is the one command that decides whether the tree is good; CI calls nothing else. It never
//! hides a failure: every step runs, every result is counted, and zero tests is a failure.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod bench;
mod black_box;
mod cargo;
mod deps;
mod fuzz;
mod instructions;
mod links;
mod package;
mod packages;
mod programs;
mod sbom;
mod sim;
mod supply;
mod tally;
mod test;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND

  test                          everything that must pass: format, lints, tidy, unit tests,
                                simulator, tests of the real binaries
  check                         format, lints and tidy only
  tidy [--circles]              the project's own rules only: heads and sizes of files, layers, links,
                                words, modules; --circles prints the import circles instead
  sim [--seed N | --seeds N [--from N]] [--bug NAME] [...]
                                whole clusters in simulated time; every failure prints its seed
  scenarios                     scripts of whole clusters; MEMKV_SCENARIO=NAME chooses some,
                                MEMKV_BLESS=1 writes their output into them
  crash [--rounds N] [--seed S] kill -9 real nodes under load and check the history (default 200)
  failover [--rounds N] [--seed S]
                                Redis clients at all nodes while leaders are killed, paused and
                                cut off (default 100)
  nemesis [--rounds N] [--seed S]
                                the same clients while nodes fail together (default 30)
  security [--times N] [--back-within SECONDS]
                                hostile clients on a machine that does nothing else: another
                                client's reads take at most twice as long (default 2 and 10)
  differential [--commands N] [--seed S]
                                the same random commands to memkv and to redis-server 7.0, every
                                reply compared (default 1000000)
  interop                       Redis clients of other projects at a follower
  package [--programs DIR] [--out DIR] [--revision N] [--compression xz|none]
                                the Debian package, in target/package/
  sbom                          what the programs contain, as CycloneDX
  instructions [--write]        instructions of the hot path against benches/baseline.json
  bench compare [--rows TEXT,...] [--seconds N] [--times N]
                                memkv and its peers in one run; writes docs/performance.md
  bench run [...]               one load against one system, memkv's or another's
  bench failover | restart | memory
                                from the kill of a leader to the next write; from a start to
                                serving; what a key takes in RAM
  bench growth [--docs docs]    with more keys, larger values, more connections, more nodes
  bench http [...]              throughput and latency of a three-node cluster over HTTP
  bench snapshot [...]          what a snapshot of a million keys costs the writers
  bench soak [--minutes N]      full load: no election, no failed request (default 60)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((command, rest)) = arguments.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let outcome = match command.as_str() {
        "test" => test::run(),
        "check" => test::check(),
        "tidy" => tidy::run(rest),
        "sim" => sim::run(rest),
        "scenarios" => sim::scenarios(|_| ()),
        name if black_box::knows(name) => black_box::run(name, rest),
        "bench" => bench::run(rest),
        "package" => package::run(rest),
        "sbom" => package::bill(),
        "instructions" => instructions::run_all(rest),
        "help" | "--help" | "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        other => Err(format!("unknown command `{other}`\n\n{USAGE}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
