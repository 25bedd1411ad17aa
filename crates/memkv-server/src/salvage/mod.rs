//! `memkv_server salvage`: saves all that a stopped node's directory still holds as a backup.
//!
//! Never writes below the directory, and never over a file. What it could not use, and what no directory alone can
//! know, it says in words and in the backup's head.

mod arguments;
mod report;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memkv_backup::{BackupError, BackupReader, BackupWriter, Head, MAX_TERMS, TermStart};
use memkv_disk::Layout;
use memkv_disk::disk::real::RealDisk;
use memkv_node::{SalvageError, Salvaged};
use memkv_store::{HIGHEST_LEVEL, SnapshotHead};

pub(crate) use arguments::{args, command};
pub(crate) use report::rows;

use crate::console;
use crate::http::uuid;
use crate::settings::{Settings, SettingsError};

/// Only the user that salvages may read the file: it holds all values and the users' hashes.
const MODE: u32 = 0o600;

/// Bytes that are written and read at a time.
const BUFFER_BYTES: usize = 1024 * 1024;

/// What to salvage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvageArgs {
    /// The backup to write.
    pub file: PathBuf,
    /// The directory that the node ran in.
    pub data: PathBuf,
    /// The number of what was set aside there.
    pub quarantine: Option<u64>,
    /// Whether a directory is read that its node has marked as one that must not be used.
    pub condemned: bool,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} is one of the node's own directories, of which nothing is to change: name a file elsewhere",
        .0.display()
    )]
    Within(PathBuf),
    #[error("{} is there already, and is left as it is: name another file", .0.display())]
    FileThere(PathBuf),
    #[error("{} was written, and is not what was read back: {source}", path.display())]
    ReadBack { path: PathBuf, source: BackupError },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Salvage(#[from] SalvageError),
}

/// Does it; returns the exit code.
pub fn run(
    args: &SalvageArgs,
    config: Option<&Path>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> u8 {
    let outcome = salvage(args, config, overrides, variable);
    console::end(outcome, |failure| matches!(failure, Failure::Settings(_)))
}

fn salvage(
    args: &SalvageArgs,
    config: Option<&Path>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, Failure> {
    // Before the working directory changes.
    let config = config.map(absolute).transpose()?;
    let (file, data) = (absolute(&args.file)?, absolute(&args.data)?);
    std::env::set_current_dir(&data).map_err(io_at("use", &data))?;
    let mut layout = Settings::layout(config.as_deref(), overrides, variable)?;
    check_outside(&file, &layout)?;
    if let Some(number) = args.quarantine {
        layout = layout.set_aside(number);
    }
    let mut salvaged = memkv_node::salvage(&RealDisk, &layout, HIGHEST_LEVEL, args.condemned)?;
    let head = store(&mut salvaged, &file)?;
    Ok(report::text(&data, &args.file, &head, &salvaged))
}

/// Refuses a file below the node's own directories.
fn check_outside(file: &Path, layout: &Layout) -> Result<(), Failure> {
    let parent = file.parent().unwrap_or(Path::new("/"));
    let Ok(parent) = fs::canonicalize(parent) else {
        // It does not exist, and the file cannot be made.
        return Ok(());
    };
    for own in [&layout.log, &layout.metadata, &layout.snapshot] {
        let own = fs::canonicalize(own);
        if let Some(own) = own.ok().filter(|own| parent.starts_with(own)) {
            return Err(Failure::Within(own));
        }
    }
    Ok(())
}

/// Writes the backup, durably, and reads it back. Nothing is left if that fails.
pub(crate) fn store(salvaged: &mut Salvaged, file: &Path) -> Result<Head, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE);
    let created = options.open(file).map_err(|err| match err.kind() {
        io::ErrorKind::AlreadyExists => Failure::FileThere(file.to_owned()),
        _ => io_at("create", file)(err),
    })?;
    let stored = write(salvaged, &created)
        .map_err(io_at("write", file))
        .and_then(|head| {
            read_back(file)?;
            Ok(head)
        });
    if stored.is_err() {
        // It is this command's own: it was made a moment ago.
        let _ = fs::remove_file(file);
    }
    stored
}

fn write(salvaged: &mut Salvaged, file: &File) -> io::Result<Head> {
    let state = salvaged.begin()?;
    let head = head(salvaged, &state);
    let out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut writer = BackupWriter::new(out, &head)?;
    writer.record(&state.encode())?;
    salvaged.blocks(|block| writer.record(block))?;
    writer.finish()?.flush()?;
    file.sync_all()?;
    Ok(head)
}

fn read_back(file: &Path) -> Result<(), Failure> {
    let opened = File::open(file).map_err(io_at("read", file))?;
    let reader = BackupReader::open(BufReader::with_capacity(BUFFER_BYTES, opened));
    let whole = reader.and_then(BackupReader::verify);
    whole.map_err(|source| Failure::ReadBack {
        path: file.to_owned(),
        source,
    })?;
    let dir = file.parent().unwrap_or(Path::new("/"));
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(io_at("sync", dir))
}

fn head(salvaged: &Salvaged, state: &SnapshotHead) -> Head {
    let terms = salvaged.terms.iter().map(|first| TermStart {
        term: first.term,
        index: first.index,
    });
    let left_out = salvaged.terms.len().saturating_sub(MAX_TERMS);
    Head {
        cluster: uuid(salvaged.cluster),
        level: state.member_table().level(),
        revision: state.revision(),
        log_time_ms: state.stamp_ms(),
        keys: state.keys(),
        hash_seed: state.hash_seed(),
        term: salvaged.last.term,
        index: salvaged.last.index,
        node: salvaged
            .node
            .clone()
            .unwrap_or_else(|| "unknown".to_owned()),
        written_by: env!("CARGO_PKG_VERSION").to_owned(),
        salvaged: true,
        committed: salvaged.committed,
        terms: terms.skip(left_out).collect(),
        stopped: salvaged.stopped.as_ref().map(ToString::to_string),
        condemned: salvaged.condemned.clone(),
    }
}

pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(io_at("find", path))
}

pub(crate) fn io_at(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> Failure + use<> {
    let path = path.to_owned();
    move |source| Failure::Io {
        action,
        path,
        source,
    }
}
