//! The target of the same name under libFuzzer.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/memkv-server/tests/properties/machine.rs"]
mod machine;
#[path = "../targets/txn.rs"]
mod txn;
#[path = "../../crates/memkv-server/tests/properties/wire.rs"]
mod wire;

fuzz_target!(|data: &[u8]| txn::target(data));
