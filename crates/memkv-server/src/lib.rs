//! The memkv server: one address for clients and peers, one process for one node, and `demo` for
//! several. `args` and `settings` say what to run, `run` wires and ends it, `listener` tells the
//! protocols of the address apart, `http` and `peer` speak them.
//!
//! Two runtimes: consensus, peers and the state machine share one thread, so that a request
//! crosses none on its way to the log; clients' connections live on the other cores.

#![forbid(unsafe_code)]

/// The page of the documentation about commands, `docs/commands.md`.
#[must_use]
pub fn commands_page() -> String {
    commands::docs_page()
}

/// The page of the documentation about metrics, `docs/metrics.md`.
#[must_use]
pub fn metrics_page() -> String {
    metrics::page()
}

pub mod admission;
pub mod args;
mod aside;
pub mod audit;
pub mod backend;
pub mod cert;
mod client_socket;
mod commands;
pub mod consensus;
pub mod console;
pub mod demo;
pub mod doctor;
pub mod drain;
mod exposure;
mod failure;
mod guarded;
pub mod http;
pub mod ledger;
pub mod listener;
pub mod logging;
mod members;
mod memory;
pub mod memory_limit;
mod metrics;
mod pace;
mod panics;
pub mod password;
pub mod peer;
pub mod process;
pub mod read_batch;
pub mod recover;
mod report;
pub mod reset;
pub mod resp;
pub mod restore;
pub mod rights;
pub mod run;
pub mod salvage;
pub mod secrets;
pub mod service;
pub mod settings;
pub mod signals;
mod supervisor;
#[cfg(test)]
mod testing;
mod tls;
pub mod upgrade;
