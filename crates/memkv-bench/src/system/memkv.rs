//! memkv itself: the release binaries with their defaults, on free ports and in a directory that
//! is removed with it.

use std::net::SocketAddr;

use memkv_black_box::Cluster;
use serde_json::{Value, json};

use super::{System, To};

/// The default of `max_log_size`, in place of the tests' tiny segments: compaction is then the
/// same as a user's.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// A cluster.
pub(crate) struct Memkv {
    pub(crate) cluster: Cluster,
}

impl Memkv {
    /// Starts one; `durability` is `sync` (as shipped) or `os`.
    pub(crate) fn start(nodes: usize, durability: &str) -> Memkv {
        let settings = json!({ "max_log_size": SEGMENT_BYTES, "durability": durability });
        Memkv::start_with(nodes, &settings)
    }

    /// Starts one with these settings besides the tests' own.
    pub(crate) fn start_with(nodes: usize, settings: &Value) -> Memkv {
        let mut cluster = Cluster::configured_with(nodes, settings);
        cluster.start_all();
        Memkv { cluster }
    }

    /// The address of a node.
    pub(crate) fn addr(&self, index: usize) -> SocketAddr {
        let addr = self.cluster.nodes[index].addr.parse();
        addr.expect("a node's address is an IP address and a port")
    }

    /// The addresses of the other nodes.
    pub(crate) fn addrs_without(&self, index: usize) -> Vec<SocketAddr> {
        let indexes = (0..self.cluster.nodes.len()).filter(|other| *other != index);
        indexes.map(|index| self.addr(index)).collect()
    }
}

impl System for Memkv {
    fn name(&self) -> &str {
        "memkv"
    }

    fn addrs(&self, to: To) -> Vec<SocketAddr> {
        let indexes = match to {
            To::Leader => vec![self.cluster.leader()],
            To::Follower => self.cluster.followers().into_iter().take(1).collect(),
            To::All => (0..self.cluster.nodes.len()).collect(),
        };
        indexes.into_iter().map(|index| self.addr(index)).collect()
    }

    fn processes(&self) -> Vec<u32> {
        let nodes = self.cluster.nodes.iter();
        nodes.filter_map(|node| node.process_id()).collect()
    }
}
