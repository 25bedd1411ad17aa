//! The snapshot directory: building, receiving, keeping the newest two.
//! Never publishes a snapshot that was not synced and read back; never removes one that may be needed;
//! never overwrites one that is being read.
//!
//! A snapshot is written as a `.part` file, synced, read back from the disk and verified, and only
//! then renamed; after the directory is synced, all but the newest two go. One of those is kept as
//! the spare that the next snapshot overwrites: making and freeing a large file keeps the file
//! system's journal busy, and the log's fsyncs wait for that (70 to 130 ms for a file of 110 MiB on
//! three nodes with one disk). The spare also is the room that the next snapshot needs.
//!
//! Invariant: a file under a snapshot's name was complete and verified once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::OpenError;
use crate::disk::{DirLock, Disk, DiskFile, guard};
use crate::layout::{parse_snapshot_name, snapshot_name};
use crate::record::LogId;
use crate::snapshot_format::{Encoder, MAX_BLOCK, MAX_EXTRA, SnapshotMeta, SnapshotReader, append};
use crate::space::{Reserve, Space};

/// Snapshots kept: the newest, and the one before it in case the newest is damaged.
const KEPT: usize = 2;

/// Dirty bytes after which a growing snapshot is synced. The log's next sync waits for as long as
/// the disk takes to write them: with 8 MiB, and three nodes on one disk, 50 to 75 ms.
const SYNC_EVERY: u64 = 1 << 20;

/// Name of the spare. Like every unfinished snapshot it is removed at the next start.
const SPARE: &str = "spare.part";

/// A complete snapshot.
struct Known {
    meta: SnapshotMeta,
    len: u64,
    /// Shared with its readers.
    file: Arc<dyn DiskFile>,
}

/// A superseded snapshot's file, for the next one to overwrite. No reader has it open.
struct Spare {
    file: Arc<dyn DiskFile>,
    len: u64,
}

/// Files that no user needs any more and that still take space, because they were dropped on a thread that
/// must not wait for a disk, or would be removed there. Its lock is held for moments only.
#[derive(Default)]
struct Dropped {
    /// Unfinished files, open so that nothing is freed before they are removed.
    parts: Vec<(PathBuf, Arc<dyn DiskFile>)>,
    /// Removed ones that were being read: closing the last handle of such a file frees its blocks.
    read: Vec<Arc<dyn DiskFile>>,
}

struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reserve: Arc<Reserve>,
    /// Newest first.
    known: Mutex<Vec<Known>>,
    spare: Mutex<Option<Spare>>,
    dropped: Mutex<Dropped>,
    counter: AtomicU64,
    /// Held by the worker; only an unfinished snapshot prolongs it.
    locks: Weak<Vec<Box<dyn DirLock>>>,
}

/// The snapshots of a node. Cheap to clone.
#[derive(Clone)]
pub struct SnapshotStore(Arc<Inner>);

/// The content of the directory, before anything is changed.
pub(crate) struct FoundSnapshots {
    /// Newest first.
    good: Vec<Known>,
    /// Damaged ones that are newer than every good one.
    pub(crate) bad: Vec<PathBuf>,
    leftovers: Vec<PathBuf>,
}

impl FoundSnapshots {
    pub(crate) fn len(&self) -> u64 {
        self.good.first().map_or(0, |newest| newest.len)
    }
}

/// Whether the directory holds any snapshot, valid or not.
pub(crate) fn any(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    Ok(disk
        .read_dir(dir)?
        .iter()
        .any(|file| parse_snapshot_name(file).is_some()))
}

/// Finds the newest valid snapshot. A damaged one is passed over only if the log reaches back to
/// the next older one.
pub(crate) fn find(
    disk: &dyn Disk,
    dir: &Path,
    purged: Option<LogId>,
) -> Result<FoundSnapshots, OpenError> {
    let io = |error| OpenError::io("read the snapshots in", dir, error);
    let mut found = FoundSnapshots {
        good: Vec::new(),
        bad: Vec::new(),
        leftovers: Vec::new(),
    };
    let mut ids = Vec::new();
    for file in disk.read_dir(dir).map_err(io)? {
        match parse_snapshot_name(&file) {
            Some(Ok(id)) => ids.push(id),
            Some(Err(other)) => return Err(OpenError::foreign(&dir.join(&file), 0, other)),
            None => {}
        }
        if file.ends_with(".part") {
            found.leftovers.push(dir.join(file));
        }
    }
    ids.sort_unstable_by_key(|id| std::cmp::Reverse((id.index, *id)));
    let mut damage = None;
    for id in ids {
        let path = dir.join(snapshot_name(id));
        let read = disk
            .open(&path)
            .and_then(|file| read(file, id, found.good.is_empty()));
        match read {
            Ok(known) => found.good.push(known),
            Err(error) if is_damage(&error) && found.good.is_empty() => {
                damage.get_or_insert(error);
                found.bad.push(path);
            }
            // An older one is not needed; it stays for inspection.
            Err(error) if is_damage(&error) => {}
            Err(error) => return Err(OpenError::io("read snapshot", &path, error)),
        }
    }
    let covered = found.good.first().map(|newest| newest.meta.last.index);
    if purged.is_some_and(|purged| covered.is_none_or(|covered| covered < purged.index)) {
        let start = purged.map_or(0, |purged| purged.index + 1);
        let what = match (damage, found.bad.first()) {
            (Some(error), Some(_)) => {
                format!("{error}, and the log starts at {start}, behind any older snapshot")
            }
            _ => format!("the log starts at {start}, and the snapshot before it is missing"),
        };
        let path = found.bad.first().map_or(dir, PathBuf::as_path);
        return Err(OpenError::corrupt(path, 0, what));
    }
    Ok(found)
}

/// Reads a snapshot's description, and verifies all of it where the `whole` counts.
fn read(file: Arc<dyn DiskFile>, id: LogId, whole: bool) -> io::Result<Known> {
    let mut reader = SnapshotReader::open(file.clone())?;
    if reader.meta().last != id {
        let what = "the snapshot's content does not fit its name";
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    if whole {
        reader.verify()?;
    }
    let (meta, len) = (reader.meta().clone(), reader.raw_len());
    Ok(Known { meta, len, file })
}

/// Verifies all of a snapshot in a directory that is only read.
pub(crate) fn verified(disk: &dyn Disk, path: &Path, id: LogId) -> io::Result<Arc<dyn DiskFile>> {
    let known = read(disk.open_to_read(path)?, id, true)?;
    Ok(known.file)
}

fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

impl SnapshotStore {
    /// Takes the directory over: removes unfinished files, sets damaged ones aside.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        reserve: Arc<Reserve>,
        locks: &Arc<Vec<Box<dyn DirLock>>>,
        found: FoundSnapshots,
    ) -> io::Result<Self> {
        for path in &found.leftovers {
            disk.remove_file(path)?;
        }
        for path in &found.bad {
            let mut aside = path.clone().into_os_string();
            aside.push(".bad");
            disk.rename(path, Path::new(&aside))?;
        }
        if !found.leftovers.is_empty() || !found.bad.is_empty() {
            disk.sync_dir(dir)?;
        }
        let store = Self(Arc::new(Inner {
            disk,
            dir: dir.to_path_buf(),
            reserve,
            known: Mutex::new(found.good),
            spare: Mutex::new(None),
            dropped: Mutex::default(),
            counter: AtomicU64::new(0),
            locks: Arc::downgrade(locks),
        }));
        store.remove_old();
        Ok(store)
    }

    /// The newest snapshot's metadata.
    pub fn latest(&self) -> Option<SnapshotMeta> {
        let known = self.0.known.lock();
        known.first().map(|newest| newest.meta.clone())
    }

    /// Length of the newest snapshot's file in bytes; 0 if there is none.
    pub fn file_len(&self) -> u64 {
        self.0.known.lock().first().map_or(0, |newest| newest.len)
    }

    /// Opens the newest snapshot. The reader keeps working when the snapshot is superseded.
    pub fn open_latest(&self) -> io::Result<Option<SnapshotReader>> {
        let file = self
            .0
            .known
            .lock()
            .first()
            .map(|newest| newest.file.clone());
        file.map(SnapshotReader::open).transpose()
    }

    /// Starts a snapshot. Nothing is on disk before the first block.
    pub fn create(&self, meta: SnapshotMeta) -> SnapshotWriter {
        SnapshotWriter {
            part: self.part("building"),
            meta,
            encoder: None,
        }
    }

    /// Starts receiving the bytes of another node's snapshot.
    pub fn receive(&self) -> SnapshotReceiver {
        SnapshotReceiver {
            part: self.part("incoming"),
        }
    }

    /// The free space of the disks. Takes the reserve again where there is room for it, and frees files
    /// that were dropped on a thread that must not wait for a disk.
    pub fn space(&self) -> io::Result<Space> {
        self.tidy();
        self.0.reserve.space()
    }

    /// Frees dropped files. A file that cannot be removed now is removed at the next start.
    fn tidy(&self) {
        // Without the lock the directory may belong to another process.
        let Some(_locks) = self.0.locks.upgrade() else {
            return;
        };
        let Dropped { parts, read } = std::mem::take(&mut *self.0.dropped.lock());
        for (path, _) in &parts {
            let _ = self.0.disk.remove_file(path);
        }
        let still_read = read.into_iter().filter(|file| Arc::strong_count(file) > 1);
        let mut still_read: Vec<_> = still_read.collect();
        self.0.dropped.lock().read.append(&mut still_read);
        if !parts.is_empty() {
            drop(parts);
            self.reserve_room();
        }
    }

    fn part(&self, kind: &str) -> Part {
        let number = self.0.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.0.dir.join(format!("{kind}-{number}.part"));
        let locks = self.0.locks.upgrade();
        Part {
            store: self.clone(),
            path,
            file: None,
            len: 0,
            unsynced: 0,
            locks,
        }
    }

    /// Publishes a verified file under its name.
    fn adopt(&self, part: &Path, new: Known) -> io::Result<()> {
        let Inner {
            disk, dir, known, ..
        } = &*self.0;
        // Without the lock: a caller that asks for the newest must not wait for the disk.
        disk.rename(part, &dir.join(snapshot_name(new.meta.last)))?;
        disk.sync_dir(dir)?;
        {
            let mut known = known.lock();
            known.retain(|other| other.meta.last != new.meta.last);
            known.push(new);
            known.sort_unstable_by_key(|known| {
                std::cmp::Reverse((known.meta.last.index, known.meta.last))
            });
        }
        self.remove_old();
        self.reserve_room();
        Ok(())
    }

    /// Reserves the room that the next snapshot needs beyond the spare.
    fn reserve_room(&self) {
        let spare = self.0.spare.lock().as_ref().map_or(0, |spare| spare.len);
        let room = self.file_len().saturating_sub(spare);
        self.0.reserve.set_snapshot_len(room);
    }

    /// Removes all but the newest, or makes one the spare. A file that cannot be removed now is removed at
    /// the next start.
    fn remove_old(&self) {
        let Inner {
            disk,
            dir,
            known,
            spare,
            ..
        } = &*self.0;
        let old = {
            let mut known = known.lock();
            let kept = known.len().min(KEPT);
            known.split_off(kept)
        };
        if old.is_empty() {
            return;
        }
        let mut spare = spare.lock();
        let mut candidate = None;
        for Known { meta, len, file } in old {
            let path = dir.join(snapshot_name(meta.last));
            let unread = Arc::strong_count(&file) == 1;
            if !unread {
                self.0.dropped.lock().read.push(file.clone());
            }
            let removed = if unread && spare.is_none() && candidate.is_none() {
                candidate = Some(Spare { file, len });
                disk.rename(&path, &dir.join(SPARE))
            } else {
                disk.remove_file(&path)
            };
            if let Err(error) = removed {
                tracing::warn!(
                    "cannot remove old snapshot {}: {error}",
                    snapshot_name(meta.last)
                );
                candidate = None;
            }
        }
        match disk.sync_dir(dir) {
            // Not before this: a spare must not be overwritten while a crash may give it its old name
            // back.
            Ok(()) => *spare = spare.take().or(candidate),
            Err(error) => tracing::warn!("cannot sync `{}`: {error}", dir.display()),
        }
    }

    /// The file for a new snapshot: the spare if there is one. It may be longer than needed.
    fn file_for(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.tidy();
        let Inner {
            disk,
            dir,
            spare,
            reserve,
            ..
        } = &*self.0;
        let Some(spare) = spare.lock().take() else {
            return reserve.write(|| disk.create(path));
        };
        disk.rename(&dir.join(SPARE), path)?;
        Ok(spare.file)
    }
}

/// An unfinished file. It is removed when dropped, or soon after on a thread that must not wait for a
/// disk.
struct Part {
    store: SnapshotStore,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    len: u64,
    unsynced: u64,
    /// None once the worker has ended: another process may have the directory by then.
    locks: Option<Arc<Vec<Box<dyn DirLock>>>>,
}

impl Part {
    fn write(&mut self, pieces: &[&[u8]]) -> io::Result<()> {
        if self.locks.is_none() {
            return Err(io::Error::other("the data directory is closed"));
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(self.store.file_for(&self.path)?),
        };
        let offset = self.len;
        let reserve = &self.store.0.reserve;
        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        let written = reserve
            .write_snapshot(bytes, || append(&**file, offset, pieces))
            .map_err(|error| {
                let path = self.path.display();
                io::Error::new(
                    error.kind(),
                    format!("cannot write snapshot `{path}`: {error}"),
                )
            })?;
        self.len += written;
        self.unsynced += written;
        if self.unsynced >= SYNC_EVERY {
            file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Cuts a spare's old bytes behind the end, syncs, and reads everything back from the disk.
    fn verify(&self, file: &Arc<dyn DiskFile>) -> io::Result<SnapshotMeta> {
        if file.len()? > self.len {
            file.set_len(self.len)?;
        }
        file.sync_data()?;
        file.drop_cache();
        let mut reader = SnapshotReader::open(file.clone())?;
        reader.verify()?;
        Ok(reader.meta().clone())
    }

    /// Publishes the snapshot, if it reads back as it was written.
    fn commit(mut self) -> io::Result<SnapshotMeta> {
        let Some(file) = self.file.take() else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the snapshot is empty",
            ));
        };
        let result = self.verify(&file).and_then(|meta| {
            let known = Known {
                meta: meta.clone(),
                len: self.len,
                file: file.clone(),
            };
            self.store.adopt(&self.path, known)?;
            Ok(meta)
        });
        if result.is_err() {
            self.file = Some(file);
        }
        result
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let Some(file) = self.file.take() else { return };
        let path = std::mem::take(&mut self.path);
        self.store.0.dropped.lock().parts.push((path, file));
        if guard::may_wait() {
            self.store.tidy();
        }
    }
}

/// Writes a snapshot. Dropping it without `finish` leaves nothing behind.
pub struct SnapshotWriter {
    part: Part,
    meta: SnapshotMeta,
    encoder: Option<Encoder>,
}

impl SnapshotWriter {
    /// Writes a block of at most [`MAX_BLOCK`] bytes. Blocks of 64 KiB and more are efficient.
    ///
    /// # Errors
    /// Of the disk, or [`io::ErrorKind::InvalidInput`] if a length is above its limit.
    pub fn block(&mut self, content: &[u8]) -> io::Result<()> {
        if content.len() > MAX_BLOCK {
            let what = format!(
                "a block has {} bytes; at most {MAX_BLOCK} fit",
                content.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let header = self.encoder()?.block(content);
        self.part.write(&[&header, content])
    }

    /// Makes the snapshot durable: when this returns, a restart finds it (unless there is a newer one).
    pub fn finish(mut self) -> io::Result<()> {
        self.encoder()?;
        let end = self.encoder.take().map(Encoder::finish).unwrap_or_default();
        self.part.write(&[&end])?;
        self.part.commit().map(|_| ())
    }

    fn encoder(&mut self) -> io::Result<&mut Encoder> {
        if self.meta.extra.len() > MAX_EXTRA {
            let what = format!(
                "extra has {} bytes; at most {MAX_EXTRA}",
                self.meta.extra.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        if self.encoder.is_none() {
            let (encoder, start) = Encoder::new(&self.meta);
            self.part.write(&[&start])?;
            return Ok(self.encoder.insert(encoder));
        }
        self.encoder
            .as_mut()
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

/// Takes a snapshot from another node. Dropping it without `finish` leaves nothing behind.
pub struct SnapshotReceiver {
    part: Part,
}

impl SnapshotReceiver {
    /// Writes the next piece; `offset` must be where the last one ended.
    ///
    /// # Errors
    /// Of the disk, or [`io::ErrorKind::InvalidInput`] for a gap or an overlap.
    pub fn write_raw(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let expected = self.part.len;
        if offset != expected {
            let what = format!("snapshot piece at {offset}, but {expected} is next");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.part.write(&[bytes])
    }

    /// Verifies everything that was received and makes it durable.
    ///
    /// # Errors
    /// Of the disk, or [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] if the received
    /// bytes are not a complete snapshot; then nothing is kept.
    pub fn finish(self) -> io::Result<SnapshotMeta> {
        self.part.commit()
    }
}
