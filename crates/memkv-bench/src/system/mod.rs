//! Systems that can be measured: clusters that are started here, and addresses where something runs
//! already. Each knows where its leader is and which processes it has.

mod memkv;

use std::net::{SocketAddr, ToSocketAddrs};

use clap::ValueEnum;

pub(crate) use memkv::Memkv;

/// How to talk to a system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// Redis's protocol.
    Resp,
}

/// Where the load goes.
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

    /// How many replicas each write must wait for, where the system does not do that by itself.
    fn wait(&self) -> Option<u64> {
        None
    }
}

/// What runs already.
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

/// The address that a name stands for.
pub(crate) fn resolve(addr: &str) -> Result<SocketAddr, String> {
    let found = addr.to_socket_addrs().map(|mut addrs| addrs.next());
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(format!("{addr} stands for no address")),
        Err(error) => Err(format!("{addr} is not HOST:PORT of a server: {error}")),
    }
}
