//! The limits that every interface shares. The error of an exceeded limit names it.
//! Never a configuration: the settings that an operator may change are in [`crate::config`].

/// Longest key in bytes (64 KiB): long enough for any path or digest, short enough that a key never
/// dominates the memory of its entry's bookkeeping.
pub const MAX_KEY_BYTES: usize = 64 * 1024;

/// Longest value in bytes unless `max_value_bytes` says otherwise (8 MiB).
pub const DEFAULT_MAX_VALUE_BYTES: usize = 8 * 1024 * 1024;

/// The highest `max_value_bytes` (64 MiB): one value is one log entry, and every node must be able
/// to hold several of them in flight.
pub const MAX_VALUE_BYTES_CEILING: usize = 64 * 1024 * 1024;

/// Longest HTTP request head in bytes (16 KiB).
pub const MAX_HTTP_HEADER_BYTES: usize = 16 * 1024;

/// Deepest nesting of arrays and objects in a JSON request; the outermost object counts as 1.
pub const MAX_JSON_DEPTH: usize = 32;

/// Longest configuration file in bytes (1 MiB): a thousand peers fit in a tenth of it.
pub const MAX_CONFIG_BYTES: usize = 1024 * 1024;

/// Longest node id in bytes: with its suffixes it stays a legal file name (255 bytes) everywhere.
pub const MAX_NODE_ID_BYTES: usize = 64;

/// A log segment is a multiple of this many bytes (64 KiB), as in the original.
pub const SEGMENT_GRANULARITY_BYTES: u64 = 64 * 1024;
