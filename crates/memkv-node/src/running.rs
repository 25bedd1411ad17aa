//! A node's life from the start of its process on: it gets an identity, starts the engine under it, and
//! starts the tasks that run beside the engine.
//!
//! Invariants: the engine is started once; a founder's log has its first entry before that; a disk that
//! may be an old one is checked before that.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::disk::compaction;
use crate::disk::memory;
use crate::disk::space;
use crate::engine;
use crate::engine::log_store::LogStore;
use crate::leadership::diagnosis;
use crate::leadership::failure_detector;
use crate::leadership::tracker;
use crate::membership::form::{self, Prepare};
use crate::membership::levels;
use crate::membership::life::State;
use crate::membership::reconcile;
use crate::node::Inner;
use crate::pubsub::publish;
use crate::read::barrier;
use crate::replica::divergence;
use crate::time::expiry;
use crate::write::sender;
use crate::{FatalError, Phase, StartError};

/// A node's life from its start to its end.
pub(crate) async fn live(
    inner: Arc<Inner>,
    log_store: LogStore,
    mut prepares: mpsc::UnboundedReceiver<Prepare>,
) {
    // A copy of a directory that had only agreed is as old as one of a directory that ran.
    let may_be_old = inner.life.state() != State::Blank;
    let (identity, told) = match form::obtain_identity(&inner, &mut prepares).await {
        Ok(Some(running)) => running,
        Ok(None) => return,
        Err(StartError::Identity(why)) => return inner.fail(FatalError::Engine(why)),
        Err(error) => return inner.fail(FatalError::Disk(error.to_string())),
    };
    if may_be_old && let Err(error) = memory::check_disk(&inner).await {
        return inner.fail(error);
    }
    let begins = identity.founder && log_store.is_new();
    if begins && let Err(error) = log_store.begin(&identity.ids()).await {
        let error = format!("cannot begin the log: {error}");
        return inner.fail(FatalError::Disk(error));
    }
    space::look(&inner).await;
    let engine = match engine::start::start(&inner, identity.node_id, log_store).await {
        Ok(engine) => engine,
        Err(error) => return inner.fail(FatalError::Engine(error.to_string())),
    };
    if let Some(told) = told {
        // The proposer goes on without it.
        let _ = told.send(Ok(()));
    }
    let proposals = form::serve_prepares(inner.clone(), identity.clone(), prepares);
    inner.spawn(proposals);
    inner.spawn(tracker::run(inner.clone(), engine.clone()));
    inner.spawn(failure_detector::run(inner.clone(), engine.clone()));
    inner.spawn(inner.batcher.clone().run(engine.clone()));
    inner.spawn(sender::run(inner.clone()));
    inner.spawn_on(&inner.env.reads, barrier::run_leader_reads(inner.clone()));
    inner.spawn_on(
        &inner.env.reads,
        barrier::run_forwarded_reads(inner.clone()),
    );
    inner.spawn(reconcile::run(inner.clone(), engine.clone()));
    inner.spawn(compaction::run(inner.clone(), engine.clone()));
    inner.spawn(space::run(inner.clone(), engine.clone()));
    inner.spawn(divergence::run(inner.clone()));
    inner.spawn(diagnosis::run(inner.clone()));
    inner.spawn(expiry::run(inner.clone()));
    inner.spawn(levels::run(inner.clone()));
    inner.spawn(publish::probe(inner.clone()));
    let waiting = if identity.founder {
        Phase::Forming
    } else {
        Phase::Joining
    };
    inner.set_phase(waiting, "waiting for the cluster's first leader".to_owned());
    if begins && identity.proposed() {
        form::tell_all(&inner, &identity).await;
        // The others stand for election if nothing comes of it, after the usual time.
        if let Err(error) = engine.elect().await {
            tracing::debug!(%error, "the engine has stopped");
        }
    }
}
