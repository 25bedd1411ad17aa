//! The target of the same name under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../targets/requests.rs"]
mod requests;

fuzz_target!(|data: &[u8]| requests::target(data));
