//! A directory that is being filled from a backup: marked from before its first byte until all of it is
//! durable. Never touches a directory that holds data, unless its mark says that an earlier restore left it.
//!
//! Invariant: a directory that opens holds all of a restore, or nothing of it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::SnapshotMeta;
use crate::disk::Disk;
use crate::layout::{CLOCK_FILE, Layout, Options, RESERVE_FILE, RESTORING_FILE, is_data_name};
use crate::open::{OpenError, Opened, lock, open_locked};
use crate::record::LogId;
use crate::recovering;
use crate::snapshots::SnapshotWriter;
use crate::wal::Done;

/// Boots of a directory in which no process has run.
const NO_BOOT: u64 = 0;

/// A restore that is under way. Dropping it leaves a directory that does not open, and into which the next
/// restore may go.
pub struct Restoring {
    disk: Arc<dyn Disk>,
    layout: Layout,
    opened: Opened,
}

impl Restoring {
    /// Marks an empty directory and opens it. What an earlier restore has left there is removed.
    ///
    /// # Errors
    /// [`OpenError::NotEmpty`] if it holds data, [`OpenError::Recovering`] if that is being set aside; then nothing
    /// was changed. [`OpenError::Locked`], [`OpenError::Io`].
    pub fn begin(
        disk: Arc<dyn Disk>,
        layout: &Layout,
        options: Options,
    ) -> Result<Self, OpenError> {
        let locks = Arc::new(lock(&*disk, layout)?);
        recovering::check_moved(&*disk, layout)?;
        if is_marked(&*disk, layout)? {
            clear(&*disk, layout)?;
        } else {
            check_empty(&*disk, layout)?;
            mark(&*disk, layout)?;
        }
        let opened = open_locked(disk.clone(), layout, options, locks)?;
        Ok(Self {
            disk,
            layout: layout.clone(),
            opened,
        })
    }

    /// The snapshot that the directory begins with.
    pub fn snapshot(&self, meta: SnapshotMeta) -> SnapshotWriter {
        self.opened.snapshots.create(meta)
    }

    /// Ends the restore, after the snapshot was finished: the log goes on after `last`, under this
    /// identity. When this returns the directory is whole and durable.
    ///
    /// # Errors
    /// [`OpenError::Io`]; the directory does not open then.
    pub fn finish(self, last: LogId, identity: Bytes) -> Result<(), OpenError> {
        let path = &self.layout.metadata;
        let Opened {
            wal, mut worker, ..
        } = self.opened;
        let outcome = Arc::new(Mutex::new(Ok(())));
        let done = || -> Done {
            let outcome = outcome.clone();
            Box::new(move |result| {
                let mut outcome = outcome.lock();
                if outcome.is_ok() {
                    *outcome = result;
                }
            })
        };
        wal.reset_to(last, done());
        wal.save_identity(identity, NO_BOOT, done());
        while let Some(completions) = worker.poll() {
            completions.fire();
        }
        wal.shutdown();
        worker.poll();
        let failed = |error| OpenError::io("write the restored metadata in", path, error);
        std::mem::replace(&mut *outcome.lock(), Ok(())).map_err(failed)?;
        // The worker, which holds the locks, lives until here.
        let unmark = || {
            self.disk.remove_file(&path.join(RESTORING_FILE))?;
            self.disk.sync_dir(path)
        };
        unmark().map_err(|error| OpenError::io("end the restore in", path, error))
    }
}

/// Refuses a directory in which a restore has not ended. Its end is durable when this returns: the mark that
/// a restore removed just before its death must not come back over what is written from now on.
pub(crate) fn check(disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
    let path = &layout.metadata;
    if is_marked(disk, layout)? {
        let path = path.join(RESTORING_FILE);
        return Err(OpenError::Restoring { path });
    }
    disk.sync_dir(path)
        .map_err(|error| OpenError::io("sync", path, error))
}

fn is_marked(disk: &dyn Disk, layout: &Layout) -> Result<bool, OpenError> {
    let names = names(disk, &layout.metadata)?;
    Ok(names.iter().any(|name| name == RESTORING_FILE))
}

fn names(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, OpenError> {
    disk.read_dir(dir)
        .map_err(|error| OpenError::io("list", dir, error))
}

fn mark(disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
    let path = layout.metadata.join(RESTORING_FILE);
    let write = || {
        disk.create(&path)?.sync_data()?;
        disk.sync_dir(&layout.metadata)
    };
    write().map_err(|error| OpenError::io("write", &path, error))
}

/// Whether this file is one that a node writes, besides the lock.
pub(crate) fn is_ours(name: &str) -> bool {
    is_data_name(name) || name == CLOCK_FILE || name == RESERVE_FILE
}

fn check_empty(disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
    for dir in layout.directories() {
        let found = names(disk, dir)?.into_iter().find(|name| is_ours(name));
        if let Some(name) = found {
            let path = dir.join(name);
            return Err(OpenError::NotEmpty { path });
        }
    }
    Ok(())
}

/// Removes what an earlier restore has left; its mark stays.
fn clear(disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
    for dir in layout.directories() {
        let remove = || -> io::Result<()> {
            let ours = disk.read_dir(dir)?.into_iter();
            for name in ours.filter(|name| is_ours(name)) {
                disk.remove_file(&dir.join(name))?;
            }
            disk.sync_dir(dir)
        };
        remove().map_err(|error| OpenError::io("clear", dir, error))?;
    }
    Ok(())
}
