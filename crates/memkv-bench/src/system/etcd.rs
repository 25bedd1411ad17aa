//! etcd with its defaults, on free ports.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use memkv_black_box::{Http, eventually, free_port};
use serde_json::Value;
use tempfile::TempDir;

use super::peers::{Server, program};
use super::{System, To};

/// Longer than formation or an election takes on a busy machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A cluster.
pub(crate) struct Etcd {
    servers: Vec<Server>,
    /// Arguments of each server, to start it again.
    arguments: Vec<Vec<String>>,
    _root: TempDir,
}

impl Etcd {
    /// Starts so many nodes, and waits for a leader.
    pub(crate) fn start(nodes: usize) -> Result<Etcd, String> {
        let root = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
        let mut servers = Vec::new();
        for _ in 0..nodes {
            servers.push(Server::new(root.path())?);
        }
        let peers: Vec<String> = (0..nodes)
            .map(|_| format!("http://127.0.0.1:{}", free_port()))
            .collect();
        let names = peers.iter().enumerate();
        let list: Vec<String> = names
            .map(|(index, url)| format!("n{index}={url}"))
            .collect();
        let list = list.join(",");
        let arguments = servers.iter().zip(&peers).enumerate();
        let arguments = arguments
            .map(|(index, (server, peer))| {
                let client = format!("http://{}", server.addr);
                [
                    ("--name", format!("n{index}")),
                    ("--data-dir", "data".to_owned()),
                    ("--listen-client-urls", client.clone()),
                    ("--advertise-client-urls", client),
                    ("--listen-peer-urls", peer.clone()),
                    ("--initial-advertise-peer-urls", peer.clone()),
                    ("--initial-cluster", list.clone()),
                    ("--initial-cluster-state", "new".to_owned()),
                    ("--log-level", "error".to_owned()),
                ]
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value])
                .collect()
            })
            .collect();
        let mut etcd = Etcd {
            servers,
            arguments,
            _root: root,
        };
        for index in 0..nodes {
            etcd.start_node(index)?;
        }
        etcd.leader();
        Ok(etcd)
    }

    /// Starts a node that does not run.
    pub(crate) fn start_node(&mut self, index: usize) -> Result<(), String> {
        let mut command = Command::new(program("etcd")?);
        command.args(&self.arguments[index]);
        self.servers[index].start(&mut command);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill_node(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// The address of a node.
    pub(crate) fn addr(&self, index: usize) -> SocketAddr {
        self.servers[index].addr
    }

    /// Index of the leader, once all nodes that run agree on it.
    pub(crate) fn leader(&self) -> usize {
        eventually("etcd has a leader", START_LIMIT, || {
            let running = self.servers.iter().enumerate();
            let mut leader = None;
            let mut leaders = Vec::new();
            for (index, server) in running.filter(|(_, server)| server.process_id().is_some()) {
                let status = status(&server.addr)?;
                leaders.push(status["leader"].as_str()?.to_owned());
                if status["header"]["member_id"] == status["leader"] {
                    leader = Some(index);
                }
            }
            leaders.dedup();
            leader.filter(|_| leaders.len() == 1)
        })
    }
}

fn status(addr: &SocketAddr) -> Option<Value> {
    let path = "/v3/maintenance/status";
    let response = Http::once(&addr.to_string(), "POST", path, b"{}").ok()?;
    serde_json::from_slice(&response.body).ok()
}

impl System for Etcd {
    fn name(&self) -> &str {
        "etcd"
    }

    fn addrs(&self, to: To) -> Vec<SocketAddr> {
        let leader = self.leader();
        let indexes = 0..self.servers.len();
        let chosen = indexes.filter(|index| match to {
            To::Leader => *index == leader,
            To::Follower => *index == (leader + 1) % self.servers.len(),
            To::All => true,
        });
        chosen.map(|index| self.servers[index].addr).collect()
    }

    fn processes(&self) -> Vec<u32> {
        self.servers.iter().filter_map(Server::process_id).collect()
    }
}
