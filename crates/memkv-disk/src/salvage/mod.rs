//! Reads a stopped directory as it is, however much of it is damaged: the newest snapshot that is whole, and the
//! records behind it up to the first that is missing or damaged.
//!
//! Never changes a byte, a name or a time of it, and never goes on behind a gap. Invariants: what it gives out is
//! the beginning of a log that this directory held, with nothing left out; everything that it passes over is named
//! with file and offset; while it lives no node begins to work on the directory, if that has a lock file.

mod log;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::OpenError;
use crate::disk::{DirLock, Disk, DiskFile};
use crate::layout::{
    CONDEMNED_FILE, Layout, QUARANTINE_PREFIX, RESTORING_FILE, parse_snapshot_name, snapshot_name,
};
use crate::metadata::{self, Found, Metadata, Stored};
use crate::peers_file::MAX_REASON;
use crate::record::{LogId, Record};
use crate::recovering;
use crate::recovery::Claims;
use crate::snapshot_format::SnapshotReader;
use crate::snapshots;

/// A part of a directory that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The file, or the directory in which one is missing.
    pub path: PathBuf,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

impl Flaw {
    fn new(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self {
            path: path.to_path_buf(),
            offset,
            what: what.into(),
        }
    }

    fn io(path: &Path, error: &io::Error) -> Self {
        Self::new(path, 0, format!("it cannot be read: {error}"))
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, what) = (self.path.display(), &self.what);
        write!(f, "{path}, offset {}: {what}", self.offset)
    }
}

impl From<OpenError> for Flaw {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Corrupt { path, offset, what }
            | OpenError::Foreign { path, offset, what } => Self { path, offset, what },
            OpenError::Io { path, source, .. } => Self::io(&path, &source),
            other => Self::new(Path::new(""), 0, other.to_string()),
        }
    }
}

/// A whole snapshot's last entry, and its file.
type Snapshot = (LogId, Arc<dyn DiskFile>);

/// A stopped directory, open to be read.
pub struct Salvage {
    /// The metadata, unless it is damaged or missing.
    pub metadata: Option<Metadata>,
    /// Why a node has marked the directory as one that must not be used any more.
    pub condemned: Option<String>,
    /// The highest index that is known to be committed, whether it is here or not; 0 if none is known.
    pub committed: u64,
    /// Why the records end where they do, unless that is the log's own end.
    pub stopped: Option<Flaw>,
    /// Everything else that was passed over, in the order in which it was met.
    pub passed_over: Vec<Flaw>,
    /// Whether all of the directories are locked. One without a lock file cannot be: no process has worked in it.
    pub locked: bool,
    snapshot: Option<Snapshot>,
    log: log::Log,
    _locks: Vec<Box<dyn DirLock>>,
}

impl Layout {
    /// The contents that were set aside as number `number`.
    #[must_use]
    pub fn set_aside(&self, number: u64) -> Self {
        let name = format!("{QUARANTINE_PREFIX}{number}");
        Self {
            log: self.log.join(&name),
            metadata: self.metadata.join(&name),
            snapshot: self.snapshot.join(&name),
        }
    }
}

impl Salvage {
    /// Opens a directory on which no process works. Directories that do not exist count as empty.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if a process works on it; [`OpenError::Restoring`] and [`OpenError::Recovering`] if
    /// it holds a part only; [`OpenError::Foreign`] if its metadata are of another format; [`OpenError::Io`] if it cannot be
    /// listed. Damage is no error.
    pub fn open(disk: &dyn Disk, layout: &Layout) -> Result<Self, OpenError> {
        let mut locks = Vec::new();
        let mut locked = true;
        for dir in layout.directories() {
            match disk.lock_unchanged(dir) {
                Ok(Some(lock)) => locks.push(lock),
                Ok(None) => locked = false,
                Err(source) if source.kind() == io::ErrorKind::WouldBlock => {
                    let path = dir.to_path_buf();
                    return Err(OpenError::Locked { path, source });
                }
                Err(error) => return Err(OpenError::io("lock", dir, error)),
            }
        }
        recovering::check(disk, layout)?;
        let names = list(disk, &layout.metadata)?;
        if names.iter().any(|name| name == RESTORING_FILE) {
            let path = layout.metadata.join(RESTORING_FILE);
            return Err(OpenError::Restoring { path });
        }
        let condemned = names.iter().any(|name| name == CONDEMNED_FILE);
        let condemned = condemned.then(|| reason(disk, &layout.metadata.join(CONDEMNED_FILE)));
        let mut passed_over = Vec::new();
        let stored = read_metadata(disk, &layout.metadata, &mut passed_over)?;
        let flaws = passed_over.len();
        let snapshot = newest(disk, &layout.snapshot, &mut passed_over)?;
        let passed_snapshot = passed_over.len() > flaws;
        let claims = stored.as_ref().map(|stored| Claims {
            store: stored.store,
            generation: stored.generation,
            frontier: stored.value.frontier,
            purged: stored.purged,
        });
        list(disk, &layout.log)?;
        let covered = log::Covered {
            last: snapshot.as_ref().map(|(last, _)| *last),
            is_newest: !passed_snapshot,
        };
        let mut log = log::Log::read(disk, &layout.log, claims.as_ref(), &covered)?;
        let metadata = stored.map(|stored| stored.value);
        let hint = metadata
            .as_ref()
            .and_then(|metadata| metadata.committed_hint);
        // What is in a snapshot was applied, and what was purged is in one.
        let known = [hint, covered.last, log.purged];
        let known = known.into_iter().flatten().map(|id| id.index);
        passed_over.append(&mut log.passed_over);
        Ok(Self {
            condemned,
            committed: known.fold(log.committed, u64::max),
            stopped: log.stopped.take(),
            passed_over,
            locked,
            metadata,
            snapshot,
            log,
            _locks: locks,
        })
    }

    /// Whether there is neither a snapshot nor a record.
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.log.is_empty()
    }

    /// The snapshot that the records follow.
    ///
    /// # Errors
    /// Of the disk.
    pub fn snapshot(&self) -> io::Result<Option<SnapshotReader>> {
        let file = self.snapshot.as_ref().map(|(_, file)| file.clone());
        file.map(SnapshotReader::open).transpose()
    }

    /// The next records in their order, about a mebibyte of them; none after the last.
    ///
    /// # Errors
    /// The flaw at which they end, if they cannot be read a second time.
    pub fn next_records(&mut self) -> Result<Vec<Record>, Flaw> {
        self.log.next()
    }
}

/// The names in a directory; none if it does not exist.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, OpenError> {
    match disk.read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|error| OpenError::io("list", dir, error)),
    }
}

/// The text of the file that condemns a directory.
fn reason(disk: &dyn Disk, path: &Path) -> String {
    let read = || {
        let mut text = vec![0; MAX_REASON];
        let len = disk.open_to_read(path)?.read_at(0, &mut text)?;
        text.truncate(len);
        Ok::<_, io::Error>(String::from_utf8_lossy(&text).into_owned())
    };
    read().unwrap_or_else(|error| format!("the reason cannot be read: {error}"))
}

/// The metadata, unless they are damaged or missing.
fn read_metadata(
    disk: &dyn Disk,
    dir: &Path,
    flaws: &mut Vec<Flaw>,
) -> Result<Option<Stored>, OpenError> {
    let what = match metadata::read_with(dir, &|path| disk.open_to_read(path)) {
        Ok(Found::Value(stored, valid)) => {
            if valid != [true; 2] {
                let what = "one of the two copies of the metadata is damaged or missing";
                flaws.push(Flaw::new(dir, 0, what));
            }
            return Ok(Some(*stored));
        }
        Ok(Found::Foreign(copy, what)) => return Err(OpenError::foreign(&copy, 0, what)),
        Ok(Found::Bad) => "the metadata are damaged in both copies".to_owned(),
        Ok(Found::Nothing) => "there are no metadata".to_owned(),
        Err(error) => format!("the metadata cannot be read: {error}"),
    };
    flaws.push(Flaw::new(dir, 0, what));
    Ok(None)
}

/// The newest snapshot of which every byte is whole, and its last entry.
fn newest(
    disk: &dyn Disk,
    dir: &Path,
    flaws: &mut Vec<Flaw>,
) -> Result<Option<Snapshot>, OpenError> {
    let mut ids = Vec::new();
    for name in list(disk, dir)? {
        match parse_snapshot_name(&name) {
            Some(Ok(id)) => ids.push(id),
            Some(Err(other)) => flaws.push(OpenError::foreign(&dir.join(&name), 0, other).into()),
            None => {}
        }
    }
    ids.sort_unstable_by_key(|id| std::cmp::Reverse((id.index, *id)));
    for id in ids {
        let path = dir.join(snapshot_name(id));
        match snapshots::verified(disk, &path, id) {
            Ok(file) => return Ok(Some((id, file))),
            Err(error) => flaws.push(Flaw::new(&path, 0, error.to_string())),
        }
    }
    Ok(None)
}
