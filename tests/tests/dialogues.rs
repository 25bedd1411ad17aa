//! The dialogues of `tests/scripts/redis/`, played against redis-server, whose replies they hold, and
//! against a cluster of three.
//!
//! `MEMKV_BLESS=1` writes what redis-server replies into the files; what memkv replies by design
//! otherwise is written by hand, with the words of `docs/differences.md` that say so.

#![allow(clippy::unwrap_used, reason = "tests")]

use memkv_black_box::dialogue::{Side, dialogues};
use memkv_black_box::{Cluster, Redis, setting};

#[track_caller]
fn assert_all(addrs: &[String], side: Side) {
    let differences = dialogues()
        .iter()
        .flat_map(|one| one.differences(addrs, side))
        .collect::<String>();
    assert!(differences.is_empty(), "answered otherwise:\n{differences}");
}

#[test]
fn redis_answers_as_the_dialogues_say() {
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::start(dir.path());
    if setting("MEMKV_BLESS") == Some(1) {
        dialogues().iter().for_each(|one| one.bless(&redis.addr));
    }
    assert_all(std::slice::from_ref(&redis.addr), Side::Redis);
}

#[test]
fn a_cluster_answers_as_the_dialogues_say() {
    let cluster = Cluster::start(3);
    let addrs: Vec<String> = cluster.nodes.iter().map(|node| node.addr.clone()).collect();
    assert_all(&addrs, Side::Memkv);
}

#[test]
fn every_difference_is_in_the_table_or_below_it() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/differences.md");
    let page = std::fs::read_to_string(path).unwrap();
    let mut pointers = 0;
    for dialogue in dialogues() {
        for (line, pointer) in dialogue.pointers() {
            let name = dialogue.name();
            assert!(
                page.contains(pointer),
                "{name}:{line}: differences.md has no {pointer:?}"
            );
            pointers += 1;
        }
    }
    assert!(pointers > 0);
}

/// A server without one command, without one condition and with other limits: the dialogues see it.
#[test]
fn a_server_that_answers_otherwise_is_found() {
    let dir = tempfile::tempdir().unwrap();
    for (arguments, expected) in [
        (["--rename-command", "GETRANGE", ""], "strings"),
        (["--rename-command", "WATCH", ""], "transactions"),
        (["--rename-command", "INCRBYFLOAT", ""], "counters"),
        (["--rename-command", "PERSIST", ""], "expiry"),
    ] {
        let redis = Redis::start_with(dir.path(), &arguments);
        let all = dialogues();
        let found = all.iter().filter(|one| {
            !one.differences(std::slice::from_ref(&redis.addr), Side::Redis)
                .is_empty()
        });
        let found: Vec<String> = found.map(|one| one.name()).collect();
        assert!(
            found.contains(&expected.to_owned()),
            "{expected}: {found:?}"
        );
    }
}
