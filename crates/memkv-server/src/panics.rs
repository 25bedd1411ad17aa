//! A panic ends the process, unless it was in the task of a client's connection, which holds no lock
//! for writing; then it ends that connection alone. The runtime catches the unwinding and drops the
//! task, and guards give back what the connection held. Never lets anything else unwind: where
//! consensus, the log or apply has stopped half-way, only a restart is safe, and acknowledged writes
//! are on disk.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use memkv_node::contain::is_contained;
use memkv_node::seldom::{PERIOD, Seldom};

use crate::console;

/// Most characters of a panic's text that are logged: it may quote a client's data.
const MAX_TEXT: usize = 512;

/// A client that has found a defect may repeat it.
static CONTAINED_LINE: Seldom = Seldom::at_most(10, PERIOD);

static CONTAINED: AtomicU64 = AtomicU64::new(0);

/// Panics that have cost a client's connection since the process began.
pub(crate) fn contained() -> u64 {
    CONTAINED.load(Ordering::Relaxed)
}

/// From now on a panic ends the process, or is counted. Logging must have been started.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(judge));
}

fn judge(panic: &PanicHookInfo<'_>) {
    let text: String = text(panic).chars().take(MAX_TEXT).collect();
    let at = panic.location().map(ToString::to_string);
    let at = at.as_deref().unwrap_or("an unknown place");
    let current = thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let is_contained = is_contained();
    if is_contained {
        CONTAINED.fetch_add(1, Ordering::Relaxed);
        let Some(left_out) = CONTAINED_LINE.say() else {
            return;
        };
        tracing::error!(
            panic = text,
            at,
            thread,
            left_out,
            "a defect of memkv: a client's connection panicked and was closed; please report it"
        );
    } else {
        tracing::error!(
            panic = text,
            at,
            thread,
            "a defect of memkv: the node panicked and ends; what was acknowledged is on disk; start it \
             again, and please report it"
        );
    }
    // Only where the variables of the standard library ask for it.
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        console::error(trace);
    }
    if !is_contained {
        std::process::abort();
    }
}

fn text<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload_as_str().unwrap_or("no text")
}
