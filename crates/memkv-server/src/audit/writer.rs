//! The thread that writes the lines. It opens the file anew when another one has its name, so a tool
//! that renames log files needs no signal. Lines that do not fit into its queue are lost and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use memkv_node::seldom::Seldom;

/// Lines in the queue: some seconds of all kinds at their limits, and a megabyte at most.
const QUEUED: usize = 1024;

/// How often the thread looks whether the file was renamed, and makes its lines durable.
const LOOK: Duration = Duration::from_secs(1);

/// Longest wait for the last lines when the process ends.
const FINISH: Duration = Duration::from_secs(1);

static NOT_WRITTEN: Seldom = Seldom::new();

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The file cannot be opened.
    #[error("audit_file: cannot write {}: {source}; this user must be able to", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its permissions are too wide.
    #[error(
        "audit_file: other users can read or write {} (mode {mode:o}): chmod 600 it", path.display()
    )]
    Wide {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is a directory, a device, or something else.
    #[error("audit_file: {} is not a plain file", path.display())]
    NotAFile {
        /// What.
        path: PathBuf,
    },
    /// The system gives no thread.
    #[error("audit_file: the operating system refuses a thread: {0}")]
    Thread(io::Error),
}

enum Order {
    Line(Vec<u8>),
    /// All lines so far must be durable before the answer.
    Finish(SyncSender<()>),
}

/// The queue to the thread.
#[derive(Debug)]
pub(super) struct Writer {
    orders: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

impl Writer {
    pub(super) fn start(path: &Path) -> Result<Self, AuditError> {
        let target = Target {
            file: open(path)?,
            path: path.to_owned(),
            is_dirty: false,
            lost: Arc::default(),
        };
        let lost = target.lost.clone();
        let (orders, receiver) = sync_channel(QUEUED);
        thread::Builder::new()
            .name("memkv-audit".to_owned())
            .spawn(move || target.write_all(&receiver))
            .map_err(AuditError::Thread)?;
        Ok(Self { orders, lost })
    }

    pub(super) fn send(&self, line: Vec<u8>) {
        if self.orders.try_send(Order::Line(line)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn finish(&self) {
        let (done, finished) = sync_channel(1);
        // With a full queue the disk does not keep up, and nothing is gained by waiting.
        if self.orders.try_send(Order::Finish(done)).is_ok() {
            let _ = finished.recv_timeout(FINISH);
        }
    }
}

/// The file and its name.
struct Target {
    path: PathBuf,
    file: File,
    is_dirty: bool,
    lost: Arc<AtomicU64>,
}

impl Target {
    fn write_all(mut self, orders: &Receiver<Order>) {
        let mut looked = Instant::now();
        loop {
            let order = orders.recv_timeout(LOOK);
            // Also where a line comes at least as often.
            if looked.elapsed() >= LOOK {
                self.sync();
                self.follow_name();
                looked = Instant::now();
            }
            match order {
                Ok(Order::Line(line)) => self.write(&line),
                Ok(Order::Finish(done)) => {
                    self.sync();
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.sync(),
            }
        }
    }

    fn write(&mut self, line: &[u8]) {
        if !self.is_dirty {
            self.follow_name();
        }
        self.is_dirty = true;
        if let Err(error) = self.file.write_all(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            self.tell(&error);
        }
    }

    fn sync(&mut self) {
        if std::mem::take(&mut self.is_dirty)
            && let Err(error) = self.file.sync_data()
        {
            self.tell(&error);
        }
    }

    /// Opens the file that has the name now, if it is another one or there is none.
    fn follow_name(&mut self) {
        let inode = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let own = self.file.metadata().map(inode).ok();
        if own.is_some() && std::fs::symlink_metadata(&self.path).map(inode).ok() == own {
            return;
        }
        match open(&self.path) {
            Ok(file) => self.file = file,
            Err(error) => self.tell(&error),
        }
    }

    fn tell(&self, error: &dyn std::fmt::Display) {
        if let Some(left_out) = NOT_WRITTEN.say() {
            tracing::error!(%error, left_out, "cannot write the audit log; its lines may be lost");
        }
    }
}

/// Opens a plain file that only this user can read and write; a new one is made so.
fn open(path: &Path) -> Result<File, AuditError> {
    let failed = |source| AuditError::Open {
        path: path.to_owned(),
        source,
    };
    // A symbolic link could name a file of another program.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.custom_flags(flags.bits().cast_signed());
    let file = options.open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let path = path.to_owned();
    if !metadata.is_file() {
        return Err(AuditError::NotAFile { path });
    }
    match metadata.mode() & 0o777 {
        mode if mode & 0o077 != 0 => Err(AuditError::Wide { path, mode }),
        _ => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn lines_are_in_the_file_that_has_the_name_when_they_come() {
        let dir = tempfile::tempdir().unwrap();
        let (path, rotated) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let writer = Writer::start(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        writer.send(b"one\n".to_vec());
        writer.finish();
        fs::rename(&path, &rotated).unwrap();
        writer.send(b"two\n".to_vec());
        writer.finish();
        assert_eq!(fs::read(&rotated).unwrap(), b"one\n");
        assert_eq!(fs::read(&path).unwrap(), b"two\n");
        assert_eq!(writer.lost(), 0);
    }

    #[test]
    fn a_file_that_others_can_read_a_link_and_a_directory_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open_to_all = dir.path().join("open");
        fs::write(&open_to_all, "").unwrap();
        fs::set_permissions(&open_to_all, Permissions::from_mode(0o644)).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
        let missing = dir.path().join("missing/audit");
        for (path, words) in [
            (&open_to_all, "chmod 600"),
            (&link, "cannot write"),
            (&dir.path().to_owned(), "audit_file"),
            (&missing, "cannot write"),
        ] {
            let error = Writer::start(path).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them() {
        let (orders, receiver) = sync_channel(1);
        let writer = Writer {
            orders,
            lost: Arc::default(),
        };
        for _ in 0..3 {
            writer.send(Vec::new());
        }
        assert_eq!(writer.lost(), 2);
        drop(receiver);
        writer.send(Vec::new());
        assert_eq!(writer.lost(), 3);
    }
}
