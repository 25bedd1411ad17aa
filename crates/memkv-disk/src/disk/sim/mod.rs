//! A simulated disk: in memory, deterministic, and able to fail in every way that a disk does.
//! Never reads a clock or real randomness; the same calls with the same seed do the same.
//!
//! A file has durable contents, the contents that a reader sees, and the writes between the two. A power cut
//! keeps an arbitrary subset of the unsynced sectors (512 bytes) and of the unsynced changes to
//! directories, and every handle of the old process is dead from then on. A failed sync drops the
//! writes that it covered, but readers still see them (as on Linux), until the cache is dropped or the
//! power is cut.
//!
//! Simplified: creating a directory is durable at once, and changes of one file's length are kept
//! or lost like its sectors.
//!
//! Invariants: nothing synced is ever lost, except by [`SimDisk::flip_bit`]; iteration is in order
//! of names and times only.

mod state;
mod strike;

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::direct::BLOCK;
use super::{DirLock, DirectWriter, Disk, DiskFile};
use state::{Change, Direct, File, Name, Random, State, not_found, power_lost};
use strike::Target;
pub use strike::{Step, Strike};

/// Kinds of operations that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Reading contents.
    Read,
    /// Writing contents.
    Write,
    /// Syncing contents or a directory.
    Sync,
}

/// Counts of operations and faults, for guards against tests that prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Operations that change something, the unit of [`SimDisk::crash_at_op`].
    pub operations: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Successful syncs of files and directories.
    pub syncs: u64,
    /// Successful direct writes, each of which counts as a sync, too.
    pub direct: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Unsynced sectors that power cuts kept.
    pub sectors_kept: u64,
    /// Unsynced sectors that power cuts lost.
    pub sectors_lost: u64,
    /// Unsynced directory changes that power cuts lost.
    pub names_lost: u64,
    /// Reads, writes and syncs that were made to fail.
    pub errors: u64,
    /// Writes refused because the disk was full.
    pub full: u64,
    /// Bits flipped.
    pub flips: u64,
    /// Operations on a thread that must not wait for a disk.
    pub forbidden: u64,
}

/// A disk in memory. Clones share it; a clone belongs to the process that it was made in.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    process: u64,
}

impl SimDisk {
    /// An empty disk. Its support of direct writes depends on the seed: a third of all disks support
    /// them, a third refuse each, and a third offer none.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State::new(seed))),
            process: 0,
        }
    }

    /// Cuts the power, and returns the disk as the next process finds it. The kept part of the unsynced
    /// changes is drawn from `seed`. Faults that were set are cleared, but the capacity
    /// and the failure rates stay.
    #[must_use = "the old handle is dead"]
    pub fn crash(&self, seed: u64) -> Self {
        let mut state = self.state.lock();
        state.lose_power(&mut Random(seed));
        self.next_process(&mut state)
    }

    /// Ends the process but not the machine: writes stay readable, and unsynced.
    #[must_use = "the old handle is dead"]
    pub fn kill(&self) -> Self {
        let mut state = self.state.lock();
        self.next_process(&mut state)
    }

    /// A disk of its own with the present contents of this one, like an image that is restored later.
    /// This one stays in use.
    #[must_use = "it is the copy"]
    pub fn image(&self) -> Self {
        let mut state = self.state.lock().clone();
        state.start_process();
        Self {
            process: state.process,
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn next_process(&self, state: &mut State) -> Self {
        state.start_process();
        Self {
            state: self.state.clone(),
            process: state.process,
        }
    }

    /// Cuts the power during the `n`th changing operation from the beginning (see
    /// [`Self::op_count`]): it reaches memory, but is not durable, and everything fails until
    /// [`Self::crash`].
    pub fn crash_at_op(&self, n: u64) {
        self.state.lock().crash_at = Some(n);
    }

    /// Cuts the power like [`Self::crash_at_op`], during the first step that `strike` selects. An unsynced
    /// write may then also end within a sector.
    /// [`Self::crash`] and [`Self::kill`] take that back; `None` does, too.
    pub fn crash_when(&self, strike: Option<Strike>) {
        self.state.lock().strike = strike;
    }

    /// Changing operations so far.
    pub fn op_count(&self) -> u64 {
        self.state.lock().stats.operations
    }

    /// Whether [`Self::crash_at_op`] has struck.
    pub fn is_powered(&self) -> bool {
        self.state.lock().powered
    }

    /// The counts so far.
    pub fn stats(&self) -> Stats {
        self.state.lock().stats
    }

    /// Makes the next operation of a kind fail; several calls queue up.
    pub fn fail_next(&self, op: Op, kind: io::ErrorKind) {
        self.state
            .lock()
            .fail_next
            .entry(op)
            .or_default()
            .push(kind);
    }

    /// Takes back the queued failures of [`Self::fail_next`].
    pub fn fail_no_more(&self) {
        self.state.lock().fail_next.clear();
    }

    /// Makes operations of a kind fail at random, at a rate per million.
    pub fn fail_rate(&self, op: Op, per_million: u32) {
        self.state.lock().fail_rate.insert(op, per_million);
    }

    /// Refuses direct writes with an error of this kind, after a number of further ones.
    pub fn refuse_direct(&self, kind: io::ErrorKind, after: u64) {
        self.state.lock().direct = Direct::Refused { kind, after };
    }

    /// Lets each read take up to so long from now on; see [`Self::take_read_time`].
    pub fn slow_reads(&self, most: Duration) {
        self.state.lock().slowest_read = most;
    }

    /// The longest time that a read has taken since the last call of this. Reads return at once: the
    /// caller has to let that time pass before it uses their results.
    pub fn take_read_time(&self) -> Duration {
        std::mem::take(&mut self.state.lock().read_time)
    }

    /// Bounds the bytes of all files together, as if another program used the rest.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        let mut state = self.state.lock();
        state.capacity = bytes;
        if let Some(bytes) = bytes {
            state.settle(bytes);
        }
    }

    /// Flips one bit of a file, on disk and in the cache. False if there is no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u32) -> bool {
        let mut state = self.state.lock();
        let Some(number) = state.names.get(path).copied() else {
            return false;
        };
        let Some(file) = state.files.get_mut(&number) else {
            return false;
        };
        let mut flipped = false;
        for content in [&mut file.durable, &mut file.seen] {
            if let Some(byte) = content.get_mut(offset as usize) {
                *byte ^= 1 << (bit % 8);
                flipped = true;
            }
        }
        state.stats.flips += u64::from(flipped);
        flipped
    }

    /// All files that are visible, with their lengths (reserved space excluded), in order.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let state = self.state.lock();
        let files = state.names.iter();
        files
            .map(|(path, number)| (path.clone(), state.files[number].seen.len() as u64))
            .collect()
    }

    /// An independent copy of the disk as it is, for the next process: for trying many faults on
    /// one state.
    pub fn fork(&self) -> Self {
        let mut state = self.state.lock().clone();
        state.start_process();
        let process = state.process;
        Self {
            state: Arc::new(Mutex::new(state)),
            process,
        }
    }

    /// Runs an operation that changes something. A power cut during it comes after it reached
    /// memory, but before a sync made anything durable.
    fn change<T>(
        &self,
        step: Step,
        target: Target<'_>,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        state.check(self.process)?;
        state.note_waiting();
        state.stats.operations += 1;
        let is_due = state.crash_at == Some(state.stats.operations);
        let is_struck = state.is_struck(step, target);
        let strikes = is_due || is_struck;
        state.tears |= is_struck;
        if strikes {
            state.powered = false;
        }
        if strikes && step == Step::Sync {
            return Err(power_lost());
        }
        if let Some(error) = step.fails_as().and_then(|kind| state.fault(kind)) {
            return Err(error);
        }
        let result = act(&mut state);
        if strikes { Err(power_lost()) } else { result }
    }

    fn look<T>(&self, act: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        state.check(self.process)?;
        state.note_waiting();
        act(&mut state)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.change(Step::Create, Target::Path(path), |state| {
            let directory = path.parent().unwrap_or(Path::new(""));
            if !state.directories.iter().any(|known| known == directory) {
                return Err(not_found(directory));
            }
            if let Some(&number) = state.names.get(path) {
                let file = state.file(number)?;
                file.seen.clear();
                file.allocated = 0;
                file.pending.push(Change::SetLen(0));
                return Ok(number);
            }
            let number = state.next_file;
            state.next_file += 1;
            state.files.insert(number, File::default());
            let name = Name::Link(path.to_path_buf(), number);
            name.apply(&mut state.names);
            state.pending_names.push(name);
            Ok(number)
        })?;
        Ok(Arc::new(SimFile::open(self, number)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let number = self.look(|state| {
            state
                .names
                .get(path)
                .copied()
                .ok_or_else(|| not_found(path))
        })?;
        Ok(Arc::new(SimFile::open(self, number)?))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.look(|state| {
            if !state.directories.iter().any(|known| known == path) {
                state.directories.push(path.to_path_buf());
            }
            Ok(())
        })
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        self.look(|state| {
            if !state.directories.iter().any(|known| known == path) {
                return Err(not_found(path));
            }
            let files = state.names.keys();
            let mut all: Vec<_> = files
                .chain(&state.directories)
                .filter(|entry| entry.parent() == Some(path))
                .filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned()))
                .collect();
            all.sort_unstable();
            Ok(all)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Step::Rename, Target::Path(from), |state| {
            let number = state
                .names
                .get(from)
                .copied()
                .ok_or_else(|| not_found(from))?;
            let name = Name::Rename(from.to_path_buf(), to.to_path_buf(), number);
            name.apply(&mut state.names);
            state.pending_names.push(name);
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(Step::Remove, Target::Path(path), |state| {
            if !state.names.contains_key(path) {
                return Err(not_found(path));
            }
            let name = Name::Unlink(path.to_path_buf());
            name.apply(&mut state.names);
            state.pending_names.push(name);
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(Step::Sync, Target::Path(path), |state| {
            let pending = std::mem::take(&mut state.pending_names);
            let (done, rest): (Vec<_>, Vec<_>) = pending
                .into_iter()
                .partition(|name| name.directory() == Some(path));
            for name in &done {
                name.apply(&mut state.durable_names);
            }
            state.pending_names = rest;
            state.stats.syncs += 1;
            state.collect();
            Ok(())
        })
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        self.look(|state| {
            if state.locks.iter().any(|held| held == dir) {
                return Err(io::Error::new(
                    io::ErrorKind::WouldBlock,
                    "held by another handle",
                ));
            }
            state.locks.push(dir.to_path_buf());
            Ok(())
        })?;
        Ok(Box::new(SimLock {
            disk: self.clone(),
            dir: dir.to_path_buf(),
        }))
    }

    fn lock_unchanged(&self, dir: &Path) -> io::Result<Option<Box<dyn DirLock>>> {
        self.lock(dir).map(Some)
    }

    fn free_space(&self, _dir: &Path) -> io::Result<u64> {
        self.look(|state| {
            let capacity = state.capacity.unwrap_or(u64::MAX);
            Ok(capacity.saturating_sub(state.used()))
        })
    }

    fn random(&self) -> u64 {
        self.state.lock().random.next()
    }
}

struct SimLock {
    disk: SimDisk,
    dir: PathBuf,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.process == self.disk.process {
            state.locks.retain(|held| held != &self.dir);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    number: u64,
}

impl SimFile {
    fn open(disk: &SimDisk, number: u64) -> io::Result<Self> {
        disk.look(|state| {
            state.file(number)?.handles += 1;
            Ok(())
        })?;
        Ok(Self {
            disk: disk.clone(),
            number,
        })
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.process != self.disk.process {
            return;
        }
        if let Ok(file) = state.file(self.number) {
            file.handles -= 1;
            if file.handles == 0 {
                state.collect();
            }
        }
    }
}

/// Writes past the cache: its own writes are durable, and no other write to the file.
struct SimDirect(SimFile);

impl SimDirect {
    fn write_durably(&self, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let SimFile { disk, number } = &self.0;
        let is_clean = disk.look(|state| Ok(state.file(*number)?.pending.is_empty()))?;
        assert!(is_clean, "a direct write to a file that has unsynced ones");
        self.0.write_at(offset, bufs)?;
        self.0.sync_data()?;
        disk.state.lock().stats.direct += 1;
        Ok(())
    }
}

impl DirectWriter for SimDirect {
    fn write(&mut self, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let SimFile { disk, .. } = &self.0;
        disk.look(|state| state.direct.answer())?;
        let end = offset + bufs.iter().map(|buf| buf.len() as u64).sum::<u64>();
        let zeros = vec![0; (end.next_multiple_of(BLOCK as u64) - end) as usize];
        let mut bufs = bufs.to_vec();
        bufs.push(IoSlice::new(&zeros));
        self.write_durably(offset, &bufs)
    }

    fn zero(&mut self, from: u64, to: u64) -> io::Result<()> {
        let block = BLOCK as u64;
        let (from, to) = (from.next_multiple_of(block), to.next_multiple_of(block));
        self.0.disk.look(|state| state.direct.answer())?;
        let zeros = vec![0; to.saturating_sub(from) as usize];
        self.write_durably(from, &[IoSlice::new(&zeros)])
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.disk.look(|state| {
            if let Some(error) = state.fault(Op::Read) {
                return Err(error);
            }
            state.take_time();
            let file = state.file(self.number)?;
            let count = (buf.len() as u64).min(file.len().saturating_sub(offset)) as usize;
            let start = (offset as usize).min(file.seen.len());
            let written = count.min(file.seen.len() - start);
            buf[..written].copy_from_slice(&file.seen[start..start + written]);
            buf[written..count].fill(0);
            Ok(count)
        })
    }

    fn write_at(&self, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(bufs.iter().map(|buf| buf.len()).sum());
        for buf in bufs {
            bytes.extend_from_slice(buf);
        }
        self.disk
            .change(Step::Write, Target::File(self.number), |state| {
                state.grow(self.number, offset + bytes.len() as u64)?;
                state.stats.bytes_written += bytes.len() as u64;
                let file = state.file(self.number)?;
                let change = Change::Write(offset, bytes);
                change.apply(&mut file.seen);
                file.pending.push(change);
                Ok(())
            })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.disk
            .change(Step::Write, Target::File(self.number), |state| {
                state.grow(self.number, len)?;
                let file = state.file(self.number)?;
                file.allocated = file.allocated.max(len);
                Ok(())
            })
    }

    fn sync_data(&self) -> io::Result<()> {
        let result = self
            .disk
            .change(Step::Sync, Target::File(self.number), |state| {
                state.stats.syncs += 1;
                let file = state.file(self.number)?;
                for change in std::mem::take(&mut file.pending) {
                    change.apply(&mut file.durable);
                }
                Ok(())
            });
        let mut state = self.disk.state.lock();
        if result.is_err() && state.check(self.disk.process).is_ok() {
            // As on Linux: the pages are clean now, and never reach the disk (ATC '20).
            let file = state.file(self.number)?;
            file.pending.clear();
            file.dropped = true;
        }
        result
    }

    fn direct(&self) -> Option<Box<dyn DirectWriter>> {
        let direct = self.disk.look(|state| Ok(state.direct)).ok()?;
        if direct == Direct::Absent {
            return None;
        }
        let file = Self::open(&self.disk, self.number).ok()?;
        Some(Box::new(SimDirect(file)))
    }

    fn read_ahead(&self) {}

    fn drop_cache(&self) {
        let mut state = self.disk.state.lock();
        if let Ok(file) = state.file(self.number) {
            file.drop_cache();
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.look(|state| Ok(state.file(self.number)?.len()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk
            .change(Step::Write, Target::File(self.number), |state| {
                state.grow(self.number, len)?;
                let file = state.file(self.number)?;
                file.allocated = file.allocated.min(len);
                let change = Change::SetLen(len);
                change.apply(&mut file.seen);
                file.pending.push(change);
                Ok(())
            })
    }
}
