//! The test programs of the workspace: built in one go, run by this program.
//!
//! `cargo test -p ONE` and `cargo test --workspace --exclude ONE` select different features of shared
//! crates, so that each would build most crates again: a third of the time of a whole test run. Here
//! cargo builds everything once and says where the programs are; each is then run in the directory of its package,
//! as cargo runs it, but without the variables of a package.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::cargo::{cargo, forget_package, run_lines};

/// A program that holds tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The directory of its package.
    pub(crate) package: PathBuf,
    /// `unit tests` or the name of the file below `tests/`.
    name: String,
    executable: PathBuf,
}

impl Program {
    /// Whether it is the file of this name below `tests/`.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name == name
    }

    fn command(&self, envs: &[(&str, PathBuf)]) -> Command {
        let mut command = Command::new(&self.executable);
        command.current_dir(&self.package);
        // The tests of the pages call cargo.
        forget_package(&mut command);
        command.envs(envs.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.package.display(), self.name)
    }
}

/// Runs one after the other, also behind one that fails; `line` gets each line of the output.
pub(crate) fn run_each(
    programs: &[Program],
    envs: &[(&str, PathBuf)],
    mut line: impl FnMut(&str),
) -> Result<(), String> {
    let mut outcome = Ok(());
    for program in programs {
        println!("\n   {program}");
        let started = Instant::now();
        outcome = outcome.and(run_lines(&mut program.command(envs), &mut line));
        println!("   {:.1} s", started.elapsed().as_secs_f64());
    }
    outcome
}

/// Runs `beside` of them at a time. The output of each is shown when it has ended, so that none runs into another.
pub(crate) fn run_beside(
    programs: &[Program],
    beside: usize,
    envs: &[(&str, PathBuf)],
    mut line: impl FnMut(&str),
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let (ended, results) = mpsc::channel();
    let mut outcome = Ok(());
    thread::scope(|scope| {
        for worker in 0..beside {
            let (next, ended) = (&next, ended.clone());
            scope.spawn(move || {
                let share = ("MEMKV_PORTS_SHARE", format!("{worker}/{beside}"));
                while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let started = Instant::now();
                    let mut command = program.command(envs);
                    let output = command.env(share.0, &share.1).output();
                    // The receiver outlives the scope.
                    let _ = ended.send((program, started.elapsed(), output));
                }
            });
        }
        drop(ended);
        for (program, took, output) in results {
            println!("\n   {program}");
            let one = output.map_err(|error| format!("{program}: {error}"));
            let one = one.and_then(|output| {
                let streams = [output.stdout, output.stderr].concat();
                for text in String::from_utf8_lossy(&streams).lines() {
                    println!("{text}");
                    line(text);
                }
                let failed = || format!("{program} ended with {}", output.status);
                output.status.success().then_some(()).ok_or_else(failed)
            });
            println!("   {:.1} s", took.as_secs_f64());
            outcome = outcome.clone().and(one);
        }
    });
    outcome
}

/// Builds every test program of the workspace.
pub(crate) fn build() -> Result<Vec<Program>, String> {
    let mut build = cargo([
        "test",
        "--workspace",
        "--locked",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
    let mut child = build
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo: {error}"))?;
    let stdout = child.stdout.take().expect("stdout is piped");
    let mut programs = Vec::new();
    for message in BufReader::new(stdout).lines() {
        let message = message.map_err(|error| format!("cargo: {error}"))?;
        programs.extend(program(&message));
    }
    let status = child.wait().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("the tests did not build: {status}"));
    }
    // Cargo names them in the order in which they were built, which is chance.
    programs.sort_by(|a, b| (&a.package, &a.name).cmp(&(&b.package, &b.name)));
    Ok(programs)
}

/// What a message of cargo's says of a test program; `None` for every other message.
fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    let target = &message["target"];
    let name = match target["kind"][0].as_str()? {
        "test" => target["name"].as_str()?.to_owned(),
        kind => format!("unit tests of its {kind}"),
    };
    Some(Program {
        package: manifest.parent()?.to_path_buf(),
        name,
        executable: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Program, program};

    #[test]
    fn a_test_program_is_known_by_its_message() {
        let message = |reason: &str, kind: &str, test: bool| {
            format!(
                r#"{{"reason":"{reason}","manifest_path":"/w/crates/one/Cargo.toml",
                "target":{{"kind":["{kind}"],"name":"shapes"}},"profile":{{"test":{test}}},
                "executable":"/w/target/debug/deps/shapes-1"}}"#
            )
        };
        let expected = |name: &str| Program {
            package: "/w/crates/one".into(),
            name: name.to_owned(),
            executable: "/w/target/debug/deps/shapes-1".into(),
        };
        let of = |reason, kind, test| program(&message(reason, kind, test));
        assert_eq!(
            of("compiler-artifact", "test", true),
            Some(expected("shapes"))
        );
        assert_eq!(
            of("compiler-artifact", "lib", true),
            Some(expected("unit tests of its lib"))
        );
        assert_eq!(of("compiler-artifact", "bin", false), None);
        assert_eq!(of("build-finished", "test", true), None);
        assert_eq!(program("no JSON"), None);
    }
}
