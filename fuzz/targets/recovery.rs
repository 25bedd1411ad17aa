//! Any change to the files of a data directory: log segments with their records, metadata, snapshots and
//! the small files beside them.

#[path = "../../crates/memkv-disk/tests/properties/recovery.rs"]
mod properties;

/// One input.
pub(crate) fn target(data: &[u8]) {
    properties::check(data);
}
