//! Systems that can be measured: clusters that are started here, and addresses of servers that run
//! already. Each knows its leader's address and its processes.

mod bare;
mod etcd;
mod memkv;
pub(crate) mod peers;
mod redis;

use std::net::{SocketAddr, ToSocketAddrs};

use clap::ValueEnum;

pub(crate) use bare::Bare;
pub(crate) use etcd::Etcd;
pub(crate) use memkv::Memkv;
pub(crate) use redis::{Durability, Flavour, Redis};

use crate::protocol::Protocol;

/// A system that can be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// memkv's release binaries.
    Memkv,
    /// etcd with its defaults.
    Etcd,
    /// Valkey with `appendfsync always`; with replicas, each write is followed by `WAIT 1`.
    Valkey,
    /// Redis, the same.
    Redis,
    /// A server that answers every HTTP request with the same body.
    Bare,
}

impl Name {
    /// Starts so many nodes; `durability` is memkv's.
    pub(crate) fn start(self, nodes: usize, durability: &str) -> Result<Box<dyn System>, String> {
        let redis = |flavour| Redis::start(flavour, nodes, Durability::Always);
        Ok(match self {
            Name::Memkv => Box::new(Memkv::start(nodes, durability)),
            Name::Etcd => Box::new(Etcd::start(nodes)?),
            Name::Valkey => Box::new(redis(Flavour::Valkey)?),
            Name::Redis => Box::new(redis(Flavour::Redis)?),
            Name::Bare => Box::new(Bare::start()?),
        })
    }

    /// The default protocol of its measurements.
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Name::Memkv | Name::Valkey | Name::Redis => Protocol::Resp,
            Name::Etcd => Protocol::Etcd,
            Name::Bare => Protocol::Compat,
        }
    }
}

/// The nodes that get the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum To {
    /// The leader alone.
    Leader,
    /// One node that follows.
    Follower,
    /// All nodes in turn.
    All,
}

/// A system under load.
pub(crate) trait System {
    /// Its name in tables.
    fn name(&self) -> &str;

    /// Addresses for this load, as they are now: a leader may change.
    fn addrs(&self, to: To) -> Vec<SocketAddr>;

    /// Its processes.
    fn processes(&self) -> Vec<u32>;

    /// Number of replicas that each write must wait for, if the system does not wait by itself.
    fn wait(&self) -> Option<u64> {
        None
    }
}

/// Servers that run already.
pub(crate) struct Target {
    addrs: Vec<SocketAddr>,
    processes: Vec<u32>,
    wait: Option<u64>,
}

impl Target {
    /// The servers at `addrs`.
    pub(crate) fn new(
        addrs: &[String],
        processes: &[u32],
        wait: Option<u64>,
    ) -> Result<Target, String> {
        if let Some(gone) = processes.iter().find(|id| !memkv_black_box::exists(**id)) {
            return Err(format!("there is no process {gone}"));
        }
        let addrs: Result<Vec<SocketAddr>, String> =
            addrs.iter().map(|addr| resolve(addr)).collect();
        Ok(Target {
            addrs: addrs?,
            processes: processes.to_vec(),
            wait,
        })
    }
}

impl System for Target {
    fn name(&self) -> &str {
        "target"
    }

    fn addrs(&self, _to: To) -> Vec<SocketAddr> {
        self.addrs.clone()
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.clone()
    }

    fn wait(&self) -> Option<u64> {
        self.wait
    }
}

/// The address of a name.
pub(crate) fn resolve(addr: &str) -> Result<SocketAddr, String> {
    let found = addr.to_socket_addrs().map(|mut addrs| addrs.next());
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(format!("{addr} stands for no address")),
        Err(error) => Err(format!("{addr} is not HOST:PORT of a server: {error}")),
    }
}
