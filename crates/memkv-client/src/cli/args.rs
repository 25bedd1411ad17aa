//! What the command line accepts. Never touches the environment or a file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// The file that is read if it is in the working directory, as the seed's client does.
pub(crate) const DEFAULT_CONFIG: &str = "cluster_config.json";

/// The variable that names endpoints.
pub(crate) const ENDPOINTS_VARIABLE: &str = "MEMKV_ENDPOINTS";

const AFTER_HELP: &str = "\
The cluster is found through, in this order: --endpoints, --config, the variable MEMKV_ENDPOINTS, \
cluster_config.json in the working directory, 127.0.0.1:11081.

Exit codes: 0 done; 1 the key is absent; 2 wrong usage; 3 unavailable, nothing was written;
4 outcome unknown: the write may or may not have been executed.";

/// Reads and writes the keys of a memkv cluster.
#[derive(Debug, Parser)]
#[command(name = "memkv_client", version, after_help = AFTER_HELP, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Nodes to ask, in this order: host:port,host:port
    #[arg(long, global = true, value_name = "LIST")]
    pub(crate) endpoints: Option<String>,

    /// File with the cluster's nodes [default: cluster_config.json, if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// How long to try, all nodes together, such as 5s, 500ms or 2.5
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// How to print what was found
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One JSON object per result
    Json,
    /// Values byte for byte; tables with tabs and without a heading
    Raw,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints the value of KEY; exits 1 if it is absent
    Get {
        /// The key
        key: OsString,
    },
    /// Sets KEY to VALUE and prints "ok"
    Set {
        /// The key
        key: OsString,
        /// The value; "-" reads it from standard input
        #[arg(allow_hyphen_values = true)]
        value: OsString,
        /// How often to send the same write, one after the other
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        times: u64,
    },
    /// Removes KEY and prints "ok", whether it was there or not
    Del {
        /// The key
        key: OsString,
    },
    /// Prints "yes", or prints "no" and exits 1
    Exist {
        /// The key
        key: OsString,
    },
    /// Shows all nodes and how well the cluster is; exits 3 if it does not serve
    Status,
}

/// Longest accepted time: an hour; a longer one is a slip.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    let seconds = number.parse::<f64>().ok().map(|number| number * unit);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration
        .filter(|duration| !duration.is_zero() && *duration <= MAX_TIMEOUT)
        .ok_or_else(|| "write a time from 1ms to 3600s, such as 5s, 500ms or 2.5".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2.5"), Ok(Duration::from_millis(2500)));
        for bad in ["", "s", "0", "-1s", "nan", "inf", "1h", "3601s", "1e300"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_may_begin_with_a_hyphen() {
        for words in [["set", "k", "-5"], ["set", "k", "-"], ["set", "k", "--x=y"]] {
            let args = Args::try_parse_from(["memkv_client"].into_iter().chain(words)).unwrap();
            let Command::Set { value, times, .. } = args.command else {
                panic!("{words:?}")
            };
            assert_eq!((value, times), (OsString::from(words[2]), 1));
        }
        let args = ["memkv_client", "set", "k", "-5", "3", "-o", "json"];
        let args = Args::try_parse_from(args).unwrap();
        assert_eq!(args.output, Format::Json);
        assert!(matches!(args.command, Command::Set { times: 3, .. }));
        assert!(Args::try_parse_from(["memkv_client", "set", "k", "v", "0"]).is_err());
    }
}
