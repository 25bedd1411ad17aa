//! A cluster of `memkv_server` processes, each in a directory of its own with a `raft_config.json`
//! that holds the original's seven keys, and more only where a test asks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::Http;
use crate::partition::Partition;
use crate::ports::free_port;
use rustix::process::Signal;

use crate::compat::Compat;
use crate::process::{Process, binary};
use crate::wait::eventually;

/// Longer than formation or an election takes on a busy machine with two cores.
const SERVING_LIMIT: Duration = Duration::from_secs(30);

/// Lines of each node's log that a failing test prints.
const TAIL_LINES: usize = 40;

/// A node: its index, its configuration, and its process while it runs.
pub struct Node {
    /// The original's `id`.
    pub id: String,
    /// Where it listens, `host:port`.
    pub addr: String,
    /// The address for its peers: the same, unless a test puts a proxy between them.
    pub peer_addr: String,
    /// Where its `redis_addr` listens, if it was given one.
    pub redis_addr: Option<String>,
    /// Working directory: holds `raft_config.json`, `log/`, `metadata/`, `snapshot/`.
    pub dir: PathBuf,
    /// Its output; beside the directory, which a test may fill or wipe.
    pub log: PathBuf,
    process: Option<Process>,
}

impl Node {
    /// A node with a free port in a new directory below `root`, and no configuration yet.
    pub fn new(root: &Path) -> Node {
        let port = free_port();
        let id = port.to_string();
        let dir = root.join(&id);
        fs::create_dir_all(&dir).unwrap();
        let addr = format!("127.0.0.1:{port}");
        Node {
            peer_addr: addr.clone(),
            addr,
            redis_addr: None,
            id,
            log: dir.with_extension("log"),
            dir,
            process: None,
        }
    }

    /// The original's configuration, with exactly its seven keys.
    pub fn compat_config(&self, peers: &[(String, String)]) -> Value {
        let peers: Vec<Value> = peers
            .iter()
            .map(|(addr, id)| json!({ "addr": addr, "id": id }))
            .collect();
        json!({
            "log_path": "log/",
            "snapshot_path": "snapshot/",
            "metadata_path": "metadata/",
            "max_log_size": 1024,
            "max_log_count": 6,
            "peer_addrs": peers,
            "node_addr": { "addr": self.peer_addr, "id": self.id },
        })
    }

    /// Writes `raft_config.json`.
    pub fn write_config(&self, config: &Value) {
        let text = serde_json::to_string_pretty(config).unwrap();
        fs::write(self.dir.join("raft_config.json"), text).unwrap();
    }

    /// The configuration as it is on the disk.
    pub fn read_config(&self) -> Value {
        serde_json::from_slice(&fs::read(self.dir.join("raft_config.json")).unwrap()).unwrap()
    }

    /// The command that runs the node, as in the original's documentation.
    pub fn command(&self) -> Command {
        self.command_under(&[])
    }

    /// The same below another program, such as `strace`.
    pub fn command_under(&self, wrapper: &[&str]) -> Command {
        let server = binary("memkv_server");
        let mut command = match wrapper.split_first() {
            None => Command::new(&server),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&server);
                command
            }
        };
        command.args(["alone", &self.addr]).current_dir(&self.dir);
        command
    }

    /// Starts the node.
    pub fn start(&mut self) {
        let command = self.command();
        self.start_with(command);
    }

    /// Starts the node with another command.
    pub fn start_with(&mut self, mut command: Command) {
        assert!(self.process.is_none(), "node {} runs already", self.id);
        self.process = Some(Process::start(&mut command, &self.log));
    }

    /// Its process.
    #[track_caller]
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the node runs")
    }

    /// The id of its process, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Whether it was started and not stopped.
    pub fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// `kill -9`. A second time does nothing.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) {
        let mut process = self.process.take().expect("the node runs");
        process.signal(Signal::TERM);
        process.wait_end(SERVING_LIMIT);
    }

    /// Deletes everything that the node stored.
    pub fn wipe(&self) {
        assert!(!self.runs(), "node {} runs", self.id);
        for dir in ["log", "metadata", "snapshot"] {
            drop(fs::remove_dir_all(self.dir.join(dir)));
        }
    }

    /// A client of the original's interface.
    pub fn compat(&self) -> Compat {
        Compat::new(&self.addr, &self.id)
    }

    /// `GET /v1/status`; `None` while the node does not answer or loads its data.
    pub fn status(&self) -> Option<Value> {
        let response = Http::once(&self.addr, "GET", "/v1/status", b"").ok()?;
        let status = || serde_json::from_slice(&response.body).ok();
        (response.status == 200).then(status).flatten()
    }

    /// Waits until the node answers a linearizable read.
    #[track_caller]
    pub fn wait_serving(&mut self) {
        let mut client = self.compat();
        let what = format!("node {} serves", self.id);
        eventually(&what, SERVING_LIMIT, || {
            let process = self.process();
            if let Some(status) = process.ended() {
                panic!("the node ended with {status}:\n{}", process.output());
            }
            let reply = client.get("memkv-tests-ready").ok()?;
            matches!(reply.status.as_str(), "ok" | "not found").then_some(())
        });
    }
}

/// Nodes that know each other. On a panic their directories and logs are kept.
pub struct Cluster {
    /// The nodes.
    pub nodes: Vec<Node>,
    root: Option<TempDir>,
}

impl Cluster {
    /// `size` nodes with the original's configuration, not started.
    pub fn configured(size: usize) -> Cluster {
        Cluster::configured_with(size, &json!({}))
    }

    /// The same with further keys in each configuration.
    pub fn configured_with(size: usize, more: &Value) -> Cluster {
        Cluster::configured_as(size, more, |node| node.addr.clone())
    }

    /// The same, where peers reach each node at the address that `peer_addr` gives.
    pub fn configured_as(
        size: usize,
        more: &Value,
        peer_addr: impl Fn(&Node) -> String,
    ) -> Cluster {
        let root = tempfile::Builder::new()
            .prefix("memkv-test-")
            .tempdir()
            .unwrap();
        let mut nodes: Vec<Node> = (0..size).map(|_| Node::new(root.path())).collect();
        for node in &mut nodes {
            node.peer_addr = peer_addr(node);
        }
        for node in &nodes {
            let others = nodes.iter().filter(|other| other.id != node.id);
            let peers: Vec<_> = others
                .map(|other| (other.peer_addr.clone(), other.id.clone()))
                .collect();
            let mut config = node.compat_config(&peers);
            for (key, value) in more.as_object().into_iter().flatten() {
                config[key] = value.clone();
            }
            node.write_config(&config);
        }
        Cluster {
            nodes,
            root: Some(root),
        }
    }

    /// `size` nodes with the original's configuration, all serving.
    pub fn start(size: usize) -> Cluster {
        let mut cluster = Cluster::configured(size);
        cluster.start_all();
        cluster
    }

    /// The same, where nodes reach each other through `partition` only.
    pub fn start_through(partition: &Partition, size: usize) -> Cluster {
        let through = |node: &Node| partition.proxy(&node.id, &node.addr);
        let mut cluster = Cluster::configured_as(size, &json!({}), through);
        cluster.start_all();
        cluster
    }

    /// `size` nodes that have a `redis_addr` besides the original's keys, all serving.
    pub fn start_with_redis(size: usize) -> Cluster {
        let mut cluster = Cluster::configured(size);
        for node in &mut cluster.nodes {
            let addr = format!("127.0.0.1:{}", free_port());
            let mut config = node.read_config();
            config["redis_addr"] = json!(addr);
            node.write_config(&config);
            node.redis_addr = Some(addr);
        }
        cluster.start_all();
        cluster
    }

    /// Starts every node that does not run and waits until all serve.
    #[track_caller]
    pub fn start_all(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.runs()) {
            node.start();
        }
        self.wait_serving();
    }

    /// Waits until every node answers linearizable reads.
    #[track_caller]
    pub fn wait_serving(&mut self) {
        for node in &mut self.nodes {
            node.wait_serving();
        }
    }

    /// Directory that holds the nodes' directories.
    pub fn root(&self) -> &Path {
        self.root.as_ref().expect("kept until drop").path()
    }

    /// Position of the leader, once all running nodes agree on one that runs.
    #[track_caller]
    pub fn leader(&self) -> usize {
        eventually("running nodes agree on a leader", SERVING_LIMIT, || {
            let mut leaders = self.nodes.iter().filter(|node| node.runs()).map(|node| {
                node.status()
                    .and_then(|status| Some(status.get("leader")?.as_str()?.to_owned()))
            });
            let first = leaders.next()??;
            let agreed = leaders.all(|leader| leader.as_ref() == Some(&first));
            let index = self
                .nodes
                .iter()
                .position(|node| node.id == first && node.runs());
            index.filter(|_| agreed)
        })
    }

    /// Positions of the nodes that do not lead.
    #[track_caller]
    pub fn followers(&self) -> Vec<usize> {
        let leader = self.leader();
        (0..self.nodes.len())
            .filter(|index| *index != leader)
            .collect()
    }

    /// Writes `cluster_config.json`, which `memkv_client` reads, into a directory and returns it.
    pub fn client_dir(&self) -> PathBuf {
        let dir = self.root().join("client");
        fs::create_dir_all(&dir).unwrap();
        let addrs: Vec<Value> = self
            .nodes
            .iter()
            .map(|node| json!({ "addr": node.addr, "id": node.id }))
            .collect();
        let text = serde_json::to_string_pretty(&json!({ "addrs": addrs })).unwrap();
        fs::write(dir.join("cluster_config.json"), text).unwrap();
        dir
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        for node in &self.nodes {
            let log = fs::read(&node.log).unwrap_or_default();
            let log = String::from_utf8_lossy(&log).into_owned();
            let skip = log.lines().count().saturating_sub(TAIL_LINES);
            eprintln!("-- last lines of node {}:", node.id);
            log.lines().skip(skip).for_each(|line| eprintln!("{line}"));
        }
        if let Some(root) = self.root.take() {
            eprintln!("-- everything is kept in {}", root.keep().display());
        }
    }
}
