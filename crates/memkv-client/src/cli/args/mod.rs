//! What the command line accepts. Never touches the environment or a file.

mod members;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use memkv_proto::ttl_ms;

use super::events;
pub(crate) use members::{Leader, Member, Request};

/// The file that is read if it is in the working directory, as the original's client does.
pub(crate) const DEFAULT_CONFIG: &str = "cluster_config.json";

/// The variable that names endpoints.
pub(crate) const ENDPOINTS_VARIABLE: &str = "MEMKV_ENDPOINTS";

/// The variables that hold the password or name its file.
pub(crate) const PASSWORD_VARIABLE: &str = "MEMKV_PASSWORD";
pub(crate) const PASSWORD_FILE_VARIABLE: &str = "MEMKV_PASSWORD_FILE";

/// The user whose password that is.
const USER_VARIABLE: &str = "MEMKV_USER";

const AFTER_HELP: &str = "\
Without a command it is a prompt for Redis's commands, with hints, completion and
a history in $XDG_STATE_HOME/memkv/history or ~/.local/state/memkv/history. From
a pipe or a file it executes line by line, and exits with the highest code that
an error earned; it stops where a connection is lost with a command under way.

The cluster is found through, in this order: --endpoints, --config, the variable
MEMKV_ENDPOINTS, cluster_config.json in the working directory, 127.0.0.1:11081.
The user is that of --user or of the variable MEMKV_USER, or \"default\".
The password is in the file of --password-file or of MEMKV_PASSWORD_FILE, which
no other user can read, or in the variable MEMKV_PASSWORD. Where there are both,
a file and MEMKV_PASSWORD, they must hold the same.

Exit codes: 0 done; 1 the key is absent, a condition does not hold, or a
transaction did its \"else\", or a backup or an export is not whole or cannot be
stored; 2 wrong usage; 3 unavailable, nothing was written; 4 outcome unknown: the
write may or may not have been executed, and is not sent a second time; 5 the
write was done, but standard output cannot be written.";

const RECOVER_HELP: &str = "\
It asks no node. The first of the table is the one to restore: it holds every
acknowledged write that any file holds. LACKS and OWN are entries, at most so many,
of the first and of the file that the other has not. Exits 1 if a file is damaged.";

/// Heading of what every command takes.
const EVERYWHERE: &str = "Options of every command";

/// Reads and writes the keys of a memkv cluster.
#[derive(Debug, Parser)]
#[command(name = "memkv_client", version, after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Nodes to ask, in this order: host:port,host:port
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "LIST")]
    pub(crate) endpoints: Option<String>,

    /// File with the cluster's nodes [default: cluster_config.json, if it is there]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The user; its password, or a token of its, is what the next option says [default: default]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "NAME", env = USER_VARIABLE, hide_env = true, value_parser = user)]
    pub(crate) user: Option<String>,

    /// File with the password
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// Reach all nodes over TLS, as endpoints with https:// say too
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) tls: bool,

    /// File with the CA of the nodes' certificates [default: the system's]
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,

    /// File with the certificate to show
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,

    /// File with its private key
    #[arg(id = "tls_key", long = "key", global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,

    /// How long to try, all nodes together, such as 5s, 500ms or 2.5
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,

    /// How to print what was found
    #[arg(short, long, global = true, help_heading = EVERYWHERE, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
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
    /// Sets KEY to VALUE and prints "ok"; exits 1 if a condition does not hold
    Set {
        /// The key
        key: OsString,
        /// The value; "-" reads it from standard input
        #[arg(allow_hyphen_values = true)]
        value: OsString,
        /// How often to send the same write, one after the other
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        times: u64,
        /// How long the key lives, such as 30s, 500ms, 5m, 12h or 7d
        #[arg(long, value_name = "TIME", value_parser = ttl)]
        ttl: Option<Duration>,
        /// Only if KEY is absent
        #[arg(long, group = "condition")]
        nx: bool,
        /// Only if KEY is there
        #[arg(long, group = "condition")]
        xx: bool,
        /// Only if KEY was last written at this revision, which "get -o json" prints
        #[arg(long, value_name = "N", group = "condition", value_parser = revision())]
        if_rev: Option<u64>,
    },
    /// Removes each KEY and prints "ok", whether it was there or not
    Del {
        /// The keys, which are removed one after the other
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<OsString>,
        /// Only if the one KEY was last written at this revision; exits 1 if not
        #[arg(long, value_name = "N", value_parser = revision())]
        if_rev: Option<u64>,
    },
    /// Adds BY to the number at KEY, 0 if it is absent, and prints the sum
    Incr {
        /// The key
        key: OsString,
        /// What to add, may be negative
        #[arg(default_value_t = 1, allow_negative_numbers = true)]
        by: i64,
    },
    /// Prints all keys that begin with PREFIX, and their values, in order
    Scan {
        /// How the keys begin
        #[arg(default_value = "", hide_default_value = true)]
        prefix: OsString,
        /// Only the keys
        #[arg(long)]
        keys: bool,
        /// At most so many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        /// Only keys behind this one
        #[arg(long, value_name = "KEY")]
        after: Option<OsString>,
    },
    /// Executes a transaction; exits 1 if its "else" was done
    ///
    /// FILE holds JSON as POST /v1/txn takes it:
    ///
    /// {"if":   [{"key": "lock", "exists": false}],
    ///  "then": [{"set": {"key": "lock", "value": "me", "ttl": "30s"}}],
    ///  "else": [{"get": {"key": "lock"}}]}
    ///
    /// A guard has one of exists, value, revision, create_revision; a step is one of set, get,
    /// delete, incr. Bytes that are no UTF-8 go under key_base64 and value_base64.
    #[command(verbatim_doc_comment)]
    Txn {
        /// The file; "-" reads it from standard input
        file: OsString,
    },
    /// Prints "yes", or prints "no" and exits 1
    Exist {
        /// The key
        key: OsString,
    },
    /// Shows all nodes and how well the cluster is; exits 3 if it does not serve
    Status,
    /// Shows what has happened to the nodes, in the order of time
    Events(events::Wanted),
    /// Saves all keys to a file, and tells what is in such files
    #[command(subcommand)]
    Backup(Backup),
    /// Writes the keys as lines of JSON to FILE; unlike a backup, not those of one moment
    Export {
        /// The file, which must not be there; "-" writes to standard output
        file: PathBuf,
        /// Only keys that begin with this
        #[arg(
            long,
            value_name = "PREFIX",
            default_value = "",
            hide_default_value = true
        )]
        prefix: OsString,
        /// Goes on with the same export that has failed
        #[arg(long)]
        resume: bool,
    },
    /// Sets the keys of a file of lines, as "export" writes them; those that are there are replaced
    Import(Import),
    /// Ranks what was salvaged after a majority was lost, and says what each FILE lacks
    #[command(after_help = RECOVER_HELP)]
    Recover {
        /// Files that `memkv_server salvage` wrote, or other backups of the same cluster
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Shows users and changes them, as Redis's ACL does
    #[command(subcommand)]
    Acl(Acl),
    /// Shows the members of the cluster and changes them
    #[command(subcommand)]
    Member(Member),
    /// Shows which node leads, or has another one lead
    Leader {
        /// What to do
        #[command(subcommand)]
        verb: Option<Leader>,
    },
}

/// Which keys are set.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Import {
    /// The file; it is checked whole before anything is written. "-" reads standard input
    pub(crate) file: PathBuf,
    /// Only keys that begin with this
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    pub(crate) prefix: OsString,
    /// Only keys that are absent; the others keep their values
    #[arg(long)]
    pub(crate) nx: bool,
    /// Begins with this line, as an import that has failed says
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from_line: u64,
    /// Only checks the file and says what would be written; asks no node
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub(crate) enum Backup {
    /// Saves all keys, users and settings as of now; from any node, while writes go on
    Save {
        /// The file, which only this user may read; in a directory it gets a name with time and
        /// revision; "-" writes to standard output; s3://BUCKET/KEY stores it in a bucket, and under
        /// s3://BUCKET/PREFIX/ it gets a name, too
        file: PathBuf,
        /// FILE is a directory or a prefix: afterwards only the newest N backups of this cluster stay
        /// there
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        keep: Option<u64>,
    },
    /// Reads all of a backup and exits 1 if any byte of it is not as it was written
    Verify {
        /// The backup, in a file or at s3://BUCKET/KEY; "-" reads it from standard input
        file: PathBuf,
    },
    /// Prints what a backup says of itself
    Inspect {
        /// The backup, in a file or at s3://BUCKET/KEY; "-" reads it from standard input
        file: PathBuf,
    },
    /// Lists the backups in a directory or under a prefix of a bucket, oldest first
    Ls {
        /// The directory, or s3://BUCKET/PREFIX/
        dir: PathBuf,
    },
    /// Brings a backup from a bucket here, whole or not at all
    Fetch {
        /// The backup: s3://BUCKET/KEY
        from: PathBuf,
        /// The file, or the directory in which it keeps its name; "-" writes to standard output
        file: PathBuf,
    },
}

impl Backup {
    /// Whether a node must be asked.
    pub(crate) fn needs_cluster(&self) -> bool {
        matches!(self, Self::Save { .. })
    }
}

/// What to do with users.
#[derive(Debug, Subcommand)]
pub(crate) enum Acl {
    /// Makes the table of users in a cluster that has none, with the user "default" as it is
    Init,
    /// Prints a line for each user, as "acl set" takes it
    List,
    /// Makes or changes USER, such as: acl set ann on '>-' '~app:*' +@all -@admin
    Set {
        /// The user
        #[arg(value_name = "USER")]
        name: OsString,
        /// Rules as ACL SETUSER takes them; ">-" reads a password from standard input, where other
        /// users of the machine do not see it
        #[arg(allow_hyphen_values = true, value_name = "RULE")]
        rules: Vec<OsString>,
    },
    /// Describes USER
    Get {
        /// The user
        #[arg(value_name = "USER")]
        name: OsString,
    },
    /// Removes each USER, and ends their connections
    Del {
        /// The users
        #[arg(required = true, value_name = "USER")]
        users: Vec<OsString>,
    },
    /// Prints the user of this connection
    Whoami,
    /// Prints what the node has refused lately
    Log {
        /// At most so many; "reset" forgets them
        #[arg(value_name = "N")]
        count: Option<OsString>,
    },
    /// Makes a token of USER and prints it, once
    Token {
        /// The user
        #[arg(value_name = "USER")]
        name: OsString,
        /// How long it is taken, such as 12h or 90d
        #[arg(long, value_name = "TIME", default_value = "90d", value_parser = ttl)]
        ttl: Duration,
    },
    /// Tells whether USER may execute a command
    Dryrun {
        /// The user
        #[arg(value_name = "USER")]
        name: OsString,
        /// The command and its arguments
        #[arg(required = true, allow_hyphen_values = true, trailing_var_arg = true)]
        command: Vec<OsString>,
    },
}

impl Acl {
    /// The command that a node gets.
    pub(crate) fn words(self) -> Vec<OsString> {
        let acl = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let with = |words: &[&str], rest: Vec<OsString>| [acl(words), rest].concat();
        match self {
            Acl::Init => acl(&["MEMKV.USERS", "INIT"]),
            Acl::List => acl(&["ACL", "LIST"]),
            Acl::Set { name, rules } => with(&["ACL", "SETUSER"], [vec![name], rules].concat()),
            Acl::Get { name } => with(&["ACL", "GETUSER"], vec![name]),
            Acl::Del { users } => with(&["ACL", "DELUSER"], users),
            Acl::Whoami => acl(&["ACL", "WHOAMI"]),
            Acl::Log { count } => with(&["ACL", "LOG"], count.into_iter().collect()),
            Acl::Token { name, ttl } => {
                let seconds = ttl.as_secs().max(1).to_string().into();
                with(&["MEMKV.USERS", "TOKEN"], vec![name, seconds])
            }
            Acl::Dryrun { name, command } => {
                with(&["ACL", "DRYRUN"], [vec![name], command].concat())
            }
        }
    }
}

fn user(name: &str) -> Result<String, String> {
    match name.is_empty() || name.contains(':') {
        false => Ok(name.to_owned()),
        true => Err("the name of a user is not empty and has no colon".to_owned()),
    }
}

/// Revisions begin with 1.
fn revision() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
}

pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    let ms = ttl_ms(text).and_then(|ms| u64::try_from(ms).ok());
    ms.map(Duration::from_millis)
        .ok_or_else(|| "write a whole number above 0 with ms, s, m, h or d, such as 30s".to_owned())
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
    use memkv_client::Condition;

    use super::super::commands::condition;
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
    fn one_condition_at_most() {
        let parse = |words: &[&str]| {
            let words = ["memkv_client", "set", "k", "v"].iter().chain(words);
            Args::try_parse_from(words).map(|args| match args.command {
                Some(Command::Set {
                    nx,
                    xx,
                    if_rev,
                    ttl,
                    ..
                }) => (condition(nx, xx, if_rev), ttl),
                other => panic!("{other:?}"),
            })
        };
        let minute = Some(Duration::from_secs(60));
        assert_eq!(parse(&[]).unwrap(), (Condition::Always, None));
        assert_eq!(
            parse(&["--nx", "--ttl", "1m"]).unwrap(),
            (Condition::Absent, minute)
        );
        assert_eq!(parse(&["--xx"]).unwrap().0, Condition::Present);
        assert_eq!(parse(&["--if-rev", "7"]).unwrap().0, Condition::Revision(7));
        for bad in [
            &["--nx", "--xx"][..],
            &["--nx", "--if-rev", "7"],
            &["--if-rev", "0"],
            &["--ttl", "0s"],
            &["--ttl", "soon"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn users_are_changed_by_the_words_of_redis() {
        let words = |line: &str| {
            let args = ["memkv_client", "acl"].into_iter().chain(line.split(' '));
            match Args::try_parse_from(args).unwrap().command {
                Some(Command::Acl(acl)) => {
                    let words = acl.words().into_iter();
                    let words: Vec<_> = words.map(|word| word.into_string().unwrap()).collect();
                    words.join(" ")
                }
                other => panic!("{other:?}"),
            }
        };
        for (line, sent) in [
            ("init", "MEMKV.USERS INIT"),
            ("list", "ACL LIST"),
            (
                "set ann on +@all -get ~a*",
                "ACL SETUSER ann on +@all -get ~a*",
            ),
            ("get ann", "ACL GETUSER ann"),
            ("del ann bob", "ACL DELUSER ann bob"),
            ("whoami", "ACL WHOAMI"),
            ("log", "ACL LOG"),
            ("log reset", "ACL LOG reset"),
            ("token ann --ttl 1m", "MEMKV.USERS TOKEN ann 60"),
            ("token ann", "MEMKV.USERS TOKEN ann 7776000"),
            ("dryrun ann get -x", "ACL DRYRUN ann get -x"),
        ] {
            assert_eq!(words(line), sent);
        }
    }

    #[test]
    fn values_may_begin_with_a_hyphen() {
        let args = ["memkv_client", "incr", "n", "-5"];
        let args = Args::try_parse_from(args).unwrap();
        assert!(matches!(args.command, Some(Command::Incr { by: -5, .. })));
        for words in [["set", "k", "-5"], ["set", "k", "-"], ["set", "k", "--x=y"]] {
            let args = Args::try_parse_from(["memkv_client"].into_iter().chain(words)).unwrap();
            let Some(Command::Set { value, times, .. }) = args.command else {
                panic!("{words:?}")
            };
            assert_eq!((value, times), (OsString::from(words[2]), 1));
        }
        let args = ["memkv_client", "set", "k", "-5", "3", "-o", "json"];
        let args = Args::try_parse_from(args).unwrap();
        assert_eq!(args.output, Format::Json);
        assert!(matches!(args.command, Some(Command::Set { times: 3, .. })));
        assert!(Args::try_parse_from(["memkv_client", "set", "k", "v", "0"]).is_err());
    }
}
