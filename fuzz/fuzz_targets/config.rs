//! The target of the same name under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/config.rs"]
mod config;

fuzz_target!(|data: &[u8]| config::target(data));
