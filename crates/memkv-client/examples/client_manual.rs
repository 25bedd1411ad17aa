//! Writes the man pages and completions of `memkv_client` below a directory: `cargo xtask package` calls it.

// The command line belongs to the program and not to the library, which others link.
#[allow(dead_code, reason = "only the definition of the command line is used")]
#[path = "../src/cli/mod.rs"]
mod cli;

use std::path::PathBuf;

use clap::CommandFactory;

fn main() -> std::io::Result<()> {
    let root = std::env::args_os().nth(1).map(PathBuf::from);
    let root = root.ok_or_else(|| std::io::Error::other("usage: client_manual DIRECTORY"))?;
    memkv_manual::write(&cli::Args::command(), "1", "memkv_server(8)", &root)
}
