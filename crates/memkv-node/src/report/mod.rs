//! The reports of a node: its status, its numbers, its timeline, its log lines, and to the simulator more.
//!
//! Never changes what it reports.

pub(crate) mod counters;
pub(crate) mod describe;
pub(crate) mod event;
pub(crate) mod inspect;
pub(crate) mod membership;
pub mod seldom;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod timeline;
pub(crate) mod trouble;
pub(crate) mod waypoints;
