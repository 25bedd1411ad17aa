//! CPU time of other processes, from `/proc/ID/stat`.

use std::time::Duration;

/// Length of a clock tick in `/proc`: USER_HZ is 100 on every Linux that Rust runs on.
const TICK: Duration = Duration::from_millis(10);

/// User and system time of all these processes together since they started.
pub(crate) fn cpu_time(processes: &[u32]) -> Duration {
    let ticks: u32 = processes.iter().map(|id| memkv_tests::cpu_ticks(*id)).sum();
    TICK * ticks
}
