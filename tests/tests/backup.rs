//! Backups of a running cluster by real programs: taken from a follower under load, verified, restored into a
//! new cluster; and what must not be possible with them.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use memkv_black_box::{Cluster, Http, Node, binary, eventually};
use serde_json::{Value, json};

/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Keys before the backup.
const KEYS: usize = 2_000;

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says that fails with this code.
#[track_caller]
fn fails(command: &mut Command, code: i32) -> String {
    let output = run(command);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
    said
}

fn client(addr: &str) -> Command {
    let mut command = Command::new(binary("memkv_client"));
    command.args(["--endpoints", addr]);
    command
}

fn restore(file: &Path, dir: &Path) -> Command {
    let mut command = Command::new(binary("memkv_server"));
    command.arg("restore").arg(file).arg("--data").arg(dir);
    command
}

/// All keys and values, as the node reads them linearizably.
fn content(addr: &str) -> BTreeMap<String, String> {
    let lines = succeeds(client(addr).args(["-o", "raw", "scan"]));
    let lines = lines.lines().map(|line| line.split_once('\t').unwrap());
    lines
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn put(addr: &str, key: &str, value: &str, condition: &[&str]) -> Output {
    run(client(addr)
        .args(["-o", "json", "set", key, value])
        .args(condition))
}

/// A node alone, with the directory of a restore.
fn restored(root: &Path, file: &Path) -> Node {
    let node = Node::new(root);
    node.write_config(&node.compat_config(&[]));
    succeeds(&mut restore(file, &node.dir));
    node
}

fn fill(addr: &str) {
    let mut http = Http::connect(addr).unwrap();
    for number in 0..KEYS {
        let value = format!("value {number}");
        let path = format!("/v1/kv/key:{number:05}");
        assert_eq!(
            http.request("PUT", &path, &[], value.as_bytes())
                .unwrap()
                .status,
            200
        );
    }
}

fn revision(node: &Node) -> u64 {
    let status = node.status().unwrap();
    status["revision"].as_u64().unwrap()
}

#[test]
fn a_backup_from_a_follower_under_load_is_the_cluster_again() {
    let mut cluster = Cluster::start(3);
    let addr = cluster.nodes[0].addr.clone();
    fill(&addr);
    let before = content(&addr);
    let seen = succeeds(client(&addr).args(["-o", "json", "get", "key:00007"]));
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let etag = seen["revision"].as_u64().unwrap().to_string();
    let follower = cluster.followers()[0];
    let follower = cluster.nodes[follower].addr.clone();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.backup");

    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut http = Http::connect(&addr).unwrap();
            let mut written = 0u64;
            while !stop.load(Ordering::Relaxed) {
                let path = format!("/v1/kv/load:{:03}", written % 500);
                let value = written.to_string();
                let status = http
                    .request("PUT", &path, &[], value.as_bytes())
                    .unwrap()
                    .status;
                assert_eq!(status, 200);
                written += 1;
            }
            written
        });
        let saved = succeeds(client(&follower).args(["backup", "save"]).arg(&file));
        stop.store(true, Ordering::Relaxed);
        assert!(saved.contains("whole"), "{saved}");
        writer.join().unwrap()
    });
    assert!(written > 0, "there was load");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    succeeds(client(&addr).args(["backup", "verify"]).arg(&file));
    let head = succeeds(
        client(&addr)
            .args(["-o", "json", "backup", "inspect"])
            .arg(&file),
    );
    let head: Value = serde_json::from_str(&head).unwrap();
    let status = cluster.nodes[0].status().unwrap();
    assert_eq!(head["cluster"], status["cluster"]);
    let last_of_old = revision(&cluster.nodes[0]);
    cluster.nodes.iter_mut().for_each(Node::kill);

    let mut first = restored(dir.path(), &file);
    first.start();
    first.wait_serving();
    let after = content(&first.addr);
    for (key, value) in &before {
        assert_eq!(after.get(key), Some(value), "{key}");
    }
    assert!(
        after
            .keys()
            .all(|key| before.contains_key(key) || key.starts_with("load:"))
    );
    let status = first.status().unwrap();
    assert_ne!(status["cluster"], head["cluster"], "another cluster");
    assert!(revision(&first) > last_of_old);

    // What was seen before the restore holds no more, and what is seen now does.
    let stale = put(&first.addr, "key:00007", "stale", &["--if-rev", &etag]);
    assert_eq!(stale.status.code(), Some(1));
    let now = succeeds(client(&first.addr).args(["-o", "json", "get", "key:00007"]));
    let now: Value = serde_json::from_str(&now).unwrap();
    let now = now["revision"].as_u64().unwrap().to_string();
    assert!(
        put(&first.addr, "key:00007", "new", &["--if-rev", &now])
            .status
            .success()
    );

    // It is durable, as any node.
    first.kill();
    first.start();
    first.wait_serving();
    let last_of_first = revision(&first);
    first.kill();

    let mut second = restored(dir.path(), &file);
    second.start();
    second.wait_serving();
    assert_eq!(content(&second.addr), after);
    assert!(
        revision(&second) > last_of_first,
        "no revision is given out twice"
    );
}

#[test]
fn a_damaged_backup_and_a_directory_with_data_are_refused() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.clone();
    fill(&addr);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.backup");
    succeeds(client(&addr).args(["backup", "save"]).arg(&file));
    let whole = fs::read(&file).unwrap();
    let empty = dir.path().join("empty");
    let damaged = dir.path().join("damaged.backup");
    let mut flipped = whole.clone();
    let at = whole.len() / 2;
    flipped[at] ^= 1;
    for (bytes, words) in [
        (&flipped[..], "damaged in block"),
        (&whole[..whole.len() - 1], "cut off in the end"),
        (b"PK something else", "no backup of memkv"),
    ] {
        fs::write(&damaged, bytes).unwrap();
        let said = fails(client(&addr).args(["backup", "verify"]).arg(&damaged), 1);
        assert!(said.contains(words), "{said}");
        let said = fails(&mut restore(&damaged, &empty), 1);
        assert!(said.contains(words), "{said}");
        let data = empty.join("memkv-data");
        assert!(!data.exists(), "nothing was written");
    }
    cluster.nodes[0].kill();
    let said = fails(&mut restore(&file, &cluster.nodes[0].dir), 1);
    assert!(said.contains("needs a directory without data"), "{said}");
    cluster.nodes[0].start();
    cluster.nodes[0].wait_serving();
    assert_eq!(content(&addr).len(), KEYS, "it is as it was");
}

#[test]
fn a_restore_that_is_killed_serves_nothing_and_can_be_done_again() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.clone();
    fill(&addr);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.backup");
    succeeds(client(&addr).args(["backup", "save"]).arg(&file));
    cluster.nodes[0].kill();
    let node = Node::new(dir.path());
    node.write_config(&node.compat_config(&[]));
    let (mut cut, mut whole) = (0, 0);
    for delay_ms in (0..200).step_by(4) {
        node.wipe();
        let mut child = restore(&file, &node.dir).spawn().unwrap();
        thread::sleep(Duration::from_millis(delay_ms));
        child.kill().unwrap();
        child.wait().unwrap();
        let mark = node.dir.join("metadata/restoring");
        if mark.exists() {
            cut += 1;
            let mut server = node.command();
            let said = fails(&mut server, 1);
            assert!(said.contains("restore again"), "{said}");
            succeeds(&mut restore(&file, &node.dir));
            break;
        }
        whole += 1;
    }
    // Where no kill hit the moment, the directory is whole or empty, and the simulated disk has hit each.
    println!("{cut} cut, {whole} before or after");
    if cut == 0 {
        node.wipe();
        succeeds(&mut restore(&file, &node.dir));
    }
    let mut node = node;
    node.start();
    node.wait_serving();
    assert_eq!(content(&node.addr).len(), KEYS);
}

#[test]
fn one_backup_restored_on_three_nodes_that_name_each_other_serves_on_none() {
    let mut cluster = Cluster::start(1);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.backup");
    succeeds(
        client(&cluster.nodes[0].addr)
            .args(["backup", "save"])
            .arg(&file),
    );
    cluster.nodes[0].kill();
    let mut three = Cluster::configured(3);
    for node in &three.nodes {
        succeeds(&mut restore(&file, &node.dir));
    }
    three.nodes.iter_mut().for_each(Node::start);
    for node in &mut three.nodes {
        let status = node.process().wait_end(LIMIT);
        let said = node.process().output();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("would serve as two clusters"), "{said}");
        assert!(said.contains("Keep one of the two"), "{said}");
    }
}

#[test]
fn only_administrators_take_backups_and_the_audit_log_tells() {
    let audit = tempfile::tempdir().unwrap();
    let log = audit.path().join("audit.log");
    let more = json!({ "audit_file": log });
    let mut cluster = Cluster::configured_with(1, &more);
    cluster.start_all();
    let addr = cluster.nodes[0].addr.clone();
    let rules = ["+@all", "-@admin", "~*", "&*", "on", ">secret"];
    succeeds(client(&addr).args(["acl", "set", "ann"]).args(rules));
    let file = audit.path().join("a.backup");
    let mut ann = client(&addr);
    ann.env("MEMKV_PASSWORD", "secret")
        .args(["--user", "ann", "backup", "save"]);
    let output = run(ann.arg(&file));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("memkv.backup"),
        "{said}"
    );
    assert!(!file.exists());
    succeeds(client(&addr).args(["backup", "save"]).arg(&file));
    eventually("the audit log tells", LIMIT, || {
        let lines = fs::read_to_string(&log).ok()?;
        lines.contains("\"event\":\"backup\"").then_some(())
    });
}

#[test]
fn old_backups_of_a_directory_go_and_a_node_without_a_leader_gives_none() {
    let mut cluster = Cluster::start(3);
    let addr = cluster.nodes[0].addr.clone();
    let dir = tempfile::tempdir().unwrap();
    for number in 0..4 {
        assert!(put(&addr, "k", &number.to_string(), &[]).status.success());
        let mut save = client(&addr);
        succeeds(save.args(["backup", "save", "--keep", "2"]).arg(dir.path()));
    }
    let listed = succeeds(client(&addr).args(["backup", "ls"]).arg(dir.path()));
    assert_eq!(listed.lines().count(), 2, "{listed}");
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let file = dir.path().join("none");
    fails(client(&addr).args(["backup", "save"]).arg(&file), 3);
    assert!(!file.exists(), "not even a part");
}

/// The client, started by a shell that has done something before: its process keeps the shell's id.
fn after(script: &str, addr: &str, file: &Path) -> Command {
    let mut command = Command::new("bash");
    let script = format!("{script}; exec \"$0\" --endpoints \"$1\" backup save \"$2\"");
    command.args(["-c", &script]).arg(binary("memkv_client"));
    command.arg(addr).arg(file);
    command
}

#[test]
fn a_backup_that_does_not_fit_names_its_file_and_leaves_none() {
    let cluster = Cluster::start(1);
    let addr = &cluster.nodes[0].addr;
    fill(addr);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.backup");
    // Writing beyond a kibibyte is an error, as on a full disk.
    let said = fails(&mut after("trap '' XFSZ; ulimit -f 1", addr, &file), 1);
    assert!(said.contains(file.to_str().unwrap()), "{said}");
    assert!(!said.contains("standard output"), "{said}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_link_in_the_place_of_a_backups_part_is_not_followed() {
    let cluster = Cluster::start(1);
    let addr = &cluster.nodes[0].addr;
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "years of work").unwrap();
    let file = dir.path().join("all.backup");
    let link = format!("ln -s victim '{}'/.memkv-$$.part", dir.path().display());
    succeeds(&mut after(&link, addr, &file));
    assert_eq!(fs::read(&victim).unwrap(), b"years of work");
    let mode = fs::symlink_metadata(&file).unwrap();
    assert!(mode.is_file() && mode.permissions().mode() & 0o777 == 0o600);
    succeeds(client(addr).args(["backup", "verify"]).arg(&file));
}
