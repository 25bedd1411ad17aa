//! Any bytes as the body of a transaction in JSON, executed on a real store.

#[path = "../../crates/memkv-server/tests/properties/txn.rs"]
mod properties;

/// One input.
pub(crate) fn target(data: &[u8]) {
    properties::check_txn(data);
}
