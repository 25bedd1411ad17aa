//! A child process that is stopped for certain: by its id, and also when the test panics.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::poll;

/// Path of a release binary. `cargo xtask test` builds them and passes their directory; a program that
/// was built beside them finds them without it.
pub fn binary(name: &str) -> PathBuf {
    let said = std::env::var_os("MEMKV_BIN_DIR").map(PathBuf::from);
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let path = said.or(beside).unwrap_or_default().join(name);
    assert!(
        path.is_file(),
        "{} does not exist: run these tests with `cargo xtask test`",
        path.display()
    );
    path
}

/// A thread stops when it next leaves the kernel, which a slow disk may delay.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running child whose output goes to a file.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Length of the log when this process began: a restart appends.
    log_start: u64,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    pub fn start(command: &mut Command, log: &Path) -> Process {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let log_start = file.metadata().unwrap().len();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Process {
            child,
            log: log.to_path_buf(),
            log_start,
        }
    }

    /// Operating system's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal. After SIGSTOP, waits until every thread has stopped: until then one of them
    /// may still answer.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.id()), signal).unwrap();
        if signal == Signal::STOP {
            let stopped = poll(STOP_LIMIT, || is_stopped(self.id()).then_some(()));
            assert!(stopped.is_some(), "process {} does not stop", self.id());
        }
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How the process ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait_end(&mut self, limit: Duration) -> ExitStatus {
        match poll(limit, || self.ended()) {
            Some(status) => status,
            None => panic!(
                "process {} still runs, and said:\n{}",
                self.id(),
                self.output()
            ),
        }
    }

    /// Everything that this process has printed.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap().min(bytes.len());
        String::from_utf8_lossy(&bytes[start..]).into_owned()
    }

    /// Waits until the output holds `text`.
    #[track_caller]
    pub fn wait_output(&mut self, text: &str, limit: Duration) {
        let found = poll(limit, || {
            let output = self.output();
            if output.contains(text) {
                return Some(());
            }
            if let Some(status) = self.ended() {
                panic!("ended with {status} before it said `{text}`:\n{output}");
            }
            None
        });
        assert!(
            found.is_some(),
            "not within {limit:?}: `{text}` in\n{}",
            self.output()
        );
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// Whether all threads of a process are stopped (`T` in proc(5)).
fn is_stopped(id: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{id}/task")) else {
        return false;
    };
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The name before it may hold anything, spaces and parentheses too.
        stat.rsplit_once(')')
            .is_some_and(|(_, fields)| fields.trim_start().starts_with('T'))
    })
}

/// Whether a process with this id runs (a zombie does not).
pub fn exists(id: u32) -> bool {
    stat_fields(id).is_some_and(|fields| fields[0] != "Z")
}

/// Ids of the processes whose parent is `id`.
pub fn children_of(id: u32) -> Vec<u32> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(child) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        if stat_fields(child).is_some_and(|fields| fields[1] == id.to_string()) {
            children.push(child);
        }
    }
    children
}

/// Memory that a process has in RAM.
pub fn rss_bytes(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// User and system time of a process in clock ticks.
pub fn cpu_ticks(id: u32) -> u32 {
    let fields = stat_fields(id).expect("the process runs");
    // Fields 14 and 15 of proc(5); the first two are cut off.
    fields[11..13]
        .iter()
        .map(|ticks| ticks.parse::<u32>().unwrap())
        .sum()
}

/// State, parent and the further fields of `/proc/ID/stat`, which follow the program's name in
/// brackets.
fn stat_fields(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}
