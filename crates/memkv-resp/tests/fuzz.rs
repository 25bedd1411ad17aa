//! The fuzz targets of this crate, without a fuzzer: over their corpora and seeded inputs.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[path = "../../../fuzz/targets/frames.rs"]
mod frames;
#[path = "../../../fuzz/targets/requests.rs"]
mod requests;
#[path = "../../../fuzz/seeded.rs"]
mod seeded;

#[test]
fn frames_over_the_corpus_and_seeded_inputs() {
    seeded::run("frames", seeded::INPUTS, frames::target);
}

#[test]
fn requests_over_the_corpus_and_seeded_inputs() {
    seeded::run("requests", seeded::INPUTS, requests::target);
}
