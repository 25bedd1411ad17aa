//! Makes the golden data directory of a feature level: `MEMKV_BIN_DIR=target/release cargo run -p memkv-black-box
//! --example golden -- tests/golden/level-3`. A directory that is there is never made again: it is what that
//! version has written, and every later one must open it. CONTRIBUTING says what else a new level needs.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a tool for developers: what fails must fail it, loudly"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memkv_black_box::{Node, Resp, binary};
use serde_json::json;

/// Files of one directory that a node makes again by itself, or that only a running one needs.
const LEFT_OUT: [&str; 5] = ["memkv.lock", "reserve", "spare-", "peers", ".part"];

/// Bytes 0 to 255, twice: a value is no text.
fn binary_value() -> Vec<u8> {
    (0..=255).chain(0..=255).collect()
}

/// What is in the snapshot, and in the backup.
fn first_half(client: &mut Resp) {
    for number in 0..200 {
        let (key, value) = (format!("key:{number:03}"), format!("value {number}"));
        ok(client, &["SET", &key, &value]);
    }
    say(client, &[b"SET", b"bytes", &binary_value()]);
    // In the year 2100.
    ok(client, &["SET", "late", "v", "PXAT", "4102444800000"]);
    ok(client, &["SET", "counter", "41"]);
    ok(client, &["MSET", "one", "1", "two", "2"]);
    ok(client, &["DEL", "key:007"]);
    ok(client, &["SELECT", "3"]);
    ok(client, &["SET", "elsewhere", "in database 3"]);
    ok(client, &["SELECT", "0"]);
    let hash = "#5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8";
    ok(
        client,
        &["ACL", "SETUSER", "ann", "on", hash, "~app:*", "+@read"],
    );
}

/// What is in the log behind it.
fn second_half(client: &mut Resp) {
    ok(client, &["INCR", "counter"]);
    ok(client, &["APPEND", "one", " and more"]);
    ok(client, &["SETRANGE", "two", "4", "behind"]);
    ok(client, &["RENAME", "key:000", "renamed"]);
    ok(client, &["COPY", "key:001", "copied"]);
    ok(client, &["PEXPIREAT", "copied", "4102444800001"]);
    ok(client, &["PERSIST", "late"]);
    ok(client, &["MULTI"]);
    ok(client, &["SET", "whole", "a"]);
    ok(client, &["INCRBYFLOAT", "half", "0.5"]);
    ok(client, &["EXEC"]);
    ok(
        client,
        &["ACL", "SETUSER", "bob", "on", "nopass", "+@all", "~*"],
    );
    ok(client, &["ACL", "DELUSER", "bob"]);
    ok(client, &["CONFIG", "SET", "maxmemory", "268435456"]);
}

#[track_caller]
fn ok(client: &mut Resp, words: &[&str]) {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    say(client, &words);
}

#[track_caller]
fn say(client: &mut Resp, words: &[&[u8]]) {
    let reply = client.call(words).unwrap();
    assert!(!reply.is_error(), "{}: {reply}", words[0].escape_ascii());
}

fn main() {
    let target = PathBuf::from(std::env::args().nth(1).expect("the directory to make"));
    assert!(
        !target.exists(),
        "{} is there: it is never made again",
        target.display()
    );
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::new(root.path());
    node.id = "golden".to_owned();
    let mut config = node.compat_config(&[]);
    // The address is no part of what is golden: the test brings its own.
    config["raise_feature_level_after_s"] = json!(0);
    node.write_config(&config);
    node.start();
    node.wait_serving();
    let mut client = Resp::connect(&node.addr).unwrap();
    first_half(&mut client);
    let backup = root.path().join("golden.backup");
    let saved = Command::new(binary("memkv_client"))
        .args(["--endpoints", &node.addr, "backup", "save"])
        .arg(&backup)
        .status()
        .unwrap();
    assert!(saved.success());
    second_half(&mut client);
    node.terminate();
    for part in ["log", "metadata", "snapshot"] {
        copy(&node.dir.join(part), &target.join(part));
    }
    fs::copy(&backup, target.join("golden.backup")).unwrap();
    println!(
        "made {}; now write its text: see CONTRIBUTING",
        target.display()
    );
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if !LEFT_OUT
            .iter()
            .any(|part| name.starts_with(part) || name.ends_with(part))
        {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}
