//! Opening a data directory, and setting a corrupt one aside.
//! Never deletes a file that it does not know; changes nothing before everything was verified.
//! Invariant: one process per directory, by the locks taken first.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex};

use crate::disk::{DirLock, Disk};
use crate::format::Unreadable;
use crate::layout::{
    CONDEMNED_FILE, Layout, Options, QUARANTINE_PREFIX, RESERVE_FILE, is_data_name,
};
use crate::metadata::{self, Found, Metadata, MetadataFiles, Stored};
use crate::peers_file::check_condemned;
use crate::reader::LogReader;
use crate::recovering;
use crate::recovery::{self, Claims, Recovered, TornTail};
use crate::restoring;
use crate::shared::{Inner, LogState, Shared};
use crate::snapshots::{self, FoundSnapshots, SnapshotStore};
use crate::space::Reserve;
use crate::wal::{WalHandle, WalWorker, segment_bytes};
use crate::writer::{LogWriter, Start};
use memkv_metrics::Histogram;

/// A node's data, ready for work.
pub struct Opened {
    /// Queues changes.
    pub wal: WalHandle,
    /// Executes them; must be run or polled.
    pub worker: WalWorker,
    /// Reads the log.
    pub log: LogReader,
    /// The metadata as read.
    pub metadata: Metadata,
    /// The snapshots.
    pub snapshots: SnapshotStore,
    /// The actions of recovery.
    pub recovery: RecoveryReport,
}

/// The findings and actions of recovery.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecoveryReport {
    /// Whether the directory was empty.
    pub fresh: bool,
    /// Live segments read.
    pub segments: usize,
    /// Records that are not purged.
    pub records: u64,
    /// A tail that was never acknowledged and was cut.
    pub torn_tail: Option<TornTail>,
    /// Whether one metadata copy was bad or missing and was written anew.
    pub metadata_repaired: bool,
    /// Damaged snapshots that were set aside (renamed to `*.bad`), since an older one suffices.
    pub bad_snapshots: Vec<PathBuf>,
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works on it.
    #[error(
        "data directory `{path}` is in use ({source}); stop that process, or give this node \
         another directory"
    )]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Names the holder, where known.
        source: io::Error,
    },
    /// Acknowledged data is damaged or missing.
    #[error(
        "`{path}` is corrupt at offset {offset}: {what}. This node must not take part with it: \
         set its data aside and let the cluster replace the node"
    )]
    Corrupt {
        /// The file, or the directory in which a file is missing.
        path: PathBuf,
        /// Offset in the file.
        offset: u64,
        /// The damage.
        what: String,
    },
    /// An intact file is of another format version, or of a Raft group that this build does not know.
    #[error(
        "cannot read `{path}` at offset {offset}: {what}. Nothing was changed: start the memkv version \
         that wrote it"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Offset in the file; 0 also where its name is the reason.
        offset: u64,
        /// Its version or group, and those that this build reads.
        what: String,
    },
    /// Term and vote are lost.
    #[error(
        "metadata in `{path}` {what}: without term and vote this node could vote twice. Put the \
         file back, or set the node's data aside and let the cluster replace the node"
    )]
    Metadata {
        /// The directory.
        path: PathBuf,
        /// The damage.
        what: &'static str,
    },
    /// A restore into it was cut short.
    #[error(
        "`{path}` says that a restore into this directory was cut short, so it holds a part of the data \
         only: restore again into the same directory"
    )]
    Restoring {
        /// The mark.
        path: PathBuf,
    },
    /// A recovery of it was cut short.
    #[error(
        "`{path}` says that a recovery of this directory was cut short: run `memkv_server recover` on it again.          All that it held is still there, or in `{aside}` and its neighbours"
    )]
    Recovering {
        /// The mark.
        path: PathBuf,
        /// Where the metadata are, or will be, set aside.
        aside: PathBuf,
    },
    /// A restore needs a directory without data.
    #[error(
        "`{path}` is there, and a restore needs a directory without data: name another one, or move this \
         one's content away. To put a backup in the place of a running cluster's data, stop its nodes, \
         restore into an empty directory, and let empty nodes join that"
    )]
    NotEmpty {
        /// A file that is there.
        path: PathBuf,
    },
    /// The operating system refused a call.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// The action that failed.
        action: &'static str,
        /// Its file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt {
            path: path.to_path_buf(),
            offset,
            what: what.into(),
        }
    }

    pub(crate) fn foreign(path: &Path, offset: u64, what: Unreadable) -> Self {
        Self::Foreign {
            path: path.to_path_buf(),
            offset,
            what: what.to_string(),
        }
    }
}

/// Opens a data directory, and creates missing directories and files: takes the locks, recovers, and returns
/// everything ready for work. Everything that it returns as present is durable.
///
/// # Errors
/// See [`OpenError`]. After [`OpenError::Corrupt`], [`OpenError::Foreign`] and
/// [`OpenError::Metadata`] nothing was changed.
pub fn open(disk: Arc<dyn Disk>, layout: &Layout, options: Options) -> Result<Opened, OpenError> {
    let locks = Arc::new(lock(&*disk, layout)?);
    recovering::check(&*disk, layout)?;
    restoring::check(&*disk, layout)?;
    open_locked(disk, layout, options, locks)
}

/// The same for a caller that holds the locks.
pub(crate) fn open_locked(
    disk: Arc<dyn Disk>,
    layout: &Layout,
    options: Options,
    locks: Arc<Vec<Box<dyn DirLock>>>,
) -> Result<Opened, OpenError> {
    check_condemned(&*disk, layout)?;
    let names = recovery::list(&*disk, &layout.log)
        .map_err(|error| OpenError::io("list", &layout.log, error))?;
    let (stored, first_valid, mut report) = read_metadata(&*disk, layout, &names)?;
    let claims = Claims {
        store: stored.store,
        generation: stored.generation,
        frontier: stored.value.frontier,
        purged: stored.purged,
    };
    let recovered = recovery::recover(&*disk, &layout.log, names, &claims)?;
    let found = snapshots::find(&*disk, &layout.snapshot, recovered.purged)?;
    report.segments = recovered.segments.len();
    report.torn_tail = recovered.torn.clone();
    report.bad_snapshots = found.bad.clone();
    let parts = Parts {
        disk,
        layout,
        options,
        locks,
        stored,
        first_valid,
        report,
    };
    parts
        .assemble(recovered, found)
        .map_err(|error| OpenError::io("prepare", &layout.log, error))
}

pub(crate) fn lock(disk: &dyn Disk, layout: &Layout) -> Result<Vec<Box<dyn DirLock>>, OpenError> {
    let mut locks = Vec::new();
    for dir in layout.directories() {
        disk.create_dir_all(dir)
            .map_err(|error| OpenError::io("create", dir, error))?;
        locks.push(disk.lock(dir).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked {
                path: dir.to_path_buf(),
                source,
            },
            _ => OpenError::io("lock", dir, source),
        })?);
    }
    Ok(locks)
}

fn read_metadata(
    disk: &dyn Disk,
    layout: &Layout,
    names: &recovery::Names,
) -> Result<(Stored, bool, RecoveryReport), OpenError> {
    let path = &layout.metadata;
    let io = |error| OpenError::io("read metadata in", path, error);
    let refuse = |what| {
        Err(OpenError::Metadata {
            path: path.clone(),
            what,
        })
    };
    match metadata::read(disk, path).map_err(io)? {
        Found::Value(stored, valid) => {
            let metadata_repaired = valid != [true; 2];
            let report = RecoveryReport {
                metadata_repaired,
                ..RecoveryReport::default()
            };
            Ok((*stored, valid[0], report))
        }
        Found::Foreign(copy, what) => Err(OpenError::foreign(&copy, 0, what)),
        Found::Bad => refuse("is damaged in both copies"),
        Found::Nothing => {
            let snapshots = snapshots::any(disk, &layout.snapshot).map_err(io)?;
            if !names.segments.is_empty() || snapshots {
                return refuse("is missing, though there is a log or a snapshot");
            }
            let stored = Stored {
                store: disk.random(),
                ..Stored::default()
            };
            Ok((
                stored,
                false,
                RecoveryReport {
                    fresh: true,
                    ..RecoveryReport::default()
                },
            ))
        }
    }
}

/// Everything that is known once all files are verified and the first write may happen.
struct Parts<'a> {
    disk: Arc<dyn Disk>,
    layout: &'a Layout,
    options: Options,
    locks: Arc<Vec<Box<dyn DirLock>>>,
    stored: Stored,
    first_valid: bool,
    report: RecoveryReport,
}

impl Parts<'_> {
    fn assemble(self, recovered: Recovered, found: FoundSnapshots) -> io::Result<Opened> {
        let Self {
            disk,
            layout,
            options,
            locks,
            mut stored,
            mut first_valid,
            mut report,
        } = self;
        if stored.generation == 0 {
            // Metadata before the first segment: a log without metadata is refused.
            let metadata = MetadataFiles::open(&*disk, &layout.metadata, stored, first_valid)?;
            stored = metadata.stored().clone();
            first_valid = true;
        }
        let reserve = Reserve::new(disk.clone(), layout, found.len());
        let purged = recovered.purged;
        let committed_next = recovered.committed_next;
        let (shared, start, rotate) = share(recovered, &options, stored.store);
        let (dir, sync) = (&layout.log, options.sync);
        let mut log = LogWriter::new(
            disk.clone(),
            dir,
            shared.clone(),
            reserve.clone(),
            sync,
            start,
        )?;
        if rotate {
            log.start_segment()?;
        }
        let reader = LogReader {
            shared: shared.clone(),
        };
        report.records = {
            let inner = shared.inner.lock();
            inner.log.next - inner.log.first
        };
        stored.value.committed_hint = committed_hint(&reader, &stored, committed_next);
        shared.inner.lock().log.committed = stored.value.committed_hint;
        (stored.generation, stored.value.frontier) = log.frontier();
        stored.purged = purged;
        let metadata = MetadataFiles::open(&*disk, &layout.metadata, stored, first_valid)?;
        log.recycle(purged.map_or(0, |id| id.index + 1))?;
        let snapshots = SnapshotStore::new(disk, &layout.snapshot, reserve, &locks, found)?;
        let mut value = metadata.stored().value.clone();
        value.frontier = reader.last();
        Ok(Opened {
            wal: WalHandle {
                shared: shared.clone(),
            },
            worker: WalWorker {
                shared,
                log,
                metadata,
                purged,
                _locks: locks,
            },
            log: reader,
            metadata: value,
            snapshots,
            recovery: report,
        })
    }
}

/// Fills the shared state; returns where the writer starts and whether it needs a new segment.
fn share(recovered: Recovered, options: &Options, store: u64) -> (Arc<Shared>, Start, bool) {
    let mut log = LogState::new(options.cache_bytes);
    let purged_next = recovered.purged.map_or(0, |id| id.index + 1);
    log.purged = recovered.purged;
    log.first = recovered
        .segments
        .first()
        .map_or(0, |s| s.first())
        .max(purged_next);
    log.next = recovered.next;
    (log.written_next, log.durable_next) = (recovered.next, recovered.next);
    let last = recovered.segments.last();
    let rotate = recovered.rotate || last.is_none_or(|last| last.header.synced != options.sync);
    log.segments = recovered.segments.into();
    let shared = Arc::new(Shared {
        inner: Mutex::new(Inner {
            log,
            queue: Vec::new(),
            stopped: None,
            shutdown: false,
            wakeup: None,
        }),
        work: Condvar::new(),
        segment_bytes: AtomicU64::new(segment_bytes(options.max_log_size)),
        fsync: Histogram::of_durations(),
    });
    let start = Start {
        store,
        spares: recovered.spares,
        next_generation: recovered.next_generation,
        last: recovered.last,
        checksum: recovered.checksum,
        obsolete: recovered.obsolete,
    };
    (shared, start, rotate)
}

/// The best hint: the higher of those in the metadata and in the last records, but within the log.
fn committed_hint(
    log: &LogReader,
    stored: &Stored,
    committed_next: u64,
) -> Option<crate::record::LogId> {
    let last = log.last()?;
    let stored = stored.value.committed_hint.map_or(0, |id| id.index + 1);
    let index = stored
        .max(committed_next)
        .min(last.index + 1)
        .checked_sub(1)?;
    log.id_at(index).or(log.purged())
}

/// Sets the contents of a data directory aside, so that the node can start empty and be replaced
/// under a new id: our files move to `quarantine-N/` below each path, nothing is deleted (but the
/// reserve, which has no content), and files of other programs stay. Returns the new directory of the
/// metadata.
///
/// # Errors
/// [`OpenError::Locked`] while a process works on it, [`OpenError::Io`] if a file cannot be moved. The
/// files moved by then stay moved, and [`open`] refuses the rest until it is moved too.
pub fn quarantine(disk: Arc<dyn Disk>, layout: &Layout) -> Result<PathBuf, OpenError> {
    let _locks = lock(&*disk, layout)?;
    let number = next_quarantine(&*disk, layout)?;
    let name = format!("{QUARANTINE_PREFIX}{number}");
    // Metadata comes last: without the others it is refused, and so is any part of this.
    for dir in layout.directories() {
        set_aside(&*disk, dir, &dir.join(&name))
            .map_err(|error| OpenError::io("set aside", dir, error))?;
    }
    Ok(layout.metadata.join(&name))
}

/// The first number under which nothing was set aside yet.
pub(crate) fn next_quarantine(disk: &dyn Disk, layout: &Layout) -> Result<u64, OpenError> {
    let mut number = 1;
    for dir in layout.directories() {
        let names = disk
            .read_dir(dir)
            .map_err(|error| OpenError::io("list", dir, error))?;
        let used = names
            .iter()
            .filter_map(|name| name.strip_prefix(QUARANTINE_PREFIX)?.parse().ok());
        number = used.fold(number, |number: u64, used: u64| {
            number.max(used.saturating_add(1))
        });
    }
    Ok(number)
}

/// Where an earlier [`quarantine`] put the metadata of this directory, if it still lies there.
///
/// # Errors
/// [`OpenError::Io`] if the directory cannot be listed.
pub fn quarantined(disk: &dyn Disk, layout: &Layout) -> Result<Option<PathBuf>, OpenError> {
    let names = disk
        .read_dir(&layout.metadata)
        .map_err(|error| OpenError::io("list", &layout.metadata, error))?;
    let set_aside = names
        .iter()
        .find(|name| name.starts_with(QUARANTINE_PREFIX));
    Ok(set_aside.map(|name| layout.metadata.join(name)))
}

fn set_aside(disk: &dyn Disk, dir: &Path, target: &Path) -> io::Result<()> {
    disk.create_dir_all(target)?;
    let (last, mut names): (Vec<String>, Vec<String>) = disk
        .read_dir(dir)?
        .into_iter()
        .partition(|name| name == CONDEMNED_FILE);
    // The file that condemns the directory is moved last.
    names.extend(last);
    for name in names {
        if name == RESERVE_FILE {
            disk.remove_file(&dir.join(name))?;
        } else if is_data_name(&name) {
            disk.rename(&dir.join(&name), &target.join(&name))?;
        }
    }
    disk.sync_dir(target)?;
    disk.sync_dir(dir)
}
