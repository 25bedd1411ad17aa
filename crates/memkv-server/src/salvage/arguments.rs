//! The command line of `memkv_server salvage`.
//! Never reads a file.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::SalvageArgs;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("salvage")
        .about("Save all that a stopped node's directory still holds as a backup; the directory is only read")
        .arg(
            Arg::new("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The backup to write, which must not exist yet"),
        )
        .arg(
            Arg::new("data")
                .long("data")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Where the node ran, or a copy of that: relative paths of its configuration are below it"),
        )
        .arg(
            Arg::new("quarantine")
                .long("quarantine")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .help("Read what was set aside there as quarantine-N"),
        )
        .arg(
            Arg::new("condemned")
                .long("condemned")
                .action(ArgAction::SetTrue)
                .help("Read a directory that its node has marked as one that must not be used"),
        )
}

/// What was asked for.
pub(crate) fn args(matches: &ArgMatches) -> SalvageArgs {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    SalvageArgs {
        file: path("FILE").unwrap_or_default(),
        data: path("data").unwrap_or_default(),
        quarantine: matches.get_one("quarantine").copied(),
        condemned: matches.get_flag("condemned"),
    }
}
