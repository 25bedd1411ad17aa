//! Backups in files and directories: stored whole or not at all, and only this user may read them.
//! Never replaces or removes a file that is no backup, and never leaves a part of one under the name that was
//! asked for.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memkv_backup::{BackupReader, Head, Summary};
use memkv_client::Client;
use tokio::runtime::Runtime;

use super::bucket::{self, Address};
use super::{Found, PREFIX, is_named, name_of, old, read_whole, unremoved};
use crate::cli::progress::Progress;
use crate::cli::{Failure, usage};

/// Only the user that saves a backup may read it: it holds all values and the users' hashes.
const MODE: u32 = 0o600;

/// A file that is there may be replaced if it is a backup: a slip must not cost another file.
fn check_replaceable(file: &Path) -> Result<(), Failure> {
    if !file.exists() {
        return Ok(());
    }
    let is_backup = File::open(file).is_ok_and(|opened| BackupReader::open(opened).is_ok());
    match is_backup {
        true => Ok(()),
        false => Err(Failure::Backup(format!(
            "{} is there and is no backup; name another file",
            file.display()
        ))),
    }
}

/// A file that is being written, under a name of its own. It goes when it is dropped before it is published.
pub(super) struct Part {
    pub(super) file: File,
    path: PathBuf,
}

impl Part {
    /// Makes a file of a name that no other program can guess, and takes none that is there: a link that another
    /// user put in its place would have it written elsewhere.
    fn create(dir: &Path) -> Result<Self, Failure> {
        // The standard library seeds these keys from the operating system's generator.
        let name = RandomState::new().build_hasher().finish();
        let path = dir.join(format!(".{PREFIX}{name:016x}.part"));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(MODE);
        let file = options.open(&path).map_err(|err| stored(&path, &err))?;
        Ok(Self { file, path })
    }

    /// What was written, read back: what is on the disk is what counts, and not what came.
    pub(super) fn verified(&self, target: &Path) -> Result<(Head, Summary), Failure> {
        self.file.sync_all().map_err(|err| stored(target, &err))?;
        read_whole(&self.path)
    }

    /// Gives it its name, durably.
    fn publish(&self, target: &Path, dir: &Path) -> Result<(), Failure> {
        let publish = || {
            fs::rename(&self.path, target)?;
            File::open(dir)?.sync_all()
        };
        publish().map_err(|err| stored(target, &err))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After it was published there is none of this name.
        let _ = fs::remove_file(&self.path);
    }
}

fn stored(path: &Path, err: &io::Error) -> Failure {
    Failure::Backup(format!(
        "the backup cannot be stored as {}: {err}; nothing is there under that name that was not before",
        path.display()
    ))
}

/// Saves a backup as `file`, or in the directory `file`; returns where, and what was found there.
pub(super) async fn save(
    client: &Client,
    file: &Path,
    keep: Option<u64>,
) -> Result<(String, Head, Summary), Failure> {
    let is_directory = file.is_dir();
    if keep.is_some() && !is_directory {
        let name = file.display();
        return Err(usage(format!(
            "--keep needs a directory, and {name} is none"
        )));
    }
    if !is_directory {
        check_replaceable(file)?;
    }
    let dir = directory(file);
    let mut download = client.backup().await?;
    let mut part = Part::create(dir)?;
    let mut progress = Progress::begin();
    while let Some(bytes) = download.next().await? {
        let written = part.file.write_all(&bytes);
        written.map_err(|err| stored(file, &err))?;
        progress.advance(bytes.len() as u64);
    }
    progress.end();
    let (head, summary) = part.verified(file)?;
    let target = match is_directory {
        true => dir.join(name_of(&head)),
        false => file.to_owned(),
    };
    part.publish(&target, dir)?;
    if let Some(keep) = keep {
        for name in old(list(dir)?, &head, keep) {
            let path = dir.join(name);
            fs::remove_file(&path).map_err(|err| unremoved(path.display(), err))?;
        }
    }
    Ok((target.display().to_string(), head, summary))
}

/// Brings a backup from a bucket into `file`; returns where, and what was found there.
pub(super) fn fetch(
    runtime: &Runtime,
    address: &Address,
    file: &Path,
) -> Result<(String, Head, Summary), Failure> {
    let target = match (file.is_dir(), address.file_name()) {
        (true, Some(name)) => file.join(name),
        (true, None) => return Err(usage(format!("{address} names no object"))),
        (false, _) => file.to_owned(),
    };
    check_replaceable(&target)?;
    let dir = directory(&target);
    let mut part = Part::create(dir)?;
    runtime.block_on(bucket::read(address, |bytes| {
        let written = part.file.write_all(bytes);
        written.map_err(|err| stored(&target, &err))
    }))?;
    let (head, summary) = part.verified(&target)?;
    part.publish(&target, dir)?;
    Ok((target.display().to_string(), head, summary))
}

/// The directory that a file is in, or is.
fn directory(file: &Path) -> &Path {
    match (file.is_dir(), file.parent()) {
        (true, _) => file,
        (false, Some(dir)) if dir != Path::new("") => dir,
        (false, _) => Path::new("."),
    }
}

/// The files of a directory that are named as backups, in the order of their names.
pub(super) fn list(dir: &Path) -> Result<Vec<Found>, Failure> {
    let failed = |err: io::Error| usage(format!("cannot list {}: {err}", dir.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_named(&name) {
            let opened = File::open(&path).map_err(|err| err.to_string());
            let head = opened.and_then(|opened| {
                let reader = BackupReader::open(opened).map_err(|err| err.to_string())?;
                Ok(reader.head().clone())
            });
            found.push(Found {
                name: name.into_owned(),
                bytes: fs::metadata(&path).map_or(0, |found| found.len()),
                head,
            });
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::head;
    use super::*;

    #[test]
    fn only_old_backups_of_the_same_cluster_are_old() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, head: &Head| {
            let writer = memkv_backup::BackupWriter::new(Vec::new(), head).unwrap();
            fs::write(dir.path().join(name), writer.finish().unwrap()).unwrap();
        };
        let (ours, theirs) = ("11111111-1", "22222222-2");
        for time in 1..=4 {
            write(&name_of(&head(time, ours)), &head(time, ours));
        }
        write(&name_of(&head(1, theirs)), &head(1, theirs));
        write("memkv-mine.backup", &head(1, ours));
        write("other", &head(1, ours));
        fs::write(dir.path().join("memkv-none.backup"), "no backup").unwrap();
        let Ok(found) = list(dir.path()) else {
            panic!("the directory is there");
        };
        let expected: Vec<String> = (1..=2).map(|time| name_of(&head(time, ours))).collect();
        assert_eq!(old(found, &head(4, ours), 2), expected);
    }

    #[test]
    fn a_file_that_is_no_backup_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("thesis.txt");
        fs::write(&file, "years of work").unwrap();
        assert!(matches!(check_replaceable(&file), Err(Failure::Backup(_))));
        assert!(check_replaceable(&dir.path().join("new")).is_ok());
    }
}
