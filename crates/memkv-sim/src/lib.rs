//! Whole clusters on simulated network, disks and time, from one seed.
//!
//! A run is 1 to 5 real nodes (`memkv-node` on `memkv-disk` and `memkv-store`, unchanged) in one
//! tokio runtime with paused time. [`swarm`] defines the meaning of a seed, `nemesis` inflicts its faults,
//! `client` records what clients see, `invariants` looks at all nodes every 10 simulated
//! milliseconds, and `settle` and [`run`] judge the end. Tests only: no product depends on this.
//!
//! Invariant: a run is a function of its seed (with `--cfg tokio_unstable`); nothing here reads a
//! real clock, real randomness or the order of a hash table.

#![forbid(unsafe_code)]

pub mod bugs;
mod checker;
mod client;
pub mod cluster;
mod committed_log;
pub mod coverage;
mod disk;
mod flood;
mod host;
mod invariants;
mod levels;
mod lists;
mod many;
mod measured;
mod nemesis;
pub mod net;
mod one_cluster;
mod operations;
mod promise;
mod redis;
mod rng;
pub mod run;
#[doc(hidden)]
pub mod scenario;
mod settle;
pub mod swarm;
mod timing;
pub mod trace;
mod translate;
mod users;
mod witness;
mod worst_day;

pub use cluster::Violation;
pub use promise::Promise;
pub use run::{Options, Report, run};
