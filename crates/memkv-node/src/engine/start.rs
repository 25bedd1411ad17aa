//! The start of the engine on its log, network and state machine, which `running` puts together and starts
//! when it is time. Invariant: a process has one engine.

use std::sync::Arc;

use super::Raft;
use super::handle::{Engine, EngineSlot};
use super::log_store::LogStore;
use super::network::Network;
use super::settings::settings;
use super::state_machine::StateMachine;
use crate::{NodeConfig, StartError};

/// The parts that the engine works on.
pub(crate) struct Parts {
    pub(crate) log_store: LogStore,
    pub(crate) network: Network,
    pub(crate) machine: StateMachine,
}

/// Starts the engine under this id and puts it into `slot`; once in the life of a process.
///
/// # Errors
///
/// [`StartError::Engine`] if it cannot be started, or was before.
pub(crate) async fn start(
    config: &NodeConfig,
    id: u64,
    parts: Parts,
    slot: &EngineSlot,
) -> Result<Engine, StartError> {
    let Parts {
        log_store,
        network,
        machine,
    } = parts;
    let settings = Arc::new(settings(config)?);
    let ahead = log_store.read_ahead();
    let raft = Raft::new(id, settings, network, log_store, machine)
        .await
        .map_err(|error| StartError::Engine(error.to_string()))?;
    ahead.end();
    let engine = Engine::new(raft);
    if slot.set(engine.clone()) {
        Ok(engine)
    } else {
        Err(StartError::Engine("a process has one engine".to_owned()))
    }
}
