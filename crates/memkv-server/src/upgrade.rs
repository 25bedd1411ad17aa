//! `memkv_server upgrade-check`: whether this binary may replace the one that runs, or that ran on a directory; and
//! whether the other one could come back.
//!
//! Never writes, never locks, never starts anything: it reads a node's status, or the heads of a directory's files.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use memkv_disk::{Layout, Survey, survey};
use memkv_proto::{STATUS_PATH, Status};
use memkv_store::HIGHEST_LEVEL;

use crate::console;
use crate::secrets::PASSWORD_VARIABLE;
use crate::settings::{Settings, SettingsError};

/// A node answers its status at once; more is taken for none.
const WITHIN: Duration = Duration::from_secs(5);

/// Far more than the status of the largest cluster.
const MAX_STATUS_BYTES: u64 = 1024 * 1024;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeArgs {
    /// A node that runs.
    Running {
        /// Its address, `host:port`.
        addr: String,
        /// The password may be sent to another machine as it is.
        in_clear: bool,
    },
    /// The directory of a node, as `--data` names it.
    Data(PathBuf),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error("cannot ask {addr}: {why}")]
    Ask { addr: String, why: String },
    #[error(
        "{addr} answers {status:?}. Where clients need TLS, or a password that MEMKV_PASSWORD does not hold, stop a \
         node and ask about its directory: memkv_server upgrade-check --data DIR"
    )]
    Status { addr: String, status: String },
    #[error(
        "this asks without TLS, and the password of MEMKV_PASSWORD would cross the network to {addr} as it is; nothing \
         was sent. Run this command on that machine, or stop the node and ask about its directory: memkv_server \
         upgrade-check --data DIR. --in-clear sends it all the same"
    )]
    Clear { addr: String },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "there is no data of a node below {}: name the directory that --data of the node is, and its configuration \
         with --config if that lies elsewhere",
        .0.display()
    )]
    NoNode(PathBuf),
    #[error("{}: {why}", path.display())]
    Identity { path: PathBuf, why: String },
}

/// Whether it may, and the sentences.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    may: bool,
    words: String,
}

/// The command.
pub(crate) fn command() -> Command {
    Command::new("upgrade-check")
        .about("Say whether this binary may replace the one that runs, and whether that one could come back; exits 1 if not")
        .arg(
            Arg::new("ADDR")
                .help("A node that runs, host:port; the password of the user default is in MEMKV_PASSWORD"),
        )
        .arg(
            Arg::new("in-clear")
                .long("in-clear")
                .action(ArgAction::SetTrue)
                .conflicts_with("data")
                .help("Send the password to another machine, although this command has no TLS"),
        )
        .arg(
            Arg::new("data")
                .long("data")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("The directory of a node, which is only read: relative paths of its configuration are below it"),
        )
        .group(ArgGroup::new("what").args(["ADDR", "data"]).required(true))
}

/// What was asked for.
pub(crate) fn args(matches: &ArgMatches) -> UpgradeArgs {
    match matches.get_one::<String>("ADDR") {
        Some(addr) => UpgradeArgs::Running {
            addr: addr.clone(),
            in_clear: matches.get_flag("in-clear"),
        },
        None => UpgradeArgs::Data(matches.get_one("data").cloned().unwrap_or_default()),
    }
}

/// Does it; returns the exit code: 0 if it may, 1 if it may not or if that cannot be told.
pub fn run(
    args: &UpgradeArgs,
    config: Option<PathBuf>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> u8 {
    let verdict = match args {
        UpgradeArgs::Running { addr, in_clear } => {
            let asked = ask(addr, variable(PASSWORD_VARIABLE), *in_clear);
            asked.map(|status| of_running(&status, HIGHEST_LEVEL))
        }
        UpgradeArgs::Data(data) => look(data, config, overrides, variable)
            .and_then(|(path, found)| of_directory(&path, &found, HIGHEST_LEVEL)),
    };
    match verdict {
        Ok(Verdict { may, words }) => {
            console::out(format_args!("{}: {words}", if may { "yes" } else { "no" }));
            u8::from(!may)
        }
        Err(error) => {
            console::error(&error);
            1
        }
    }
}

fn me(highest: u32) -> String {
    format!(
        "this binary ({}) knows feature levels up to {highest}",
        env!("CARGO_PKG_VERSION")
    )
}

/// How the other binary could come back.
fn way_back(level: u32, highest: u32, other: Option<u32>) -> String {
    let rises = format!(
        "The way back stays open until the leader raises the level, once every node knows a higher one; that \
         cannot be undone. max_feature_level = {level} at one node keeps it open"
    );
    match other {
        Some(other) if highest <= other => {
            "The binary that runs may come back: it knows all that this one does".to_owned()
        }
        Some(other) => format!("The binary that runs knows levels up to {other}. {rises}"),
        None if highest <= level => {
            "The binary that ran may come back: this one raises nothing".to_owned()
        }
        None => rises,
    }
}

fn of_running(status: &Status, highest: u32) -> Verdict {
    let (level, name) = (status.feature_level, &status.name);
    if level == 0 {
        let words = format!(
            "{name} does not say which feature level is in use; it is no node of memkv, or it starts"
        );
        return Verdict { may: false, words };
    }
    if level > highest {
        let words = format!(
            "feature level {level} is in use at {name}, and {}: it would refuse to start",
            me(highest)
        );
        return Verdict { may: false, words };
    }
    let own = status.members.iter().find(|member| member.name == *name);
    let announced = own.map(|member| member.highest_feature_level);
    let other = announced.filter(|highest| *highest > 0);
    let words = format!(
        "{}, and {name} ({}) uses level {level}. {}",
        me(highest),
        status.version,
        way_back(level, highest, other)
    );
    Verdict { may: true, words }
}

fn of_directory(path: &Path, found: &Survey, highest: u32) -> Result<Verdict, CheckError> {
    if !found.unreadable.is_empty() {
        let mut words = "this binary cannot read".to_owned();
        for (at, (path, why)) in found.unreadable.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(words, "{comma} {} ({why})", path.display());
        }
        words += "; it would refuse to start, and change nothing";
        return Ok(Verdict { may: false, words });
    }
    if found.identity.is_empty() {
        return Err(CheckError::NoNode(path.to_path_buf()));
    }
    let identity = |why| CheckError::Identity {
        path: path.to_path_buf(),
        why,
    };
    let Some(level) = memkv_node::level_of(found.identity.clone()).map_err(identity)? else {
        let words = format!("{} belongs to no cluster yet", path.display());
        return Ok(Verdict { may: true, words });
    };
    if level > highest {
        let words = format!(
            "feature level {level} is in use in {}, and {}: it would refuse to start",
            path.display(),
            me(highest)
        );
        return Ok(Verdict { may: false, words });
    }
    let words = format!(
        "{}, and {} uses level {level}; it reads all {} files of the log and the snapshots there. {}",
        me(highest),
        path.display(),
        found.readable,
        way_back(level, highest, None)
    );
    Ok(Verdict { may: true, words })
}

/// The directory's metadata, as its configuration places it, and what is in the directory.
fn look(
    data: &Path,
    config: Option<PathBuf>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(PathBuf, Survey), CheckError> {
    let read = |source| CheckError::Read {
        path: data.to_path_buf(),
        source,
    };
    // Before the working directory changes.
    let config = config.map(std::path::absolute).transpose().map_err(read)?;
    std::env::set_current_dir(data).map_err(read)?;
    let settings = Settings::load(config.as_deref(), None, overrides, variable)?;
    let layout: Layout = settings.node_config().layout;
    let found = survey(&layout).map_err(read)?;
    Ok((data.join(&layout.metadata), found))
}

/// The status of a node over plain HTTP. A password leaves this machine only if `in_clear`.
pub(crate) fn ask(
    addr: &str,
    password: Option<String>,
    in_clear: bool,
) -> Result<Status, CheckError> {
    let failed = |why: String| CheckError::Ask {
        addr: addr.to_owned(),
        why,
    };
    let io = |error: io::Error| failed(error.to_string());
    let mut sockets = addr.to_socket_addrs().map_err(io)?;
    let socket = sockets
        .next()
        .ok_or_else(|| failed("it is no address".to_owned()))?;
    if password.is_some() && !in_clear && !socket.ip().is_loopback() {
        return Err(CheckError::Clear {
            addr: addr.to_owned(),
        });
    }
    let mut stream = TcpStream::connect_timeout(&socket, WITHIN).map_err(io)?;
    stream.set_read_timeout(Some(WITHIN)).map_err(io)?;
    let authorization = password.map_or(String::new(), |password| {
        format!(
            "Authorization: Bearer {}\r\n",
            password.trim_end_matches(['\r', '\n'])
        )
    });
    let request = format!(
        "GET {STATUS_PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{authorization}\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(io)?;
    let mut answer = Vec::new();
    stream
        .take(MAX_STATUS_BYTES)
        .read_to_end(&mut answer)
        .map_err(io)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let line = head.lines().next().unwrap_or_default();
    if !line.starts_with("HTTP/1.1 200") {
        let line: String = line.chars().take(100).collect();
        return Err(CheckError::Status {
            addr: addr.to_owned(),
            status: line,
        });
    }
    serde_json::from_str(body)
        .map_err(|error| failed(format!("its status cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(level: u32, highest: u32) -> Status {
        let text = format!(
            r#"{{"name":"n1","role":"leader","leader":"n1","term":7,"commit_index":8,"applied_index":8,
            "members":[{{"name":"n1","addr":"h:1","role":"leader","highest_feature_level":{highest}}}],
            "durability":"sync","version":"0.9","feature_level":{level}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[track_caller]
    fn says(verdict: &Verdict, may: bool, words: &[&str]) {
        assert_eq!(verdict.may, may, "{}", verdict.words);
        for part in words {
            assert!(verdict.words.contains(part), "{}", verdict.words);
        }
    }

    #[test]
    fn both_directions_are_judged() {
        let newer = of_running(&running(3, 3), 4);
        says(
            &newer,
            true,
            &[
                "up to 4",
                "uses level 3",
                "runs knows levels up to 3",
                "max_feature_level = 3",
            ],
        );
        let back = of_running(&running(3, 4), 3);
        says(&back, true, &["up to 3", "may come back"]);
        let too_late = of_running(&running(4, 4), 3);
        says(
            &too_late,
            false,
            &[
                "feature level 4 is in use",
                "up to 3",
                "would refuse to start",
            ],
        );
        says(&of_running(&running(0, 0), 3), false, &["does not say"]);
    }

    #[test]
    fn a_password_leaves_this_machine_only_if_that_is_asked_for() {
        // Of a network for documentation (RFC 5737): nothing is there, and nothing is tried.
        let refused = ask("192.0.2.1:1", Some("secret".to_owned()), false).unwrap_err();
        assert!(matches!(refused, CheckError::Clear { .. }), "{refused}");
        let words = refused.to_string();
        assert!(
            words.contains("--in-clear") && !words.contains("secret"),
            "{words}"
        );
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = gone.local_addr().unwrap().to_string();
        drop(gone);
        let tried = ask(&addr, Some("secret".to_owned()), false).unwrap_err();
        assert!(matches!(tried, CheckError::Ask { .. }), "{tried}");
    }

    #[test]
    fn a_directory_that_cannot_be_read_is_named_with_the_reason() {
        let mut found = Survey {
            readable: 2,
            ..Survey::default()
        };
        let judged = |found: &Survey| of_directory(Path::new("d/metadata"), found, 3).unwrap();
        let nothing = of_directory(Path::new("d"), &found, 3).unwrap_err();
        assert!(
            nothing.to_string().contains("no data of a node below d"),
            "{nothing}"
        );
        let file = (
            PathBuf::from("log/1.log"),
            "its format version is 3".to_owned(),
        );
        found.unreadable.push(file);
        says(
            &judged(&found),
            false,
            &["log/1.log", "its format version is 3"],
        );
        found.unreadable.clear();
        found.identity = bytes::Bytes::from_static(b"\xff");
        assert!(of_directory(Path::new("d"), &found, 3).is_err());
    }
}
