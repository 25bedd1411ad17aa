//! One node of a demo: a child process in a directory of its own.
//! Invariant: a child that was started is waited for, and ends when the demo does.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use memkv_proto::RaftConfig;
use memkv_proto::config::KEYS;
use rustix::process::{Pid, Signal, kill_process};

use super::DemoError;
use crate::secrets::PASSWORD_VARIABLE;

/// A node stops within three seconds; then it is killed.
pub(super) const STOP_MAX: Duration = Duration::from_millis(3500);

/// Lines of a failed node's log that are shown.
const TAIL_LINES: usize = 10;

/// A node.
pub(super) struct Node {
    /// Its name, and its port.
    pub(super) id: String,
    /// Where it listens.
    pub(super) addr: String,
    /// Where it listens for Redis clients alone; empty if it does not.
    pub(super) redis_addr: String,
    dir: PathBuf,
    config: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node as its configuration says, which is in the file called `file`.
    pub(super) fn new(config: &RaftConfig, dir: PathBuf, file: PathBuf) -> Self {
        Self {
            id: config.node_addr.id.clone(),
            addr: config.node_addr.addr.clone(),
            redis_addr: config.redis_addr.clone(),
            dir,
            config: file,
            child: None,
        }
    }

    /// Where Redis clients connect.
    pub(super) fn redis(&self) -> &str {
        if self.redis_addr.is_empty() {
            &self.addr
        } else {
            &self.redis_addr
        }
    }

    /// Where its output goes.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("server.log")
    }

    /// Whether it was started and has not been seen to end.
    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    pub(super) fn start(&mut self) -> Result<(), DemoError> {
        let child = self.spawn().map_err(|source| DemoError::Start {
            id: self.id.clone(),
            source,
            log: self.log().display().to_string(),
        })?;
        self.child = Some(child);
        Ok(())
    }

    fn spawn(&self) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("--config")
            .arg(&self.config)
            .args(["--parent", &std::process::id().to_string()])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for the demo, which then stops its nodes.
            .process_group(0);
        // The file says it all; a variable for the demo's user would make all nodes the same.
        for key in KEYS {
            command.env_remove(key.env_name());
        }
        command.env_remove(PASSWORD_VARIABLE);
        command.spawn()
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to stop; [`Node::reap`] tells when it has.
    pub(super) fn terminate(&mut self) {
        let id = self
            .child
            .as_ref()
            .and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            // Fails only if it has ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// How it ended, if it has ended since it was started.
    pub(super) fn reap(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status.to_string())
    }

    /// An error with the end of its log if it has ended.
    pub(super) fn check_alive(&mut self) -> Result<(), DemoError> {
        let Some(status) = self.reap() else {
            return Ok(());
        };
        Err(DemoError::Ended {
            id: self.id.clone(),
            status,
            log: self.log().display().to_string(),
            tail: tail(&self.log()),
        })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pid = self.child.as_ref().map(Child::id).unwrap_or_default();
        write!(
            f,
            "  {}  http://{}  redis {}  pid {pid}  log {}",
            self.id,
            self.addr,
            self.redis(),
            self.log().display()
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &Path) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
