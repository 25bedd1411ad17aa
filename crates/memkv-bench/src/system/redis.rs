//! Redis and Valkey: a primary and its replicas, `appendfsync always` on each, and `WAIT 1` after
//! the writes; or a single server. No dumps of their own, no other setting.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Resp, eventually};
use tempfile::TempDir;

use super::peers::{Server, program};
use super::{System, To};

/// Longer than a start and a first synchronization take on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The failure that a write must survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// `appendfsync always`.
    Always,
    /// Nothing is written to the disk.
    None,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Redis,
    Valkey,
}

impl Flavour {
    /// Its program.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Flavour::Redis => "redis-server",
            Flavour::Valkey => "valkey-server",
        }
    }
}

/// A primary, which is the first server, and its replicas.
pub(crate) struct Redis {
    flavour: Flavour,
    servers: Vec<Server>,
    _root: TempDir,
}

impl Redis {
    /// Starts so many servers, and waits until all replicas follow.
    pub(crate) fn start(
        flavour: Flavour,
        nodes: usize,
        durability: Durability,
    ) -> Result<Redis, String> {
        let root = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        let program = program(flavour.program())?;
        let mut servers: Vec<Server> = Vec::new();
        for _ in 0..nodes {
            let mut server = Server::new(root.path())?;
            let mut command = Command::new(&program);
            command.args(["--port", &server.addr.port().to_string()]);
            command.args(["--bind", "127.0.0.1", "--save", ""]);
            match durability {
                Durability::Always => {
                    command.args(["--appendonly", "yes", "--appendfsync", "always"])
                }
                Durability::None => command.args(["--appendonly", "no"]),
            };
            // Only the start is quicker: there is no further replica to wait for.
            command.args(["--repl-diskless-sync-delay", "0"]);
            if let Some(primary) = servers.first() {
                let port = primary.addr.port().to_string();
                command.args(["--replicaof", &format!("127.0.0.1 {port}")]);
            }
            server.start(&mut command);
            servers.push(server);
        }
        let primary = servers[0].addr.to_string();
        eventually("all replicas follow", START_LIMIT, || {
            replicated(&primary, nodes - 1).then_some(())
        });
        Ok(Redis {
            flavour,
            servers,
            _root: root,
        })
    }
}

/// Whether a write reaches all replicas.
fn replicated(primary: &str, replicas: usize) -> bool {
    let ask = || {
        let mut client = Resp::connect(primary).ok()?;
        client.call(&["SET", "memkv-bench-ready", "1"]).ok()?;
        client
            .call(&["WAIT", &replicas.to_string(), "500"])
            .ok()?
            .integer()
    };
    ask() == i64::try_from(replicas).ok()
}

impl System for Redis {
    fn name(&self) -> &str {
        match self.flavour {
            Flavour::Redis => "redis",
            Flavour::Valkey => "valkey",
        }
    }

    fn addrs(&self, to: To) -> Vec<SocketAddr> {
        let servers = match to {
            To::Leader => &self.servers[..1],
            To::Follower => &self.servers[1..self.servers.len().min(2)],
            To::All => &self.servers,
        };
        servers.iter().map(|server| server.addr).collect()
    }

    fn processes(&self) -> Vec<u32> {
        self.servers.iter().filter_map(Server::process_id).collect()
    }

    fn wait(&self) -> Option<u64> {
        (self.servers.len() > 1).then_some(1)
    }
}
