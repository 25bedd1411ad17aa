//! The fuzz target of this crate, without a fuzzer: over its corpus and seeded inputs.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[path = "../../../fuzz/targets/config.rs"]
mod config;
#[path = "../../../fuzz/seeded.rs"]
mod seeded;

#[test]
fn configurations_over_the_corpus_and_seeded_inputs() {
    seeded::run("config", seeded::INPUTS, config::target);
}
