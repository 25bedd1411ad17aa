//! Hostile clients of the real binary: slow, silent, malformed, greedy, and many. In each test another
//! client's work goes on and is counted, and the node's memory stays within what its ledger says.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

mod connections;
mod descriptors;
mod memory;
mod peers;
mod watch;
