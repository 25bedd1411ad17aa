//! The README's commands, extracted from the README itself and run, and the output that it shows.
//!
//! Each section's `sh` blocks are one script, run in the repository as a reader would, with temporary
//! files in a directory of its own. The demo runs in the background until its section ends; the
//! test command itself is left out. A `text` block after an `sh` block is what its commands print:
//! every line must occur in the output, and `...` in it stands for anything.
//!
//! Where the system allows it, a section has a network of its own, so that the README's fixed ports
//! meet nobody else's.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memkv_black_box::binary;

const DEMO: &str = "cargo run --release -- demo";
const TEST: &str = "cargo xtask test";

#[derive(Default)]
struct Section {
    title: String,
    script: String,
    shown: Vec<String>,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

/// The sections that have commands.
fn sections(readme: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut fence: Option<&str> = None;
    for line in readme.lines() {
        let section = sections.last_mut().unwrap();
        match (fence, line.strip_prefix("```")) {
            (None, Some(kind)) => fence = Some(kind),
            (Some(_), Some(_)) => fence = None,
            (Some("sh"), None) => section.script.push_str(&command(line)),
            (Some("text"), None) if !section.script.is_empty() => {
                section.shown.push(line.to_owned())
            }
            (None, None) if line.starts_with("## ") => {
                sections.push(Section {
                    title: line[3..].to_owned(),
                    ..Section::default()
                });
            }
            _ => {}
        }
    }
    sections.retain(|section| !section.script.is_empty());
    sections
}

/// A line of the script for a line of the README.
fn command(line: &str) -> String {
    match line.trim() {
        TEST => String::new(),
        DEMO => format!(
            "{DEMO} > \"$TMPDIR/demo.log\" 2>&1 & demo=$!\n\
             until grep -q ready \"$TMPDIR/demo.log\"; do kill -0 $demo; sleep 0.1; done\n\
             cat \"$TMPDIR/demo.log\"\n"
        ),
        _ => format!("{line}\n"),
    }
}

/// Whether `line` of the README stands for some line of the output.
fn occurs(line: &str, output: &str) -> bool {
    output.lines().any(|printed| {
        let mut rest = printed;
        line.split("...").all(|part| match rest.find(part) {
            Some(index) => {
                rest = &rest[index + part.len()..];
                true
            }
            None => false,
        })
    })
}

/// A shell in a network of its own, or a plain one where that is not allowed.
fn shell() -> Command {
    let own = ["--net", "--map-root-user", "sh", "-c", "ip link set lo up"];
    match Command::new("unshare").args(own).output() {
        Ok(output) if output.status.success() => {
            let mut command = Command::new("unshare");
            command.args(["--net", "--map-root-user", "bash"]);
            command
        }
        _ => Command::new("bash"),
    }
}

#[test]
fn every_command_of_the_readme_works_and_prints_what_it_shows() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let binaries = binary("memkv_server").parent().unwrap().to_path_buf();
    let path = std::env::join_paths(
        [binaries]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap();
    let sections = sections(&readme);
    assert!(sections.len() >= 2, "the README has commands");
    for section in sections {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "set -euo pipefail\nip link set lo up 2>/dev/null || true\n\
             trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{}",
            section.script
        );
        fs::write(dir.path().join("script"), &script).unwrap();
        let done = shell()
            .arg(dir.path().join("script"))
            .current_dir(repository())
            .env("PATH", &path)
            .env("TMPDIR", dir.path())
            .output()
            .unwrap();
        let streams = [&done.stdout[..], b"\n", &done.stderr[..]].concat();
        let output = String::from_utf8_lossy(&streams);
        let title = &section.title;
        assert!(
            done.status.success(),
            "section `{title}`: {}\n{output}",
            done.status
        );
        for line in section.shown.iter().filter(|line| !line.trim().is_empty()) {
            assert!(
                occurs(line.trim_end(), &output),
                "section `{title}` shows\n{line}\nbut printed\n{output}"
            );
        }
    }
}

#[test]
fn dots_stand_for_anything_and_nothing_else_does() {
    assert!(occurs("ready in ... ms", "x\nready in 41 ms now\n"));
    assert!(!occurs("ready in ... ms", "ready in\n41 ms\n"));
    assert!(!occurs("{\"status\":\"ok\"}", "{\"status\":\"no\"}"));
}
