//! From a command line to one node's settings: defaults, file, variables, flags, in this order.
//! Never creates anything; it reads the configuration file and the secrets' files, nothing else.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use memkv_disk::Layout;
use memkv_node::{NodeConfig, Peer};
use memkv_proto::config::{Admit, Found, NodeAddr, NodeRole, check_addr, split_addr};
use memkv_proto::limits::MAX_CONFIG_BYTES;
use memkv_proto::{ConfigError, Durability, RaftConfig};
use memkv_store::{KeyEventClasses, Role};

use crate::memory_limit::memory_limit;
use crate::password::Password;
use crate::peer::ClusterSecret;
use crate::secrets::{self, BadSecret, PASSWORD_VARIABLE};

/// The original's configuration file, in the working directory.
const CONFIG_FILE: &str = "raft_config.json";

/// The part of the memory, as its divisor, that recent records of the log may take.
const LOG_SHARE: u64 = 20;

/// The directory of a node without a configuration.
const EMBEDDED_DIR: &str = "memkv-data";

/// How to run one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// All settings in force.
    pub config: RaftConfig,
    /// Where to listen; peers are told `config.node_addr`.
    pub bind: String,
    /// Where Redis clients have a listener of their own.
    pub redis: RedisListener,
    /// Where the settings come from, for people.
    pub source: String,
    /// The clients' password.
    pub password: Option<Password>,
    /// The secret that peers must prove.
    pub cluster_secret: Option<ClusterSecret>,
}

/// Where Redis clients have a listener of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisListener {
    /// Nowhere; the node's address serves them too.
    None,
    /// There.
    At(String),
    /// On the first free port from Redis's own on, of this machine only: there is no configuration.
    FirstFree,
}

/// Why a node cannot be run as asked.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {source}; {next}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// The next step.
        next: &'static str,
    },
    /// Its content, a variable or a flag is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] BadSecret),
    /// The address to listen on is none.
    #[error("{0}")]
    Bind(String),
}

impl Settings {
    /// Puts the layers together.
    ///
    /// # Errors
    /// [`SettingsError`]; nothing was changed.
    pub fn load(
        file: Option<&Path>,
        bind: Option<&str>,
        overrides: &[(&'static str, String, String)],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        if let Some(bind) = bind {
            check_addr(bind).map_err(|error| SettingsError::Bind(error.to_string()))?;
        }
        let (mut config, source, is_embedded) = base(file, bind)?;
        config.apply_env(&variable)?;
        for (key, value, flag) in overrides {
            config.apply_override(key, value, flag)?;
        }
        config.validate()?;
        let password = secrets::password(&config, variable(PASSWORD_VARIABLE))?;
        let cluster_secret = secrets::cluster_secret(&config)?;
        let bind = bind.map_or_else(|| config.node_addr.addr.clone(), str::to_owned);
        let redis = match &config.redis_addr[..] {
            "" if is_embedded => RedisListener::FirstFree,
            "" => RedisListener::None,
            addr => RedisListener::At(addr.to_owned()),
        };
        Ok(Self {
            config,
            bind,
            redis,
            source,
            password,
            cluster_secret,
        })
    }

    /// Where a node's files are, for a look at them on whatever machine: nothing else of the configuration
    /// needs to hold, and no secret is read. Without a configuration it is that of the node's own, or the three
    /// names of the original in the working directory.
    ///
    /// # Errors
    /// [`SettingsError`] if the configuration cannot be read.
    pub fn layout(
        file: Option<&Path>,
        overrides: &[(&'static str, String, String)],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Layout, SettingsError> {
        let (mut config, _, is_embedded) = base(file, None)?;
        config.apply_env(&variable)?;
        for (key, value, flag) in overrides {
            config.apply_override(key, value, flag)?;
        }
        if is_embedded && !Path::new(EMBEDDED_DIR).exists() {
            let original = Layout::under(Path::new(""));
            if original.metadata.exists() || original.log.exists() {
                return Ok(original);
            }
        }
        Ok(layout(&config))
    }

    /// Which events of keys are announced until the cluster is told by `CONFIG SET`.
    pub fn announce(&self) -> KeyEventClasses {
        let letters = self.config.notify_keyspace_events.as_bytes();
        // The configuration takes the same letters, which a test holds.
        KeyEventClasses::parse(letters).unwrap_or_default()
    }

    /// The names of the configuration under which HTTP clients may reach this node: those meant for
    /// this, and those of its own addresses.
    pub fn allowed_hosts(&self) -> Vec<String> {
        let node = &self.config.node_addr;
        let mut own = vec![&*node.addr, self.config.told_addr(), &*self.bind];
        own.dedup();
        let hosts = own.into_iter().filter_map(split_addr);
        let hosts = hosts.map(|(host, _port)| host.to_owned());
        hosts
            .chain(self.config.allowed_hosts.iter().cloned())
            .collect()
    }

    /// The settings of the node behind the interfaces.
    pub fn node_config(&self) -> NodeConfig {
        let config = &self.config;
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let memory_limit = process_memory(config.max_memory);
        let me = Peer {
            addr: config.told_addr().to_owned(),
            ..peer(&config.node_addr)
        };
        let defaults = NodeConfig::new(me, layout(config));
        let log_share = memory_limit.map_or(u64::MAX, |limit| limit / LOG_SHARE);
        NodeConfig {
            memory_limit,
            log_cache_bytes: defaults.log_cache_bytes.min(log_share),
            peers: config.peer_addrs.iter().map(peer).collect(),
            join: config.join.clone(),
            role: match config.role {
                NodeRole::Voter => Role::Voter,
                NodeRole::Replica => Role::Replica,
            },
            admit_expected_only: config.admit == Admit::Listed,
            found_never: config.found == Found::Never,
            max_log_size: config.max_log_size,
            max_log_count: whole(config.max_log_count),
            sync: config.durability == Durability::Sync,
            election_timeout: Duration::from_millis(config.election_timeout_ms),
            heartbeat_interval: Duration::from_millis(config.heartbeat_interval_ms),
            hold: Duration::from_millis(config.hold_timeout_ms),
            snapshot_growth_percent: u32::try_from(config.snapshot_growth_percent)
                .unwrap_or(u32::MAX),
            max_value_bytes: whole(config.max_value_bytes),
            announce: self.announce(),
            first_users: crate::rights::first_users(self.password.as_ref()),
            max_feature_level: u32::try_from(config.max_feature_level)
                .ok()
                .filter(|level| *level > 0),
            raise_level_after: Duration::from_secs(config.raise_feature_level_after_s),
            ..defaults
        }
    }
}

/// The most memory that a process may take, where `configured` is one limit besides those of the system;
/// 0 for none. Nothing if no limit is known.
pub(crate) fn process_memory(configured: u64) -> Option<u64> {
    let configured = Some(configured).filter(|limit| *limit > 0);
    memory_limit().into_iter().chain(configured).min()
}

/// The file's settings, or those of a node without a file; a text that names the source, and whether
/// there is no file.
fn base(
    file: Option<&Path>,
    bind: Option<&str>,
) -> Result<(RaftConfig, String, bool), SettingsError> {
    let path = file.unwrap_or(Path::new(CONFIG_FILE));
    match (read(path), file) {
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => Ok((
            embedded(bind)?,
            format!("no {CONFIG_FILE} here: a single node"),
            true,
        )),
        (text, _) => Ok((parse(path, text)?, path.display().to_string(), false)),
    }
}

fn layout(config: &RaftConfig) -> Layout {
    Layout {
        log: PathBuf::from(&config.log_path),
        metadata: PathBuf::from(&config.metadata_path),
        snapshot: PathBuf::from(&config.snapshot_path),
    }
}

fn peer(node: &NodeAddr) -> Peer {
    Peer {
        name: node.id.clone(),
        addr: node.addr.clone(),
    }
}

/// A file's text; one byte more than the limit at most, for the parser to refuse.
fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_CONFIG_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn parse(path: &Path, text: io::Result<String>) -> Result<RaftConfig, SettingsError> {
    let text = text.map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        next: match source.kind() {
            io::ErrorKind::NotFound => "name an existing file, or none for a single node",
            io::ErrorKind::InvalidData => "it must be UTF-8 text",
            _ => "make it readable for this user",
        },
        source,
    })?;
    Ok(RaftConfig::from_json(&text, &path.display().to_string())?)
}

/// A single node without a configuration, which listens at the given address.
fn embedded(bind: Option<&str>) -> Result<RaftConfig, ConfigError> {
    let mut config = RaftConfig::default();
    for (key, directory) in [
        ("log_path", "log"),
        ("snapshot_path", "snapshot"),
        ("metadata_path", "metadata"),
    ] {
        config.apply_override(key, &format!("{EMBEDDED_DIR}/{directory}/"), "default")?;
    }
    if let Some(bind) = bind {
        // As in the original's examples, the port is the id.
        let port = split_addr(bind).map_or(0, |(_host, port)| port);
        config.apply_override(
            "node_addr",
            &format!("{port}@{bind}"),
            "the listening address",
        )?;
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use memkv_proto::config::{Key, Kind};

    use super::*;

    /// Tests run in the crate's directory, which has no `raft_config.json`.
    fn load(file: Option<&Path>, bind: Option<&str>) -> Result<Settings, SettingsError> {
        Settings::load(file, bind, &[], |_| None)
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.json");
        std::fs::write(&file, text).unwrap();
        (dir, file)
    }

    const ORIGINAL: &str = r#"{
        "log_path": "log/", "snapshot_path": "snapshot/", "metadata_path": "metadata/",
        "max_log_size": 1024, "max_log_count": 6,
        "peer_addrs": [ { "addr": "127.0.0.1:11082", "id": "11082" } ],
        "node_addr": { "addr": "127.0.0.1:11081", "id": "11081" }
    }"#;

    #[test]
    fn the_originals_file_and_an_address_to_listen_on() {
        let (_dir, file) = written(ORIGINAL);
        let settings = load(Some(&file), Some("0.0.0.0:9")).unwrap();
        assert_eq!(settings.bind, "0.0.0.0:9");
        let node = settings.node_config();
        assert_eq!(
            (node.me.name.as_str(), node.me.addr.as_str()),
            ("11081", "127.0.0.1:11081")
        );
        assert_eq!(
            node.peers,
            [Peer {
                name: "11082".into(),
                addr: "127.0.0.1:11082".into()
            }]
        );
        assert_eq!(
            (node.max_log_size, node.max_log_count, node.sync),
            (1024, 6, true)
        );
        assert_eq!(node.layout.log, Path::new("log/"));
        assert_eq!(load(Some(&file), None).unwrap().bind, "127.0.0.1:11081");
    }

    #[test]
    fn the_configuration_lowers_the_limit_of_memory_and_never_raises_it() {
        assert_eq!(process_memory(4096), Some(4096));
        let raised = process_memory(u64::MAX);
        assert_eq!(raised, memory_limit().or(Some(u64::MAX)));
        let flag = ("max_memory", "67108864".to_owned(), "flag".to_owned());
        let settings = Settings::load(None, None, &[flag], |_| None).unwrap();
        let node = settings.node_config();
        assert_eq!(node.memory_limit, Some(64 << 20));
        assert!(node.log_cache_bytes <= (64 << 20) / LOG_SHARE);
    }

    #[test]
    fn every_letter_of_the_setting_is_an_event() {
        let key = Key::find("notify_keyspace_events").unwrap();
        let Kind::Letters(letters) = key.kind else {
            panic!("{key:?}")
        };
        let announce = |letters: &str| {
            let flag = "--notify-keyspace-events".to_owned();
            let flags = [("notify_keyspace_events", letters.to_owned(), flag)];
            let settings = Settings::load(None, None, &flags, |_| None);
            settings.map(|settings| settings.node_config().announce)
        };
        for letter in letters.chars() {
            let announced = announce(&letter.to_string()).unwrap();
            assert_eq!(announced.letters(), letter.to_string());
        }
        assert_eq!(announce("").unwrap(), KeyEventClasses::default());
        assert!(announce("Kq").is_err());
    }

    #[test]
    fn other_nodes_are_told_the_advertised_address() {
        let told = |more: &str| {
            let own = r#""node_addr": {"addr": "n1:1", "id": "1"}"#;
            let (_dir, file) = written(&format!("{{{own}{more}}}"));
            let settings = Settings::load(Some(&file), None, &[], |_| None).unwrap();
            (settings.node_config().me.addr, settings.allowed_hosts())
        };
        let (addr, hosts) = told("");
        assert_eq!((&*addr, hosts.contains(&"out".to_owned())), ("n1:1", false));
        let (addr, hosts) = told(r#", "advertise_addr": "out:9""#);
        assert_eq!((&*addr, hosts.contains(&"out".to_owned())), ("out:9", true));
    }

    #[test]
    fn a_node_is_reached_under_its_own_and_the_configured_names() {
        let (_dir, file) = written(
            r#"{"node_addr": {"addr": "n1.internal:1", "id": "1"}, "allowed_hosts": ["kv.example"]}"#,
        );
        let hosts = |variable: Option<&str>, flag: Option<&str>| {
            let flag = flag.map(|names| ("allowed_hosts", names.to_owned(), "flag".to_owned()));
            let variable = |name: &str| {
                variable
                    .filter(|_| name == "MEMKV_ALLOWED_HOSTS")
                    .map(str::to_owned)
            };
            let flags: Vec<_> = flag.into_iter().collect();
            Settings::load(Some(&file), Some("web:2"), &flags, variable)
                .map(|settings| settings.allowed_hosts())
        };
        let own = |more: &[&'static str]| [&["n1.internal", "web"], more].concat();
        assert_eq!(hosts(None, None).unwrap(), own(&["kv.example"]));
        assert_eq!(hosts(Some("a, b"), None).unwrap(), own(&["a", "b"]));
        assert_eq!(hosts(Some("a"), Some("c")).unwrap(), own(&["c"]));
        assert_eq!(hosts(None, Some("")).unwrap(), own(&[]));
        for bad in [
            "a:1", "http://a", "*", "a,,b", "a b", "[::1]", "\u{a0}a", "kv/x",
        ] {
            let error = hosts(None, Some(bad)).unwrap_err().to_string();
            assert!(
                error.contains("a list of host names without ports"),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn without_a_file_a_single_node() {
        let settings = load(None, None).unwrap();
        assert_eq!(settings.bind, "127.0.0.1:11081");
        assert!(settings.config.is_single());
        assert_eq!(
            settings.node_config().layout.log,
            Path::new("memkv-data/log/")
        );
        let settings = load(None, Some("127.0.0.1:7")).unwrap();
        assert_eq!(settings.config.node_addr.to_string(), "7@127.0.0.1:7");
    }

    #[test]
    fn flags_go_over_variables_and_variables_over_the_file() {
        let (_dir, file) = written(ORIGINAL);
        let variables = |name: &str| match name {
            "MEMKV_MAX_LOG_COUNT" => Some("7".to_owned()),
            "MEMKV_DURABILITY" => Some("os".to_owned()),
            _ => None,
        };
        let flags = [(
            "max_log_count",
            "8".to_owned(),
            "--max-log-count".to_owned(),
        )];
        let node = Settings::load(Some(&file), None, &flags, variables)
            .unwrap()
            .node_config();
        assert_eq!(
            (node.max_log_size, node.max_log_count, node.sync),
            (1024, 8, false)
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let missing = load(Some(Path::new("/nonexistent/x.json")), None)
            .unwrap_err()
            .to_string();
        assert!(missing.contains("/nonexistent/x.json") && missing.contains("name an existing"));
        let (_dir, file) = written(&ORIGINAL.replace("max_log_size", "max_log_sizee"));
        let error = load(Some(&file), None).unwrap_err().to_string();
        assert!(
            error.contains(":3:") && error.contains("did you mean \"max_log_size\""),
            "{error}"
        );
        let (_dir, file) = written(&" ".repeat(MAX_CONFIG_BYTES + 1));
        let error = load(Some(&file), None).unwrap_err().to_string();
        assert!(error.contains("more than"), "{error}");
        let error = load(None, Some("nowhere")).unwrap_err().to_string();
        assert!(error.contains("host:port"), "{error}");
        let flags = [("durability", "yes".to_owned(), "--durability".to_owned())];
        let error = Settings::load(None, None, &flags, |_| None)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("--durability") && error.contains("\"os\""),
            "{error}"
        );
    }
}
