//! The parts that a process has once for each replicated log: its engine, its store and the ways in and
//! out. There is one group today.
//!
//! Decides nothing: each task takes the parts that it needs. Invariant: two groups would share their
//! [`Process`] and nothing else.

use std::sync::{Arc, OnceLock};

use crate::disk::memory::Memory;
use crate::disk::storage::Storage;
use crate::engine::handle::EngineSlot;
use crate::engine::inbound::Inbound;
use crate::leadership::known::Leadership;
use crate::membership::introduce::Introducer;
use crate::process::Process;
use crate::read::barrier::Barrier;
use crate::read::commit_interest::CommitInterest;
use crate::read::long_read::LongReader;
use crate::replica::Replica;
use crate::replica::divergence::Divergence;
use crate::time::log_clock::LogClock;
use crate::write::batcher::Batcher;
use crate::write::copies::CopyCounter;
use crate::write::session::Session;

/// One replicated log and everything around it.
pub(crate) struct Group {
    pub(crate) process: Arc<Process>,
    /// The engine, once the node has an identity.
    pub(crate) engine: EngineSlot,
    /// The receiving side of the engine, as soon as there is one.
    pub(crate) inbound: OnceLock<Arc<Inbound>>,
    pub(crate) introducer: Introducer,
    pub(crate) storage: Storage,
    pub(crate) memory: Arc<Memory>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) divergence: Arc<Divergence>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) writes: Writes,
    pub(crate) reads: Reads,
}

/// The way of a write.
pub(crate) struct Writes {
    pub(crate) session: Arc<Session>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) copies: CopyCounter,
}

/// The way of a read.
pub(crate) struct Reads {
    pub(crate) barrier: Arc<Barrier>,
    pub(crate) long: Arc<LongReader>,
    pub(crate) commit_interest: Arc<CommitInterest>,
}
