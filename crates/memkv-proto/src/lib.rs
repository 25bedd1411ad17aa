//! The formats of memkv's interfaces and files: the original's JSON, the REST API's errors and status,
//! the configuration, and the one error table.
//!
//! Everything here turns bytes into values or values into bytes. It never opens a file, a socket
//! or a clock, and names no other crate of this workspace.
//!
//! Invariant: lengths and depths are bounded before anything is allocated for them.

mod calendar;
pub mod compat;
pub mod config;
pub mod error;
pub mod events;
mod json;
pub mod json_bytes;
pub mod limits;
pub mod path;
pub mod secret;
pub mod status;
mod ttl;

pub use calendar::Utc;
pub use config::{
    ClusterConfig, ConfigError, Durability, LogFormat, LogLevel, NodeAddr, NopassFrom, RaftConfig,
    TlsClientAuth, TlsClients, TlsPeers,
};
pub use error::{ErrorCode, ErrorInfo, Executed, Problem};
pub use path::{KeyPathError, decode_key_path, encode_key_path};
pub use status::{Member, Phase, Role, Status};
pub use ttl::ttl_ms;

/// Response header of every HTTP reply that knows it: the revision, in decimal.
pub const HEADER_REVISION: &str = "x-memkv-revision";

/// Response header of a failed request of the original's protocol: `no` or `maybe`, see [`Executed`].
pub const HEADER_EXECUTED: &str = "x-memkv-executed";

/// Media type of [`Problem`] (RFC 9457, section 3).
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Path of keys in the REST API: the rest of the path is the key, see [`decode_key_path`].
pub const KV_PREFIX: &str = "/v1/kv/";

/// Path of the REST API that lists keys by prefix, page by page.
pub const LISTING_PATH: &str = "/v1/kv";

/// Path of the REST API for transactions.
pub const TRANSACTION_PATH: &str = "/v1/txn";

/// Response header: the key's deadline, in milliseconds since the epoch.
pub const HEADER_EXPIRES: &str = "x-memkv-expires";

/// Path at which a node answers its [`Status`].
pub const STATUS_PATH: &str = "/v1/status";

/// Path at which a node answers its [`Events`](events::Events).
pub const EVENTS_PATH: &str = "/v1/events";

/// The whole state as a backup file.
pub const BACKUP_PATH: &str = "/v1/backup";

/// The members of the cluster, and the verbs that change them.
pub const CLUSTER_PATH: &str = "/v1/cluster";
