//! The parts that a process has once, whatever number of groups it serves.
//!
//! Decides nothing. Two parts still know the one group of today, and would have to be told several: the
//! peers read its member table and its clock, and the lifecycle closes its session.

use std::sync::Arc;

use memkv_disk::disk::Disk;

use crate::capacity::watch::CapacityWatch;
use crate::disk::space::SpaceWatch;
use crate::disk::storage::DataDirectory;
use crate::leadership::rival::Introduced;
use crate::lifecycle::Lifecycle;
use crate::membership::life::Life;
use crate::peer::client::Peers;
use crate::pubsub::publish::Publisher;
use crate::report::counters::Counters;
use crate::report::seldom::Lines;
use crate::write::session::Session;
use crate::{Env, NodeConfig};

/// A node's process.
pub(crate) struct Process {
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) env: Env,
    pub(crate) directory: DataDirectory,
    pub(crate) peers: Arc<Peers>,
    pub(crate) space: Arc<SpaceWatch>,
    pub(crate) capacity: Arc<CapacityWatch>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) counters: Arc<Counters>,
    /// The node that has introduced itself last as one of a cluster.
    pub(crate) introduced: Introduced,
    /// The node that has called this one last a member of another cluster.
    pub(crate) called: Introduced,
    /// Log lines that peers can cause.
    pub(crate) lines: Arc<Lines>,
}

impl Process {
    /// The process of a node that has just opened its directory.
    pub(crate) fn new(
        config: NodeConfig,
        env: Env,
        disk: Arc<dyn Disk>,
        peers: Arc<Peers>,
        life: Arc<Life>,
        session: Arc<Session>,
    ) -> Self {
        let name = config.me.name.clone();
        let directory = DataDirectory {
            env: env.clone(),
            disk,
            layout: config.layout.clone(),
        };
        Self {
            config: Arc::new(config),
            env,
            directory,
            peers,
            space: Arc::default(),
            capacity: Arc::default(),
            lifecycle: Arc::new(Lifecycle::new(name, life, session)),
            publisher: Arc::default(),
            counters: Arc::default(),
            introduced: Introduced::new(None),
            called: Introduced::new(None),
            lines: Arc::default(),
        }
    }
}
