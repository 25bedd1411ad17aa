//! Any bytes as a configuration file, as a value of each setting, and as a file with a secret.

#[path = "../../crates/memkv-proto/tests/properties/config.rs"]
mod properties;

/// One input.
pub(crate) fn target(data: &[u8]) {
    properties::check_secrets(data);
    if let Ok(text) = std::str::from_utf8(data) {
        properties::check_file(text);
        properties::check_values(text);
    }
}
