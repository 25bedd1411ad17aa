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
    /// Of a salvaged one, the highest index that is known to be committed, which may be above `index` where
    /// the directory is damaged; 0 if none is known. In any other backup the same as `index`.
    #[serde(default)]
    pub committed: u64,
    /// Of a salvaged one, where the log's terms begin.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub terms: Vec<TermStart>,
    /// Why a salvaged one ends before the directory's log did, with file and offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// Why the directory that it was salvaged from was marked as one that must not be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condemned: Option<String>,
}

/// From which index on the entries are of a term, as far as that is known: the term may have begun before the
/// first of a list. A list grows in both numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermStart {
    /// The term.
    pub term: u64,
    /// The index.
    pub index: u64,
}
