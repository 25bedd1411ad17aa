//! The fuzz target of this crate, without a fuzzer: over its corpus and seeded inputs.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[path = "../../../fuzz/targets/recovery.rs"]
mod recovery;
#[path = "../../../fuzz/seeded.rs"]
mod seeded;

#[test]
fn directories_over_the_corpus_and_seeded_inputs() {
    // Each opens a directory several times.
    seeded::run("recovery", seeded::INPUTS / 10, recovery::target);
}
