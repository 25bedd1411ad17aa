//! The command line of `memkv_server cert`.
//! Never reads a file.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};

use super::{CertArgs, CertRole};

/// Ten years: to replace a CA means to visit every client.
const CA_DAYS: &str = "3650";

/// A year.
const DAYS: &str = "365";

/// A century is a slip, or as good as for ever.
const MAX_DAYS: i64 = 36_500;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("cert")
        .about("Make or show certificates for TLS")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("init")
                .about("Make a CA: ca.crt and ca.key")
                .arg(dir())
                .arg(days(CA_DAYS)),
        )
        .subcommand(issue())
        .subcommand(
            Command::new("show")
                .about("Print what certificates say")
                .arg(
                    Arg::new("FILE")
                        .required(true)
                        .num_args(1..)
                        .value_parser(value_parser!(PathBuf))
                        .help("Files with certificates in PEM"),
                ),
        )
}

fn issue() -> Command {
    Command::new("issue")
        .about("Make a certificate of the CA: NAME.crt and NAME.key")
        .arg(
            Arg::new("NAME")
                .required(true)
                .help("The node's name; for a client, of its files"),
        )
        .arg(
            Arg::new("cluster")
                .long("cluster")
                .value_name("NAME")
                .help("The certificate is a node's, of the cluster with this cluster_name"),
        )
        .arg(
            Arg::new("client")
                .long("client")
                .value_name("USER")
                .help("The certificate is a client's, of this user"),
        )
        .group(
            ArgGroup::new("certified")
                .args(["cluster", "client"])
                .required(true),
        )
        .arg(
            Arg::new("host")
                .long("host")
                .value_name("HOST")
                .action(ArgAction::Append)
                .help("A host name or an address under which the node is reached; repeatable"),
        )
        .arg(dir())
        .arg(days(DAYS))
}

fn dir() -> Arg {
    Arg::new("dir")
        .long("dir")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .default_value(".")
        .help("Directory of the files")
}

fn days(default: &'static str) -> Arg {
    Arg::new("days")
        .long("days")
        .value_name("N")
        .value_parser(value_parser!(u32).range(1..=MAX_DAYS))
        .default_value(default)
        .help("How long the certificate holds")
}

/// What was asked for.
pub(crate) fn args(matches: &ArgMatches) -> CertArgs {
    let (name, inner) = matches.subcommand().unwrap_or(("", matches));
    let dir = || inner.get_one::<PathBuf>("dir").cloned().unwrap_or_default();
    let days = || inner.get_one("days").copied().unwrap_or_default();
    let text = |name: &str| inner.get_one::<String>(name).cloned();
    match name {
        "init" => CertArgs::Init {
            dir: dir(),
            days: days(),
        },
        "issue" => CertArgs::Issue {
            dir: dir(),
            days: days(),
            name: text("NAME").unwrap_or_default(),
            hosts: inner
                .get_many("host")
                .unwrap_or_default()
                .cloned()
                .collect(),
            role: match text("client") {
                Some(user) => CertRole::Client { user },
                None => CertRole::Node {
                    cluster: text("cluster").unwrap_or_default(),
                },
            },
        },
        _ => CertArgs::Show {
            files: inner
                .get_many("FILE")
                .unwrap_or_default()
                .cloned()
                .collect(),
        },
    }
}
