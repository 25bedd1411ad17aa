//! The memkv command line: reads and writes keys, and shows the state of a cluster; without a command
//! a prompt for Redis's commands.
//!
//! Standard output carries data only, standard error everything else. Exit codes: 0 done, 1 the key
//! is absent or a condition does not hold, 2 wrong usage, 3 unavailable and nothing written, 4
//! outcome unknown, 5 executed but not printed. Writes no file but the history of the prompt.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cli::main())
}
