//! `memkv_server restore`: makes an empty data directory that of a new cluster of one node, from a backup.
//!
//! Never touches a directory that holds data, and never starts a node. Relative paths of the configuration are
//! below `--data`, where the node is to run.

mod arguments;

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use memkv_backup::{BackupError, BackupReader, Head};
use memkv_disk::disk::real::RealDisk;
use memkv_node::{Peer, RestoreError, RestorePlan, Restored, revision_of_restore};

pub(crate) use arguments::{args, args_of, command, how};

use crate::audit::{self, AuditError, Event};
use crate::console;
use crate::http::uuid;
use crate::settings::{Settings, SettingsError};

/// Bytes that are read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// What to restore, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreArgs {
    /// The backup; `-` is standard input.
    pub file: PathBuf,
    /// The directory that the node will run in.
    pub data: PathBuf,
    /// Whether the users of the backup come along.
    pub keep_users: bool,
    /// Whether keys live as long from now on as they had left at the time of the backup.
    pub keep_ttl: bool,
    /// A revision that the old cluster has not reached.
    pub revision_above: Option<u64>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{}: {source}", path.display())]
    Backup { path: PathBuf, source: BackupError },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("nothing was restored: {0}")]
    Restore(#[from] RestoreError),
}

/// Does it; returns the exit code.
pub fn run(
    args: &RestoreArgs,
    config: Option<&Path>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> u8 {
    let outcome = restore(args, config, overrides, variable);
    console::end(outcome, |failure| matches!(failure, Failure::Settings(_)))
}

fn restore(
    args: &RestoreArgs,
    config: Option<&Path>,
    overrides: &[(&'static str, String, String)],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<String, Failure> {
    // Before the working directory changes.
    let config = config.map(absolute).transpose()?;
    let source = open(&args.file)?;
    let mut backup = BackupReader::open(BufReader::with_capacity(READ_BYTES, source))
        .map_err(|source| in_file(args, source))?;
    let head = backup.head().clone();
    let data = absolute(&args.data)?;
    let io = |action| {
        let path = data.clone();
        move |source| Failure::Io {
            action,
            path,
            source,
        }
    };
    fs::create_dir_all(&data).map_err(io("create"))?;
    std::env::set_current_dir(&data).map_err(io("use"))?;
    let settings = Settings::load(config.as_deref(), None, overrides, variable)?;
    let restored = into_directory(args, &settings, &mut backup)?;
    Ok(summary(
        args,
        &head,
        &restored,
        &data,
        &settings.node_config().me,
    ))
}

/// Restores a backup into the directory of these settings, which must hold no data.
fn into_directory(
    args: &RestoreArgs,
    settings: &Settings,
    backup: &mut BackupReader<impl Read>,
) -> Result<Restored, Failure> {
    let head = backup.head();
    let now_ms = now_ms();
    let above = args.revision_above;
    let plan = RestorePlan {
        cluster: rand::random(),
        directory: rand::random(),
        revision: revision_of_restore(head.revision, head.log_time_ms, now_ms, above)?,
        later_ms: match args.keep_ttl {
            true => now_ms.saturating_sub(head.log_time_ms),
            false => 0,
        },
        keep_users: args.keep_users,
        now_ms,
    };
    // What is wrong with the backup is said in its own words.
    let mut blocks = || backup.next_record().map_err(io::Error::other);
    let node = settings.node_config();
    let restored = memkv_node::restore(&node, Arc::new(RealDisk), &plan, &mut blocks)?;
    note(settings)?;
    Ok(restored)
}

/// The same for a caller that has made the backup and works in the directory already; returns what was done, and
/// the next step.
///
/// # Errors
/// Why nothing was restored, in words.
pub(crate) fn from_file(
    args: &RestoreArgs,
    settings: &Settings,
    data: &Path,
) -> Result<String, String> {
    let restore = || {
        let source = BufReader::with_capacity(READ_BYTES, open(&args.file)?);
        let mut backup = BackupReader::open(source).map_err(|source| in_file(args, source))?;
        let head = backup.head().clone();
        let restored = into_directory(args, settings, &mut backup)?;
        Ok(summary(
            args,
            &head,
            &restored,
            data,
            &settings.node_config().me,
        ))
    };
    restore().map_err(|failure: Failure| failure.to_string())
}

/// Tells the audit log, if there is one.
fn note(settings: &Settings) -> Result<(), AuditError> {
    if settings.config.audit_file.is_empty() {
        return Ok(());
    }
    audit::start(Path::new(&settings.config.audit_file))?;
    audit::record(&Event {
        kind: audit::Kind::Backup,
        allowed: true,
        user: "",
        origin: None,
        detail: "restore into this directory",
    });
    audit::finish();
    Ok(())
}

fn open(file: &Path) -> Result<Box<dyn Read>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let opened = File::open(file).map_err(|source| Failure::Io {
        action: "open",
        path: file.to_owned(),
        source,
    })?;
    Ok(Box::new(opened))
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|source| Failure::Io {
        action: "find",
        path: path.to_owned(),
        source,
    })
}

fn in_file(args: &RestoreArgs, source: BackupError) -> Failure {
    Failure::Backup {
        path: args.file.clone(),
        source,
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let ms = since.map_or(0, |since| since.as_millis());
    u64::try_from(ms).unwrap_or(u64::MAX)
}

/// What was done, and the next step.
fn summary(
    args: &RestoreArgs,
    head: &Head,
    restored: &Restored,
    data: &Path,
    node: &Peer,
) -> String {
    let users = match args.keep_users {
        true => "those of the backup",
        false => "those of the configuration",
    };
    let due = match restored.due {
        0 => String::new(),
        due => format!(", {due} of them past their deadline: they go as soon as the node serves"),
    };
    format!(
        "restored {file} into {data}\n  \
           cluster   {new}, a new one; the backup is of {old}\n  \
           keys      {keys}{due}\n  \
           revision  {revision}; the backup ended at {reached}\n  \
           users     {users}\n  \
           node      {name} at {addr}, as its configuration says\n\
         Start this node there: it is a cluster of one. A second restore would be another cluster.",
        file = args.file.display(),
        data = data.display(),
        new = uuid(restored.cluster),
        old = head.cluster,
        name = node.name,
        addr = node.addr,
        keys = restored.keys,
        revision = restored.revision,
        reached = head.revision,
    )
}
