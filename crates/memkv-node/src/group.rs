//! The parts that a process has once for each replicated log: its engine, its store and the ways in and
//! out. There is one group today.
//!
//! Decides nothing: each task takes the parts that it needs. A second group would share
//! the [`Process`], and what that says it still knows of the first one.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use crate::disk::memory::Memory;
use crate::disk::storage::Storage;
use crate::engine::handle::EngineSlot;
use crate::engine::inbound::Inbound;
use crate::leadership::known::Leadership;
use crate::membership::admit::Admission;
use crate::membership::backoff::Backoff;
use crate::membership::introduce::{Introducer, Prepare};
use crate::membership::record::Record;
use crate::membership::verbs::Verbs;
use crate::process::Process;
use crate::read::barrier::Barrier;
use crate::read::commit_interest::CommitInterest;
use crate::read::long_read::LongReader;
use crate::read::rounds::Rounds;
use crate::replica::Replica;
use crate::replica::divergence::Divergence;
use crate::time::log_clock::LogClock;
use crate::write::batcher::{Batcher, Shortages};
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
    pub(crate) verbs: Arc<Verbs>,
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

/// A group's log and state as a start finds them.
pub(crate) struct Found {
    pub(crate) storage: Storage,
    pub(crate) memory: Arc<Memory>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) session: Arc<Session>,
    pub(crate) record: Arc<Record>,
    /// Where damaged data of this node lies.
    pub(crate) quarantined: Option<PathBuf>,
    pub(crate) prepares: mpsc::UnboundedSender<Prepare>,
}

impl Group {
    /// Puts the ways in and out around a log.
    pub(crate) fn new(process: Arc<Process>, found: Found) -> Self {
        let Process { config, peers, .. } = &*process;
        let engine = EngineSlot::default();
        let leadership = Arc::new(Leadership::new(config));
        let batcher = Arc::new(Batcher::new(
            found.clock.clone(),
            Shortages {
                space: process.space.clone(),
                capacity: process.capacity.clone(),
            },
            process.env.clone(),
            peers.levels.clone(),
            config.queue_bytes(),
        ));
        let verbs = Verbs {
            config: config.clone(),
            peers: peers.clone(),
            replica: found.replica.clone(),
            batcher: batcher.clone(),
            engine: engine.clone(),
            lines: process.lines.clone(),
        };
        let admission = Admission {
            replace_after: config.replace_after,
            peers: peers.clone(),
            replica: found.replica.clone(),
            leadership: leadership.clone(),
            batcher: batcher.clone(),
            engine: engine.clone(),
            lines: process.lines.clone(),
            expected_only: config.admit_expected_only,
            backoff: Backoff::default(),
        };
        let introducer = Introducer {
            config: config.clone(),
            peers: peers.clone(),
            record: found.record,
            replica: found.replica.clone(),
            leadership: leadership.clone(),
            admission: Arc::new(admission),
            quarantined: found.quarantined,
            prepares: found.prepares,
        };
        let copies = CopyCounter {
            replica: found.replica.clone(),
            leadership: leadership.clone(),
            peers: peers.clone(),
            engine: engine.clone(),
            wal: found.storage.wal.clone(),
        };
        Self {
            reads: Reads::new(&process, &found.replica, &found.clock, &leadership, &engine),
            engine,
            inbound: OnceLock::new(),
            introducer,
            verbs: Arc::new(verbs),
            storage: found.storage,
            memory: found.memory,
            replica: found.replica,
            divergence: Arc::default(),
            clock: found.clock,
            leadership,
            writes: Writes {
                session: found.session,
                batcher,
                copies,
            },
            process,
        }
    }
}

impl Reads {
    fn new(
        process: &Process,
        replica: &Arc<Replica>,
        clock: &Arc<LogClock>,
        leadership: &Arc<Leadership>,
        engine: &EngineSlot,
    ) -> Self {
        let barrier = Arc::new(Barrier {
            hold: process.config.hold,
            replica: replica.clone(),
            leadership: leadership.clone(),
            peers: process.peers.clone(),
            engine: engine.clone(),
            published: Arc::default(),
            lifecycle: process.lifecycle.clone(),
            counters: process.counters.clone(),
            leader_reads: Rounds::default(),
            forwarded_reads: Rounds::default(),
        });
        let long = LongReader {
            barrier: barrier.clone(),
            replica: replica.clone(),
            clock: clock.clone(),
            env: process.env.clone(),
        };
        Self {
            barrier,
            long: Arc::new(long),
            commit_interest: Arc::default(),
        }
    }
}
