//! `raft_config.json`: one node's settings, where each comes from, and which of them go together.
//! Never asks the disk or the network whether a value makes sense.

use std::collections::BTreeMap;

use serde::Serialize;

use super::address::{NodeAddr, split_addr};
use super::failure::ConfigError;
use super::keys::{KEYS, Key};
use super::value::{Value, value_from_json, value_from_text};
use super::words::{Durability, LogFormat, LogLevel};
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
    pub redis_addr: String,
    pub durability: Durability,
    pub max_value_bytes: u64,
    pub max_connections: u64,
    pub election_timeout_ms: u64,
    pub heartbeat_interval_ms: u64,
    pub hold_timeout_ms: u64,
    pub request_timeout_ms: u64,
    pub snapshot_growth_percent: u64,
    pub notify_keyspace_events: String,
    pub password_file: String,
    pub cluster_secret_file: String,
    pub insecure: bool,
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
            redis_addr: String::new(),
            durability: Durability::Sync,
            max_value_bytes: 0,
            max_connections: 0,
            election_timeout_ms: 0,
            heartbeat_interval_ms: 0,
            hold_timeout_ms: 0,
            request_timeout_ms: 0,
            snapshot_growth_percent: 0,
            notify_keyspace_events: String::new(),
            password_file: String::new(),
            cluster_secret_file: String::new(),
            insecure: false,
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
    /// Parses the text of the file called `file`. What the file does not say has its default.
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
                let origin = source.place_of_key(&name, raw);
                return Err(nodes::unknown_key(&name.0, origin, &known));
            };
            let value = value_from_json(source, key, raw.get())?;
            config.assign(key, value, &source.place(raw.get()));
        }
        Ok(config)
    }

    /// Sets the setting `key` from text, as variables and flags give it. `source` is what the
    /// operator typed: `MEMKV_LOG_PATH` or `--log-path`.
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
    /// [`ConfigError::Conflict`] with both sides and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_nodes()?;
        self.validate_redis_addr()?;
        self.validate_paths()?;
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

    /// Where a setting comes from: `file:line:column`, a variable, a flag or `default`.
    pub fn origin(&self, key: &str) -> &str {
        self.origins.get(key).map_or("default", String::as_str)
    }

    /// Whether this node is a cluster by itself.
    pub fn is_single(&self) -> bool {
        self.peer_addrs.is_empty()
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
        if self.peer_addrs.iter().any(|peer| peer.addr == own.addr) {
            let what = format!("this node's address {:?} is also in peer_addrs", own.addr);
            return Err(self.conflict(&both, what, next));
        }
        let unspecified = |node: &&NodeAddr| {
            let host = split_addr(&node.addr).and_then(|(host, _)| host.parse().ok());
            host.is_some_and(|ip: core::net::IpAddr| ip.is_unspecified())
        };
        if let (false, Some(node)) = (self.is_single(), self.nodes().into_iter().find(unspecified))
        {
            let what = format!(
                "{:?} names no machine that other nodes could reach",
                node.addr
            );
            return Err(self.conflict(&both, what, "write the address that the others connect to"));
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

    /// Stores a checked value. The match and [`KEYS`] name the same settings, which a test holds.
    fn assign(&mut self, key: &'static Key, value: Value, origin: &str) {
        match (key.name, value) {
            ("log_path", Value::Text(v)) => self.log_path = v,
            ("snapshot_path", Value::Text(v)) => self.snapshot_path = v,
            ("metadata_path", Value::Text(v)) => self.metadata_path = v,
            ("max_log_size", Value::Number(v)) => self.max_log_size = v,
            ("max_log_count", Value::Number(v)) => self.max_log_count = v,
            ("peer_addrs", Value::Nodes(v)) => self.peer_addrs = v,
            ("node_addr", Value::Node(v)) => self.node_addr = v,
            ("redis_addr", Value::Text(v)) => self.redis_addr = v,
            ("durability", Value::Text(v)) => set(&mut self.durability, Durability::from_word(&v)),
            ("max_value_bytes", Value::Number(v)) => self.max_value_bytes = v,
            ("max_connections", Value::Number(v)) => self.max_connections = v,
            ("election_timeout_ms", Value::Number(v)) => self.election_timeout_ms = v,
            ("heartbeat_interval_ms", Value::Number(v)) => self.heartbeat_interval_ms = v,
            ("hold_timeout_ms", Value::Number(v)) => self.hold_timeout_ms = v,
            ("request_timeout_ms", Value::Number(v)) => self.request_timeout_ms = v,
            ("snapshot_growth_percent", Value::Number(v)) => self.snapshot_growth_percent = v,
            ("notify_keyspace_events", Value::Text(v)) => self.notify_keyspace_events = v,
            ("password_file", Value::Text(v)) => self.password_file = v,
            ("cluster_secret_file", Value::Text(v)) => self.cluster_secret_file = v,
            ("insecure", Value::Bool(v)) => self.insecure = v,
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
mod tests {
    use super::*;

    const SEED: &str = r#"{
    "log_path": "log/",
    "snapshot_path": "snapshot/",
    "metadata_path": "metadata/",
    "max_log_size": 1024,
    "max_log_count": 6,
    "peer_addrs": [
        {
            "addr": "127.0.0.1:11082",
            "id": "11082"
        }
    ],
    "node_addr": {
        "addr": "127.0.0.1:11081",
        "id": "11081"
    }
}"#;

    fn fails(text: &str) -> String {
        let checked =
            RaftConfig::from_json(text, "raft_config.json").and_then(|config| config.validate());
        checked.unwrap_err().to_string()
    }

    #[test]
    fn the_seeds_file_loads() {
        let config = RaftConfig::from_json(SEED, "raft_config.json").unwrap();
        config.validate().unwrap();
        assert_eq!(config.log_path, "log/");
        assert_eq!((config.max_log_size, config.max_log_count), (1024, 6));
        assert_eq!(config.segment_bytes(), 65536);
        assert_eq!(config.node_addr.to_string(), "11081@127.0.0.1:11081");
        let ids: Vec<_> = config.nodes().iter().map(|node| node.id.as_str()).collect();
        assert_eq!(ids, ["11081", "11082"]);
        assert_eq!(config.origin("max_log_size"), "raft_config.json:5:21");
        assert_eq!(config.origin("durability"), "default");
    }

    #[test]
    fn keys_fields_and_defaults_are_the_same_settings() {
        let config = RaftConfig::default();
        config.validate().unwrap();
        assert!(config.is_single());
        let json: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&config.to_json()).unwrap();
        let mut fields: Vec<_> = json.keys().map(String::as_str).collect();
        let mut keys: Vec<_> = KEYS.iter().map(|key| key.name).collect();
        fields.sort_unstable();
        keys.sort_unstable();
        assert_eq!(fields, keys);
    }

    #[test]
    fn a_written_file_loads_as_the_same_settings() {
        let mut config = RaftConfig::from_json(SEED, "f").unwrap();
        config
            .apply_override("durability", "os", "--durability")
            .unwrap();
        config
            .apply_override("insecure", "true", "--insecure")
            .unwrap();
        let mut loaded = RaftConfig::from_json(&config.to_json(), "g").unwrap();
        loaded.origins = config.origins.clone();
        assert_eq!(loaded, config);
    }

    #[test]
    fn redis_has_an_address_of_its_own_or_none() {
        let with = |addr: &str| {
            SEED.replace(
                "{\n    \"log",
                &format!("{{ \"redis_addr\": {addr},\n \"log"),
            )
        };
        let config = RaftConfig::from_json(&with("\"127.0.0.1:6379\""), "f").unwrap();
        assert_eq!(config.redis_addr, "127.0.0.1:6379");
        assert_eq!(
            RaftConfig::from_json(&with("\"\""), "f")
                .unwrap()
                .redis_addr,
            ""
        );
        assert!(fails(&with("\"6379\"")).contains("host:port"));
        assert!(fails(&with("6379")).contains("redis_addr"));
        assert!(fails(&with("\"127.0.0.1:11081\"")).contains("leave redis_addr out"));
    }

    #[test]
    fn an_unknown_key_names_its_place_and_the_nearest_key() {
        assert_eq!(
            fails("{\n    \"log_path\": \"log/\",\n  \"max_log_sizee\": 1024}"),
            "config: unknown key \"max_log_sizee\" at raft_config.json:3:3 — \
             did you mean \"max_log_size\"?"
        );
        assert!(fails(r#"{"colour": 1}"#).contains("the keys are log_path, snapshot_path"));
        assert!(
            fails(r#"{"node_addr": {"add": "h:1", "id": "1"}}"#)
                .contains(r#"unknown key "add" at raft_config.json:1:16 — did you mean "addr"?"#)
        );
    }

    #[test]
    fn bad_values_say_what_would_be_accepted() {
        for (text, expected) in [
            (
                r#"{"max_log_size": 0}"#,
                r#""max_log_size" at raft_config.json:1:18 is "0"; it must be a whole number from 1"#,
            ),
            (
                r#"{"max_log_size": -1}"#,
                r#"is "-1"; it must be a whole number"#,
            ),
            (
                r#"{"max_log_size": 1024.5}"#,
                r#"is "1024.5"; it must be a whole number"#,
            ),
            (
                r#"{"max_log_size": "1024"}"#,
                r#"is the string "1024"; it must be a whole number"#,
            ),
            (
                r#"{"max_log_size": 99999999999999999999}"#,
                "it must be a whole number",
            ),
            (r#"{"max_log_count": 1}"#, "a whole number from 2"),
            (
                r#"{"max_log_count": null}"#,
                r#"is "null"; it must be a whole number"#,
            ),
            (r#"{"log_path": ""}"#, r#"is ""; it must be a directory"#),
            (r#"{"log_path": 1}"#, "is a number; it must be a directory"),
            (
                r#"{"durability": "fsync"}"#,
                r#"is "fsync"; it must be one of "sync", "os""#,
            ),
            (r#"{"insecure": 1}"#, r#"is "1"; it must be true or false"#),
            (
                r#"{"peer_addrs": {}}"#,
                "is an object; it must be a list of nodes",
            ),
            (
                r#"{"peer_addrs": ["h:1"]}"#,
                "is a string; it must be a list of nodes",
            ),
            (r#"{"node_addr": []}"#, "is an array; it must be a node"),
            (
                r#"{"node_addr": {"id": "1"}}"#,
                r#""addr" is missing in the object at raft_config.json:1:15"#,
            ),
            (
                r#"{"node_addr": {"id": 1, "addr": "h:1"}}"#,
                r#""id" at raft_config.json:1:22 is a number; it must be a string"#,
            ),
            (
                r#"{"node_addr": {"id": "a/b", "addr": "h:1"}}"#,
                r#""a/b" is not a node id"#,
            ),
            (
                r#"{"node_addr": {"id": "1", "addr": "h"}}"#,
                r#""h" is not an address: write host:port"#,
            ),
        ] {
            assert!(fails(text).contains(expected), "{text} -> {}", fails(text));
        }
    }

    #[test]
    fn bad_syntax_names_its_place() {
        for (text, expected) in [
            ("", "raft_config.json:1:0"),
            ("{\"log_path\": \"a\"\n \"b\"}", "at raft_config.json:2:2"),
            ("{} x", "at raft_config.json:1:4"),
            ("[]", "found an array at raft_config.json:1:1"),
            (
                r#"{"insecure": true, "insecure": true}"#,
                r#"key "insecure" at raft_config.json:1:20 was already given at raft_config.json:1:2"#,
            ),
        ] {
            assert!(fails(text).contains(expected), "{text} -> {}", fails(text));
        }
        let deep = format!("{{\"log_path\": {}", "[".repeat(500_000));
        assert!(fails(&deep).contains("EOF while parsing"));
        assert!(fails(&" ".repeat(2 << 20)).contains("more than 1048576 bytes"));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let node = |id: &str, addr: &str| format!(r#"{{"id":"{id}","addr":"{addr}"}}"#);
        let cluster = |own: String, peers: &[String]| {
            format!(
                r#"{{"node_addr":{own},"peer_addrs":[{}]}}"#,
                peers.join(",")
            )
        };
        let twice = cluster(node("1", "h:1"), &[node("2", "h:2"), node("2", "h:3")]);
        assert!(
            fails(&twice).contains(r#"id "2" occurs twice in "peer_addrs" (raft_config.json:1:"#)
        );
        let same = cluster(node("1", "h:1"), &[node("2", "h:2"), node("3", "h:2")]);
        assert!(fails(&same).contains(r#"address "h:2" occurs twice"#));
        let own_id = cluster(node("1", "h:1"), &[node("1", "h:2")]);
        assert!(fails(&own_id).contains(r#"this node's id "1" is also in peer_addrs (node_addr: raft_config.json:1:14, peer_addrs: "#));
        let own_addr = cluster(node("1", "h:1"), &[node("2", "h:1")]);
        assert!(fails(&own_addr).contains(r#"this node's address "h:1" is also in peer_addrs"#));
        let anywhere = cluster(node("1", "0.0.0.0:1"), &[node("2", "h:1")]);
        assert!(fails(&anywhere).contains("names no machine"));
        assert!(
            RaftConfig::from_json(&cluster(node("1", "[::]:1"), &[]), "f")
                .unwrap()
                .validate()
                .is_ok()
        );
        assert!(fails(r#"{"election_timeout_ms": 399}"#).contains("less than four times"));
        assert!(
            fails(r#"{"hold_timeout_ms": 5001}"#).contains("more than request_timeout_ms (5000)")
        );
        assert!(
            fails(r#"{"log_path": "x", "metadata_path": "x/"}"#).contains("the same directory")
        );
    }

    #[test]
    fn later_layers_win_and_a_failed_one_changes_nothing() {
        let mut config = RaftConfig::from_json(SEED, "f").unwrap();
        let env = |name: &str| match name {
            "MEMKV_MAX_LOG_SIZE" => Some("2048".to_owned()),
            "MEMKV_PEER_ADDRS" => Some("a@h:1, b@h:2".to_owned()),
            _ => None,
        };
        config.apply_env(env).unwrap();
        config
            .apply_override("max_log_size", "4096", "--max-log-size")
            .unwrap();
        assert_eq!(
            (config.max_log_size, config.origin("max_log_size")),
            (4096, "--max-log-size")
        );
        assert_eq!(
            (config.peer_addrs.len(), config.origin("peer_addrs")),
            (2, "MEMKV_PEER_ADDRS")
        );

        let before = config.clone();
        let error = config
            .apply_override("max_log_size", "many", "--max-log-size")
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains(r#""max_log_size" at --max-log-size is "many""#)
        );
        assert!(config.apply_override("max_log", "1", "--max-log").is_err());
        assert!(
            config
                .apply_override("peer_addrs", "a@h:1,a@h:2", "--peer-addrs")
                .is_err()
        );
        assert_eq!(config, before);
        config
            .apply_override("peer_addrs", "", "--peer-addrs")
            .unwrap();
        assert!(config.is_single());
    }
}
