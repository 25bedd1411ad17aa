//! The command line of `memkv_server restore`.
//! Never reads a file.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::RestoreArgs;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("restore")
        .about("Make an empty data directory that of a new cluster of one node, from a backup")
        .arg(
            Arg::new("FILE")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The backup; \"-\" reads it from standard input"),
        )
        .arg(
            Arg::new("data")
                .long("data")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("Where the node will run: relative paths of its configuration are below it"),
        )
        .arg(
            Arg::new("users")
                .long("users")
                .value_name("keep|drop")
                .value_parser(["keep", "drop"])
                .default_value("keep")
                .help("Users of the backup, or only those of the configuration"),
        )
        .arg(
            Arg::new("keep_ttl")
                .long("keep-ttl")
                .action(ArgAction::SetTrue)
                .help("Move deadlines by the time since the backup, so that keys live as long as they had left"),
        )
        .arg(
            Arg::new("revision_above")
                .long("revision-above")
                .value_name("N")
                .value_parser(value_parser!(u64))
                .help("Begin above this revision, where the clock cannot tell [default: Unix time in seconds x 2^20]"),
        )
}

/// What was asked for.
pub(crate) fn args(matches: &ArgMatches) -> RestoreArgs {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let users = matches.get_one::<String>("users");
    RestoreArgs {
        file: path("FILE").unwrap_or_default(),
        data: path("data").unwrap_or_default(),
        keep_users: users.is_none_or(|users| users == "keep"),
        keep_ttl: matches.get_flag("keep_ttl"),
        revision_above: matches.get_one("revision_above").copied(),
    }
}
