//! The consensus runtime: one thread for the node, its peers and its state machine, so that a
//! request crosses no thread on its way to the log. Never runs a client's connection, and never waits
//! for a disk.

use std::io;
use std::sync::Arc;

use memkv_disk::disk::guard;
use memkv_disk::disk::real::RealDisk;
use memkv_node::{Env, Node, NodeConfig, StartError};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::peer::{Links, Trust};
use crate::process;
use crate::tls::Tls;

/// The thread and its runtime; both end with the process.
pub struct Consensus {
    /// The runtime.
    pub handle: Handle,
    /// The node, as soon as it answers.
    pub node: oneshot::Receiver<Result<Node, StartError>>,
}

impl Consensus {
    /// Starts the thread and, on it, the node, whose reads are confirmed on `reads`,
    /// and which speaks to those peers that `trust` says, inside TLS where `tls` says so.
    ///
    /// # Errors
    /// If the operating system has no thread or no event queue to give.
    pub(crate) fn start(
        config: NodeConfig,
        trust: Trust,
        tls: Option<Arc<Tls>>,
        reads: Handle,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (sender, node) = oneshot::channel();
        std::thread::Builder::new()
            .name("memkv-consensus".to_owned())
            .spawn(move || {
                // The node hands over all requests that wait.
                let _scope = guard::forbid();
                runtime.block_on(async {
                    let me = config.me.name.clone();
                    let links = Links::new(me, Handle::current())
                        .with_reads_on(reads.clone())
                        .with_trust(trust)
                        .with_tls(tls);
                    let env = Env {
                        reads,
                        resident: Arc::new(process::resident_bytes),
                        ..Env::real()
                    };
                    let disk = Arc::new(RealDisk);
                    let started = Node::start(config, disk, Arc::new(links), env).await;
                    // Nobody waits any more if the process is ending.
                    let _ = sender.send(started);
                    // The node's tasks live on this runtime until the process ends.
                    std::future::pending::<()>().await;
                });
            })?;
        Ok(Self { handle, node })
    }
}
