//! The configuration of a node. Never read from a file here: `memkv-server` and the
//! simulator fill it in.

use std::time::Duration;

use bytes::Bytes;
use memkv_disk::Layout;
use memkv_store::{HIGHEST_LEVEL, KeyEventClasses, Role, UserSpec, UserTable};

use crate::StartError;

/// A node as the configuration names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// The original's `id`: unique in the cluster, chosen by the operator.
    pub name: String,
    /// Where the node's peers reach it, `host:port`.
    pub addr: String,
}

/// Everything that a node must know to start.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// This node.
    pub me: Peer,
    /// All the others. Empty: a cluster of one.
    pub peers: Vec<Peer>,
    /// Addresses of nodes of a cluster that this node is to join, `host:port`. An empty node with any never
    /// founds a cluster, with whatever peers.
    pub join: Vec<String>,
    /// The role that this node proposes when it joins.
    pub role: Role,
    /// An empty node never founds a cluster, whatever else is configured.
    pub found_never: bool,
    /// As a leader, it admits only nodes that the operator expects.
    pub admit_expected_only: bool,
    /// For how long a node must have been close behind the leader before it gets a vote.
    pub promote_after: Duration,
    /// A node that was admitted and is silent for this long before it has joined is dropped.
    pub drop_joiner_after: Duration,
    /// Where the node's files are.
    pub layout: Layout,
    /// Bytes of one log segment, as the original's `max_log_size` (rounded up to 64 KiB).
    pub max_log_size: u64,
    /// Bytes of recent log records that stay in memory for peers that are behind.
    pub log_cache_bytes: u64,
    /// More segments than this start a snapshot, as the original's `max_log_count`.
    pub max_log_count: usize,
    /// `true`: an acknowledged write is fsynced on a majority. `false`: it survives the death of
    /// processes only. Agreed on at formation; a node that disagrees is refused.
    pub sync: bool,
    /// A follower that heard nothing for this long, up to a fifth longer, starts an election.
    pub election_timeout: Duration,
    /// How often a leader proves that it lives.
    pub heartbeat_interval: Duration,
    /// How long a command waits for a leader before it is answered with "no leader" or "unknown".
    pub hold: Duration,
    /// A snapshot also waits until the log has grown by this share of the last snapshot's size, so
    /// that small `max_log_*` settings cannot turn every megabyte of writes into a rewrite of the
    /// data set.
    pub snapshot_growth_percent: u32,
    /// Largest value that a command may carry, in bytes.
    pub max_value_bytes: usize,
    /// Which events of keys this node announces until the cluster is told by a command.
    pub announce: KeyEventClasses,
    /// The most memory that the process may take, in bytes, if it is known.
    pub memory_limit: Option<u64>,
    /// How long a member must have been silent before a wiped node of its name may replace it.
    pub replace_after: Duration,
    /// Highest feature level that this build knows: [`HIGHEST_LEVEL`], or less where an older build
    /// is simulated.
    pub highest_level: u32,
    /// Highest feature level that this node announces, where that is to be less.
    pub max_feature_level: Option<u32>,
    /// For how long all members must have announced a higher feature level before the leader raises
    /// the cluster to it: there is no way back, so this is the time to think again.
    pub raise_level_after: Duration,
    /// The users that a cluster begins with which this node is the first to lead, `default` among them.
    /// None: a cluster without a table of users, as every one of the first feature level is.
    pub first_users: Vec<(Bytes, UserSpec)>,
}

impl NodeConfig {
    /// A configuration with the defaults of the product and nothing but `me` in the cluster.
    pub fn new(me: Peer, layout: Layout) -> Self {
        Self {
            me,
            peers: Vec::new(),
            join: Vec::new(),
            role: Role::Voter,
            admit_expected_only: false,
            found_never: false,
            promote_after: Duration::from_secs(10),
            drop_joiner_after: Duration::from_secs(600),
            layout,
            max_log_size: 64 * 1024 * 1024,
            max_log_count: 6,
            log_cache_bytes: memkv_disk::Options::default().cache_bytes,
            sync: true,
            election_timeout: Duration::from_millis(1000),
            heartbeat_interval: Duration::from_millis(100),
            hold: Duration::from_secs(3),
            snapshot_growth_percent: 50,
            max_value_bytes: 8 * 1024 * 1024,
            announce: KeyEventClasses::default(),
            memory_limit: None,
            replace_after: Duration::from_secs(10),
            highest_level: HIGHEST_LEVEL,
            max_feature_level: None,
            raise_level_after: Duration::from_secs(3600),
            first_users: Vec::new(),
        }
    }

    /// Whether other nodes are configured: of a list, or of a cluster to join.
    pub(crate) fn knows_others(&self) -> bool {
        !self.peers.is_empty() || !self.join.is_empty()
    }

    /// Whether this node, empty, waits for a cluster that exists and founds none.
    pub(crate) fn founds_none(&self) -> bool {
        self.found_never || !self.join.is_empty()
    }

    /// Whether a table of users can begin with the first users.
    ///
    /// # Errors
    ///
    /// [`StartError::Config`] if not: the cluster's first entry could not be read.
    pub(crate) fn check_first_users(&self) -> Result<(), StartError> {
        let fits = self.first_users.is_empty() || UserTable::first(&self.first_users).is_some();
        match fits {
            true => Ok(()),
            false => Err(StartError::Config(
                "the first users must be within the limits of a table of users, each named once, with \
                 `default` among them"
                    .to_owned(),
            )),
        }
    }

    /// Bytes of commands that may wait for the log, in each of its queues: 64 MiB, or a twentieth of the
    /// memory if that is less.
    pub(crate) fn queue_bytes(&self) -> usize {
        const MOST: u64 = 64 * 1024 * 1024;
        let of_memory = self.memory_limit.map_or(MOST, |limit| limit / 20);
        usize::try_from(of_memory.min(MOST)).unwrap_or(usize::MAX)
    }

    /// The engine's shortest and longest election timeout. It waits for the longest (its lease of
    /// the old leader) and then for one from the range: for the configured time, up to a fifth
    /// longer. Votes are split only if two nodes start within one round of fsyncs, so a range of
    /// 200 ms makes that rare (Raft paper, section 9.3), and a wider one makes each failover longer.
    pub(crate) fn engine_timeouts(&self) -> (Duration, Duration) {
        (self.election_timeout * 2 / 5, self.election_timeout * 3 / 5)
    }

    /// A follower that heard nothing for this long has started an election.
    pub(crate) fn longest_silence(&self) -> Duration {
        self.engine_timeouts().1 * 2
    }
}
