//! `raft_config.json`: one node's settings, the origin of each, and their checks against each other.
//! Never asks the disk or the network whether a value makes sense.

mod tls;

use std::collections::BTreeMap;

use serde::Serialize;

use super::address::{NodeAddr, split_addr};
use super::failure::ConfigError;
use super::key::Key;
use super::keys::KEYS;
use super::value::{Value, value_from_json, value_from_text};
use super::words::{
    Admit, Durability, Found, LogFormat, LogLevel, NodeRole, NopassFrom, TlsClientAuth, TlsClients,
    TlsPeers,
};
use super::{nodes, parse_document};
use crate::json::Source;
use crate::limits::SEGMENT_GRANULARITY_BYTES;

/// A node's settings. Serializes to a file that loads as the same settings.
///
/// Call order: [`from_json`](Self::from_json) or [`default`](Self::default), any number of
/// [`apply_override`](Self::apply_override), then [`validate`](Self::validate) once.
/// The fields are documented in [`KEYS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "one description per setting, in KEYS")]
pub struct RaftConfig {
    pub log_path: String,
    pub snapshot_path: String,
    pub metadata_path: String,
    pub max_log_size: u64,
    pub max_log_count: u64,
    pub peer_addrs: Vec<NodeAddr>,
    pub node_addr: NodeAddr,
    pub advertise_addr: String,
    pub join: Vec<String>,
    pub role: NodeRole,
    pub admit: Admit,
    /// Whether it may found a cluster.
    pub found: Found,
    pub redis_addr: String,
    pub durability: Durability,
    pub max_value_bytes: u64,
    pub max_memory: u64,
    pub max_connections: u64,
    pub max_connections_per_address: u64,
    pub max_client_memory: u64,
    pub timeout: u64,
    pub election_timeout_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub hold_timeout_ms: u64,
    pub request_timeout_ms: u64,
    pub snapshot_growth_percent: u64,
    pub max_feature_level: u64,
    pub raise_feature_level_after_s: u64,
    pub notify_keyspace_events: String,
    pub password_file: String,
    pub cluster_secret_file: String,
    pub audit_file: String,
    pub allowed_hosts: Vec<String>,
    pub metrics_public: bool,
    pub insecure: bool,
    pub nopass_from: NopassFrom,
    pub tls: TlsClients,
    pub tls_cert_file: String,
    pub tls_key_file: String,
    pub tls_ca_file: String,
    pub tls_client_auth: TlsClientAuth,
    pub tls_crl_file: String,
    pub tls_user_map: String,
    pub tls_peers: TlsPeers,
    pub tls_peer_ca_file: String,
    pub cluster_name: String,
    pub log_format: LogFormat,
    pub log_level: LogLevel,
    pub report_writes: bool,
    #[serde(skip)]
    origins: BTreeMap<&'static str, String>,
}

impl Default for RaftConfig {
    /// The defaults of [`KEYS`]: a single node on 127.0.0.1:11081.
    fn default() -> Self {
        let mut config = Self {
            log_path: String::new(),
            snapshot_path: String::new(),
            metadata_path: String::new(),
            max_log_size: 0,
            max_log_count: 0,
            peer_addrs: Vec::new(),
            node_addr: NodeAddr {
                addr: String::new(),
                id: String::new(),
            },
            advertise_addr: String::new(),
            join: Vec::new(),
            role: NodeRole::Voter,
            admit: Admit::Proven,
            found: Found::Auto,
            redis_addr: String::new(),
            durability: Durability::Sync,
            max_value_bytes: 0,
            max_memory: 0,
            max_connections: 0,
            max_connections_per_address: 0,
            max_client_memory: 0,
            timeout: 0,
            election_timeout_ms: 0,
            heartbeat_interval_ms: 0,
            hold_timeout_ms: 0,
            request_timeout_ms: 0,
            snapshot_growth_percent: 0,
            max_feature_level: 0,
            raise_feature_level_after_s: 0,
            notify_keyspace_events: String::new(),
            password_file: String::new(),
            cluster_secret_file: String::new(),
            audit_file: String::new(),
            allowed_hosts: Vec::new(),
            metrics_public: false,
            insecure: false,
            nopass_from: NopassFrom::Auto,
            tls: TlsClients::Off,
            tls_cert_file: String::new(),
            tls_key_file: String::new(),
            tls_ca_file: String::new(),
            tls_client_auth: TlsClientAuth::No,
            tls_crl_file: String::new(),
            tls_user_map: String::new(),
            tls_peers: TlsPeers::Off,
            tls_peer_ca_file: String::new(),
            cluster_name: String::new(),
            log_format: LogFormat::Text,
            log_level: LogLevel::Info,
            report_writes: false,
            origins: BTreeMap::new(),
        };
        for key in KEYS {
            let value = value_from_text(key, key.default, "default");
            config.assign(
                key,
                value.expect("KEYS' defaults pass their own checks"),
                "default",
            );
        }
        config
    }
}

impl RaftConfig {
    /// Parses the text of the file called `file`. A setting that is not in the file has its default.
    ///
    /// # Errors
    /// [`ConfigError`] with the place: `file:line:column`. Settings are checked each by itself;
    /// [`validate`](Self::validate) checks them together.
    pub fn from_json(text: &str, file: &str) -> Result<Self, ConfigError> {
        let source = Source { file, text };
        let mut config = Self::default();
        for (name, raw) in parse_document(source)? {
            let Some(key) = Key::find(&name.0) else {
                let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
                let origin = source.location_of_key(&name, raw);
                return Err(nodes::unknown_key(&name.0, origin, &known));
            };
            let value = value_from_json(source, key, raw.get())?;
            config.assign(key, value, &source.location(raw.get()));
        }
        Ok(config)
    }

    /// Sets the setting `key` from text, as variables and flags give it. `source` is the name that the
    /// operator used: `MEMKV_LOG_PATH` or `--log-path`.
    ///
    /// # Errors
    /// [`ConfigError`] that names `source`; the configuration is unchanged then.
    pub fn apply_override(
        &mut self,
        key: &str,
        value: &str,
        source: &str,
    ) -> Result<(), ConfigError> {
        let Some(key) = Key::find(key) else {
            let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            return Err(nodes::unknown_key(key, source.to_owned(), &known));
        };
        let value = value_from_text(key, value, source)?;
        self.assign(key, value, source);
        Ok(())
    }

    /// Applies every variable `MEMKV_<KEY>` that `lookup` knows. Others that begin with `MEMKV_`
    /// are none of ours: orchestrators set such for a service of this name.
    ///
    /// # Errors
    /// [`ConfigError`] that names the variable.
    pub fn apply_env(
        &mut self,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<(), ConfigError> {
        for key in KEYS {
            let variable = key.env_name();
            if let Some(value) = lookup(&variable) {
                self.apply_override(key.name, &value, &variable)?;
            }
        }
        Ok(())
    }

    /// Checks the settings together, after all layers are applied.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] with both sides and the remedy.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_nodes()?;
        self.validate_redis_addr()?;
        self.validate_paths()?;
        self.validate_memory()?;
        self.validate_tls()?;
        if self.election_timeout_ms < 4 * self.heartbeat_interval_ms {
            // Two lost heartbeats in a row must not depose a leader.
            return Err(self.conflict(
                &["election_timeout_ms", "heartbeat_interval_ms"],
                format!(
                    "election_timeout_ms ({}) is less than four times heartbeat_interval_ms ({})",
                    self.election_timeout_ms, self.heartbeat_interval_ms
                ),
                "raise the first or lower the second",
            ));
        }
        if self.hold_timeout_ms > self.request_timeout_ms {
            return Err(self.conflict(
                &["hold_timeout_ms", "request_timeout_ms"],
                format!(
                    "hold_timeout_ms ({}) is more than request_timeout_ms ({})",
                    self.hold_timeout_ms, self.request_timeout_ms
                ),
                "lower the first or raise the second",
            ));
        }
        Ok(())
    }

    /// The origin of a setting: `file:line:column`, a variable, a flag or `default`.
    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("default", String::as_str)
    }

    /// Whether this node is a cluster by itself, as far as its configuration says.
    pub fn is_single(&self) -> bool {
        self.peer_addrs.is_empty() && self.join.is_empty()
    }

    /// Where other nodes reach this one.
    pub fn told_addr(&self) -> &str {
        match &self.advertise_addr[..] {
            "" => &self.node_addr.addr,
            advertised => advertised,
        }
    }

    /// This node and its peers, in ascending order of id: the same list on every node.
    pub fn nodes(&self) -> Vec<&NodeAddr> {
        let mut nodes: Vec<_> = std::iter::once(&self.node_addr)
            .chain(&self.peer_addrs)
            .collect();
        nodes.sort_by(|a, b| a.id.cmp(&b.id));
        nodes
    }

    /// Bytes of one log segment: `max_log_size` rounded up to a multiple of 64 KiB.
    pub fn segment_bytes(&self) -> u64 {
        self.max_log_size.div_ceil(SEGMENT_GRANULARITY_BYTES) * SEGMENT_GRANULARITY_BYTES
    }

    /// The settings as a file, indented.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings and numbers serialize");
        text.push('\n');
        text
    }

    fn validate_nodes(&self) -> Result<(), ConfigError> {
        let own = &self.node_addr;
        let both = ["node_addr", "peer_addrs"];
        let next = "peer_addrs lists the other nodes only; give every node an id and an address \
                    of its own";
        if self.peer_addrs.iter().any(|peer| peer.id == own.id) {
            let what = format!("this node's id {:?} is also in peer_addrs", own.id);
            return Err(self.conflict(&both, what, next));
        }
        let told = self.told_addr();
        let is_own = |addr: &str| addr == own.addr || addr == told;
        if let Some(peer) = self.peer_addrs.iter().find(|peer| is_own(&peer.addr)) {
            let what = format!("this node's address {:?} is also in peer_addrs", peer.addr);
            return Err(self.conflict(&both, what, next));
        }
        if let [only] = &self.join[..]
            && is_own(only)
        {
            return Err(self.conflict(
                &["join", "node_addr"],
                format!("join names this node's own address {only:?} only"),
                "name the address of a node that belongs to the cluster",
            ));
        }
        let unspecified = |addr: &&str| {
            let host = split_addr(addr).and_then(|(host, _)| host.parse().ok());
            host.is_some_and(|ip: core::net::IpAddr| ip.is_unspecified())
        };
        let peers = self.peer_addrs.iter().map(|peer| &peer.addr[..]);
        let unreachable = peers.chain([told]).find(unspecified);
        if let (false, Some(addr)) = (self.is_single(), unreachable) {
            let what = format!("{addr:?} names no machine that other nodes could reach");
            let next = "write the address that the others connect to, in advertise_addr if this node \
                        listens on another one";
            return Err(self.conflict(&both, what, next));
        }
        Ok(())
    }

    fn validate_redis_addr(&self) -> Result<(), ConfigError> {
        if self.redis_addr != self.node_addr.addr {
            return Ok(());
        }
        Err(self.conflict(
            &["redis_addr", "node_addr"],
            format!(
                "redis_addr and node_addr are the same address {:?}",
                self.redis_addr
            ),
            "leave redis_addr out: node_addr serves Redis clients too",
        ))
    }

    /// A process without a single key takes about half of the least.
    fn validate_memory(&self) -> Result<(), ConfigError> {
        const LEAST: u64 = 32 << 20;
        if self.max_memory == 0 || self.max_memory >= LEAST {
            return Ok(());
        }
        let what = format!("max_memory is {} bytes, less than 32 MiB", self.max_memory);
        let next = "it is in bytes: 536870912 is 512 MiB";
        Err(self.conflict(&["max_memory"], what, next))
    }

    fn validate_paths(&self) -> Result<(), ConfigError> {
        let paths = [
            ("log_path", &self.log_path),
            ("snapshot_path", &self.snapshot_path),
            ("metadata_path", &self.metadata_path),
        ];
        for (at, (key, path)) in paths.iter().enumerate() {
            let same = |(_, other): &&(&str, &String)| {
                other.trim_end_matches('/') == path.trim_end_matches('/')
            };
            if let Some((other, _)) = paths[..at].iter().find(same) {
                let what = format!("{other} and {key} are the same directory {path:?}");
                return Err(self.conflict(&[other, key], what, "give each a directory of its own"));
            }
        }
        Ok(())
    }

    fn conflict(&self, keys: &[&str], what: String, next: &str) -> ConfigError {
        let origins: Vec<_> = keys
            .iter()
            .map(|key| format!("{key}: {}", self.origin(key)))
            .collect();
        ConfigError::Conflict {
            what,
            origin: origins.join(", "),
            next: next.to_owned(),
        }
    }

    /// Stores a checked value. The match and [`KEYS`] name the same settings; a test checks that.
    fn assign(&mut self, key: &'static Key, value: Value, origin: &str) {
        match (key.name, value) {
            ("log_path", Value::Text(v)) => self.log_path = v,
            ("snapshot_path", Value::Text(v)) => self.snapshot_path = v,
            ("metadata_path", Value::Text(v)) => self.metadata_path = v,
            ("max_log_size", Value::Number(v)) => self.max_log_size = v,
            ("max_log_count", Value::Number(v)) => self.max_log_count = v,
            ("peer_addrs", Value::Nodes(v)) => self.peer_addrs = v,
            ("node_addr", Value::Node(v)) => self.node_addr = v,
            ("advertise_addr", Value::Text(v)) => self.advertise_addr = v,
            ("join", Value::Hosts(v)) => self.join = v,
            ("role", Value::Text(v)) => set(&mut self.role, NodeRole::from_word(&v)),
            ("admit", Value::Text(v)) => set(&mut self.admit, Admit::from_word(&v)),
            ("found", Value::Text(v)) => set(&mut self.found, Found::from_word(&v)),
            ("redis_addr", Value::Text(v)) => self.redis_addr = v,
            ("durability", Value::Text(v)) => set(&mut self.durability, Durability::from_word(&v)),
            ("max_value_bytes", Value::Number(v)) => self.max_value_bytes = v,
            ("max_memory", Value::Number(v)) => self.max_memory = v,
            ("max_connections", Value::Number(v)) => self.max_connections = v,
            ("max_connections_per_address", Value::Number(v)) => {
                self.max_connections_per_address = v;
            }
            ("max_client_memory", Value::Number(v)) => self.max_client_memory = v,
            ("timeout", Value::Number(v)) => self.timeout = v,
            ("election_timeout_ms", Value::Number(v)) => self.election_timeout_ms = v,
            ("heartbeat_interval_ms", Value::Number(v)) => self.heartbeat_interval_ms = v,
            ("hold_timeout_ms", Value::Number(v)) => self.hold_timeout_ms = v,
            ("request_timeout_ms", Value::Number(v)) => self.request_timeout_ms = v,
            ("snapshot_growth_percent", Value::Number(v)) => self.snapshot_growth_percent = v,
            ("max_feature_level", Value::Number(v)) => self.max_feature_level = v,
            ("raise_feature_level_after_s", Value::Number(v)) => {
                self.raise_feature_level_after_s = v;
            }
            ("notify_keyspace_events", Value::Text(v)) => self.notify_keyspace_events = v,
            ("password_file", Value::Text(v)) => self.password_file = v,
            ("cluster_secret_file", Value::Text(v)) => self.cluster_secret_file = v,
            ("audit_file", Value::Text(v)) => self.audit_file = v,
            ("allowed_hosts", Value::Hosts(v)) => self.allowed_hosts = v,
            ("metrics_public", Value::Bool(v)) => self.metrics_public = v,
            ("insecure", Value::Bool(v)) => self.insecure = v,
            ("nopass_from", Value::Text(v)) => {
                set(&mut self.nopass_from, NopassFrom::from_word(&v));
            }
            ("tls", Value::Text(v)) => set(&mut self.tls, TlsClients::from_word(&v)),
            ("tls_cert_file", Value::Text(v)) => self.tls_cert_file = v,
            ("tls_key_file", Value::Text(v)) => self.tls_key_file = v,
            ("tls_ca_file", Value::Text(v)) => self.tls_ca_file = v,
            ("tls_client_auth", Value::Text(v)) => {
                set(&mut self.tls_client_auth, TlsClientAuth::from_word(&v));
            }
            ("tls_crl_file", Value::Text(v)) => self.tls_crl_file = v,
            ("tls_user_map", Value::Text(v)) => self.tls_user_map = v,
            ("tls_peers", Value::Text(v)) => set(&mut self.tls_peers, TlsPeers::from_word(&v)),
            ("tls_peer_ca_file", Value::Text(v)) => self.tls_peer_ca_file = v,
            ("cluster_name", Value::Text(v)) => self.cluster_name = v,
            ("log_format", Value::Text(v)) => set(&mut self.log_format, LogFormat::from_word(&v)),
            ("log_level", Value::Text(v)) => set(&mut self.log_level, LogLevel::from_word(&v)),
            ("report_writes", Value::Bool(v)) => self.report_writes = v,
            (name, _) => unreachable!("{name} is in KEYS with another kind than here"),
        }
        self.origins.insert(key.name, origin.to_owned());
    }
}

/// Stores a word that its key has checked to be one of the enum's.
fn set<T>(slot: &mut T, word: Option<T>) {
    *slot = word.expect("the key accepts the words of this enum only");
}

#[cfg(test)]
mod tests;
