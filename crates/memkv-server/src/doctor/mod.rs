//! `memkv_server doctor`: looks at the machine of a node, measures its disk, and says in words what is well and
//! what is not, why, and what to do.
//!
//! Never touches a node's files and refuses nothing while a node runs: it writes one file of its own beside them,
//! and removes it. Invariant: each check has one line, and only what would keep a node from serving well is bad.

mod disk;
mod machine;
mod peers;

use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;

use crate::console;
use crate::settings::{Settings, SettingsError};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorArgs {
    /// The directory of the node; without it the working directory.
    data: Option<PathBuf>,
    /// For programs.
    json: bool,
}

/// How well something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    Warn,
    Bad,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What was found, and why it counts.
    found: String,
    /// What to do; empty where all is well.
    next: &'static str,
}

impl Finding {
    fn ok(check: &'static str, found: String) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found,
            next: "",
        }
    }

    fn warn(check: &'static str, found: String, next: &'static str) -> Self {
        Self {
            check,
            verdict: Verdict::Warn,
            found,
            next,
        }
    }

    fn bad(check: &'static str, found: String, next: &'static str) -> Self {
        Self {
            verdict: Verdict::Bad,
            ..Self::warn(check, found, next)
        }
    }
}

/// One line for people, and a second one with the next step.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<5} {:<11} {}",
            self.verdict.word(),
            self.check,
            self.found
        )?;
        match self.next {
            "" => Ok(()),
            next => write!(f, "\n                  next: {next}"),
        }
    }
}

/// Why nothing can be looked at.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("cannot work in {}: {source}; name the directory of the node with --data", path.display())]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// The command.
pub(crate) fn command() -> Command {
    Command::new("doctor")
        .about("Look at this machine, its disk and the other nodes, and say what is well and what is not; exits 1 if something is bad")
        .arg(
            Arg::new("data")
                .long("data")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("The directory of the node: relative paths of its configuration are below it [default: the working directory]"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .action(ArgAction::SetTrue)
                .help("Print an object per line: check, verdict, found, next"),
        )
}

/// What was asked for.
pub(crate) fn args(matches: &ArgMatches) -> DoctorArgs {
    DoctorArgs {
        data: matches.get_one("data").cloned(),
        json: matches.get_flag("json"),
    }
}

/// Does it; returns the exit code: 0 if nothing is bad, 1 if something is, 2 for a wrong configuration.
pub fn run(
    args: &DoctorArgs,
    config: Option<PathBuf>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> u8 {
    let findings = match look(args.data.as_deref(), config, overrides, variable) {
        Ok(findings) => findings,
        Err(failure) => {
            return console::end(Err(failure), |failure| {
                matches!(failure, Failure::Settings(_))
            });
        }
    };
    for finding in &findings {
        match args.json {
            true => console::out(json!({
                "check": finding.check,
                "verdict": finding.verdict.word(),
                "found": finding.found,
                "next": finding.next,
            })),
            false => console::out(finding),
        }
    }
    let worst = findings.iter().map(|finding| finding.verdict).max();
    u8::from(worst == Some(Verdict::Bad))
}

fn look(
    data: Option<&Path>,
    config: Option<PathBuf>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Finding>, Failure> {
    let data = data.unwrap_or(Path::new("."));
    let failed = |source| Failure::Directory {
        path: data.to_path_buf(),
        source,
    };
    // Before the working directory changes.
    let config = config
        .map(std::path::absolute)
        .transpose()
        .map_err(failed)?;
    std::env::set_current_dir(data).map_err(failed)?;
    let settings = Settings::load(config.as_deref(), None, overrides, variable)?;
    let mut findings = disk::look(&settings);
    findings.extend(machine::look(&settings));
    findings.extend(peers::look(&settings));
    Ok(findings)
}

/// A size as people read it.
fn size(bytes: u64) -> String {
    match bytes >> 20 {
        mib @ 0..4096 => format!("{mib} MiB"),
        mib => format!("{} GiB", mib >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_with_the_next_step_below() {
        let well = Finding::ok("swap", "none".to_owned());
        assert_eq!(well.to_string(), "ok    swap        none");
        let ill = Finding::bad("open files", "64 may be open".to_owned(), "raise it");
        assert_eq!(
            ill.to_string(),
            "bad   open files  64 may be open\n                  next: raise it"
        );
        assert!(Verdict::Ok < Verdict::Warn && Verdict::Warn < Verdict::Bad);
        assert_eq!(
            (size(3 << 20), size(9 << 30)),
            ("3 MiB".to_owned(), "9 GiB".to_owned())
        );
    }
}
