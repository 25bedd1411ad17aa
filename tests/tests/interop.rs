//! Other people's clients work with default settings, on a follower, over both of its listeners:
//! libraries of Python and Node, what is built on them, and Redis's own tools. The crates are in
//! `interop_crates.rs`.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use memkv_black_box::{Listener, Resp, node_script, on_every_listener, python_script};

/// Keys that the tools of redis-cli look at: more than one step of an iteration.
const KEYS: usize = 2_000;

#[test]
fn redis_py() {
    on_every_listener(|listener| python_script("redis_py.py", listener));
}

#[test]
fn redis_py_lock() {
    on_every_listener(|listener| python_script("redis_py_lock.py", listener));
}

#[test]
fn django_cache() {
    on_every_listener(|listener| python_script("django_cache.py", listener));
}

#[test]
fn flask_caching() {
    on_every_listener(|listener| python_script("flask_cache.py", listener));
}

#[test]
fn node_redis() {
    on_every_listener(|listener| node_script("node_redis.mjs", listener));
}

#[test]
fn ioredis() {
    on_every_listener(|listener| node_script("ioredis.mjs", listener));
}

#[test]
fn connect_redis_sessions() {
    on_every_listener(|listener| node_script("connect_redis.mjs", listener));
}

/// Runs a command and returns its output.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let streams = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&streams).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    text
}

fn cli(listener: &Listener, arguments: &[&str]) -> String {
    printed(listener.command("redis-cli").args(arguments))
}

#[test]
fn redis_cli() {
    on_every_listener(|listener| {
        let cli = |arguments: &[&str]| cli(listener, arguments);
        assert_eq!(cli(&["flushall"]), "OK\n");
        assert_eq!(cli(&["set", "name", "value", "px", "1000000"]), "OK\n");
        assert_eq!(cli(&["get", "name"]), "value\n");
        assert_eq!(cli(&["get", "absent"]), "\n");
        assert!(cli(&["-3", "hello", "3"]).starts_with("server redis\n"));
        assert_eq!(cli(&["-n", "5", "exists", "name"]), "0\n");
        assert_eq!(cli(&["-r", "3", "incr", "n"]), "1\n2\n3\n");
        assert!(cli(&["incr", "name"]).contains("ERR value is not an integer or out of range"));
    });
}

#[test]
fn redis_cli_looks_at_all_keys() {
    on_every_listener(|listener| {
        let cli = |arguments: &[&str]| cli(listener, arguments);
        let mut client = Resp::connect(&listener.addr()).unwrap();
        client.call(&["FLUSHALL"]).unwrap();
        // `--pipe` sends its input unchanged, and counts the replies.
        let mut pipe = listener
            .command("redis-cli")
            .arg("--pipe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut commands = Vec::new();
        for number in 0..KEYS {
            let value = "x".repeat(number);
            let command = ["SET", &format!("key:{number}"), &value];
            commands.extend(memkv_black_box::encode(&command));
        }
        pipe.stdin.take().unwrap().write_all(&commands).unwrap();
        let output = pipe.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            text.contains(&format!("errors: 0, replies: {KEYS}")),
            "{text}"
        );

        let mut scanned: Vec<String> = cli(&["--scan"]).lines().map(str::to_owned).collect();
        scanned.sort();
        scanned.dedup();
        assert_eq!(scanned.len(), KEYS);
        let some = cli(&["--scan", "--pattern", "key:199?"]);
        assert_eq!(some.lines().count(), 10, "{some}");

        let biggest = cli(&["--bigkeys"]);
        let sampled = format!("Sampled {KEYS} keys in the keyspace!");
        assert!(biggest.contains(&sampled), "{biggest}");
        let last = KEYS - 1;
        let found = format!("Biggest string found '\"key:{last}\"' has {last} bytes");
        assert!(biggest.contains(&found), "{biggest}");

        // It never ends by itself.
        let mut stat = listener
            .command("redis-cli")
            .args(["--stat", "-i", "0.01"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(stat.stdout.take().unwrap()).lines();
        let rows: Vec<String> = lines.take(5).map(Result::unwrap).collect();
        stat.kill().unwrap();
        stat.wait().unwrap();
        // Two lines are the head.
        let of_keys = |row: &&String| row.starts_with(&format!("{KEYS} "));
        assert_eq!(rows.iter().filter(of_keys).count(), 3, "{rows:#?}");
    });
}

#[test]
fn redis_benchmark() {
    on_every_listener(|listener| {
        let mut tests = vec!["ping_mbulk", "set", "get", "incr", "mset"];
        if listener.dedicated {
            tests.push("ping_inline");
        }
        let mut benchmark = listener.command("redis-benchmark");
        benchmark.args(["--csv", "-n", "2000", "-t", &tests.join(",")]);
        let csv = printed(&mut benchmark);
        // One line is the head. Errors are printed too, and are lines without a number.
        let rates = csv.lines().filter(|line| line.starts_with('"')).skip(1);
        assert_eq!(rates.count(), tests.len(), "{csv}");
        assert!(!csv.to_lowercase().contains("error"), "{csv}");
        let mut client = Resp::connect(&listener.addr()).unwrap();
        let counter = client.call(&["GET", "counter:__rand_int__"]).unwrap();
        assert_eq!(counter.text(), b"2000");
        client.call(&["FLUSHALL"]).unwrap();
    });
}
