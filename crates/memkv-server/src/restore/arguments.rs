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
        .args(how())
}

/// How to restore.
pub(crate) fn how() -> [Arg; 3] {
    [
        Arg::new("users")
            .long("users")
            .value_name("keep|drop")
            .value_parser(["keep", "drop"])
            .default_value("keep")
            .help("Users of the backup, or only those of the configuration"),
        Arg::new("keep_ttl")
            .long("keep-ttl")
            .action(ArgAction::SetTrue)
            .help("Move deadlines by the time since the backup, so that keys live as long as they had left"),
        Arg::new("revision_above")
            .long("revision-above")
            .value_name("N")
            .value_parser(value_parser!(u64))
            .help("Begin above this revision, where the clock cannot tell [default: Unix time in seconds x 2^20]"),
    ]
}

/// What was asked for.
pub(crate) fn args(matches: &ArgMatches) -> RestoreArgs {
    let file = matches.get_one::<PathBuf>("FILE").cloned();
    args_of(matches, file.unwrap_or_default())
}

/// The same, from another file.
pub(crate) fn args_of(matches: &ArgMatches, file: PathBuf) -> RestoreArgs {
    let users = matches.get_one::<String>("users");
    RestoreArgs {
        file,
        data: matches.get_one("data").cloned().unwrap_or_default(),
        keep_users: users.is_none_or(|users| users == "keep"),
        keep_ttl: matches.get_flag("keep_ttl"),
        revision_above: matches.get_one("revision_above").copied(),
    }
}
