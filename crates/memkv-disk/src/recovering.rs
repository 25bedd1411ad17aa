//! A directory that is filled anew with what was salvaged of it: its files are set aside, never deleted, and a mark
//! says how far that has come.
//!
//! The order: the backup lies in `quarantine-N` of the metadata, durable; the mark `recovering` names N; all files
//! move to `quarantine-N`; the mark becomes `restoring`, which a restore takes for its own (`restoring.rs`).
//! Invariant: a directory without a mark is the old one or the restored one, and a marked one does not open.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::disk::{Disk, read_exact_at};
use crate::layout::{Layout, RECOVERING_FILE, RESERVE_FILE, RESTORING_FILE};
use crate::metadata::{self, Found};
use crate::open::{OpenError, lock, next_quarantine};
use crate::restoring::is_ours;

/// Name of the backup beside the metadata that were set aside.
const BACKUP_FILE: &str = "salvaged.backup";

/// Most bytes of a mark: the digits of a number.
const MAX_MARK: u64 = 20;

/// A recovery of a directory, from the moment when its backup is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The number of the directories in which the old files are, or will be.
    pub number: u64,
    is_marked: bool,
    is_moved: bool,
}

impl Recovery {
    /// The recovery that an earlier process has begun here and not ended.
    ///
    /// # Errors
    /// [`OpenError::Restoring`] if that was a restore from another backup; [`OpenError::Io`].
    pub fn find(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, OpenError> {
        let moving = mark(disk, layout, RECOVERING_FILE)?;
        let restoring = mark(disk, layout, RESTORING_FILE)?;
        let is_moved = moving.is_none();
        match moving.or(restoring) {
            None => Ok(None),
            Some(None) => Err(OpenError::Restoring {
                path: layout.metadata.join(RESTORING_FILE),
            }),
            Some(Some(number)) => Ok(Some(Self {
                number,
                is_marked: true,
                is_moved,
            })),
        }
    }

    /// Begins one: makes the directory in which the backup is to be written.
    ///
    /// # Errors
    /// [`OpenError::Io`].
    pub fn begin(disk: &dyn Disk, layout: &Layout) -> Result<Self, OpenError> {
        let create = |dir: &Path| {
            let made = disk.create_dir_all(dir);
            made.map_err(|error| OpenError::io("create", dir, error))
        };
        layout.directories().into_iter().try_for_each(create)?;
        let number = next_quarantine(disk, layout)?;
        create(&layout.set_aside(number).metadata)?;
        Ok(Self {
            number,
            is_marked: false,
            is_moved: false,
        })
    }

    /// Where the backup is.
    #[must_use]
    pub fn backup(&self, layout: &Layout) -> PathBuf {
        layout.set_aside(self.number).metadata.join(BACKUP_FILE)
    }

    /// Sets the files aside, once the backup is durable; what an earlier process has moved already stays where it is.
    /// `boot` is the boot counter as the backup was made. When this returns a restore may go into the directory.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if a process works on it, or has worked on it since; [`OpenError::Io`], after which the
    /// directory does not open, and this can be called again.
    pub fn set_aside(
        &self,
        disk: &dyn Disk,
        layout: &Layout,
        boot: Option<u64>,
    ) -> Result<(), OpenError> {
        if self.is_moved {
            return Ok(());
        }
        let _locks = lock(disk, layout)?;
        let marked = layout.metadata.join(RECOVERING_FILE);
        let io = |error| OpenError::io("write", &marked, error);
        if !self.is_marked {
            check_boot(disk, layout, boot)?;
            write_mark(disk, layout, self.number).map_err(io)?;
        }
        let target = layout.set_aside(self.number);
        for (from, to) in [
            (&layout.log, &target.log),
            (&layout.snapshot, &target.snapshot),
            (&layout.metadata, &target.metadata),
        ] {
            let moved = || {
                disk.create_dir_all(to)?;
                for name in disk.read_dir(from)? {
                    if name == RESERVE_FILE {
                        disk.remove_file(&from.join(&name))?;
                    } else if is_ours(&name) {
                        disk.rename(&from.join(&name), &to.join(&name))?;
                    }
                }
                disk.sync_dir(to)?;
                disk.sync_dir(from)
            };
            moved().map_err(|error| OpenError::io("set aside", from, error))?;
        }
        let hand_over = || {
            disk.rename(&marked, &layout.metadata.join(RESTORING_FILE))?;
            disk.sync_dir(&layout.metadata)
        };
        hand_over().map_err(io)
    }
}

/// Refuses a directory whose files are being set aside: what is written there now would be, too.
pub(crate) fn check_moved(disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
    match mark(disk, layout, RECOVERING_FILE)? {
        None => Ok(()),
        Some(number) => Err(OpenError::Recovering {
            path: layout.metadata.join(RECOVERING_FILE),
            aside: layout.set_aside(number.unwrap_or(0)).metadata,
        }),
    }
}

/// Refuses a directory whose recovery has not ended.
pub(crate) fn check(disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
    for name in [RECOVERING_FILE, RESTORING_FILE] {
        if let Some(Some(number)) = mark(disk, layout, name)? {
            let (path, aside) = (layout.metadata.join(name), layout.set_aside(number));
            return Err(OpenError::Recovering {
                path,
                aside: aside.metadata,
            });
        }
    }
    Ok(())
}

/// The number in a mark: `None` without a mark, `Some(None)` where it has none.
fn mark(disk: &dyn Disk, layout: &Layout, name: &str) -> Result<Option<Option<u64>>, OpenError> {
    let path = layout.metadata.join(name);
    let read = || {
        let file = match disk.open_to_read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let len = file.len()?.min(MAX_MARK);
        let mut text = vec![0; len as usize];
        read_exact_at(&*file, 0, &mut text)?;
        let number = String::from_utf8_lossy(&text).trim().parse();
        Ok(Some(number.ok()))
    };
    read().map_err(|error| OpenError::io("read", &path, error))
}

/// Writes the mark, durably: whole, or not there.
fn write_mark(disk: &dyn Disk, layout: &Layout, number: u64) -> io::Result<()> {
    let path = layout.metadata.join(RECOVERING_FILE);
    let part = layout.metadata.join(format!("{RECOVERING_FILE}.tmp"));
    let file = disk.create(&part)?;
    file.write_at(0, &[IoSlice::new(number.to_string().as_bytes())])?;
    file.sync_data()?;
    disk.rename(&part, &path)?;
    disk.sync_dir(&layout.metadata)
}

/// Refuses a directory on which a process has worked since the backup was made.
fn check_boot(disk: &dyn Disk, layout: &Layout, boot: Option<u64>) -> Result<(), OpenError> {
    let path = &layout.metadata;
    let found = metadata::read_with(path, &|path| disk.open_to_read(path));
    let found = found.map_err(|error| OpenError::io("read metadata in", path, error))?;
    let now = match found {
        Found::Value(stored, _) => Some(stored.value.boot),
        Found::Nothing | Found::Bad | Found::Foreign(..) => None,
    };
    if now == boot {
        return Ok(());
    }
    Err(OpenError::Locked {
        path: path.clone(),
        source: io::Error::other("a node has run here since it was salvaged"),
    })
}
