//! A node's life from the start of its process on: it gets an identity, starts the engine under it, and
//! starts the tasks that run beside the engine.
//!
//! Invariants: the engine is started once; a founder's log has its first entry before that; a disk that
//! may be an old one is checked before that.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::capacity::cap::{self, CapKeeper};
use crate::capacity::meter::{self, CapacityMeter};
use crate::disk::compaction;
use crate::disk::memory;
use crate::disk::space_meter::{self, SpaceMeter};
use crate::engine::handle::Engine;
use crate::engine::inbound::Inbound;
use crate::engine::log_store::LogStore;
use crate::engine::network::{Network, Transfers};
use crate::engine::start::{self, Parts};
use crate::engine::state_machine::StateMachine;
use crate::group::Group;
use crate::leadership::diagnosis::{self, Diagnosis, Unfit};
use crate::leadership::failure_detector::FailureDetector;
use crate::leadership::rival::Rival;
use crate::leadership::tracker::{self, Tracker};
use crate::membership::form::{self, Formation};
use crate::membership::identity::Identity;
use crate::membership::introduce::Prepare;
use crate::membership::life::State;
use crate::membership::moves::Mover;
use crate::membership::raise::{self, Raiser};
use crate::membership::reconcile::Reconciler;
use crate::pubsub::announce::Announcer;
use crate::pubsub::publish;
use crate::replica::divergence::{self, Comparison};
use crate::report::trouble::{self, Trouble};
use crate::time::expiry;
use crate::write::sender::Sender;
use crate::{FatalError, Phase, StartError};

/// The parts that a start has opened for the life of the node.
pub(crate) struct Opened {
    pub(crate) log_store: LogStore,
    pub(crate) prepares: mpsc::UnboundedReceiver<Prepare>,
    /// Last index of the log when this process began.
    pub(crate) old_through: u64,
}

/// A node's life from its start to its end.
pub(crate) async fn live(group: Arc<Group>, opened: Opened) {
    let Opened {
        log_store,
        mut prepares,
        old_through,
    } = opened;
    let process = &group.process;
    let fail = |error| process.lifecycle.fail(error);
    let formation = Arc::new(formation(&group));
    // A copy of a directory that had only agreed is as old as one of a directory that ran.
    let may_be_old = formation.record.life.state() != State::Blank;
    let (identity, told) = match form::obtain_identity(&formation, &mut prepares).await {
        Ok(Some(running)) => running,
        Ok(None) => return,
        Err(StartError::Identity(why)) => return fail(FatalError::Engine(why)),
        Err(error) => return fail(FatalError::Disk(error.to_string())),
    };
    // Before anything asks the others: they may have to be told where this node is, and it where they are.
    process.lifecycle.spawn(mover(&group).run());
    if may_be_old && ends_as_outdated(&group).await {
        return;
    }
    let rival = rival(&group);
    if rival.ends_node_before_start().await || (may_be_old && ends_as_unfit(&group).await) {
        return;
    }
    let begins = identity.founder && log_store.is_new();
    if begins && let Err(error) = log_store.begin(&identity.ids()).await {
        let error = format!("cannot begin the log: {error}");
        return fail(FatalError::Disk(error));
    }
    let meter = space_meter(&group);
    meter.measure().await;
    let transfers = Arc::<Transfers>::default();
    let parts = parts(&group, log_store, transfers.clone(), old_through);
    let started = start::start(&process.config, identity.node_id, parts, &group.engine).await;
    let engine = match started {
        Ok(engine) => engine,
        Err(error) => {
            // It applies what is committed before it has started, so the replica may have halted it.
            let error = FatalError::Engine(error.to_string());
            if let Some(why) = group.replica.why_ended(error) {
                fail(why);
            }
            return;
        }
    };
    // The slot takes one engine only, so this is the first.
    let _ = group.inbound.set(Arc::new(inbound(&group, engine.clone())));
    if let Some(told) = told {
        // The proposer goes on without it.
        let _ = told.send(Ok(()));
    }
    let proposals = formation.clone().serve_prepares(identity.clone(), prepares);
    process.lifecycle.spawn(proposals);
    spawn_leadership(&group, &engine);
    spawn_ways(&group, &engine);
    spawn_upkeep(&group, &engine, transfers, meter);
    process.lifecycle.spawn(rival.run());
    let waiting = if identity.founder {
        Phase::Forming
    } else {
        Phase::Joining
    };
    let for_leader = "waiting for the cluster's first leader".to_owned();
    process.lifecycle.set_phase(waiting, for_leader);
    if begins && identity.proposed() {
        begin(&formation, &identity, &engine).await;
    }
}

/// As the proposer of a new cluster: tells the others, and stands for election.
async fn begin(formation: &Formation, identity: &Identity, engine: &Engine) {
    formation.tell_all(identity).await;
    // The others stand for election if nothing comes of it, after the usual time.
    if let Err(error) = engine.elect().await {
        tracing::debug!(%error, "the engine has stopped");
    }
}

fn formation(group: &Group) -> Formation {
    let process = &group.process;
    Formation {
        config: process.config.clone(),
        random: process.env.random.clone(),
        peers: process.peers.clone(),
        record: group.introducer.record.clone(),
        #[cfg(memkv_bugs)]
        replica: group.replica.clone(),
        lifecycle: process.lifecycle.clone(),
        lines: process.lines.clone(),
        called: process.called.subscribe(),
        quarantined: group.introducer.quarantined.clone(),
    }
}

/// A mover, after this node knows what its last process has saved.
fn mover(group: &Group) -> Mover {
    let process = &group.process;
    let mover = Mover {
        config: process.config.clone(),
        peers: process.peers.clone(),
        replica: group.replica.clone(),
        memory: group.memory.clone(),
        lifecycle: process.lifecycle.clone(),
    };
    mover.recall();
    mover
}

fn rival(group: &Group) -> Rival {
    let process = &group.process;
    Rival {
        configured: process.config.peers.clone(),
        peers: process.peers.clone(),
        replica: group.replica.clone(),
        lifecycle: process.lifecycle.clone(),
        introduced: process.introduced.subscribe(),
        called: process.called.subscribe(),
    }
}

/// Ends a node whose disk is an old one before its engine exists. Whether it does.
async fn ends_as_outdated(group: &Group) -> bool {
    let process = &group.process;
    let outdated = memory::is_outdated(&group.memory, &process.config, &process.peers).await;
    let Some(why) = outdated else { return false };
    let error = process.directory.condemn(why, FatalError::OldDisk).await;
    process.lifecycle.fail(error);
    true
}

/// Ends a node before its engine exists that was removed from its cluster, or that another process is already.
/// Whether it does.
async fn ends_as_unfit(group: &Group) -> bool {
    let process = &group.process;
    let error = match diagnosis::unfit(&diagnosis(group)).await {
        None => return false,
        Some(Unfit::Removed(why)) => process.directory.condemn(why, FatalError::Removed).await,
        Some(Unfit::Copied(why)) => FatalError::Copied(why),
    };
    process.lifecycle.fail(error);
    true
}

fn diagnosis(group: &Group) -> Diagnosis {
    let process = &group.process;
    Diagnosis {
        configured: process.config.peers.clone(),
        peers: process.peers.clone(),
        replica: group.replica.clone(),
        leadership: group.leadership.clone(),
        lifecycle: process.lifecycle.clone(),
        directory: process.directory.clone(),
        lines: process.lines.clone(),
    }
}

fn space_meter(group: &Group) -> SpaceMeter {
    let process = &group.process;
    SpaceMeter {
        name: process.peers.me.name.clone(),
        env: process.env.clone(),
        snapshots: group.storage.snapshots.clone(),
        space: process.space.clone(),
        counters: process.counters.clone(),
        timeline: group.replica.timeline.clone(),
    }
}

/// The parts that the engine works on.
fn parts(group: &Group, log_store: LogStore, transfers: Arc<Transfers>, old_through: u64) -> Parts {
    let process = &group.process;
    let network = Network {
        peers: process.peers.clone(),
        env: process.env.clone(),
        transfers,
        clock: group.clock.clone(),
        space: process.space.clone(),
        capacity: process.capacity.clone(),
        commit_interest: group.reads.commit_interest.clone(),
        published: group.reads.barrier.published.clone(),
        memory: group.memory.clone(),
        wal: group.storage.wal.clone(),
    };
    let machine = StateMachine::new(
        group.replica.clone(),
        group.storage.snapshots.clone(),
        group.clock.clone(),
        process.env.clone(),
        process.counters.clone(),
        Announcer {
            publisher: process.publisher.clone(),
            configured: process.config.announce,
            old_through,
        },
        process.config.highest_level,
    );
    Parts {
        log_store,
        network,
        machine,
    }
}

fn inbound(group: &Group, engine: Engine) -> Inbound {
    let process = &group.process;
    Inbound {
        engine,
        name: process.peers.me.name.clone(),
        memory: group.memory.clone(),
        space: process.space.clone(),
        capacity: process.capacity.clone(),
        record: group.introducer.record.clone(),
        leadership: group.leadership.clone(),
        clock: group.clock.clone(),
        snapshots: group.storage.snapshots.clone(),
        env: process.env.clone(),
        lines: process.lines.clone(),
        incoming: tokio::sync::Mutex::default(),
    }
}

/// Starts the tasks that follow the leader.
fn spawn_leadership(group: &Group, engine: &Engine) {
    let process = &group.process;
    let tracker = Tracker {
        replica: group.replica.clone(),
        leadership: group.leadership.clone(),
        lifecycle: process.lifecycle.clone(),
        peers: process.peers.clone(),
        counters: process.counters.clone(),
        lines: process.lines.clone(),
    };
    let detector = FailureDetector {
        peers: process.peers.clone(),
        leadership: group.leadership.clone(),
        lines: process.lines.clone(),
        timeline: group.replica.timeline.clone(),
        engine: engine.clone(),
    };
    process
        .lifecycle
        .spawn(tracker::run(tracker, engine.clone()));
    process.lifecycle.spawn(detector.run());
}

/// Starts the tasks on the ways of writes and reads.
fn spawn_ways(group: &Group, engine: &Engine) {
    let process = &group.process;
    let (lifecycle, barrier) = (&process.lifecycle, &group.reads.barrier);
    let sender = Sender {
        session: group.writes.session.clone(),
        leadership: group.leadership.clone(),
        peers: process.peers.clone(),
        batcher: group.writes.batcher.clone(),
        replica: group.replica.clone(),
        clock: group.clock.clone(),
        lifecycle: lifecycle.clone(),
        counters: process.counters.clone(),
        timer: (process.env.precise_timer)(),
    };
    lifecycle.spawn(group.writes.batcher.clone().run(engine.clone()));
    lifecycle.spawn(sender.run());
    lifecycle.spawn_on(&process.env.reads, barrier.clone().run_leader_reads());
    lifecycle.spawn_on(&process.env.reads, barrier.clone().run_forwarded_reads());
}

/// Starts the tasks that keep the cluster, the directory and the data in order.
fn spawn_upkeep(group: &Group, engine: &Engine, transfers: Arc<Transfers>, meter: SpaceMeter) {
    let process = &group.process;
    let (config, lifecycle, peers) = (&process.config, &process.lifecycle, &process.peers);
    let reconciler = Reconciler {
        config: config.clone(),
        replica: group.replica.clone(),
        peers: peers.clone(),
        leadership: group.leadership.clone(),
        batcher: group.writes.batcher.clone(),
        lines: process.lines.clone(),
        engine: engine.clone(),
    };
    let comparison = Comparison {
        replica: group.replica.clone(),
        peers: peers.clone(),
        memory: group.memory.clone(),
        divergence: group.divergence.clone(),
        directory: process.directory.clone(),
        lifecycle: lifecycle.clone(),
    };
    let raiser = Raiser {
        after: config.raise_level_after,
        levels: peers.levels.clone(),
        record: group.introducer.record.clone(),
        replica: group.replica.clone(),
        memory: group.memory.clone(),
        batcher: group.writes.batcher.clone(),
        lifecycle: lifecycle.clone(),
        lines: process.lines.clone(),
    };
    let (storage, lines) = (group.storage.clone(), process.lines.clone());
    let (replica, clock) = (group.replica.clone(), group.clock.clone());
    let batcher = group.writes.batcher.clone();
    lifecycle.spawn(reconciler.run());
    lifecycle.spawn(compaction::run(
        config.clone(),
        storage,
        transfers,
        engine.clone(),
    ));
    lifecycle.spawn(space_meter::run(
        meter,
        peers.clone(),
        engine.clone(),
        lines,
    ));
    spawn_capacity(group, engine);
    lifecycle.spawn(divergence::run(comparison));
    lifecycle.spawn(trouble::run(trouble(group)));
    lifecycle.spawn(diagnosis::run(diagnosis(group), engine.clone()));
    lifecycle.spawn(expiry::run(replica, clock, batcher, engine.clone()));
    lifecycle.spawn(raise::run(raiser, engine.clone()));
    lifecycle.spawn(publish::probe(process.publisher.clone(), peers.clone()));
}

fn trouble(group: &Group) -> Trouble {
    Trouble {
        env: group.process.env.clone(),
        wal: group.storage.wal.clone(),
        counters: group.process.counters.clone(),
        timeline: group.replica.timeline.clone(),
    }
}

/// Starts the tasks that care for memory.
fn spawn_capacity(group: &Group, engine: &Engine) {
    let process = &group.process;
    let limit = process.config.memory_limit;
    let meter = CapacityMeter {
        env: process.env.clone(),
        limit,
        largest_value: process.config.max_value_bytes as u64,
        capacity: process.capacity.clone(),
        replica: group.replica.clone(),
        peers: process.peers.clone(),
    };
    let keeper = CapKeeper {
        bytes: limit.map(cap::for_keys),
        session: group.writes.session.clone(),
        leadership: group.leadership.clone(),
        peers: process.peers.clone(),
        replica: group.replica.clone(),
        batcher: group.writes.batcher.clone(),
    };
    process.lifecycle.spawn(meter::run(meter));
    process.lifecycle.spawn(cap::run(keeper, engine.clone()));
}
