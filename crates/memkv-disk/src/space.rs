//! Free space, and the reserve that keeps a full disk from ever failing an append.
//! Never decides which requests are refused when space is low; `memkv-node` does, from [`Space`].
//! Invariant: the reserve holds no data, so that it can be given up at any moment.
//!
//! It lies in the log's directory, since an append must not fail. Where snapshots are on a file system of
//! their own, a full one fails a snapshot, not an append.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::disk::Disk;
use crate::layout::{Layout, RESERVE_FILE};

/// Size of the reserve without any snapshot: the entries in flight (a few of at most 8 MiB by default),
/// metadata, and segment headers. The size of a snapshot is added to it.
pub const RESERVE_BASE: u64 = 16 << 20;

/// The room that a snapshot leaves to the log on the same disk: an append must not fail.
const LEFT_TO_LOG: u64 = RESERVE_BASE / 4;

/// The free space of the disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Free bytes on the fuller one of the log's and the snapshots' file systems, without the
    /// reserve.
    pub free: u64,
    /// Bytes that the reserve holds now; 0 after it was given up.
    pub reserve: u64,
    /// Bytes that the log could still take, with the reserve.
    pub for_log: u64,
    /// Whether new proposals should be refused: the reserve was given up or cannot grow to the size of
    /// the next snapshot, or the free space besides it is less than [`RESERVE_BASE`].
    pub low: bool,
    /// Whether nothing more should be written at all: the log's free space, together with the reserve,
    /// is less than [`RESERVE_BASE`], which the entries in flight may need.
    pub exhausted: bool,
}

/// The preallocated file, and the free space around it.
pub(crate) struct Reserve {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    log: PathBuf,
    snapshot: PathBuf,
    target: AtomicU64,
    held: Mutex<u64>,
    /// Whether the last attempt to take space for it failed, and that was logged.
    refused: AtomicBool,
}

impl Reserve {
    pub(crate) fn new(disk: Arc<dyn Disk>, layout: &Layout, snapshot_len: u64) -> Arc<Self> {
        let path = layout.log.join(RESERVE_FILE);
        let held = disk.open(&path).and_then(|file| file.len()).unwrap_or(0);
        let reserve = Self {
            disk,
            path,
            log: layout.log.clone(),
            snapshot: layout.snapshot.clone(),
            target: AtomicU64::new(target(snapshot_len)),
            held: Mutex::new(held),
            refused: AtomicBool::new(false),
        };
        reserve.fill();
        Arc::new(reserve)
    }

    /// Sets the number of bytes that are reserved for the next snapshot.
    pub(crate) fn set_snapshot_len(&self, len: u64) {
        self.target.store(target(len), Ordering::Relaxed);
        self.fill();
    }

    /// Runs a write; if the disk is full, gives the reserve up and runs it once more.
    pub(crate) fn write<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if is_full(&error) && self.release() => write(),
            other => other,
        }
    }

    /// The same for `bytes` of a snapshot, which may fail: it never takes the last bytes of the log's
    /// disk.
    pub(crate) fn write_snapshot<T>(
        &self,
        bytes: u64,
        write: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        let (log, snapshot) = (
            self.disk.free_space(&self.log)?,
            self.disk.free_space(&self.snapshot)?,
        );
        // For one file system both numbers are the same.
        let left = log.saturating_add(*self.held.lock());
        if log == snapshot && left < bytes.saturating_add(LEFT_TO_LOG) {
            let why = "the rest of the disk is reserved for the log";
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        self.write(write)
    }

    /// The free space. Takes the reserve again where there is room for it.
    pub(crate) fn space(&self) -> io::Result<Space> {
        self.fill();
        let free = self.free()?;
        let reserve = *self.held.lock();
        let low = free < RESERVE_BASE || reserve < self.target.load(Ordering::Relaxed);
        let for_log = self.disk.free_space(&self.log)?.saturating_add(reserve);
        Ok(Space {
            free,
            reserve,
            for_log,
            low,
            exhausted: for_log < RESERVE_BASE,
        })
    }

    fn free(&self) -> io::Result<u64> {
        Ok(self
            .disk
            .free_space(&self.log)?
            .min(self.disk.free_space(&self.snapshot)?))
    }

    fn release(&self) -> bool {
        let mut held = self.held.lock();
        if *held == 0 {
            return false;
        }
        *held = 0;
        let path = self.path.display();
        match self.disk.remove_file(&self.path) {
            Ok(()) => {
                tracing::warn!("the disk is full: gave up the reserve `{path}`; free some space");
                true
            }
            Err(error) => {
                tracing::error!("the disk is full and `{path}` cannot be removed: {error}");
                false
            }
        }
    }

    /// Frees or takes only the difference: freeing and taking all of it keeps the file system's journal
    /// busy, and the log's fsyncs wait for that.
    fn resize(&self, held: u64, target: u64) -> io::Result<()> {
        if held == 0 {
            return self.disk.create(&self.path)?.allocate(target);
        }
        let file = self.disk.open(&self.path)?;
        if target < held {
            file.set_len(target)
        } else {
            file.allocate(target)
        }
    }

    /// Brings the reserve to its size if at least [`RESERVE_BASE`] stays free behind it. Failing
    /// is not an error: `space` then reports that space is low.
    fn fill(&self) {
        let target = self.target.load(Ordering::Relaxed);
        let mut held = self.held.lock();
        if *held == target {
            return;
        }
        let Ok(free) = self.free() else { return };
        if free.saturating_add(*held) < target.saturating_add(RESERVE_BASE) {
            return;
        }
        match self.resize(*held, target) {
            Ok(()) => {
                *held = target;
                self.refused.store(false, Ordering::Relaxed);
            }
            Err(error) => {
                *held = 0;
                // Each call of `space` tries again.
                if !self.refused.swap(true, Ordering::Relaxed) {
                    let path = self.path.display();
                    tracing::warn!("cannot set aside {target} bytes in `{path}`: {error}");
                }
                // A part of it may have been taken; it is better left free.
                let _ = self.disk.remove_file(&self.path);
            }
        }
    }
}

/// Size of the reserve for a snapshot, in steps of a mebibyte: snapshots that differ a little leave
/// it as it is.
fn target(snapshot_len: u64) -> u64 {
    let len = RESERVE_BASE.saturating_add(snapshot_len);
    len.checked_next_multiple_of(1 << 20).unwrap_or(len)
}

/// Whether an error says that there is no room (ENOSPC, EDQUOT).
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
