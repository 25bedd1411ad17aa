//! The engine's settings, each with its reason.

use openraft::{Config, SnapshotPolicy};

use crate::{NodeConfig, StartError};

/// The engine's configuration for a node.
pub(crate) fn settings(config: &NodeConfig) -> Result<Config, StartError> {
    let millis = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let (shortest, longest) = config.engine_timeouts();
    let settings = Config {
        cluster_name: "memkv".to_owned(),
        election_timeout_min: millis(shortest),
        election_timeout_max: millis(longest),
        heartbeat_interval: millis(config.heartbeat_interval),
        // Off by default in the engine. Without it a node that comes back from a partition raises
        // the term of all nodes (Raft dissertation, section 9.6).
        enable_pre_vote: Some(true),
        // On by default in the engine: a restarted leader would lead again without an election,
        // with an empty in-memory state machine (openraft #1511).
        enable_leader_restore: Some(false),
        // Without it a leader in a partial partition keeps a cluster without progress (openraft
        // #2080). At least twice the longest election timeout, as the engine requires.
        quorum_loss_probe_interval: Some(millis(config.election_timeout * 2)),
        // A follower whose log went back must be detected, never tolerated.
        allow_log_reversion: None,
        // Snapshots and purges follow memkv's own rule (`compaction`), by bytes and segments.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Entries hold whole batches, so a few of them fill a message; the log reader bounds bytes.
        max_payload_entries: 64,
        // A snapshot of gigabytes may take long; progress of each chunk is bounded instead, see
        // `network`.
        install_snapshot_timeout: 600_000,
        ..Config::default()
    };
    settings
        .validate()
        .map_err(|error| StartError::Config(error.to_string()))
}
