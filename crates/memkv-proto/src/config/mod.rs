//! The configuration: `raft_config.json` and `cluster_config.json` as in the original, and further keys. Layers: defaults < file < variables (`MEMKV_*`) < flags, then [`RaftConfig::validate`].
//!
//! Never opens a file and never reads the environment: it is given text.
//! Invariants: every setting is in [`KEYS`] and every value in force passed its check there; an
//! unknown key is an error; a failed call changes nothing.

mod address;
mod cluster;
mod failure;
mod key;
mod keys;
mod nearest;
mod nodes;
mod raft;
mod value;
mod words;

pub use address::{AddressError, NodeAddr, check_addr, check_id, split_addr};
pub use cluster::ClusterConfig;
pub use failure::ConfigError;
pub use key::{Key, Kind};
pub use keys::{KEYS, markdown, page};
pub use raft::RaftConfig;
pub use words::{
    Admit, Durability, Found, LogFormat, LogLevel, NodeRole, NopassFrom, TlsClientAuth, TlsClients,
    TlsPeers,
};

use serde_json::value::RawValue;

use crate::json::{Source, Text};
use crate::limits::MAX_CONFIG_BYTES;

/// Checks that the text is one JSON object and returns its members.
fn parse_document<'a>(source: Source<'a>) -> Result<Vec<(Text<'a>, &'a RawValue)>, ConfigError> {
    if source.text.len() > MAX_CONFIG_BYTES {
        let detail = format!("more than {MAX_CONFIG_BYTES} bytes");
        return Err(ConfigError::Syntax {
            origin: source.file.to_owned(),
            detail,
        });
    }
    let whole: &RawValue = serde_json::from_str(source.text).map_err(|err| {
        let message = err.to_string();
        let detail = message.split(" at line ").next().unwrap_or_default();
        ConfigError::Syntax {
            origin: format!("{}:{}:{}", source.file, err.line(), err.column()),
            detail: detail.to_owned(),
        }
    })?;
    if !whole.get().starts_with('{') {
        let detail = format!("found {}", crate::json::kind_of(whole.get()));
        return Err(ConfigError::Syntax {
            origin: source.location(whole.get()),
            detail,
        });
    }
    nodes::object(source, whole.get())
}
