//! The memkv command line: reads and writes keys, and shows the state of a cluster.
//!
//! Standard output carries data only, standard error everything else. Exit codes: 0 done, 1 the key
//! is absent, 2 wrong usage, 3 unavailable and nothing written, 4 outcome unknown.
//! Never prompts, and never writes a file.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::main())
}
