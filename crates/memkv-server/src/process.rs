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

/// File descriptors besides clients' connections: peers, reserved connections, log segments,
/// snapshots.
const OTHER_FILES: u64 = 1024;

/// Raises the limit of open files so that `max_connections` fit; returns how many do.
pub fn fit_connections(max_connections: u64) -> u64 {
    let wanted = max_connections.saturating_add(OTHER_FILES);
    let limit = getrlimit(Resource::Nofile);
    // No limit at all is none.
    let (current, maximum) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    if current >= wanted {
        return max_connections;
    }
    let raised = wanted.min(maximum);
    let current = match setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(raised),
            maximum: limit.maximum,
        },
    ) {
        Ok(()) => raised,
        Err(_) => current,
    };
    // With very few files half of them are for clients.
    let fitting = max_connections.min(current.saturating_sub(OTHER_FILES).max(current / 2));
    if fitting < max_connections {
        tracing::warn!(
            max_connections,
            fitting,
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
