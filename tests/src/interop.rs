//! Other people's clients, connected to a follower: once over the one address that every node has,
//! once over its `redis_addr`.
//!
//! `cargo xtask test` installs the clients and passes their directory. With `MEMKV_INTEROP_ORACLE=1` the same
//! sessions go to redis-server, which shows whether a failing session is itself at fault.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cluster::Cluster;
use crate::process::Process;
use crate::redis::Redis;

/// Longer than the longest session on a busy machine.
const SESSION_LIMIT: Duration = Duration::from_secs(300);

/// One address to which clients connect.
#[derive(Debug, Clone)]
pub struct Listener {
    /// IP address.
    pub host: String,
    /// Port.
    pub port: String,
    /// Whether only the Redis protocol is spoken there, and so inline commands too.
    pub dedicated: bool,
}

impl Listener {
    /// The listener at `host:port`.
    pub fn new(addr: &str, dedicated: bool) -> Listener {
        let (host, port) = addr.rsplit_once(':').unwrap();
        Listener {
            host: host.to_owned(),
            port: port.to_owned(),
            dedicated,
        }
    }

    /// `host:port`.
    pub fn addr(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// A command of Debian's that takes `-h HOST -p PORT`.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", &self.host, "-p", &self.port]);
        command
    }
}

/// Runs a session at both listeners of a follower in a cluster of three.
pub fn on_every_listener(session: impl Fn(&Listener)) {
    if crate::setting("MEMKV_INTEROP_ORACLE").is_some() {
        let dir = tempfile::tempdir().unwrap();
        let redis = Redis::start(dir.path());
        session(&Listener::new(&redis.addr, true));
        return;
    }
    let cluster = Cluster::start_with_redis(3);
    let follower = &cluster.nodes[cluster.followers()[0]];
    session(&Listener::new(&follower.addr, false));
    let redis_addr = follower.redis_addr.as_ref().unwrap();
    session(&Listener::new(redis_addr, true));
}

/// Runs a script of `tests/interop/` with the Python that has the clients.
pub fn python_script(name: &str, listener: &Listener) {
    python_script_with(name, listener, &[]);
}

/// The same with further arguments.
pub fn python_script_with(name: &str, listener: &Listener, more: &[&str]) {
    let mut python = python();
    python.arg(scripts().join(name));
    session(python, name, listener, more);
}

/// Python with the packages of `tests/interop/requirements.txt`.
pub fn python() -> Command {
    let mut python = Command::new(tools().join("python/bin/python"));
    // -B: nothing is written beside the scripts.
    python.arg("-B");
    python
}

/// The documents of a file of YAML, as the Python that has the clients reads them.
pub fn yaml(file: &Path) -> Vec<serde_json::Value> {
    let program =
        "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let output = python().args(["-c", program]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", file.display());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a script of `tests/interop/` with Node. A module finds others only from where it lies, so
/// the scripts are copied to the clients.
pub fn node_script(name: &str, listener: &Listener) {
    node_script_with(name, listener, &[]);
}

/// The same with further arguments.
pub fn node_script_with(name: &str, listener: &Listener, more: &[&str]) {
    let dir = tools().join("node");
    for script in ["checks.mjs", name] {
        // Tests run at the same time: a script must never be seen half written.
        let part = tempfile::NamedTempFile::new_in(&dir).unwrap();
        fs::copy(scripts().join(script), part.path()).unwrap();
        part.persist(dir.join(script)).unwrap();
    }
    let mut node = Command::new("node");
    node.arg(dir.join(name));
    session(node, name, listener, more);
}

/// A session must succeed and print how much it checked.
fn session(mut command: Command, name: &str, listener: &Listener, more: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    command.args([&listener.host, &listener.port]).args(more);
    let mut process = Process::start(&mut command, &dir.path().join("output"));
    let status = process.wait_end(SESSION_LIMIT);
    let output = process.output();
    let checks = output
        .lines()
        .find_map(|line| line.strip_suffix(" checks")?.parse::<u32>().ok());
    assert!(
        status.success() && checks.is_some_and(|checks| checks > 0),
        "{name} at {listener:?} ended with {status}:\n{output}"
    );
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

fn tools() -> PathBuf {
    let dir = std::env::var_os("MEMKV_INTEROP_DIR");
    dir.map(PathBuf::from)
        .expect("MEMKV_INTEROP_DIR is not set: run these tests with `cargo xtask test`")
}
