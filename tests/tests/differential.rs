//! memkv answers as redis-server 7.0 does, byte for byte, except where `docs/differences.md` says.
//!
//! `MEMKV_DIFFERENTIAL_COMMANDS` sets the number of commands, `MEMKV_DIFFERENTIAL_SEED` what is
//! sent; a failure prints the seed that repeats it. The tests of the harness itself hold
//! redis-server against another redis-server: without a difference, and with one.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use memkv_black_box::differential::{Options, listed_differences, run};
use memkv_black_box::{Cluster, Redis, seed, setting};

/// Commands without `MEMKV_DIFFERENTIAL_COMMANDS`.
const COMMANDS: u64 = 100_000;

/// Commands with which the harness is held against itself.
const HARNESS_COMMANDS: usize = 30_000;

/// Longer than an answer takes on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// With fewer commands rare ones may be missing by chance, and floors say nothing.
const FLOORS_FROM: usize = 50_000;

fn options(commands: usize) -> Options {
    let seed = seed("MEMKV_DIFFERENTIAL_SEED");
    Options { commands, seed }
}

#[test]
fn memkv_answers_as_redis_does() {
    let cluster = Cluster::start(3);
    let redis = Redis::start(cluster.root());
    let rules = listed_differences();
    let commands = setting("MEMKV_DIFFERENTIAL_COMMANDS").unwrap_or(COMMANDS);
    let options = options(commands.try_into().unwrap());
    let nodes: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    let tally =
        run(&options, &nodes, &redis.addr, &rules).unwrap_or_else(|wrong| panic!("{wrong}"));
    eprintln!("{tally}");
    if options.commands >= FLOORS_FROM {
        let missing = tally.missing();
        assert!(missing.is_empty(), "too little was tested: {missing:#?}");
        let unused = tally.unused_rules(&rules);
        assert!(unused.is_empty(), "rules that excused nothing: {unused:?}");
    }
}

/// Bytes as they are, on connections of their own: inline commands, and bytes that are no request.
#[test]
fn lines_and_protocol_errors_are_answered_as_redis_does() {
    let cluster = Cluster::start_with_redis(1);
    let redis = Redis::start(cluster.root());
    let ours = cluster.nodes[0].redis_addr.as_deref().unwrap();
    let mut differ = Vec::new();
    for bytes in [
        "PING\r\n",
        "PING\nPING\n",
        "  ping \t \r\n\r\n\n PING x \r\n",
        "SET k \"a b\"\r\nGET k\r\n",
        "SET k 'it\\'s'\r\nGET k\r\n",
        "SET k \"\\x41\\xZZ\\n\\r\\t\\a\\b\\q\\\\ \\\"\"\r\nGET k\r\n",
        "SET k '\\x41\\n'\r\nGET k\r\n",
        "SET k \"\" ''\r\nSET k \"\"\r\nGET k\r\n",
        "PING \"never closed\r\nPING\r\n",
        "PING 'never closed\r\nPING\r\n",
        "PING 'closed'wrongly\r\nPING\r\n",
        "PING \"closed\"wrongly\r\nPING\r\n",
        "PING in\"side\"\r\n",
        "\"PING\"\r\n",
        "NOSUCH a 'b c'\r\nGET\r\n",
        "QUIT\r\nPING\r\n",
        "PING",
        "*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n",
        "*1\r\n$4\r\nQUIT\r\n*1\r\n$4\r\nPING\r\n",
        "*1\r\n$0\r\n\r\n",
        "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
        "*1\r\n$4\r\nPI",
        "*1\r\n$-1\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$ 4\r\nPING\r\n",
        "*1\r\n$+4\r\nPING\r\n",
        "*1\r\n$04\r\nPING\r\n",
        "*1\r\n$8388609\r\n",
        "*1\r\n$99999999999999999999\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n\r\n",
        "*1\r\nPING\r\n",
        "*x\r\n",
        "*\r\n",
        "* 1\r\n$4\r\nPING\r\n",
        "*2147483648\r\n",
        "*-99999999999999999999\r\n",
        "PING\r\n*x\r\nPING\r\n",
    ] {
        let [ours, oracle] = [ours, &redis.addr].map(|addr| answer_to(addr, bytes));
        if ours != oracle {
            let shown = bytes[..bytes.len().min(80)].escape_debug();
            differ.push(format!("{shown}\n  memkv:  {ours}\n  oracle: {oracle}"));
        }
    }
    assert!(
        differ.is_empty(),
        "answered otherwise:\n{}",
        differ.join("\n")
    );
}

/// All bytes until the end of a connection that sends these bytes and no more.
fn answer_to(addr: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(ANSWER_LIMIT)).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer.escape_ascii().to_string()
}

#[test]
fn redis_answers_as_redis_does() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (Redis::start(dir.path()), Redis::start(dir.path()));
    let rules = listed_differences();
    let tally = run(
        &options(HARNESS_COMMANDS),
        std::slice::from_ref(&one.addr),
        &other.addr,
        &rules,
    )
    .unwrap_or_else(|wrong| panic!("{wrong}"));
    eprintln!("{tally}");
    let missing = tally.missing();
    assert!(missing.is_empty(), "too little was tested: {missing:#?}");
}

/// One rare command is unknown to one of the two: the harness finds it, and makes the context small.
#[test]
fn a_server_that_answers_otherwise_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let altered = Redis::start_with(dir.path(), &["--rename-command", "SUBSTR", ""]);
    let oracle = Redis::start(dir.path());
    let rules = listed_differences();
    let ours = [altered.addr.clone()];
    let wrong = run(&options(HARNESS_COMMANDS), &ours, &oracle.addr, &rules).unwrap_err();
    let text = wrong.to_string();
    eprintln!("{text}");
    assert!(text.to_lowercase().contains("substr"), "{text}");
    assert!(text.lines().count() < 15, "not made small:\n{text}");
}
