//! `memkv_server doctor` beside nodes that run: it measures and judges, names nodes that are down, and leaves
//! nothing behind.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use memkv_black_box::{Cluster, binary};
use serde_json::Value;

fn doctor(data: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(binary("memkv_server"));
    command.args(["doctor", "--data"]).arg(data).args(words);
    command.output().unwrap()
}

/// Verdict and text of each check; those of peers by their names.
fn findings(output: &Output) -> BTreeMap<String, (String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let lines = String::from_utf8(output.stdout.clone()).unwrap();
    let found = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let (check, found) = (text(&line["check"]), text(&line["found"]));
        let verdict = text(&line["verdict"]);
        assert_eq!(text(&line["next"]).is_empty(), verdict == "ok", "{line}");
        let key = match &*check {
            "peer" => found.split(' ').next().unwrap().to_owned(),
            _ => check,
        };
        (key, (verdict, found))
    });
    found.collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_doctor_beside_running_nodes_judges_all_and_leaves_nothing() {
    let mut cluster = Cluster::start(3);
    let (dir, other) = (cluster.nodes[0].dir.clone(), cluster.nodes[1].id.clone());
    let before = names(&dir);
    let output = doctor(&dir, &["--json"]);
    let found = findings(&output);
    assert_eq!(names(&dir), before);
    let verdict = |check: &str| found[check].0.as_str();
    for check in [
        "fsync",
        "disk space",
        "open files",
        "memory",
        "huge pages",
        "overcommit",
        "swap",
        "clock",
    ] {
        assert!(["ok", "warn", "bad"].contains(&verdict(check)), "{check}");
    }
    assert!(found["fsync"].1.contains("p99"), "{found:?}");
    assert_eq!(verdict(&other), "ok", "{found:?}");
    assert!(found[&other].1.contains("runs 0."), "{found:?}");
    let is_bad = found.values().any(|(verdict, _)| verdict == "bad");
    assert_eq!(output.status.code(), Some(i32::from(is_bad)), "{found:?}");
    // A node that is down is named, and is no reason to fail: it may be started next.
    cluster.nodes[1].kill();
    let found = findings(&doctor(&dir, &["--json"]));
    assert_eq!(found[&other].0, "warn", "{found:?}");
    assert!(found[&other].1.contains("does not answer"), "{found:?}");
    cluster.nodes[1].start();
    cluster.wait_serving();
    let people = doctor(&dir, &[]);
    let text = String::from_utf8(people.stdout).unwrap();
    assert!(
        text.contains("fsync       200 writes") || text.contains("writes to"),
        "{text}"
    );
    let wide: Vec<&str> = text.lines().filter(|line| line.contains('\t')).collect();
    assert_eq!(wide, [""; 0]);
}

#[test]
fn what_is_bad_is_said_with_the_exit_code() {
    let cluster = Cluster::configured(1);
    let dir = &cluster.nodes[0].dir;
    let server = binary("memkv_server");
    let few = format!(
        "ulimit -n 64; exec {} doctor --json --data {}",
        server.display(),
        dir.display()
    );
    let output = Command::new("sh").args(["-c", &few]).output().unwrap();
    let found = findings(&output);
    assert_eq!(found["open files"].0, "bad", "{found:?}");
    assert_eq!(output.status.code(), Some(1), "{found:?}");
    let absent = doctor(&dir.join("absent"), &[]);
    assert_eq!(absent.status.code(), Some(1));
    let said = String::from_utf8(absent.stderr).unwrap();
    assert!(said.contains("--data"), "{said}");
    let wrong = doctor(dir, &["--election-timeout-ms", "1"]);
    assert_eq!(wrong.status.code(), Some(2));
}
