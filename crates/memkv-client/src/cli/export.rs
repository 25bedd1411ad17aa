//! `export`: keys as lines of JSON, in their order, to a file or to standard output.
//!
//! Reads page by page, so the keys are those of no one moment; a backup is. A file has the name that was asked for
//! once it is whole; until then, and after a failure, it is there as a part, from which `--resume` goes on. The part of
//! another prefix has another name: to go on with it would leave keys out. Never overwrites a file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use memkv_client::{Client, ListOptions};
use memkv_proto::error::exit;

use super::line;
use super::output::{Printer, Talk};
use super::progress::Progress;
use super::{Failure, usage};

/// Keys of a page: a node ends a page of large values earlier.
const PAGE: u64 = 1_000;

/// Only the user that exports may read the values.
const MODE: u32 = 0o600;

/// Exports the keys that begin with `prefix`.
pub(super) async fn export(
    client: &Client,
    printer: &Printer,
    file: &Path,
    prefix: &[u8],
    is_resumed: bool,
) -> Result<u8, Failure> {
    if file == Path::new("-") {
        if is_resumed {
            return Err(usage("--resume needs a file".to_owned()));
        }
        let mut out = BufWriter::new(io::stdout().lock());
        keys(client, &mut out, prefix, None, Failure::Output).await?;
        return Ok(exit::OK);
    }
    let mut part = match is_resumed {
        true => Part::resume(file, prefix)?,
        false => Part::create(file, prefix)?,
    };
    let (after, before) = (part.last.take(), part.keys);
    let failed = |err| stored(&part.path, &err);
    let mut out = BufWriter::new(&part.file);
    let exported = keys(client, &mut out, prefix, after, failed).await;
    // What came before a failure is kept.
    let flushed = out.into_inner().map(drop);
    let exported = exported.and_then(|count| {
        flushed.map_err(|err| stored(&part.path, err.error()))?;
        Ok(count)
    });
    match exported {
        Ok(count) => {
            part.publish(file)?;
            printer.exported(&file.display().to_string(), before + count)?;
            Ok(exit::OK)
        }
        Err(failure) => {
            Talk::new().note(&format!(
                "what was read is kept in {}; the same command with --resume goes on from there",
                part.path.display()
            ));
            Err(failure)
        }
    }
}

/// Writes the keys after `after`, and returns how many there were. `failed` names what cannot be written.
async fn keys(
    client: &Client,
    out: &mut impl Write,
    prefix: &[u8],
    mut after: Option<Bytes>,
    failed: impl Fn(io::Error) -> Failure,
) -> Result<u64, Failure> {
    let mut progress = Progress::begin();
    let (mut count, mut text) = (0, Vec::new());
    loop {
        let options = ListOptions {
            after: after.as_deref(),
            limit: Some(PAGE),
            keys_only: false,
        };
        let page = client.list(prefix, &options).await?;
        for item in &page.items {
            text.clear();
            line::put(&mut text, item);
            out.write_all(&text).map_err(&failed)?;
            progress.advance(text.len() as u64);
        }
        count += page.items.len() as u64;
        out.flush().map_err(&failed)?;
        if page.next.is_none() {
            progress.end();
            return Ok(count);
        }
        after = page.next;
    }
}

/// An export that is not finished.
struct Part {
    file: File,
    path: PathBuf,
    /// The last key in it, and how many there are.
    last: Option<Bytes>,
    keys: u64,
}

impl Part {
    fn create(target: &Path, prefix: &[u8]) -> Result<Self, Failure> {
        let path = checked(target, prefix)?;
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(MODE);
        let file = options.open(&path).map_err(|err| match err.kind() {
            io::ErrorKind::AlreadyExists => Failure::Backup(format!(
                "{} is an export that was not finished: add --resume to go on with it, or remove it",
                path.display()
            )),
            _ => stored(&path, &err),
        })?;
        Ok(Self {
            file,
            path,
            last: None,
            keys: 0,
        })
    }

    /// Goes on after the last whole line.
    fn resume(target: &Path, prefix: &[u8]) -> Result<Self, Failure> {
        let path = checked(target, prefix)?;
        let mut options = OpenOptions::new();
        let opened = options.read(true).append(true).open(&path);
        let file = opened.map_err(|err| match err.kind() {
            io::ErrorKind::NotFound => usage(format!(
                "there is no {}, so no export of this prefix to go on with: name the same --prefix as before, or leave \
                 --resume out",
                path.display()
            )),
            _ => stored(&path, &err),
        })?;
        let (mut last, mut keys, mut whole) = (None, 0, 0);
        let mut source = BufReader::new(&file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let len = source.read_until(b'\n', &mut text);
            let len = len.map_err(|err| stored(&path, &err))?;
            if text.pop() != Some(b'\n') {
                break;
            }
            let line = line::parse(&text).map_err(|why| {
                let (at, name) = (keys + 1, path.display());
                Failure::Backup(format!("line {at} of {name} is none of an export: {why}"))
            })?;
            let is_next = last.as_ref().is_none_or(|last| *last < line.key);
            if !is_next || !line.key.starts_with(prefix) {
                return Err(Failure::Backup(format!(
                    "{} is an export of another prefix: line {} does not fit",
                    path.display(),
                    keys + 1
                )));
            }
            last = Some(line.key);
            keys += 1;
            whole += len as u64;
        }
        file.set_len(whole).map_err(|err| stored(&path, &err))?;
        Ok(Self {
            file,
            path,
            last,
            keys,
        })
    }

    /// Gives it its name, durably.
    fn publish(&self, target: &Path) -> Result<(), Failure> {
        let dir = match target.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let publish = || {
            self.file.sync_all()?;
            // Unlike a rename, a link fails if another program has made a file of that name meanwhile; but not every
            // file system has links.
            match fs::hard_link(&self.path, target) {
                Ok(()) => fs::remove_file(&self.path)?,
                Err(err) if err.kind() == io::ErrorKind::AlreadyExists => return Err(err),
                Err(_) => fs::rename(&self.path, target)?,
            }
            File::open(dir)?.sync_all()
        };
        publish().map_err(|err| stored(target, &err))
    }
}

/// The name of the part, if nothing has the name of the whole.
fn checked(target: &Path, prefix: &[u8]) -> Result<PathBuf, Failure> {
    if fs::symlink_metadata(target).is_ok() {
        let name = target.display();
        return Err(usage(format!("{name} is there already; name another file")));
    }
    let mut name = OsString::from(target);
    if !prefix.is_empty() {
        name.push(format!(".{:016x}", fingerprint(prefix)));
    }
    name.push(".part");
    Ok(name.into())
}

/// The same number for the same prefix in every version: FNV-1a.
fn fingerprint(prefix: &[u8]) -> u64 {
    prefix.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn stored(path: &Path, err: &io::Error) -> Failure {
    Failure::Backup(format!("{} cannot be written: {err}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of an export of what begins with "a".
    const PART: &str = "keys.af63dc4c8601ec8c.part";

    fn part(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("keys");
        fs::write(dir.path().join(PART), text).unwrap();
        (dir, target)
    }

    #[test]
    fn an_export_goes_on_after_its_last_whole_line() {
        let whole = "{\"key\":\"a1\",\"value\":\"\"}\n{\"key\":\"a2\",\"value\":\"\"}\n";
        for rest in ["", "{", "{\"key\":\"a3\",\"value\":\"\"}"] {
            let (dir, target) = part(&format!("{whole}{rest}"));
            let Ok(part) = Part::resume(&target, b"a") else {
                panic!("refused with {rest:?}");
            };
            assert_eq!((part.last.as_deref(), part.keys), (Some(&b"a2"[..]), 2));
            assert_eq!(fs::read_to_string(dir.path().join(PART)).unwrap(), whole);
        }
        let (_dir, target) = part("");
        assert!(Part::resume(&target, b"a").is_ok_and(|part| part.last.is_none()));
        assert!(
            Part::resume(&target, b"").is_err(),
            "it would lack what is before"
        );
        assert!(Part::resume(&target, b"ab").is_err());
    }

    #[test]
    fn a_file_that_is_no_such_export_is_left_as_it_is() {
        for text in [
            "years of work\n",
            "{\"key\":\"b\",\"value\":\"\"}\n",
            "{\"key\":\"a2\",\"value\":\"\"}\n{\"key\":\"a1\",\"value\":\"\"}\n{",
        ] {
            let (dir, target) = part(text);
            assert!(Part::resume(&target, b"a").is_err(), "{text}");
            assert!(Part::create(&target, b"a").is_err());
            assert_eq!(fs::read_to_string(dir.path().join(PART)).unwrap(), text);
        }
        let (_dir, target) = part("");
        fs::write(&target, "there").unwrap();
        assert!(Part::resume(&target, b"a").is_err());
        assert!(Part::create(&target, b"a").is_err());
    }
}
