//! The target of the same name under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/commands.rs"]
mod commands;

fuzz_target!(|data: &[u8]| commands::target(data));
