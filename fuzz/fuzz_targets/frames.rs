//! The target of the same name under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/frames.rs"]
mod frames;

fuzz_target!(|data: &[u8]| frames::target(data));
