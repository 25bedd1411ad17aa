//! The table of settings: one line each, from which the file's keys, the variables, the flags and
//! the documentation all follow. Never the values in force: those are in [`super::RaftConfig`].

use super::key::{Key, Kind};
use super::words::{
    Admit, Durability, Found, LogFormat, LogLevel, NodeRole, NopassFrom, TlsClientAuth, TlsClients,
    TlsPeers,
};
use crate::limits::{DEFAULT_MAX_VALUE_BYTES, MAX_VALUE_BYTES_CEILING};

/// Every setting, in the order of the documentation: the original's seven first.
pub const KEYS: &[Key] = &[
    key(
        "log_path",
        Kind::Path,
        "log/",
        "",
        "Directory of the log's segments.",
    ),
    key(
        "snapshot_path",
        Kind::Path,
        "snapshot/",
        "",
        "Directory of the snapshots.",
    ),
    key(
        "metadata_path",
        Kind::Path,
        "metadata/",
        "",
        "Directory of the term, the vote and the node's identity.",
    ),
    key(
        "max_log_size",
        // The ceiling keeps one segment's creation (it is zero-filled) below a few seconds.
        Kind::Integer {
            min: 1,
            max: 4 << 30,
        },
        "67108864",
        "bytes",
        "Size of one log segment, rounded up to a multiple of 64 KiB.",
    ),
    key(
        "max_log_count",
        Kind::Integer {
            min: 2,
            max: 100_000,
        },
        "6",
        "segments",
        "With more segments than this, a snapshot is taken and the segments it covers are dropped.",
    ),
    key(
        "peer_addrs",
        Kind::Nodes,
        "",
        "",
        "The other nodes of the cluster; none for a single node.",
    ),
    key(
        "node_addr",
        Kind::Node,
        "11081@127.0.0.1:11081",
        "",
        "This node's id and address.",
    ),
    key(
        "advertise_addr",
        Kind::Addr,
        "",
        "",
        "The address that other nodes and clients are told, where that is not node_addr's: behind an address \
         translation, or in a container. A member that starts with another one has moved: the others learn it.",
    ),
    key(
        "join",
        Kind::Addrs,
        "",
        "",
        "Addresses of nodes of a cluster to join, such as that of one node that runs; an empty node with any \
         never founds a cluster. Of no effect once the node belongs to one.",
    ),
    key(
        "found",
        Kind::Word(Found::WORDS),
        "auto",
        "",
        "Whether the node may found a cluster when its directory is empty: \"auto\" = alone, or with all of \
         peer_addrs, unless it has join; \"never\" = it waits for the cluster that it belonged to. Set it once the \
         cluster exists: a disk that was not mounted is an empty directory.",
    ),
    key(
        "role",
        Kind::Word(NodeRole::WORDS),
        "voter",
        "",
        "What the node proposes when it joins: \"voter\" = it gets a vote as soon as the number of voters stays \
         odd with it; \"replica\" = it has the data and no vote. Afterwards the cluster's table decides.",
    ),
    key(
        "admit",
        Kind::Word(Admit::WORDS),
        "proven",
        "",
        "Which nodes of new names this node admits while it leads: \"proven\" = those that prove the cluster \
         secret or show a certificate; \"listed\" = of these, those that `member add` has named. Give all nodes \
         the same.",
    ),
    key(
        "redis_addr",
        Kind::Addr,
        "",
        "",
        "A second address for Redis clients alone, where inline commands are understood too; \
         node_addr serves Redis clients as well.",
    ),
    key(
        "durability",
        Kind::Word(Durability::WORDS),
        "sync",
        "",
        "What an acknowledgement means: \"sync\" = fsynced on a majority; \"os\" = survives the \
         death of processes only, not a power loss.",
    ),
    key(
        "max_value_bytes",
        Kind::Integer {
            min: 1,
            max: MAX_VALUE_BYTES_CEILING as u64,
        },
        "8388608",
        "bytes",
        "The largest value that is accepted.",
    ),
    key(
        "max_memory",
        Kind::Integer {
            min: 0,
            max: 1 << 50,
        },
        "0",
        "bytes",
        "The most memory that the process may take, at least 32 MiB; 0 for the smallest limit of its \
         control groups and of the machine. Keys get 60 % of it: the smallest such share of the nodes \
         that vote is the cluster's memory cap, unless CONFIG SET maxmemory sets another.",
    ),
    key(
        "max_connections",
        Kind::Integer {
            min: 1,
            max: 1_000_000,
        },
        "10000",
        "connections",
        "Client connections that may be open at once; peers have connections of their own.",
    ),
    key(
        "max_connections_per_address",
        Kind::Integer {
            min: 0,
            max: 1_000_000,
        },
        "256",
        "connections",
        "Of these, connections from one address (in IPv6 from one /64 network), unless it is loopback; 0 for \
         any number, such as behind a proxy.",
    ),
    key(
        "max_client_memory",
        Kind::Integer {
            min: 0,
            max: 1 << 50,
        },
        "0",
        "bytes",
        "The most memory that requests, replies and subscriptions of all clients may take together; 0 for \
         a tenth of the memory that the node may use. At least 64 MiB, and three times max_value_bytes.",
    ),
    key(
        "timeout",
        // As in Redis, whose largest is that of a C int.
        Kind::Integer {
            min: 0,
            max: 2_147_483_647,
        },
        "0",
        "s",
        "A Redis client that has sent nothing for this long is disconnected, unless it is subscribed to \
         something; 0 for never.",
    ),
    key(
        "election_timeout_ms",
        // Below 50 ms ordinary scheduling delays look like a dead leader.
        Kind::Integer {
            min: 50,
            max: 60_000,
        },
        "1000",
        "ms",
        "Without a word from the leader for this long, up to a fifth longer, a follower asks for \
         votes; at least four times heartbeat_interval_ms. A leader whose process dies is replaced \
         at once.",
    ),
    key(
        "heartbeat_interval_ms",
        Kind::Integer {
            min: 10,
            max: 20_000,
        },
        "100",
        "ms",
        "How often the leader tells its followers that it is there.",
    ),
    key(
        "hold_timeout_ms",
        Kind::Integer {
            min: 0,
            max: 600_000,
        },
        "3000",
        "ms",
        "How long a command is held while there is no leader; at most request_timeout_ms.",
    ),
    key(
        "request_timeout_ms",
        Kind::Integer {
            min: 10,
            max: 600_000,
        },
        "5000",
        "ms",
        "After this long every command is answered, if need be with \"unknown\".",
    ),
    key(
        "snapshot_growth_percent",
        Kind::Integer { min: 0, max: 1000 },
        "100",
        "percent",
        "A snapshot also waits until the log has grown by this much of the last snapshot's size.",
    ),
    key(
        "max_feature_level",
        Kind::Integer {
            min: 0,
            max: 1_000_000,
        },
        "0",
        "",
        "The highest feature level that this node announces; 0 for the highest that its version knows. \
         One node with a limit keeps the whole cluster from being raised above it.",
    ),
    key(
        "raise_feature_level_after_s",
        // A month: an upgrade that takes longer is better held back by max_feature_level.
        Kind::Integer {
            min: 0,
            max: 2_592_000,
        },
        "3600",
        "s",
        "For how long all nodes must have announced a higher feature level before the leader raises \
         the cluster to it; until then every node may go back to the version before.",
    ),
    key(
        "notify_keyspace_events",
        Kind::Letters("AKEg$lshzxetdnm"),
        "",
        "",
        "Which events of keys are published, in Redis's letters, until CONFIG SET says it for the \
         whole cluster.",
    ),
    key(
        "password_file",
        Kind::File,
        "",
        "",
        "File with the password that clients must show: its text without the line end, in a file that \
         no other user can read. The variable MEMKV_PASSWORD may hold it instead.",
    ),
    key(
        "cluster_secret_file",
        Kind::File,
        "",
        "",
        "File with the secret that all nodes of the cluster share and prove to each other: 32 bytes or \
         more, as `memkv_server secret` prints them, in a file that no other user can read. Wanted \
         where there are peers and a password, or an address that other machines reach.",
    ),
    key(
        "audit_file",
        Kind::File,
        "",
        "",
        "File to which the audit log is appended, a line of JSON for each event; it is made if it is \
         missing, and no other user may be able to read it.",
    ),
    key(
        "allowed_hosts",
        Kind::Hosts,
        "",
        "",
        "While there is no password, the names under which HTTP clients may reach this node, as a \
         protection from web pages that have their own name lead here; addresses, localhost and \
         the host of node_addr always may.",
    ),
    key(
        "metrics_public",
        Kind::Bool,
        "false",
        "",
        "Whether `/metrics` is answered to everybody, also where the cluster has users.",
    ),
    key(
        "insecure",
        Kind::Bool,
        "false",
        "",
        "Serve on addresses that other machines reach although nothing encrypts what is sent there, or \
         nothing authenticates clients because the node has no password.",
    ),
    key(
        "nopass_from",
        Kind::Word(NopassFrom::WORDS),
        "auto",
        "",
        "From where users without a password may come: \"loopback\" = the node's own machine; \
         \"everywhere\"; \"auto\" = everywhere if the node has no password and is insecure, or if it \
         serves nobody without a certificate, else loopback.",
    ),
    key(
        "tls",
        Kind::Word(TlsClients::WORDS),
        "off",
        "",
        "TLS for clients on every address: \"accept\" = with and without, by the first byte; \
         \"require\" = a client without it gets one error and is closed.",
    ),
    key(
        "tls_cert_file",
        Kind::File,
        "",
        "",
        "File with this node's certificate and those between it and the CA, in PEM. It and the five \
         other files of TLS are looked at every 10 s and at SIGHUP.",
    ),
    key(
        "tls_key_file",
        Kind::File,
        "",
        "",
        "File with the private key of tls_cert_file in PEM, which no other user can read.",
    ),
    key(
        "tls_ca_file",
        Kind::File,
        "",
        "",
        "File with the certificates of the CAs that issue clients' certificates, in PEM.",
    ),
    key(
        "tls_client_auth",
        Kind::Word(TlsClientAuth::WORDS),
        "no",
        "",
        "Whether clients show a certificate of tls_ca_file: \"optional\" = one that is shown must be \
         good; \"require\" = no connection without one.",
    ),
    key(
        "tls_crl_file",
        Kind::File,
        "",
        "",
        "File with the lists of revoked certificates, in PEM: one of every CA in tls_ca_file and \
         tls_peer_ca_file. A list past its next update still counts.",
    ),
    key(
        "tls_user_map",
        Kind::File,
        "",
        "",
        "File that says for which user a client's certificate stands, a line for each name: \
         `subject:NAME USER`, `dns:NAME USER` or `uri:NAME USER`.",
    ),
    key(
        "tls_peers",
        Kind::Word(TlsPeers::WORDS),
        "off",
        "",
        "TLS 1.3 between nodes: \"accept\" = answered with and without, called without; \"dial\" = \
         also called with it; \"require\" = TLS alone. A running cluster goes through them in this \
         order, one node after the other.",
    ),
    key(
        "tls_peer_ca_file",
        Kind::File,
        "",
        "",
        "File with the certificates of the CAs that issue nodes' certificates, in PEM. Who has a key \
         of such a certificate is a node.",
    ),
    key(
        "cluster_name",
        Kind::Name,
        "",
        "",
        "The cluster's name in nodes' certificates: each carries the URI memkv://CLUSTER/NODE.",
    ),
    key(
        "log_format",
        Kind::Word(LogFormat::WORDS),
        "text",
        "",
        "How log lines are written.",
    ),
    key(
        "log_level",
        Kind::Word(LogLevel::WORDS),
        "info",
        "",
        "The least severe log line that is written.",
    ),
    key(
        "report_writes",
        Kind::Bool,
        "false",
        "",
        "Print the writes per second, every second.",
    ),
];

const _: () = assert!(
    DEFAULT_MAX_VALUE_BYTES == 8_388_608,
    "the default in KEYS is this limit"
);

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    unit: &'static str,
    doc: &'static str,
) -> Key {
    Key {
        name,
        kind,
        default,
        unit,
        doc,
    }
}

impl Key {
    /// The setting with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Its variable: `MEMKV_LOG_PATH`.
    pub fn env_name(&self) -> String {
        format!("MEMKV_{}", self.name.to_ascii_uppercase())
    }

    /// Its flag, without dashes in front: `log-path`.
    pub fn flag_name(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The values that it accepts, as text.
    pub fn expects(&self) -> String {
        match self.kind {
            Kind::Path => "a directory (a non-empty string)".to_owned(),
            Kind::File => "the path of a file, or nothing".to_owned(),
            Kind::Integer { min, max } => {
                let unit = if self.unit.is_empty() {
                    String::new()
                } else {
                    format!(" {}", self.unit)
                };
                format!("a whole number from {min} to {max}{unit}")
            }
            Kind::Bool => "true or false".to_owned(),
            Kind::Word(words) => {
                let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Kind::Letters(letters) => format!("any of the letters {letters}, or none"),
            Kind::Name => {
                "at most 63 letters, digits, dots, hyphens and underscores, or nothing".to_owned()
            }
            Kind::Addr => "an address: \"host:port\", or \"\" for none".to_owned(),
            Kind::Node => "a node: {\"addr\": \"host:port\", \"id\": \"n1\"}".to_owned(),
            Kind::Nodes => {
                "a list of nodes: [{\"addr\": \"host:port\", \"id\": \"n1\"}]".to_owned()
            }
            Kind::Addrs => "a list of addresses: [\"10.0.0.1:11081\"]".to_owned(),
            Kind::Hosts => "a list of host names without ports: [\"kv.example.com\"]".to_owned(),
        }
    }
}

/// The settings as a Markdown table, for the documentation.
pub fn markdown() -> String {
    let mut table = String::from("| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
    for key in KEYS {
        let default = if key.default.is_empty() {
            "none"
        } else {
            key.default
        };
        let value = key.expects();
        table.push_str(&format!(
            "| `{}` | {value} | `{default}` | {} |\n",
            key.name, key.doc
        ));
    }
    table
}

/// The page of the documentation that describes the settings, `docs/configuration.md`.
pub fn page() -> String {
    format!(
        "# Configuration\n\n\
         `memkv_server` reads `raft_config.json` of the working directory, or the file given as \
         `alone ADDR FILE` or\n`--config FILE`. The original's seven keys are enough; all others \
         are optional. Each key is also a variable\n`MEMKV_<KEY>` and a flag `--<key>` with \
         dashes; a flag wins over a variable, a variable over the file. An unknown\nkey is an \
         error that names the line and the nearest key. Relative paths are relative to the working \
         directory;\nmissing directories are created.\n\n{}\n\
         This page is printed by `cargo run -p memkv-proto --example configuration`, and a test \
         compares the two.\n",
        markdown()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_describes_these_settings() {
        let written = include_str!("../../../../docs/configuration.md");
        assert!(
            written == page(),
            "docs/configuration.md is out of date; write it again with \
             `cargo run -p memkv-proto --example configuration > docs/configuration.md`"
        );
    }

    #[test]
    fn names_of_variables_and_flags_follow_from_the_key() {
        let key = Key::find("max_log_size").unwrap();
        assert_eq!(
            (key.env_name().as_str(), key.flag_name().as_str()),
            ("MEMKV_MAX_LOG_SIZE", "max-log-size")
        );
        assert!(
            markdown().contains("| `max_log_size` | a whole number from 1 to 4294967296 bytes |")
        );
    }
}
