//! Backups: saved whole or not at all, verified, described, listed, fetched; in files and directories
//! ([`folder`]) and in buckets of an object store ([`bucket`]).
//! Never touches what is no backup of memkv.

mod bucket;
mod carrier;
mod checked;
mod folder;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use memkv_backup::{BackupReader, Head, Summary};
use memkv_client::Client;
use memkv_proto::Utc;
use memkv_proto::error::exit;
use serde_json::{Value, json};

use self::bucket::Address;
use super::args::{Backup, Format};
use super::output::Printer;
use super::progress::{Progress, size};
use super::{Failure, print, runtime, usage};

/// Name of a backup in a directory or bucket: the first part, and the last.
const PREFIX: &str = "memkv-";
const SUFFIX: &str = ".backup";

/// Bytes that are read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// Where a backup is, or will be.
enum Location {
    /// Standard input or output.
    Stream,
    /// A file or a directory.
    File(PathBuf),
    /// An object, or a prefix of objects.
    Bucket(Address),
}

impl Location {
    fn of(text: &Path) -> Result<Self, Failure> {
        if text == Path::new("-") {
            return Ok(Self::Stream);
        }
        match Address::of(text) {
            Some(address) => Ok(Self::Bucket(address?)),
            None => Ok(Self::File(text.to_owned())),
        }
    }
}

/// A backup by its name, in a directory or under a prefix.
struct Found {
    name: String,
    bytes: u64,
    /// Why it cannot be read, if it cannot.
    head: Result<Head, String>,
}

/// Executes what needs no cluster.
pub(super) fn local(backup: &Backup, format: Format) -> Result<u8, Failure> {
    match backup {
        Backup::Verify { file } => verify(file, format),
        Backup::Inspect { file } => inspect(file, format),
        Backup::Ls { dir } => ls(dir, format),
        Backup::Fetch { from, file } => fetch(from, file, format),
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
    let (name, head, summary) = match Location::of(file)? {
        Location::Stream if keep.is_some() => {
            return Err(usage("--keep needs a directory, and - is none".to_owned()));
        }
        Location::Stream => {
            stream(client).await?;
            return Ok(exit::OK);
        }
        Location::File(file) => folder::save(client, &file, keep).await?,
        Location::Bucket(address) => bucket::save(client, &address, keep).await?,
    };
    printer.saved(&name, &head, &summary)?;
    Ok(exit::OK)
}

/// Writes a backup to standard output as it comes.
async fn stream(client: &Client) -> Result<(), Failure> {
    let mut download = client.backup().await?;
    let mut out = io::stdout().lock();
    let mut progress = Progress::begin();
    while let Some(bytes) = download.next().await? {
        out.write_all(&bytes)?;
        progress.advance(bytes.len() as u64);
    }
    out.flush()?;
    progress.end();
    Ok(())
}

/// Brings a backup from a bucket into a file or to standard output.
fn fetch(from: &Path, file: &Path, format: Format) -> Result<u8, Failure> {
    let Location::Bucket(address) = Location::of(from)? else {
        let from = from.display();
        return Err(usage(format!(
            "{from} is in no bucket: name s3://BUCKET/KEY"
        )));
    };
    let printer = Printer::new(format);
    match Location::of(file)? {
        Location::Stream => {
            let out = io::stdout();
            runtime()?.block_on(bucket::read(&address, |bytes| {
                out.lock().write_all(bytes).map_err(Failure::Output)
            }))?;
        }
        Location::File(file) => {
            let (name, head, summary) = folder::fetch(&runtime()?, &address, &file)?;
            printer.saved(&name, &head, &summary)?;
        }
        Location::Bucket(_) => {
            return Err(usage(
                "a backup is fetched into a file or to standard output (-)".to_owned(),
            ));
        }
    }
    Ok(exit::OK)
}

/// Which of these backups are to go, if the newest `keep` of the cluster of `head` stay. A backup is one of the
/// cluster's if both its name and its head say so.
fn old(found: Vec<Found>, head: &Head, keep: u64) -> Vec<String> {
    let mut ours: Vec<(u64, u64, String)> = Vec::new();
    for Found { name, head: of, .. } in found {
        if let Ok(of) = of
            && of.cluster == head.cluster
            && name == name_of(&of)
        {
            ours.push((of.log_time_ms, of.revision, name));
        }
    }
    ours.sort_unstable();
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let old = ours.len().saturating_sub(keep);
    ours.into_iter()
        .take(old)
        .map(|(_, _, name)| name)
        .collect()
}

fn unremoved(name: impl Display, err: impl Display) -> Failure {
    Failure::Backup(format!(
        "the new backup is saved, but the old backup {name} cannot be removed: {err}"
    ))
}

/// Whether a file or an object is named as a backup.
fn is_named(name: &str) -> bool {
    name.starts_with(PREFIX) && name.ends_with(SUFFIX)
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

/// A backup in a file or on standard input.
fn open(file: &Path) -> Result<BackupReader<Box<dyn Read>>, Failure> {
    let name = file.display();
    let source: Box<dyn Read> = match Location::of(file)? {
        Location::Stream => Box::new(io::stdin()),
        Location::File(file) => {
            let opened = File::open(file);
            Box::new(opened.map_err(|err| usage(format!("cannot read {name}: {err}")))?)
        }
        Location::Bucket(_) => {
            return Err(usage(format!(
                "{name} is in a bucket: memkv_client backup fetch {name} FILE brings it here"
            )));
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
    let (head, summary) = match Location::of(file)? {
        Location::Bucket(address) => runtime()?.block_on(bucket::read(&address, |_| Ok(())))?,
        _ => read_whole(file)?,
    };
    let printer = Printer::new(format);
    printer.saved(&file.display().to_string(), &head, &summary)?;
    Ok(exit::OK)
}

fn inspect(file: &Path, format: Format) -> Result<u8, Failure> {
    let head = match Location::of(file)? {
        Location::Bucket(address) => runtime()?.block_on(bucket::head(&address))?,
        _ => open(file)?.head().clone(),
    };
    if format == Format::Json {
        print(format!("{}\n", head_json(&head)).as_bytes())?;
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

fn ls(dir: &Path, format: Format) -> Result<u8, Failure> {
    let found = match Location::of(dir)? {
        Location::Bucket(address) => runtime()?.block_on(bucket::list(&address))?,
        _ => folder::list(dir)?,
    };
    for Found { name, bytes, head } in found {
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

    /// Of a backup in tests.
    pub(super) fn head(time: u64, cluster: &str) -> Head {
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
}
