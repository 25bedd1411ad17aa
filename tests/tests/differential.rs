//! memkv answers as redis-server 7.0 does, byte for byte, except where `docs/differences.md` says.
//!
//! `MEMKV_DIFFERENTIAL_COMMANDS` sets the number of commands, `MEMKV_DIFFERENTIAL_SEED` what is
//! sent; a failure prints the seed that repeats it. The tests of the harness itself hold
//! redis-server against another redis-server: without a difference, and with one.

#![allow(clippy::unwrap_used, reason = "tests")]

use memkv_tests::differential::{Options, listed_differences, run};
use memkv_tests::{Cluster, Redis, seed, setting};

/// Commands without `MEMKV_DIFFERENTIAL_COMMANDS`.
const COMMANDS: u64 = 100_000;

/// Commands with which the harness is held against itself.
const HARNESS_COMMANDS: usize = 30_000;

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
