//! The commands of the README, of `docs/operations.md` and of `docs/recover.md`: extracted from the page, run, and compared
//! with the output that the page shows.
//!
//! The `sh` blocks of a section form one script, which runs in the repository as a reader would run it,
//! with temporary files in a directory of its own. The demo runs in the background until its section
//! ends; the test command itself is left out. A `text` block after an `sh` block is its output: every
//! line must occur in the output, in this order, and `...` in a line stands for any text.
//!
//! Where the system allows it, a section has a network of its own, so that the fixed ports of a page
//! collide with no other process.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use memkv_black_box::{Ca, Process, binary, eventually, free_port};

/// Runs until its section ends, so it goes to the background.
const DEMO: &str = "cargo run --release -- demo";
/// Runs this test among all others, so it is left out.
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

/// The page's configuration, which is n1's, as another node's in a directory, at ports of this machine.
fn own_config(config: &str, dir: &Path, number: usize, ports: &[u16]) -> String {
    let name = format!("n{number}");
    let mut own = config.replace("/etc/memkv", dir.to_str().unwrap());
    own = own.replace("/var/lib/memkv", dir.join(&name).to_str().unwrap());
    own = own.replace("n1.", &format!("{name}."));
    // n1 and this node change their roles.
    let nodes = match number {
        1 => [1, 2, 3],
        2 => [2, 1, 3],
        _ => [3, 2, 1],
    };
    for (shown, node) in (1..).zip(nodes) {
        let theirs = format!("\"10.0.0.{shown}:11081\", \"id\": \"n{shown}\"");
        let ours = format!("\"127.0.0.1:{}\", \"id\": \"N{node}\"", ports[node - 1]);
        assert!(own.contains(&theirs), "{theirs} in {own}");
        own = own.replace(&theirs, &ours);
    }
    own.replace("\"N", "\"n")
}

/// The configuration of the packages' page is that of a member on another machine, so the test puts other addresses and
/// directories into it, and takes the rest as it stands.
#[test]
fn the_configuration_of_three_machines_makes_a_cluster_with_tls() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let page = fs::read_to_string(repository().join("docs/operations.md")).unwrap();
    let section = page
        .split("\n## ")
        .find(|it| it.starts_with("Three machines"));
    let section = section.expect("the page has a section for three machines");
    let (_, config) = section.split_once("```json\n").unwrap();
    let (config, _) = config.split_once("```").unwrap();
    let root = tempfile::tempdir().unwrap();
    let ca = Ca::new(root.path(), "etc");
    for name in ["cluster_secret", "password"] {
        let secret = Command::new(binary("memkv_server")).arg("secret").output();
        fs::write(ca.file(name), secret.unwrap().stdout).unwrap();
        fs::set_permissions(ca.file(name), Permissions::from_mode(0o600)).unwrap();
    }
    let dir = root.path().join("etc");
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let nodes: Vec<Process> = (1..=3)
        .map(|number| {
            let name = format!("n{number}");
            ca.issue_node(&name);
            let file = ca.file(&format!("{name}.json"));
            fs::write(&file, own_config(config, &dir, number, &ports)).unwrap();
            let mut server = Command::new(binary("memkv_server"));
            server.args(["--config", &file]);
            Process::start(&mut server, &dir.join(format!("{name}.log")))
        })
        .collect();
    let endpoints: Vec<String> = ports
        .iter()
        .map(|port| format!("127.0.0.1:{port}"))
        .collect();
    eventually("all three nodes serve", PATIENCE, || {
        let mut client = Command::new(binary("memkv_client"));
        client.args(["--tls", "--cacert", "ca.crt", "status"]);
        client.current_dir(&dir);
        client.env("MEMKV_ENDPOINTS", endpoints.join(","));
        client.env("MEMKV_PASSWORD_FILE", "password");
        let said = client.output().unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        text.contains("healthy: 3 of 3 voters serve").then_some(())
    });
    drop(nodes);
}

/// The sections that have commands.
fn sections(page: &str) -> Vec<Section> {
    let mut sections = vec![Section::default()];
    let mut fence: Option<&str> = None;
    for line in page.lines() {
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

/// The line of the script for a line of a page.
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

/// The end of the first range from `from` on in which a line of `output` shows `line` of a page.
fn occurs(line: &str, output: &str, from: usize) -> Option<usize> {
    let mut start = from;
    for printed in output[from..].split_inclusive('\n') {
        let mut end = 0;
        let found = line.split("...").all(|part| {
            let at = printed[end..].find(part);
            end += at.map_or(0, |at| at + part.len());
            at.is_some()
        });
        if found {
            return Some(start + end);
        }
        start += printed.len();
    }
    None
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

/// Held by the page that runs: where no network of its own is allowed, all pages use the same ports.
static ONE_PAGE: Mutex<()> = Mutex::new(());

/// Runs every section of a page that has commands, and compares the output.
fn run(page: &str) {
    let _one = ONE_PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let binaries = binary("memkv_server").parent().unwrap().to_path_buf();
    let path = std::env::join_paths(
        [binaries]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let path = path.unwrap();
    let sections = sections(&text);
    assert!(!sections.is_empty(), "{page} has commands");
    for section in sections {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "set -euo pipefail\nip link set lo up 2>/dev/null || true\n\
             trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\n{}",
            section.script
        );
        fs::write(dir.path().join("script"), &script).unwrap();
        let done = shell()
            .arg(dir.path().join("script"))
            .current_dir(repository())
            .env("PATH", &path)
            .env("TMPDIR", dir.path())
            // redis-cli prints as on a terminal.
            .env("FAKETTY", "1")
            .output()
            .unwrap();
        let streams = [&done.stdout[..], b"\n", &done.stderr[..]].concat();
        let output = String::from_utf8_lossy(&streams);
        let title = &section.title;
        assert!(
            done.status.success(),
            "{page}, section `{title}`: {}\n{output}",
            done.status
        );
        let mut from = 0;
        for line in section.shown.iter().filter(|line| !line.trim().is_empty()) {
            match occurs(line.trim_end(), &output, from) {
                Some(end) => from = end,
                None => panic!("{page}, section `{title}` shows\n{line}\nbut printed\n{output}"),
            }
        }
    }
}

#[test]
fn every_command_of_the_readme_works_and_prints_what_it_shows() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    for command in [DEMO, TEST] {
        let alone = readme.lines().filter(|line| *line == command).count();
        assert_eq!(alone, 1, "the README has the line `{command}` once");
    }
    run("README.md");
}

#[test]
fn every_command_of_the_operations_page_works_and_prints_what_it_shows() {
    run("docs/operations.md");
}

#[test]
fn every_command_of_the_worst_days_page_works_and_prints_what_it_shows() {
    run("docs/recover.md");
}

/// Each row of the README's benchmark has its figures from the page that the benchmark writes.
#[test]
fn the_readme_shows_figures_of_the_performance_page_only() {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let page = fs::read_to_string(repository().join("docs/performance.md")).unwrap();
    let (_, section) = readme.split_once("\n## Performance\n").unwrap();
    let rows: Vec<&str> = section
        .lines()
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2)
        .collect();
    assert_eq!(rows.len(), 6);
    for row in rows {
        for cell in row.split('|').skip(2).map(str::trim) {
            let figure = cell.split(' ').next().unwrap();
            let known = page.contains(&format!(" {figure} ("));
            assert!(
                matches!(figure, "" | "-") || known,
                "docs/performance.md has no median {figure}, which the README shows in\n{row}"
            );
        }
    }
}

#[test]
fn dots_stand_for_anything_and_nothing_else_does() {
    assert!(occurs("ready in ... ms", "x\nready in 41 ms now\n", 0).is_some());
    assert!(occurs("ready in ... ms", "ready in\n41 ms\n", 0).is_none());
    assert!(occurs("{\"status\":\"ok\"}", "{\"status\":\"no\"}", 0).is_none());
}

#[test]
fn lines_occur_in_the_order_in_which_they_are_shown() {
    let output = "ok\nfirst\nsecond\n";
    let end = occurs("first", output, 0).unwrap();
    assert!(occurs("second", output, end).is_some());
    assert!(occurs("ok", output, end).is_none());
}
