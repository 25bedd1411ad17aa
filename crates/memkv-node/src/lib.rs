//! The replicated state machine: a node's log, its peers and its store, behind [`Node`].
//!
//! A listener (HTTP, RESP, the simulator's clients) hands a [`Node`] commands and reads; the node
//! takes each to the leader, wherever that is, and answers when the command was applied *here*.
//! This is the only crate that names the consensus engine, and it does no I/O of its own: files are
//! `memkv-disk`'s, the network is an implementation of [`Transport`], and clocks and randomness
//! come from tokio (paused in the simulator) and [`Env`].
//!
//! The way of a write: [`Node::write`] -> `write::session` (sequence number) -> the leader's
//! `write::batcher` -> engine -> WAL and followers -> commit -> `engine::apply` on every node
//! -> the session of the node where it began. The way of a read: [`Node::read`] -> `read::barrier`
//! (one ReadIndex for everything that waits) -> store.

#![forbid(unsafe_code)]

mod backup;
#[cfg(memkv_bugs)]
pub mod bugs;
mod capacity;
mod config;
mod disk;
mod engine;
mod env;
mod error;
mod group;
mod leadership;
mod lifecycle;
mod membership;
mod node;
mod peer;
mod process;
mod pubsub;
mod read;
mod replica;
mod report;
mod running;
mod sync;
mod time;
mod write;

pub use backup::restore::{RestoreError, RestorePlan, Restored, restore, revision_of_restore};
pub use backup::salvage::{SalvageError, Salvaged, salvage};
pub use config::{NodeConfig, Peer};
pub use engine::runtime::seed_engine_randomness;
pub use env::{BlockingWork, Elsewhere, Env};
pub use error::{FatalError, RequestError, StartError, TooOld};
pub use membership::life::{cluster_of, level_of};
pub use membership::verbs::{MemberVerb, VerbError};
pub use membership::view::{MemberList, MemberView};
pub use node::Node;
#[doc(hidden)]
pub use peer::server::is_readable;
pub use peer::transport::{CallError, Frame, Lane, Transport};
pub use pubsub::publish::{MAX_CHANNEL_BYTES, MAX_PUBLICATION_BYTES, Publication, Subscribers};
pub use read::long_read::Answers;
pub use report::event::Event;
#[doc(hidden)]
pub use report::inspect::{Inspection, addressee, kind_of};
pub use report::seldom;
pub use report::stats::{NodeStats, Peaks, PeerStats};
pub use report::status::{MemberStatus, NodeStatus, Phase, Role};
pub use report::timeline::{MAX_EVENTS, MAX_TEXT_BYTES, Noted, Timeline};
pub use report::waypoints::Stages;
pub use sync::yielding::yield_to_ready_tasks;
pub use sync::{contain, lock};
#[doc(hidden)]
pub use time::log_clock::ClockInspection;
pub use time::precise_timer::PreciseTimer;
pub use write::copies::Copies;
pub use write::session::judging::Judge;
