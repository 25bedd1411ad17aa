//! The replicated state machine: a node's log, its peers and its store, behind [`Node`].
//!
//! A listener (HTTP, RESP, the simulator's clients) hands a [`Node`] commands and reads; the node
//! takes each to the leader, wherever that is, and answers when the command was applied *here*.
//! This is the only crate that names the consensus engine, and it does no I/O of its own: files are
//! `memkv-disk`'s, the network is whatever implements [`Transport`], and clocks and randomness
//! come from tokio (paused in the simulator) and [`Env`].
//!
//! The way of a write: [`Node::write`] -> [`session`] (sequence number) -> the leader's
//! [`batcher`](batch) -> engine -> WAL and followers -> commit -> [`apply`](engine) on every node
//! -> the session of the node where it began. The way of a read: [`Node::read`] -> [`read`]
//! (one ReadIndex for everything that waits) -> store.

#![forbid(unsafe_code)]

mod announce;
mod batch;
#[cfg(memkv_bugs)]
pub mod bugs;
mod bytes_io;
mod checked;
mod checkpoints;
mod clock;
mod commit_interest;
mod compaction;
mod config;
mod confirm;
pub mod contain;
mod copies;
mod declared;
mod diagnose;
mod divergence;
mod engine;
mod env;
mod error;
mod expiry;
mod failure_detector;
mod formation;
mod forward;
mod greet;
mod handle;
mod identity;
mod inspect;
mod joining;
mod levels;
mod life;
pub mod lock;
mod lock_order;
mod long_read;
mod memory;
mod node;
mod peers;
mod precise_timer;
mod publish;
mod read;
mod reconcile;
mod replica;
mod rounds;
mod running;
mod seats;
pub mod seldom;
mod session;
mod space;
mod startup;
mod stats;
mod status;
mod stop;
mod tracker;
mod transport;
mod wire;
mod yielding;

pub use config::{NodeConfig, Peer};
pub use copies::Copies;
pub use engine::runtime::seed_engine_randomness;
pub use env::{BlockingWork, Elsewhere, Env};
pub use error::{FatalError, RequestError, StartError};
#[doc(hidden)]
pub use handle::is_readable;
#[doc(hidden)]
pub use inspect::{ClockInspection, Inspection, addressee, kind_of};
pub use levels::TooOld;
pub use long_read::Answers;
pub use node::Node;
pub use precise_timer::PreciseTimer;
pub use publish::{MAX_CHANNEL_BYTES, MAX_PUBLICATION_BYTES, Publication, Subscribers};
pub use stats::NodeStats;
pub use status::{MemberStatus, NodeStatus, Phase, Role};
pub use transport::{CallError, Frame, Lane, Transport};
pub use yielding::yield_to_ready_tasks;
