//! `memkv_client` against real nodes: what HTTP can do from the command line, and the prompt for
//! Redis's commands from a pipe.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use memkv_black_box::{Cluster, binary, write_secret};
use serde_json::{Value, json};

/// Exit code, standard output, standard error of the program with this standard input.
fn run(dir: &Path, args: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(binary("memkv_client"))
        .current_dir(dir)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Standard input ends here.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Its output and its exit code.
fn told(dir: &Path, args: &[&str]) -> (i32, String) {
    let (code, data, _) = run(dir, args, "");
    (code, data)
}

fn said(code: i32, data: &str) -> (i32, String) {
    (code, data.to_owned())
}

#[test]
fn conditions_counters_listings_and_transactions_work_from_the_command_line() {
    let cluster = Cluster::start(3);
    let dir = cluster.client_dir();
    let told = |args: &[&str]| told(&dir, args);
    assert_eq!(
        told(&["set", "k", "v1", "--nx", "--ttl", "1h"]),
        said(0, "ok\n")
    );
    assert_eq!(told(&["set", "k", "v2", "--nx"]), said(1, ""));
    assert_eq!(told(&["set", "absent", "v", "--xx"]), said(1, ""));
    let entry: Value = serde_json::from_str(&told(&["get", "k", "-o", "json"]).1).unwrap();
    assert_eq!(entry["value"], "v1");
    assert!(entry["expires_ms"].is_u64(), "{entry}");
    let revision = entry["revision"].to_string();
    // Another key's write must not count.
    assert_eq!(told(&["incr", "n", "-7"]), said(0, "-7\n"));
    let set = ["set", "k", "v3", "--if-rev", &revision];
    assert_eq!(told(&set), said(0, "ok\n"));
    assert_eq!(told(&set), said(1, ""));
    assert_eq!(told(&["del", "k", "--if-rev", &revision]), said(1, ""));
    assert_eq!(told(&["get", "k"]), said(0, "v3\n"));
    assert_eq!(told(&["incr", "k"]).0, 2);

    let lock = json!({
        "if": [{"key": "lock", "exists": false}],
        "then": [{"set": {"key": "lock", "value": "me"}}, {"incr": {"key": "n"}}],
        "else": [{"get": {"key": "lock"}}],
    });
    let txn = || run(&dir, &["txn", "-"], &lock.to_string());
    assert_eq!(txn(), (0, "then\nok\n-6\n".to_owned(), String::new()));
    assert_eq!(txn(), (1, "else\nme\n".to_owned(), String::new()));

    // More keys than fit in a page.
    let keys: Vec<_> = (0..2_500).map(|at| format!("p/{at:04}")).collect();
    let sets: String = keys
        .iter()
        .map(|key| format!("mset {key} {key}\n"))
        .collect();
    let (code, _, talk) = run(&dir, &[], &sets);
    assert_eq!(code, 0, "{talk}");
    let (code, listed) = told(&["scan", "p/", "--keys"]);
    assert_eq!((code, listed), (0, keys.join("\n") + "\n"));
    let after = ["scan", "p/", "--after", "p/0100", "--limit", "1200"];
    let (_, listed) = told(&after);
    let lines: Vec<_> = listed.lines().collect();
    assert_eq!(lines.len(), 1_200);
    assert_eq!(
        (lines[0], lines[1_199]),
        ("p/0101  p/0101", "p/1300  p/1300")
    );
    assert_eq!(
        told(&["del", "p/0000", "k", "absent"]),
        said(0, "ok\nok\nok\n")
    );
}

#[test]
fn a_password_opens_every_way_in() {
    let mut cluster = Cluster::configured(1);
    let file = cluster.root().join("password");
    write_secret(&file, "correct horse\n");
    let file = file.to_str().unwrap().to_owned();
    let node = &mut cluster.nodes[0];
    let mut config = node.read_config();
    config["password_file"] = file.clone().into();
    node.write_config(&config);
    // The first command waits until the node listens.
    node.start();
    let dir = cluster.client_dir();
    let (code, _, talk) = run(&dir, &["set", "k", "v", "--timeout", "60s"], "");
    assert_eq!(code, 2, "{talk}");
    assert!(
        talk.contains("MK-040") && talk.contains("--password-file"),
        "{talk}"
    );
    assert_eq!(run(&dir, &[], "get k\n").0, 2);
    let with = ["--password-file", file.as_str()];
    let set = run(&dir, &[&with[..], &["set", "k", "v"]].concat(), "");
    assert_eq!(set, (0, "ok\n".to_owned(), String::new()));
    let get = run(&dir, &with, "get k\n");
    assert_eq!(get, (0, "\"v\"\n".to_owned(), String::new()));
    assert_eq!(run(&dir, &[&with[..], &["status"]].concat(), "").0, 0);
}

#[test]
fn the_prompt_knows_every_command_of_the_node() {
    let cluster = Cluster::start(1);
    let dir = cluster.client_dir();
    let (code, names, _) = run(&dir, &["-o", "raw"], "command list\n");
    assert_eq!(code, 0);
    let names: Vec<_> = names.lines().collect();
    assert!(names.len() > 50, "{names:?}");
    let asked: String = names.iter().map(|name| format!("help {name}\n")).collect();
    let (code, help, talk) = run(&dir, &[], &asked);
    assert_eq!((code, talk.as_str()), (0, ""));
    for name in &names {
        let usage = format!("  {}", name.to_uppercase());
        let known = |line: &str| line == usage || line.starts_with(&format!("{usage} "));
        assert!(help.lines().any(known), "{name}");
    }
    assert_eq!(help.matches("  summary: ").count(), names.len());
    let (_, overview, _) = run(&dir, &[], "help\n");
    let words: Vec<_> = overview.split_whitespace().collect();
    assert!(names.iter().all(|name| words.contains(name)), "{overview}");
    assert!(overview.lines().all(|line| line.len() <= 80), "{overview}");
}

#[test]
fn the_prompt_goes_on_at_another_node_when_its_own_is_killed() {
    let mut cluster = Cluster::start(3);
    let dir = cluster.client_dir();
    let mut child = Command::new(binary("memkv_client"))
        .current_dir(&dir)
        // Long enough for an election on any machine.
        .args(["--timeout", "60s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    input.write_all(b"select 3\nset k v\n").unwrap();
    output.read_line(&mut line).unwrap();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "OK\nOK\n");
    // The client tries the nodes in the order of its file.
    cluster.nodes[0].kill();
    input.write_all(b"get k\nincr n\n").unwrap();
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(rest, "\"v\"\n(integer) 1\n", "{talk}");
    assert_eq!(output.status.code(), Some(0), "{talk}");
    assert!(
        talk.contains(&format!("connected to {}", cluster.nodes[1].addr)),
        "{talk}"
    );
}
