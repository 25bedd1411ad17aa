//! The fuzz targets of this crate, without a fuzzer: over their corpora and seeded inputs.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::fs;

#[path = "../../../fuzz/targets/commands.rs"]
mod commands;
#[path = "../../../fuzz/targets/http.rs"]
mod http;
#[path = "properties/machine.rs"]
mod machine;
#[path = "../../../fuzz/targets/peers.rs"]
mod peers;
#[path = "../../../fuzz/seeded.rs"]
mod seeded;
#[path = "../../../fuzz/targets/txn.rs"]
mod txn;
#[path = "properties/wire.rs"]
mod wire;

#[test]
fn commands_over_the_corpus_and_seeded_inputs() {
    seeded::run("commands", seeded::INPUTS, commands::target);
}

#[test]
fn http_over_the_corpus_and_seeded_inputs() {
    seeded::run("http", seeded::INPUTS, http::target);
}

#[test]
fn peers_over_the_corpus_and_seeded_inputs() {
    seeded::run("peers", seeded::INPUTS, peers::target);
}

#[test]
fn transactions_over_the_corpus_and_seeded_inputs() {
    seeded::run("txn", seeded::INPUTS, txn::target);
}

/// What a fuzzer finds by luck, for the requests of the corpus: a pause behind each byte, and behind
/// all of them.
#[test]
fn every_byte_split_of_every_request_gives_the_same_answer() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/http");
    let mut splits = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        let (_, stream) = http::split(&input).unwrap();
        http::check(stream, vec![1]);
        for at in 1..stream.len() {
            http::check(stream, vec![at, stream.len()]);
            splits += 1;
        }
    }
    assert!(splits > 1000, "only {splits} splits: is this the corpus?");
}
