//! The operating system's files (Linux), through `std` and `rustix`.
//! Never retries a failed sync, never caches anything itself, and never works on a thread that must
//! not wait (`guard`).
//! Invariants: interrupted and short calls are continued; directories are 0700, files 0600.

use std::fs::{DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, IoSlice, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::closing::Handle;
use super::direct::DirectFile;
use super::{DirLock, DirectWriter, Disk, DiskFile, guard};
use crate::layout::LOCK_FILE;

/// Most buffers that one `pwritev` takes (IOV_MAX on Linux).
const BUFFERS_PER_CALL: usize = 1024;

/// The real file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

pub(super) struct RealFile(pub(super) Handle);

struct RealLock(#[allow(dead_code, reason = "held for its flock")] Handle);

impl DirLock for RealLock {}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        guard::check();
        let file = options().create(true).truncate(true).open(path)?;
        Ok(Arc::new(RealFile(file.into())))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        guard::check();
        Ok(Arc::new(RealFile(options().open(path)?.into())))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        guard::check();
        Ok(Arc::new(RealFile(File::open(path)?.into())))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        guard::check();
        if path.is_dir() {
            return Ok(());
        }
        let parent = parent_of(path);
        self.create_dir_all(&parent)?;
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        self.sync_dir(&parent)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        guard::check();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        guard::check();
        std::fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        guard::check();
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        guard::check();
        File::open(path)?.sync_all()
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        guard::check();
        check_owner(dir)?;
        // A file rather than the directory itself: it can name its holder, and flock on a
        // directory fails on NFS.
        let mut file = options()
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK_FILE))?;
        take(&file)?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Box::new(RealLock(file.into())))
    }

    fn lock_unchanged(&self, dir: &Path) -> io::Result<Option<Box<dyn DirLock>>> {
        guard::check();
        let file = match File::open(dir.join(LOCK_FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        take(&file)?;
        Ok(Some(Box::new(RealLock(file.into()))))
    }

    fn free_space(&self, dir: &Path) -> io::Result<u64> {
        guard::check();
        let stat = retry(|| rustix::fs::statvfs(dir))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn random(&self) -> u64 {
        // The standard library seeds these keys from the operating system's generator.
        std::collections::hash_map::RandomState::new()
            .build_hasher()
            .finish()
    }
}

/// Takes the lock that this file is, or names its holder.
fn take(file: &File) -> io::Result<()> {
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    match retry(|| rustix::fs::flock(file, exclusive)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            let mut holder = String::new();
            // The text only helps the reader; without it the message is still right.
            let _ = file.take(20).read_to_string(&mut holder);
            let holder = holder.trim();
            let holder = if holder.is_empty() { "unknown" } else { holder };
            Err(io::Error::new(
                error.kind(),
                format!("held by process {holder}"),
            ))
        }
        other => other,
    }
}

/// Refuses a directory in which another user could put files in the place of the node's: one that every
/// user can write, and one of another user than the node's own or root. Members of the directory's group
/// may be able to write, which is how container platforms hand out volumes; the files are for the owner
/// alone.
fn check_owner(dir: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(dir)?;
    let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if owner != own && owner != 0 {
        return refused(format!(
            "it belongs to user {owner}, and memkv runs as user {own}: run memkv as its owner, or chown it"
        ));
    }
    match metadata.mode() & 0o7777 {
        mode if mode & 0o002 != 0 => refused(format!(
            "every user of this machine can write it (mode {mode:o}): chmod 700 it"
        )),
        _ => Ok(()),
    }
}

fn parent_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.map_err(io::Error::from),
        }
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        guard::check();
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, mut offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        guard::check();
        for group in bufs.chunks(BUFFERS_PER_CALL) {
            let mut group = group.to_vec();
            let mut left: &mut [IoSlice<'_>] = &mut group;
            IoSlice::advance_slices(&mut left, 0);
            while !left.is_empty() {
                let count = retry(|| rustix::io::pwritev(&*self.0, left, offset))?;
                if count == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                offset += count as u64;
                IoSlice::advance_slices(&mut left, count);
            }
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        guard::check();
        let flags = rustix::fs::FallocateFlags::empty();
        match retry(|| rustix::fs::fallocate(&*self.0, flags, 0, len)) {
            // Some file systems cannot reserve: writing zeros does the same, slowly.
            Err(error) if error.raw_os_error() == Some(NOT_SUPPORTED) => {
                super::zero_fill(self, self.len()?, len)
            }
            other => other,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        guard::check();
        // No retry on EINTR or anything else: after an error the kernel may have dropped the
        // dirty pages and a second call would report success (ATC '20, "Can Applications Recover
        // from fsync Failures?").
        Ok(rustix::fs::fdatasync(&*self.0)?)
    }

    fn direct(&self) -> Option<Box<dyn DirectWriter>> {
        guard::check();
        let direct = DirectFile::new(&self.0).ok()?;
        Some(Box::new(direct))
    }

    fn read_ahead(&self) {
        guard::check();
        // Where the file system ignores it, the reader waits for each piece.
        let _ = rustix::fs::fadvise(&*self.0, 0, None, rustix::fs::Advice::WillNeed);
    }

    fn drop_cache(&self) {
        guard::check();
        // A hint: where the file system ignores it, the read is served from memory.
        let _ = rustix::fs::fadvise(&*self.0, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn len(&self) -> io::Result<u64> {
        guard::check();
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        guard::check();
        self.0.set_len(len)
    }
}

/// `EOPNOTSUPP` as the raw number that `io::Error` keeps.
const NOT_SUPPORTED: i32 = rustix::io::Errno::OPNOTSUPP.raw_os_error();
