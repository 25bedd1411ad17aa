//! Backups as files: saved whole or not at all, verified, described, listed.
//! Never touches a file that is no backup of memkv, and never leaves a part of one under the name that was
//! asked for.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memkv_backup::{BackupReader, Head, Summary};
use memkv_client::{Client, Download};
use memkv_proto::Utc;
use memkv_proto::error::exit;
use serde_json::{Value, json};

use super::args::{Backup, Format};
use super::output::Printer;
use super::progress::{Progress, size};
use super::{Failure, print, usage};

/// Only the user that saves a backup may read it: it holds all values and the users' hashes.
const MODE: u32 = 0o600;

/// Name of a backup in a directory: the first part, and the last.
const PREFIX: &str = "memkv-";
const SUFFIX: &str = ".backup";

/// Bytes that are read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// Executes what needs no cluster.
pub(super) fn local(backup: &Backup, format: Format) -> Result<u8, Failure> {
    match backup {
        Backup::Verify { file } => verify(file, format),
        Backup::Inspect { file } => inspect(file, format),
        Backup::Ls { dir } => list(dir, format),
        Backup::Save { .. } => Err(usage("a backup is saved from a cluster".to_owned())),
    }
}

/// Saves a backup of the cluster.
pub(super) async fn save(
    client: &Client,
    printer: &Printer,
    file: &Path,
    keep: Option<u64>,
) -> Result<u8, Failure> {
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
    let mut download = client.backup().await?;
    if file == Path::new("-") {
        receive(&mut download, &mut io::stdout().lock(), Failure::Output).await?;
        return Ok(exit::OK);
    }
    let dir = match (is_directory, file.parent()) {
        (true, _) => file,
        (false, Some(dir)) if dir != Path::new("") => dir,
        (false, _) => Path::new("."),
    };
    let mut part = Part::create(dir)?;
    receive(&mut download, &mut part.file, |err| stored(file, &err)).await?;
    // What is on the disk is what counts, and not what came.
    part.file.sync_all().map_err(|err| stored(file, &err))?;
    let (head, summary) = read_whole(&part.path)?;
    let target = match is_directory {
        true => dir.join(name_of(&head)),
        false => file.to_owned(),
    };
    part.publish(&target, dir)?;
    if let Some(keep) = keep {
        remove_old(dir, &head, keep)?;
    }
    printer.saved(&target.display().to_string(), &head, &summary)?;
    Ok(exit::OK)
}

/// A file that is there may be replaced if it is a backup: a slip must not cost another file.
fn check_replaceable(file: &Path) -> Result<(), Failure> {
    if file == Path::new("-") || !file.exists() {
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

/// Writes a backup as it comes, and tells a terminal how far it is. `failed` names what cannot be written.
async fn receive(
    download: &mut Download,
    out: &mut impl Write,
    failed: impl Fn(io::Error) -> Failure,
) -> Result<u64, Failure> {
    let mut progress = Progress::begin();
    while let Some(bytes) = download.next().await? {
        out.write_all(&bytes).map_err(&failed)?;
        progress.advance(bytes.len() as u64);
    }
    out.flush().map_err(&failed)?;
    progress.end();
    Ok(progress.bytes())
}

/// A file that is being written, under a name of its own. It goes when it is dropped before it is published.
struct Part {
    file: File,
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

/// Removes all but the newest backups of this cluster in a directory. A file is one of them if both its name and
/// its head say so.
fn remove_old(dir: &Path, head: &Head, keep: u64) -> Result<(), Failure> {
    let mut ours: Vec<(u64, u64, PathBuf)> = Vec::new();
    for (path, found) in backups(dir)? {
        let of_cluster = found
            .as_ref()
            .ok()
            .filter(|found| found.cluster == head.cluster);
        let named = of_cluster.filter(|found| {
            path.file_name()
                .is_some_and(|name| *name == *name_of(found))
        });
        if let Some(found) = named {
            ours.push((found.log_time_ms, found.revision, path));
        }
    }
    ours.sort_unstable();
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let old = ours.len().saturating_sub(keep);
    for (_, _, path) in ours.into_iter().take(old) {
        let removed = fs::remove_file(&path);
        removed.map_err(|err| {
            Failure::Backup(format!(
                "the old backup {} cannot be removed: {err}",
                path.display()
            ))
        })?;
    }
    Ok(())
}

/// A file that is named as a backup, and its head, or why that cannot be read.
type Named = (PathBuf, Result<Head, String>);

/// The files of a directory that are named as backups, in the order of their names, with their heads.
fn backups(dir: &Path) -> Result<Vec<Named>, Failure> {
    let failed = |err: io::Error| usage(format!("cannot list {}: {err}", dir.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            let opened = File::open(&path).map_err(|err| err.to_string());
            let head = opened.and_then(|opened| {
                let reader = BackupReader::open(opened).map_err(|err| err.to_string())?;
                Ok(reader.head().clone())
            });
            found.push((path, head));
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

/// The name of a backup in a directory: names in their order are backups in the order of time.
fn name_of(head: &Head) -> String {
    let cluster = head.cluster.get(..8).unwrap_or("cluster");
    let time = time_text(head.log_time_ms, "");
    format!("{PREFIX}{time}-{}-{cluster}{SUFFIX}", head.revision)
}

/// A time in milliseconds since the epoch as `YYYY-MM-DDThh:mm:ssZ`, with `between` between the numbers of the
/// date. Where that is empty there are no colons either: for a file's name.
fn time_text(ms: u64, between: &str) -> String {
    let at = Utc::at(i64::try_from(ms / 1000).unwrap_or(i64::MAX / 2));
    let colon = if between.is_empty() { "" } else { ":" };
    format!(
        "{:04}{between}{:02}{between}{:02}T{:02}{colon}{:02}{colon}{:02}Z",
        at.year, at.month, at.day, at.hour, at.minute, at.second
    )
}

fn open(file: &Path) -> Result<BackupReader<Box<dyn Read>>, Failure> {
    let name = file.display();
    let source: Box<dyn Read> = match file == Path::new("-") {
        true => Box::new(io::stdin()),
        false => {
            let opened = File::open(file);
            Box::new(opened.map_err(|err| usage(format!("cannot read {name}: {err}")))?)
        }
    };
    let source: Box<dyn Read> = Box::new(BufReader::with_capacity(READ_BYTES, source));
    BackupReader::open(source).map_err(|err| Failure::Backup(format!("{name}: {err}")))
}

/// Verifies a whole backup.
pub(super) fn read_whole(file: &Path) -> Result<(Head, Summary), Failure> {
    let reader = open(file)?;
    let head = reader.head().clone();
    let summary = reader.verify();
    let summary = summary.map_err(|err| Failure::Backup(format!("{}: {err}", file.display())))?;
    Ok((head, summary))
}

fn verify(file: &Path, format: Format) -> Result<u8, Failure> {
    let (head, summary) = read_whole(file)?;
    let printer = Printer::new(format);
    printer.saved(&file.display().to_string(), &head, &summary)?;
    Ok(exit::OK)
}

fn inspect(file: &Path, format: Format) -> Result<u8, Failure> {
    let reader = open(file)?;
    let head = reader.head();
    if format == Format::Json {
        print(format!("{}\n", head_json(head)).as_bytes())?;
        return Ok(exit::OK);
    }
    let rows = [
        ("cluster", head.cluster.clone()),
        ("time", time_text(head.log_time_ms, "-")),
        ("revision", head.revision.to_string()),
        ("keys", head.keys.to_string()),
        ("feature level", head.level.to_string()),
        (
            "last entry",
            format!("term {}, index {}", head.term, head.index),
        ),
        (
            "made by",
            format!("{} (memkv {})", head.node, head.written_by),
        ),
    ];
    let separator = if format == Format::Raw { "\t" } else { "  " };
    let width = if format == Format::Raw { 0 } else { 13 };
    for (name, value) in rows {
        print(format!("{name:width$}{separator}{}\n", value.escape_debug()).as_bytes())?;
    }
    Ok(exit::OK)
}

fn list(dir: &Path, format: Format) -> Result<u8, Failure> {
    for (path, head) in backups(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let bytes = fs::metadata(&path).map_or(0, |found| found.len());
        let line = match (&head, format) {
            (Ok(head), Format::Json) => {
                json!({ "file": name, "bytes": bytes, "head": head_json(head) }).to_string()
            }
            (Err(why), Format::Json) => {
                json!({ "file": name, "bytes": bytes, "error": why }).to_string()
            }
            (Ok(head), _) => format!(
                "{}  {}  {} keys  {}",
                name.escape_debug(),
                time_text(head.log_time_ms, "-"),
                head.keys,
                size(bytes),
            ),
            (Err(why), _) => format!("{}  unreadable: {why}", name.escape_debug()),
        };
        print(format!("{line}\n").as_bytes())?;
    }
    Ok(exit::OK)
}

/// A head as it is in the file.
pub(super) fn head_json(head: &Head) -> Value {
    serde_json::to_value(head).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_for_people() {
        assert_eq!(time_text(0, "-"), "1970-01-01T00:00:00Z");
        assert_eq!(time_text(951_827_696_999, "-"), "2000-02-29T12:34:56Z");
        assert_eq!(time_text(1_796_026_500_000, ""), "20261130T081500Z");
    }

    fn head(time: u64, cluster: &str) -> Head {
        Head {
            cluster: cluster.to_owned(),
            level: 2,
            revision: time,
            log_time_ms: time * 1000,
            keys: 0,
            hash_seed: 0,
            term: 1,
            index: 1,
            node: "n1".to_owned(),
            written_by: "0.1.0".to_owned(),
            salvaged: false,
            committed: 1,
            terms: Vec::new(),
            stopped: None,
            condemned: None,
        }
    }

    #[test]
    fn only_old_backups_of_the_same_cluster_are_removed() {
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
        assert!(remove_old(dir.path(), &head(4, ours), 2).is_ok());
        let left = fs::read_dir(dir.path()).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut left: Vec<String> = left.collect();
        left.sort();
        let mut expected: Vec<String> = (3..=4).map(|time| name_of(&head(time, ours))).collect();
        expected.extend([name_of(&head(1, theirs))]);
        expected.extend(["memkv-mine.backup", "memkv-none.backup", "other"].map(str::to_owned));
        expected.sort();
        assert_eq!(left, expected);
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
