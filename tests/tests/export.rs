//! Keys as lines: out of one cluster and into another with every byte and deadline, refused whole where a line is
//! bad, gone on with where it was cut off.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memkv_black_box::{Cluster, Resp, binary, eventually};
use serde_json::Value;

/// Longer than an election and all writes take on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

fn client(addr: &str, words: &[&str]) -> Command {
    let mut command = Command::new(binary("memkv_client"));
    command.args(["--endpoints", addr]).args(words);
    command
}

#[track_caller]
fn succeeds(addr: &str, words: &[&str]) -> String {
    let output = client(addr, words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says that fails with this code.
#[track_caller]
fn fails(addr: &str, words: &[&str], code: i32) -> String {
    let output = client(addr, words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    said
}

fn set(resp: &mut Resp, key: &[u8], value: &[u8]) {
    assert_eq!(resp.call(&[&b"SET"[..], key, value]).unwrap().text(), b"OK");
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Keys and values of all bytes and some sizes, and a key with a deadline.
fn fill(addr: &str) -> u64 {
    let mut resp = Resp::connect(addr).unwrap();
    let every: Vec<u8> = (0..=255).collect();
    set(&mut resp, b"bin:\xff\0\n", &every);
    set(&mut resp, b"bin:empty", b"");
    set(&mut resp, b"bin:large", &[0xfe; 300_000]);
    set(
        &mut resp,
        "text:\u{e9}\"\\".as_bytes(),
        "line\nbreak \u{2028}".as_bytes(),
    );
    for number in 0..2_500 {
        set(
            &mut resp,
            format!("n:{number:05}").as_bytes(),
            number.to_string().as_bytes(),
        );
    }
    let soon = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3_600);
    let soon = soon.as_millis() as u64;
    let at = soon.to_string();
    let set = resp.call(&["SET", "text:goes", "v", "PXAT", &at]).unwrap();
    assert_eq!(set.text(), b"OK");
    soon
}

#[test]
fn every_byte_and_deadline_comes_to_another_cluster() {
    let (one, other) = (Cluster::start(1), Cluster::start(1));
    let (from, to) = (&one.nodes[0].addr, &other.nodes[0].addr);
    let goes_ms = fill(from);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.jsonl");
    let file = path.to_str().unwrap();
    assert!(succeeds(from, &["export", file]).contains("2505 keys"));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(text(&path), succeeds(from, &["export", "-"]));
    let said = fails(from, &["export", file], 2);
    assert!(said.contains("is there already"), "{said}");

    let would = succeeds(to, &["import", file, "--dry-run"]);
    assert_eq!(would, "2505 keys would be written\n");
    assert_eq!(succeeds(to, &["scan"]), "");
    assert_eq!(succeeds(to, &["import", file]), "2505 keys written\n");
    let lines = |addr: &str| -> Vec<Value> {
        let said = succeeds(addr, &["export", "-"]);
        said.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let (before, after) = (lines(from), lines(to));
    assert_eq!(before.len(), after.len());
    for (one, other) in before.iter().zip(&after) {
        let (mut one, mut other) = (one.clone(), other.clone());
        let [at, now] = [&mut one, &mut other].map(|line| {
            let line = line.as_object_mut().unwrap();
            line.remove("expires_ms").map(|at| at.as_u64().unwrap())
        });
        assert_eq!(one, other);
        if let (Some(at), Some(now)) = (at, now) {
            assert_eq!(at, goes_ms);
            assert!(now.abs_diff(at) < 60_000, "{now} for {at}");
        }
        assert_eq!(at.is_some(), now.is_some());
    }

    // By prefix, and only what is absent.
    let mut resp = Resp::connect(to).unwrap();
    assert_eq!(
        resp.call(&["DEL", "n:00007", "text:goes"])
            .unwrap()
            .integer(),
        Some(2)
    );
    set(&mut resp, b"n:00008", b"mine");
    let said = succeeds(to, &["import", file, "--nx", "--prefix", "n:"]);
    assert_eq!(said, "1 keys written, 2499 were there\n");
    assert_eq!(succeeds(to, &["get", "n:00008"]), "mine\n");
    assert_eq!(succeeds(to, &["get", "n:00007"]), "7\n");
    fails(to, &["get", "text:goes"], 1);
    let part = dir.path().join("part.jsonl");
    let said = succeeds(
        from,
        &["export", part.to_str().unwrap(), "--prefix", "text:"],
    );
    assert!(said.ends_with(": 2 keys\n"), "{said}");
}

#[test]
fn a_bad_line_is_named_and_nothing_is_written() {
    let cluster = Cluster::start(1);
    let addr = &cluster.nodes[0].addr;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    let file = path.to_str().unwrap();
    let good = "{\"key\":\"a\",\"value\":\"1\"}\n";
    for (bad, why) in [
        ("{\"key\":\"b\"}\n", "no \"value\""),
        ("{\"key\":\"b\",\"value\":\"1\",\"ttl\":5}\n", "\"ttl\""),
        ("{\"key\":\"b\",\"val", "the file ends in the middle of it"),
    ] {
        fs::write(&path, format!("{good}\n{bad}")).unwrap();
        for words in [&["import", file][..], &["import", file, "--dry-run"]] {
            let said = fails(addr, words, 1);
            assert!(said.contains("line 3 of") && said.contains(why), "{said}");
        }
        assert_eq!(succeeds(addr, &["scan"]), "");
    }
}

/// A pipe can be read once only, so it is not checked first.
#[test]
fn a_pipe_is_imported_up_to_a_bad_line() {
    let cluster = Cluster::start(1);
    let addr = &cluster.nodes[0].addr;
    let import = |script: &str| {
        let mut bash = Command::new("bash");
        bash.env("CLIENT", binary("memkv_client"));
        bash.env("MEMKV_ENDPOINTS", addr);
        bash.args(["-c", script]).output().unwrap()
    };
    let done = import(r#""$CLIENT" import <(printf '%s\n' '{"key":"a","value":"1"}')"#);
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "1 keys written\n",
        "{done:?}"
    );
    let failed = import(r#"printf '%s\n' '{"key":"b","value":"2"}' nonsense | "$CLIENT" import -"#);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert_eq!(goes_on_at(&failed), "2");
    assert_eq!(succeeds(addr, &["export", "-"]).lines().count(), 2);

    // A line is written when it is there, however long the next one takes.
    let mut import = client(addr, &["import", "-", "--timeout", "1s"]);
    import
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut import = import.spawn().unwrap();
    let mut lines = import.stdin.take().unwrap();
    for key in ["slow:1", "slow:2"] {
        writeln!(lines, "{{\"key\":\"{key}\",\"value\":\"v\"}}").unwrap();
        eventually("it is written", LIMIT, || {
            let found = Resp::connect(addr).ok()?.call(&["EXISTS", key]).ok()?;
            (found.integer()? == 1).then_some(())
        });
        // Longer than a write may take.
        thread::sleep(Duration::from_millis(1_500));
    }
    drop(lines);
    let done = import.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&done.stdout),
        "2 keys written\n",
        "{done:?}"
    );
}

/// The lines that an import which was stopped has left, by its own words.
fn goes_on_at(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let (_, rest) = said
        .split_once("--from-line ")
        .unwrap_or_else(|| panic!("{said}"));
    rest.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn what_was_cut_off_is_gone_on_with() {
    let mut cluster = Cluster::start(1);
    let addr = cluster.nodes[0].addr.clone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.jsonl");
    let file = path.to_str().unwrap();
    let lines =
        (0..20_000).map(|number| format!("{{\"key\":\"{number:06}\",\"value\":\"v{number}\"}}\n"));
    let whole: String = lines.collect();
    fs::write(&path, &whole).unwrap();

    // The node is killed in the middle of an import.
    let mut import = client(&addr, &["import", file, "--timeout", "1s"]);
    let import = import
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("some keys", LIMIT, || {
        let size = Resp::connect(&addr).ok()?.call(&["DBSIZE"]).ok()?;
        (size.integer()? > 100).then_some(())
    });
    cluster.nodes[0].kill();
    let stopped = import.wait_with_output().unwrap();
    assert!(matches!(stopped.status.code(), Some(3 | 4)), "{stopped:?}");
    let at = goes_on_at(&stopped);
    assert!(at.parse::<u64>().unwrap() > 1, "{at}");
    cluster.nodes[0].start();
    cluster.nodes[0].wait_serving();
    succeeds(&addr, &["import", file, "--from-line", &at]);
    assert_eq!(succeeds(&addr, &["export", "-"]), whole);

    // An export that ended in the middle of a line.
    let copy = dir.path().join("copy.jsonl");
    let part = dir.path().join("copy.jsonl.part");
    let mut began = fs::File::create(&part).unwrap();
    began.write_all(&whole.as_bytes()[..200_015]).unwrap();
    let name = copy.to_str().unwrap();
    let said = fails(&addr, &["export", name], 1);
    assert!(said.contains("--resume"), "{said}");
    assert!(succeeds(&addr, &["export", name, "--resume"]).ends_with(": 20000 keys\n"));
    assert_eq!(text(&copy), whole);
    assert!(!part.exists());
}
