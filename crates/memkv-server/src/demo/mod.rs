//! `memkv_server demo`: a cluster on this machine, to try what happens when a leader dies.
//! The nodes are child processes; none outlives the demo, however it ends.
//!
//! On a terminal it takes keys. Without one it ignores its input and runs until a signal.

mod child;
mod directory;
mod keys;
mod probe;

use std::time::{Duration, Instant};

use memkv_proto::{ConfigError, Status};

use crate::args::DemoArgs;
use crate::console;
use crate::signals::StopSignals;

use child::Node;
use directory::DemoDirectory;
use keys::Keys;

/// Exit codes.
const EXIT_OK: u8 = 0;
const EXIT_FAILED: u8 = 1;

/// How often the nodes are looked at.
const POLL: Duration = Duration::from_millis(50);

/// A cluster on one machine forms within a second; a busy machine takes several.
const READY_MAX: Duration = Duration::from_secs(60);

/// A new leader comes within two election timeouts; longer than this it is worth a word.
const FAILOVER_MAX: Duration = Duration::from_secs(10);

const KEYS: &str = "keys: k kill the leader   r restart what was killed   s status   q quit";

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{0}")]
    Directory(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot start node {id}: {source}; look into {log}")]
    Start {
        id: String,
        source: std::io::Error,
        log: String,
    },
    #[error("node {id} ended ({status}) before it was ready. The end of {log}:\n{tail}")]
    Ended {
        id: String,
        status: String,
        log: String,
        tail: String,
    },
    #[error("the nodes were not ready within {} s; their logs are below {dir}", READY_MAX.as_secs())]
    NotReady { dir: String },
    #[error("the operating system refuses {what}: {source}")]
    System {
        what: &'static str,
        source: std::io::Error,
    },
}

/// Runs the demo until a key or a signal ends it; returns the exit code.
pub fn run(args: DemoArgs, overrides: &[(&'static str, String, String)]) -> u8 {
    // One thread, the main one: the nodes are tied to the thread that starts them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(demo(&args, overrides)),
        Err(source) => Err(DemoError::System {
            what: "an event queue",
            source,
        }),
    };
    match result {
        Ok(()) => EXIT_OK,
        Err(error) => {
            console::error(error);
            EXIT_FAILED
        }
    }
}

async fn demo(
    args: &DemoArgs,
    overrides: &[(&'static str, String, String)],
) -> Result<(), DemoError> {
    let system = |what| move |source| DemoError::System { what, source };
    let mut signals = StopSignals::listen().map_err(system("signal handlers"))?;
    let directory = DemoDirectory::open(args)?;
    let mut cluster = Cluster {
        nodes: directory.nodes(args, overrides)?,
    };
    let result = tokio::select! {
        result = cluster.live(&directory) => result,
        _signal = signals.next() => Ok(()),
    };
    cluster.stop().await;
    result
}

/// The nodes.
struct Cluster {
    nodes: Vec<Node>,
}

impl Cluster {
    /// From the first start to the key that ends it.
    async fn live(&mut self, directory: &DemoDirectory) -> Result<(), DemoError> {
        console::out(format!(
            "memkv {} demo: {} nodes, data in {}{}",
            env!("CARGO_PKG_VERSION"),
            self.nodes.len(),
            directory.root().display(),
            if directory.is_temporary() {
                " (removed at the end)"
            } else {
                ""
            }
        ));
        for node in &mut self.nodes {
            node.start()?;
            console::out(node);
        }
        self.wait_ready(directory).await?;
        let leader = self.leader().await.unwrap_or_default();
        let first = &self.nodes[0].addr;
        let redis_port = self.nodes[0].redis().rsplit(':').next().unwrap_or_default();
        console::out(format!(
            "ready: every node has acknowledged a write, {leader} leads\n  \
             try: curl -T- http://{first}/v1/kv/hello <<< world; curl http://{first}/v1/kv/hello\n  \
             or:  redis-cli -p {redis_port} get hello"
        ));
        match Keys::open() {
            Some(keys) => self.obey(keys).await,
            None => loop {
                self.report_ended();
                tokio::time::sleep(POLL).await;
            },
        }
    }

    async fn wait_ready(&mut self, directory: &DemoDirectory) -> Result<(), DemoError> {
        let start = Instant::now();
        let mut next = 0;
        while next < self.nodes.len() {
            for node in &mut self.nodes {
                node.check_alive()?;
            }
            if probe::write(&self.nodes[next].addr).await {
                next += 1;
            } else if start.elapsed() > READY_MAX {
                return Err(DemoError::NotReady {
                    dir: directory.root().display().to_string(),
                });
            } else {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    async fn obey(&mut self, mut keys: Keys) -> Result<(), DemoError> {
        console::out(format!("  {KEYS}"));
        loop {
            tokio::select! {
                key = keys.next() => match key {
                    Some(b'k') => self.kill_leader().await,
                    Some(b'r') => self.restart()?,
                    Some(b's') => self.print_status().await,
                    // The terminal has gone, and with it the user who could press a key.
                    Some(b'q') | None => return Ok(()),
                    Some(_) => console::out(KEYS),
                },
                () = tokio::time::sleep(POLL) => self.report_ended(),
            }
        }
    }

    /// Id of the leader that a running node follows and that runs itself.
    async fn leader(&self) -> Option<String> {
        for node in self.nodes.iter().filter(|node| node.runs()) {
            let leader = probe::status(&node.addr)
                .await
                .and_then(|status| status.leader);
            if let Some(leader) = leader
                && self
                    .nodes
                    .iter()
                    .any(|node| node.id == leader && node.runs())
            {
                return Some(leader);
            }
        }
        None
    }

    async fn kill_leader(&mut self) {
        let Some(leader) = self.leader().await else {
            return console::out("no leader to kill; r restarts what was killed");
        };
        let Some(node) = self.nodes.iter_mut().find(|node| node.id == leader) else {
            return;
        };
        node.kill();
        console::out(format!("killed {leader} as by kill -9"));
        let start = Instant::now();
        let survivors: Vec<_> = self.nodes.iter().filter(|node| node.runs()).collect();
        let Some(asked) = survivors.first() else {
            return;
        };
        while start.elapsed() < FAILOVER_MAX {
            if probe::write(&asked.addr).await {
                let took = start.elapsed().as_millis();
                let leader = self.leader().await.unwrap_or_default();
                return console::out(format!("{leader} leads; a write took {took} ms"));
            }
            if survivors.len() * 2 <= self.nodes.len() {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        console::out(format!(
            "no writes: {} of {} nodes run, {} are needed; r restarts what was killed",
            survivors.len(),
            self.nodes.len(),
            self.nodes.len() / 2 + 1
        ));
    }

    fn restart(&mut self) -> Result<(), DemoError> {
        if self.nodes.iter().all(Node::runs) {
            console::out("all nodes run");
        }
        for node in self.nodes.iter_mut().filter(|node| !node.runs()) {
            node.start()?;
            console::out(node);
        }
        Ok(())
    }

    async fn print_status(&self) {
        for node in &self.nodes {
            let line = match probe::status(&node.addr).await {
                _ if !node.runs() => "does not run".to_owned(),
                Some(status) => describe(&status),
                None => "does not answer".to_owned(),
            };
            console::out(format!("  {:<8} {line}", node.id));
        }
    }

    fn report_ended(&mut self) {
        for node in &mut self.nodes {
            if let Some(status) = node.reap() {
                let log = node.log().display().to_string();
                console::out(format!("{} ended by itself ({status}); see {log}", node.id));
            }
        }
    }

    /// Asks all nodes to stop, and then makes them.
    async fn stop(&mut self) {
        let start = Instant::now();
        self.nodes.iter_mut().for_each(Node::terminate);
        while self
            .nodes
            .iter_mut()
            .any(|node| node.reap().is_none() && node.runs())
        {
            if start.elapsed() > child::STOP_MAX {
                self.nodes.iter_mut().for_each(Node::kill);
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn describe(status: &Status) -> String {
    format!(
        "{:<9} term {}  applied {}  keys {}  {}",
        status.role.as_str(),
        status.term,
        status.applied_index,
        status.keys,
        status.message
    )
}
