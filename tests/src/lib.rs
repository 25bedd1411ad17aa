//! Black-box tests of the real binaries: clusters of `memkv_server` processes on free ports and in
//! temporary directories, driven over sockets and signals.
//!
//! Nothing here links the product's crates: these tests see only what an operator and a client
//! see. Nothing sleeps to let something happen; every wait is for a condition, with a deadline, and
//! says what it waited for when the deadline passes.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test harness: what fails here must fail the test, loudly"
)]

mod bugs;
mod cluster;
mod compat;
mod data;
pub mod dialogue;
pub mod differential;
mod drain_load;
mod http;
mod interop;
mod load;
mod machine;
mod members;
mod partition;
mod ports;
mod process;
mod random;
mod redis;
mod redis_load;
mod redis_work;
mod resp;
mod rolling;
mod setting;
mod tls;
mod wait;
mod wall_clock;

pub use bugs::{command_with_bugs, order};
pub use cluster::{Cluster, Node};
pub use compat::{Compat, CompatReply};
pub use data::{files_in, first_index, flip_bit, newest_snapshot, write_secret};
pub use drain_load::DrainLoad;
pub use http::{Http, Response};
pub use interop::{
    Listener, node_script, node_script_with, on_every_listener, python, python_script,
    python_script_with, yaml,
};
pub use load::{Load, Verdict};
pub use machine::{Tmpfs, allow_files, skip};
pub use members::{ask_cluster, growing, members, wait_voters};
pub use partition::{Delayed, Partition};
pub use ports::free_port;
pub use process::{Process, binary, children_of, cpu_ticks, exists, rss_bytes};
pub use random::Random;
pub use redis::Redis;
pub use redis_load::{Harm, RedisLoad, RedisVerdict};
pub use resp::{Frame, Resp, encode};
pub use rolling::RollingLoad;
pub use rustix::process::Signal;
pub use setting::{seed, setting};
pub use tls::{Ca, TlsClient, Tunnel, Wiretap, tls_config};
pub use wait::{eventually, within};
pub use wall_clock::WallClock;
