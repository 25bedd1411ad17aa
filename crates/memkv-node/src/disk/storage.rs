//! The parts of the data directory that live as long as the node, and the directory's own fate.
//!
//! Never reads a file: handles are passed on. Invariant: a condemned directory is set aside by the next
//! start, before anything of it is used.

use std::sync::Arc;

use memkv_disk::disk::Disk;
use memkv_disk::{Layout, LogId, LogReader, SnapshotStore, WalHandle};

use crate::env::blocking;
use crate::{Env, FatalError};

/// Log and snapshots of one group.
#[derive(Clone)]
pub(crate) struct Storage {
    pub(crate) wal: WalHandle,
    pub(crate) log: LogReader,
    pub(crate) snapshots: SnapshotStore,
}

impl Storage {
    /// The last entry that is durable here, in the log or in a snapshot.
    pub(crate) fn durable(&self) -> Option<LogId> {
        let snapshot = self.snapshots.latest().map(|meta| meta.last);
        self.wal
            .durable()
            .into_iter()
            .chain(snapshot)
            .max_by_key(|id| id.index)
    }
}

/// The directory that all of a node's files are in.
#[derive(Clone)]
pub(crate) struct DataDirectory {
    pub(crate) env: Env,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) layout: Layout,
}

impl DataDirectory {
    /// Marks the directory so that the next start sets it aside; the error that ends this process.
    pub(crate) async fn condemn(
        &self,
        why: String,
        error: impl FnOnce(String) -> FatalError,
    ) -> FatalError {
        let (disk, layout, text) = (self.disk.clone(), self.layout.clone(), why.clone());
        let write = move || memkv_disk::condemn(&*disk, &layout, &text);
        match blocking(&self.env, write).await {
            Ok(Ok(())) => error(why),
            Ok(Err(error)) => FatalError::Disk(format!("{why}; {error}")),
            Err(error) => FatalError::Disk(format!("{why}; {error}")),
        }
    }
}
