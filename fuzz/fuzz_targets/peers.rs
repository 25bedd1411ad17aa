//! The target of the same name under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/peers.rs"]
mod peers;

fuzz_target!(|data: &[u8]| peers::target(data));
