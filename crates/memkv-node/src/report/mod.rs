//! The reports of a node: its status, its numbers, its log lines, and to the simulator more.
//!
//! Never changes what it reports.

pub(crate) mod counters;
pub(crate) mod describe;
pub(crate) mod inspect;
pub mod seldom;
pub(crate) mod stats;
pub(crate) mod status;
