//! The start of the engine: its log, its network and its state machine are put together here.
//! Never decides when; `running` does. Invariant: a process has one engine.

use std::sync::Arc;

use super::Raft;
use super::handle::Engine;
use super::log_store::LogStore;
use super::network::Network;
use super::settings::settings;
use super::state_machine::StateMachine;
use crate::StartError;
use crate::node::Inner;
use crate::pubsub::announce::Announcer;

/// Starts the engine under this id, with the parts of the node that it needs; once in the life of a process.
///
/// # Errors
///
/// [`StartError::Engine`] if it cannot be started, or was before.
pub(crate) async fn start(
    inner: &Arc<Inner>,
    id: u64,
    log_store: LogStore,
) -> Result<Engine, StartError> {
    let network = Network {
        peers: inner.peers.clone(),
        env: inner.env.clone(),
        transfers: inner.transfers.clone(),
        clock: inner.clock.clone(),
        space: inner.space.clone(),
        commit_interest: inner.commit_interest.clone(),
        published: inner.published.clone(),
        memory: inner.memory.clone(),
        wal: inner.storage.wal.clone(),
    };
    let machine = StateMachine::new(
        inner.replica.clone(),
        inner.storage.snapshots.clone(),
        inner.clock.clone(),
        inner.env.clone(),
        inner.counters.clone(),
        Announcer {
            publisher: inner.publisher.clone(),
            configured: inner.config.announce,
            old_through: inner.old_through,
        },
        inner.config.highest_level,
    );
    let settings = Arc::new(settings(&inner.config)?);
    let ahead = log_store.read_ahead();
    let raft = Raft::new(id, settings, network, log_store, machine)
        .await
        .map_err(|error| StartError::Engine(error.to_string()))?;
    ahead.end();
    let engine = Engine::new(raft);
    let first = inner.engine.set(engine.clone()).is_ok();
    let words = "a process has one engine";
    first
        .then_some(engine)
        .ok_or_else(|| StartError::Engine(words.to_owned()))
}
