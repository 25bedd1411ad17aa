//! The parts that a process has once, whatever number of groups it serves.
//!
//! Decides nothing. Invariant: nothing here knows a log, a term or a store.

use std::sync::Arc;

use crate::disk::space::SpaceWatch;
use crate::disk::storage::DataDirectory;
use crate::lifecycle::Lifecycle;
use crate::peer::client::Peers;
use crate::pubsub::publish::Publisher;
use crate::report::counters::Counters;
use crate::report::seldom::Lines;
use crate::{Env, NodeConfig};

/// A node's process.
pub(crate) struct Process {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) env: Env,
    pub(crate) directory: DataDirectory,
    pub(crate) peers: Arc<Peers>,
    pub(crate) space: Arc<SpaceWatch>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) counters: Arc<Counters>,
    /// Log lines that peers can cause.
    pub(crate) lines: Arc<Lines>,
}
