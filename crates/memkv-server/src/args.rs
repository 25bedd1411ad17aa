//! The command line. Every setting of the configuration file is also a flag, from the same table.
//! Never reads a file or a variable.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use memkv_proto::config::{KEYS, Key, Kind};

use crate::cert::{self, CertArgs};
use crate::doctor::{self, DoctorArgs};
use crate::recover::{self, RecoverArgs};
use crate::reset::{self, ResetArgs};
use crate::restore::{self, RestoreArgs};
use crate::salvage::{self, SalvageArgs};
use crate::upgrade::{self, UpgradeArgs};

/// Where the original listens when it is not told otherwise.
const DEFAULT_ADDR: &str = "127.0.0.1:11081";

/// First port of the demo: the original's.
const DEMO_PORT: &str = "11081";

/// More than this share two cores so badly that the demo shows nothing.
const DEMO_NODES_MAX: u64 = 9;

/// The command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    /// What to run.
    pub mode: Mode,
    /// Settings given as flags: key, value, and the flag as typed.
    pub overrides: Vec<(&'static str, String, String)>,
    /// The process whose end is this one's end.
    pub parent: Option<u32>,
    /// The directory that relative paths of a node are relative to; without it the working directory.
    pub data: Option<PathBuf>,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// One node.
    Node {
        /// Configuration file; without it `raft_config.json`, if there is one.
        config: Option<PathBuf>,
        /// Where to listen; without it `node_addr.addr`.
        bind: Option<String>,
    },
    /// Several nodes as child processes.
    Demo(DemoArgs),
    /// Print a new cluster secret.
    Secret,
    /// Make or show certificates.
    Cert(CertArgs),
    /// Give a user all rights and a new password.
    ResetAdmin(ResetArgs),
    /// Fill an empty directory from a backup.
    Restore {
        /// Configuration file; without it `raft_config.json` in the directory, if there is one.
        config: Option<PathBuf>,
        /// What and where.
        args: RestoreArgs,
    },
    /// Say whether this binary may replace the one that runs.
    UpgradeCheck {
        /// Configuration file; without it `raft_config.json` in the directory, if there is one.
        config: Option<PathBuf>,
        /// What to look at.
        args: UpgradeArgs,
    },
    /// Say what is well with the machine, and what is not.
    Doctor {
        /// Configuration file; without it `raft_config.json` in the directory, if there is one.
        config: Option<PathBuf>,
        /// What to look at.
        args: DoctorArgs,
    },
    /// Make a stopped directory that of a new cluster.
    Recover {
        /// Configuration file; without it `raft_config.json` in the directory, if there is one.
        config: Option<PathBuf>,
        /// What and how.
        args: RecoverArgs,
    },
    /// Save what a stopped directory holds.
    Salvage {
        /// Configuration file; without it `raft_config.json` in the directory, if there is one.
        config: Option<PathBuf>,
        /// What and where.
        args: SalvageArgs,
    },
}

/// The cluster to demonstrate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoArgs {
    /// How many nodes.
    pub nodes: usize,
    /// Where their directories are; without it a temporary one, removed at the end.
    pub dir: Option<PathBuf>,
    /// The nodes take the first free ports from here.
    pub port: u16,
}

/// Parses a command line, the program's name included.
///
/// # Errors
/// The text to print and its exit code, also for `--help` and `--version`.
pub fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<Args, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let (name, inner) = matches.subcommand().unwrap_or(("", &matches));
    let mode = match name {
        "demo" => Mode::Demo(demo_args(inner)),
        "secret" => Mode::Secret,
        "cert" => Mode::Cert(cert::args(inner)),
        "acl" => Mode::ResetAdmin(reset::args(inner)),
        "restore" => Mode::Restore {
            config: path(inner, "config"),
            args: restore::args(inner),
        },
        "upgrade-check" => Mode::UpgradeCheck {
            config: path(inner, "config"),
            args: upgrade::args(inner),
        },
        "doctor" => Mode::Doctor {
            config: path(inner, "config"),
            args: doctor::args(inner),
        },
        "recover" => Mode::Recover {
            config: path(inner, "config"),
            args: recover::args(inner),
        },
        "salvage" => Mode::Salvage {
            config: path(inner, "config"),
            args: salvage::args(inner),
        },
        "alone" => Mode::Node {
            config: path(inner, "CONFIG").or_else(|| path(inner, "config")),
            bind: Some(text(inner, "ADDR")),
        },
        _ => Mode::Node {
            config: path(inner, "config"),
            bind: None,
        },
    };
    let parent = inner.get_one("parent").copied();
    Ok(Args {
        mode,
        overrides: overrides(inner),
        parent,
        data: inner.try_get_one("data").ok().flatten().cloned(),
    })
}

/// What the command line may be: the source of help, man pages and completions.
#[must_use]
pub fn command() -> Command {
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .global(true)
        .help("Configuration file [default: raft_config.json, if there is one]");
    let parent = Arg::new("parent")
        .long("parent")
        .value_name("PID")
        .value_parser(value_parser!(u32))
        .global(true)
        .hide(true);
    Command::new("memkv_server")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A fault-tolerant, linearizable key-value store in memory")
        .after_help(
            "Without a command, runs the node of raft_config.json in the working directory;\n\
             without that file, a single node with its data in ./memkv-data.\n\
             Each setting is also an environment variable: MEMKV_ and its name in upper\n\
             case. Variables override the file, and flags override both.\n\
             Exit codes: 0 stopped as asked; 1 cannot run or cannot go on; 2 wrong command\n\
             line or configuration.",
        )
        .arg(config)
        .arg(parent)
        .arg(data())
        .args(KEYS.iter().map(flag))
        .subcommand(alone())
        .subcommand(demo())
        .subcommand(secret())
        .subcommand(cert::command())
        .subcommand(reset::command())
        .subcommand(restore::command())
        .subcommand(upgrade::command())
        .subcommand(doctor::command())
        .subcommand(salvage::command())
        .subcommand(recover::command())
}

fn data() -> Arg {
    Arg::new("data")
        .long("data")
        .value_name("DIR")
        .value_parser(value_parser!(PathBuf))
        .help("Directory that relative paths are relative to; it is made if need be [default: the working directory]")
}

fn alone() -> Command {
    Command::new("alone")
        .about("Run a node that listens on ADDR, like the original's command line; without a configuration it \
                is named by its port")
        .arg(data())
        .arg(
            Arg::new("ADDR")
                .default_value(DEFAULT_ADDR)
                .help("Address to listen on, host:port"),
        )
        .arg(
            Arg::new("CONFIG")
                .value_parser(value_parser!(PathBuf))
                .conflicts_with("config")
                .help("Configuration file [default: raft_config.json, if there is one]"),
        )
}

fn demo() -> Command {
    Command::new("demo")
        .about("Run a cluster on this machine to try memkv")
        .arg(
            Arg::new("nodes")
                .long("nodes")
                .default_value("3")
                .value_parser(value_parser!(u64).range(1..=DEMO_NODES_MAX))
                .help("Number of nodes"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_parser(value_parser!(PathBuf))
                .help("Directory of the data [default: a temporary directory, removed at the end]"),
        )
        .arg(
            Arg::new("port")
                .long("port")
                .default_value(DEMO_PORT)
                .value_parser(value_parser!(u16).range(1..))
                .help("First port; the nodes take free ports from there on"),
        )
}

fn secret() -> Command {
    Command::new("secret").about("Print a new secret for cluster_secret_file: 32 random bytes")
}

/// A setting as a flag. Its value is checked later, with the same errors as in a file.
fn flag(key: &'static Key) -> Arg {
    let flag = Arg::new(key.name)
        .long(key.flag_name())
        .global(true)
        .action(ArgAction::Set);
    let default = if key.default.is_empty() {
        "none"
    } else {
        key.default
    };
    let flag = flag.help(format!("{} [default: {default}]", key.doc));
    match key.kind {
        // `--insecure` alone means yes.
        Kind::Bool => flag
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true"),
        Kind::Path => flag.value_name("DIR"),
        Kind::File => flag.value_name("FILE"),
        Kind::Integer { .. } => flag.value_name("N"),
        Kind::Word(words) => flag.value_name(words.join("|")),
        Kind::Letters(_) => flag.value_name("LETTERS"),
        Kind::Name => flag.value_name("NAME"),
        Kind::Addr => flag.value_name("HOST:PORT"),
        Kind::Node => flag.value_name("ID@HOST:PORT"),
        Kind::Nodes => flag.value_name("ID@HOST:PORT,..."),
        Kind::Hosts => flag.value_name("HOST,..."),
        Kind::Addrs => flag.value_name("HOST:PORT,..."),
    }
}

fn overrides(matches: &ArgMatches) -> Vec<(&'static str, String, String)> {
    let given = |key: &'static Key| {
        let value: &String = matches.get_one(key.name)?;
        Some((key.name, value.clone(), format!("--{}", key.flag_name())))
    };
    KEYS.iter().filter_map(given).collect()
}

fn demo_args(matches: &ArgMatches) -> DemoArgs {
    let nodes: u64 = *matches.get_one("nodes").expect("has a default");
    DemoArgs {
        nodes: usize::try_from(nodes).unwrap_or(usize::MAX),
        dir: path(matches, "dir"),
        port: *matches.get_one("port").expect("has a default"),
    }
}

fn path(matches: &ArgMatches, name: &str) -> Option<PathBuf> {
    matches.get_one(name).cloned()
}

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one::<String>(name).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, clap::Error> {
        parse(std::iter::once("memkv_server").chain(line.split_whitespace()))
    }

    fn node(config: Option<&str>, bind: Option<&str>) -> Mode {
        Mode::Node {
            config: config.map(PathBuf::from),
            bind: bind.map(str::to_owned),
        }
    }

    #[test]
    fn clap_accepts_its_own_table() {
        command().debug_assert();
        // Settings are flags of each command; a flag of its own must have another name.
        for line in ["upgrade-check h:1 --in-clear", "upgrade-check --data d"] {
            assert!(parsed(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn the_originals_command_lines() {
        let mode = |line: &str| parsed(line).unwrap().mode;
        assert_eq!(mode(""), node(None, None));
        assert_eq!(mode("alone"), node(None, Some(DEFAULT_ADDR)));
        assert_eq!(mode("alone 10.0.0.1:1"), node(None, Some("10.0.0.1:1")));
        assert_eq!(mode("alone h:1 a.json"), node(Some("a.json"), Some("h:1")));
        assert_eq!(
            mode("alone h:1 --config a.json"),
            node(Some("a.json"), Some("h:1"))
        );
        assert_eq!(
            mode("--config a.json alone h:1"),
            node(Some("a.json"), Some("h:1"))
        );
        assert_eq!(mode("--config a.json"), node(Some("a.json"), None));
        let data = |line: &str| parsed(line).unwrap().data;
        assert_eq!(data(""), None);
        for line in ["--data d", "alone h:1 --data d"] {
            assert_eq!(data(line), Some(PathBuf::from("d")), "{line}");
        }
        for bad in [
            "foo",
            "alone h:1 a.json more",
            "alone h:1 a --config b",
            "--durabilty os",
        ] {
            assert_eq!(parsed(bad).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn every_setting_is_a_flag_before_and_behind_the_command() {
        for key in KEYS {
            for line in [
                format!("--{}=x alone h:1", key.flag_name()),
                format!("alone h:1 --{}=x", key.flag_name()),
            ] {
                let flag = format!("--{}", key.flag_name());
                let overrides = parsed(&line).unwrap().overrides;
                assert_eq!(overrides, [(key.name, "x".to_owned(), flag)], "{line}");
            }
        }
        let overrides = parsed("alone --insecure h:1 --durability os")
            .unwrap()
            .overrides;
        let values: Vec<_> = overrides
            .iter()
            .map(|(key, value, _)| (*key, &**value))
            .collect();
        assert_eq!(values, [("durability", "os"), ("insecure", "true")]);
    }

    #[test]
    fn the_demo_has_three_nodes_from_the_seeds_port_on() {
        let Mode::Demo(demo) = parsed("demo").unwrap().mode else {
            panic!("a demo")
        };
        assert_eq!(
            demo,
            DemoArgs {
                nodes: 3,
                dir: None,
                port: 11081
            }
        );
        for bad in [
            "demo --nodes 0",
            "demo --nodes 10",
            "demo --port 0",
            "demo --port 65536",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }
}
