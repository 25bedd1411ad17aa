//! The client against nodes that are played by this test: its requests, their targets and number, and
//! its use of the answers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod cli;
mod cli_data;
mod data;
mod fake;
mod fake_redis;
mod repl;
mod routing;
mod terminal;
