//! What a node tells of its clients' commands: how often each was called and how long it took, which errors
//! there were, which commands were slow, and when. INFO, SLOWLOG and LATENCY print it.
//! Never holds more than a fixed amount of memory, whatever clients do, and never a password.
//!
//! Invariant: a command that is not slow costs a few counters, and no lock.

mod calls;
mod doctor;
mod errors;
mod slow_log;
mod spikes;
mod words;

pub(crate) use calls::{Calls, Run, Seen};
pub(crate) use doctor::{Findings, advice};
pub(crate) use errors::Errors;
pub(crate) use slow_log::{MAX_LEN, Slow, SlowLog};
pub(crate) use spikes::{Kind, Sample, Spikes};
pub(crate) use words::{cut, shown};
