//! The process: file descriptors, memory, and the tie of a demo's node to the demo.
//! Never touches another process.

use rustix::fs::Mode;
use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, getppid, getrlimit, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit, umask,
};

/// Keeps what this process holds from other users: its files are for this user alone, and its memory,
/// which holds secrets and data, is written to no core dump and shown to no debugger of the same user.
/// A system that lacks one of these goes on without it.
pub fn keep_private() {
    umask(Mode::RWXG | Mode::RWXO);
    // A core pattern that starts a program does not look at this limit.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
}

/// Descriptors that are kept for the log, snapshots, directories, listeners and the runtime: the log
/// needs a few dozen, and a snapshot comes and goes.
const RESERVE: usize = 96;

/// Connections of unproven clients and peers: 256 of strangers, 64 of peers' addresses, 1,024 of loopback.
const PERMITS: usize = 1344;

/// Connections that peers have opened, and as many that this node has opened to them: dozens of peers with
/// six lanes each.
const PEERS: usize = 304;

/// Everything but clients.
const OTHERS: usize = RESERVE + PERMITS + 2 * PEERS;

/// How many connections of each kind may be open, so that the rest of the descriptors is the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// Of clients that have proved themselves, or need not.
    pub clients: usize,
    /// Of those that are unproven.
    pub permits: usize,
    /// Of peers, which they have opened.
    pub peers: usize,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self {
            clients: usize::MAX,
            permits: PERMITS,
            peers: PEERS,
        }
    }
}

impl Descriptors {
    /// What fits into so many open files. With few of them half of what the node does not need is for
    /// clients.
    fn fitting(max_connections: u64, open_files: u64) -> Self {
        let wanted = usize::try_from(max_connections).unwrap_or(usize::MAX);
        let files = usize::try_from(open_files).unwrap_or(usize::MAX);
        if files >= 2 * OTHERS || files.saturating_sub(OTHERS) >= wanted {
            return Self {
                clients: wanted.min(files.saturating_sub(OTHERS)),
                ..Self::default()
            };
        }
        let rest = files - RESERVE.min(files / 2);
        Self {
            clients: wanted.min(rest / 2),
            permits: (rest / 4).min(PERMITS),
            peers: (rest / 8).min(PEERS),
        }
    }
}

/// How many files must be allowed open for so many connections of clients.
pub(crate) fn open_files_for(max_connections: u64) -> u64 {
    max_connections.saturating_add(OTHERS as u64)
}

/// Raises the limit of open files so that `max_connections` fit; returns how many do.
pub fn fit_connections(max_connections: u64) -> Descriptors {
    let wanted = open_files_for(max_connections);
    let limit = getrlimit(Resource::Nofile);
    // No limit at all is none.
    let (mut current, maximum) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    if current < wanted {
        let raised = wanted.min(maximum);
        let limit = Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, limit).is_ok() {
            current = raised;
        }
    }
    let fitting = Descriptors::fitting(max_connections, current);
    if (fitting.clients as u64) < max_connections {
        tracing::warn!(
            max_connections,
            fitting = fitting.clients,
            open_files = current,
            "fewer connections than configured: raise the limit of open files (ulimit -n)"
        );
    }
    fitting
}

/// Memory of this process in RAM, where Linux's `/proc` tells.
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// From now on this process ends, at once, when `parent` does. Returns whether `parent` lives.
pub fn end_with(parent: u32) -> bool {
    // The signal comes when the parent's thread that started this process ends: its main thread.
    let armed = set_parent_process_death_signal(Some(Signal::KILL)).is_ok();
    // It may have ended before the line above.
    let alive = getppid()
        .map(Pid::as_raw_nonzero)
        .is_some_and(|pid| u32::try_from(pid.get()).is_ok_and(|pid| pid == parent));
    armed && alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kinds_of_connections_leave_the_node_its_files() {
        for files in [
            16,
            64,
            100,
            256,
            1000,
            1024,
            2000,
            4096,
            11_024,
            1_000_000,
            u64::MAX,
        ] {
            for wanted in [1, 100, 10_000, 1_000_000] {
                let fitting = Descriptors::fitting(wanted, files);
                let Descriptors {
                    clients,
                    permits,
                    peers,
                } = fitting;
                let used = clients + permits + 2 * peers;
                let files = usize::try_from(files).unwrap();
                assert!(
                    used + RESERVE.min(files / 2) <= files,
                    "{files}: {fitting:?}"
                );
                assert!(
                    clients > 0 && permits > 0 && peers > 0,
                    "{files}: {fitting:?}"
                );
                assert!(clients as u64 <= wanted);
            }
        }
        let usual = Descriptors::fitting(10_000, 10_000 + OTHERS as u64);
        assert_eq!(usual.clients, 10_000);
        assert_eq!(usual.permits, PERMITS);
    }
}
