//! The head of a backup: what it is a backup of.

use serde::{Deserialize, Serialize};

/// What a backup holds, in numbers. In the file it is a JSON object with these fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The cluster's UUID in its usual text form.
    pub cluster: String,
    /// The cluster's feature level.
    pub level: u32,
    /// The revision of the state.
    pub revision: u64,
    /// Log time of the state, in milliseconds since the Unix epoch.
    pub log_time_ms: u64,
    /// The number of keys in all databases.
    pub keys: u64,
    /// The seed of the hash tables, by which keys lie in shards.
    pub hash_seed: u64,
    /// The Raft term of the last log entry in the state.
    pub term: u64,
    /// The index of that entry.
    pub index: u64,
    /// The node that made the backup.
    pub node: String,
    /// The version of memkv that made it.
    pub written_by: String,
    /// Whether it was salvaged from a stopped directory: then entries behind the committed ones may be in it.
    #[serde(default)]
    pub salvaged: bool,
    /// Of a salvaged one, the highest index that is known to be committed; 0 if that is not known, and in
    /// any other backup the same as `index`.
    #[serde(default)]
    pub committed: u64,
}
