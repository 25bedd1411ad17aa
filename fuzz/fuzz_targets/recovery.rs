//! The target of the same name under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/recovery.rs"]
mod recovery;

fuzz_target!(|data: &[u8]| recovery::target(data));
