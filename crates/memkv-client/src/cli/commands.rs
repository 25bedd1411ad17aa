//! Executes one command of the command line. Never decides what to send again: the library does.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use memkv_client::{Client, Condition, Error, Health, ListOptions, SetOptions};
use memkv_proto::ErrorCode;
use memkv_proto::error::exit;
use memkv_proto::limits::MAX_VALUE_BYTES_CEILING;

use super::args::{Backup, Command};
use super::output::{Printer, Talk};
use super::{Failure, usage};
use super::{backup, events, export, import};

/// Keys that `scan` asks for at a time: few enough that the first ones are there at once, enough
/// that a round trip costs little for each.
const PAGE: u64 = 1_000;

/// Executes `command` and returns the exit code.
pub(crate) async fn execute(
    command: Command,
    client: &Client,
    printer: &Printer,
) -> Result<u8, Failure> {
    match command {
        Command::Get { key } => get(client, printer, &key).await,
        Command::Set {
            key,
            value,
            times,
            ttl,
            nx,
            xx,
            if_rev,
        } => {
            let condition = condition(nx, xx, if_rev);
            let options = SetOptions { ttl, condition };
            set(client, printer, &key, &value, times, &options).await
        }
        Command::Del { keys, if_rev } => delete(client, printer, &keys, if_rev).await,
        Command::Exist { key } => {
            let exists = client.exists(key.as_bytes()).await?;
            printer.exists(exists)?;
            Ok(found(exists))
        }
        Command::Incr { key, by } => {
            let sum = client.incr(key.as_bytes(), by).await?;
            printer.sum(sum).map_err(Failure::Unprinted)?;
            Ok(exit::OK)
        }
        Command::Scan {
            prefix,
            keys,
            limit,
            after,
        } => {
            let after = after.map(|after| Bytes::copy_from_slice(after.as_bytes()));
            scan(client, printer, prefix.as_bytes(), keys, limit, after).await
        }
        Command::Txn { file } => {
            let answer = client.txn_json(read(&file)?).await?;
            printer.transaction(&answer).map_err(Failure::Unprinted)?;
            Ok(found(answer.succeeded))
        }
        Command::Status => status(client, printer).await,
        Command::Events(wanted) => events::show(client, printer, wanted).await,
        Command::Backup(Backup::Save { file, keep }) => {
            backup::save(client, printer, &file, keep).await
        }
        Command::Export {
            file,
            prefix,
            resume,
        } => export::export(client, printer, &file, prefix.as_bytes(), resume).await,
        Command::Import(import) => import::import(client, printer, &import).await,
        Command::Backup(_) | Command::Recover { .. } => {
            Err(usage("this needs no cluster".to_owned()))
        }
        Command::Acl(_) | Command::Member(_) | Command::Leader { .. } => Err(usage(
            "users and members are changed over Redis's protocol".to_owned(),
        )),
    }
}

/// What `set` demands.
pub(crate) fn condition(nx: bool, xx: bool, if_rev: Option<u64>) -> Condition {
    match if_rev {
        Some(revision) => Condition::Revision(revision),
        None if nx => Condition::Absent,
        None if xx => Condition::Present,
        None => Condition::Always,
    }
}

/// A command with the password of standard input in the place of `>-` or `<-`.
pub(crate) fn with_passwords(words: Vec<OsString>) -> Result<Vec<Vec<u8>>, Failure> {
    let mut full = Vec::with_capacity(words.len());
    for word in words {
        let word = word.as_bytes();
        full.push(match word {
            b">-" | b"<-" => {
                let given = standard_input()?;
                let end = given
                    .iter()
                    .rposition(|byte| !matches!(byte, b'\n' | b'\r'));
                let password = given.get(..end.map_or(0, |end| end + 1));
                [&word[..1], password.unwrap_or_default()].concat()
            }
            word => word.to_vec(),
        });
    }
    Ok(full)
}

/// The exit code of a command that found what it looked for, or did not.
fn found(found: bool) -> u8 {
    if found { exit::OK } else { exit::NOT_FOUND }
}

async fn get(client: &Client, printer: &Printer, key: &OsStr) -> Result<u8, Failure> {
    let entry = client.get(key.as_bytes()).await?;
    printer.entry(entry.as_ref())?;
    if entry.is_none() {
        Talk::new().note(&format!("not found: {}", key.to_string_lossy()));
    }
    Ok(found(entry.is_some()))
}

/// Sets a key, as many times as asked; ends with the first write that fails.
async fn set(
    client: &Client,
    printer: &Printer,
    key: &OsStr,
    value: &OsStr,
    times: u64,
    options: &SetOptions,
) -> Result<u8, Failure> {
    let value = match value.as_bytes() {
        b"-" => standard_input()?,
        value => Bytes::copy_from_slice(value),
    };
    let mut printed = Ok(());
    for done in 0..times {
        let set = client.set_with(key.as_bytes(), value.clone(), options);
        let set = set.await;
        if set.is_err() && done > 0 {
            Talk::new().note(&format!("{done} of {times} writes were done"));
        }
        if !written(set, printer, &mut printed)? {
            return Ok(exit::NOT_FOUND);
        }
    }
    printed.map_err(Failure::Unprinted)?;
    Ok(exit::OK)
}

/// Prints the outcome of a write that may have had a condition, and returns whether it held. An output
/// that is closed is noted in `printed`; the writes that follow are done all the same.
fn written(
    outcome: Result<Option<u64>, Error>,
    printer: &Printer,
    printed: &mut io::Result<()>,
) -> Result<bool, Failure> {
    match outcome {
        Err(err) if err.code() == ErrorCode::PreconditionFailed => {
            printer.condition_failed()?;
            Talk::new().note("the condition does not hold: nothing was written");
            Ok(false)
        }
        outcome => {
            let revision = outcome?;
            if printed.is_ok() {
                *printed = printer.written(revision);
            }
            Ok(true)
        }
    }
}

async fn delete(
    client: &Client,
    printer: &Printer,
    keys: &[std::ffi::OsString],
    if_rev: Option<u64>,
) -> Result<u8, Failure> {
    if if_rev.is_some() && keys.len() > 1 {
        let message = "--if-rev is about one key; use txn for more".to_owned();
        return Err(usage(message));
    }
    let condition = if_rev.map_or(Condition::Always, Condition::Revision);
    let mut printed = Ok(());
    for (done, key) in keys.iter().enumerate() {
        let deleted = client.del_if(key.as_bytes(), condition).await;
        if deleted.is_err() && done > 0 {
            Talk::new().note(&format!("{done} of {} keys were removed", keys.len()));
        }
        if !written(deleted, printer, &mut printed)? {
            return Ok(exit::NOT_FOUND);
        }
    }
    printed.map_err(Failure::Unprinted)?;
    Ok(exit::OK)
}

/// Prints page after page, each as soon as it is there.
async fn scan(
    client: &Client,
    printer: &Printer,
    prefix: &[u8],
    keys_only: bool,
    limit: Option<u64>,
    mut after: Option<Bytes>,
) -> Result<u8, Failure> {
    let mut left = limit.unwrap_or(u64::MAX);
    while left > 0 {
        let options = ListOptions {
            after: after.as_deref(),
            limit: Some(left.min(PAGE)),
            keys_only,
        };
        let page = client.list(prefix, &options).await?;
        printer.items(&page.items)?;
        left = left.saturating_sub(page.items.len() as u64);
        if page.next.is_none() {
            break;
        }
        after = page.next;
    }
    Ok(exit::OK)
}

async fn status(client: &Client, printer: &Printer) -> Result<u8, Failure> {
    let view = client.cluster().await;
    printer.cluster(&view)?;
    let talk = Talk::new();
    view.notes().iter().for_each(|note| talk.note(note));
    Ok(match view.health().0 {
        Health::Healthy | Health::Degraded => exit::OK,
        Health::Forming | Health::Unavailable => exit::UNAVAILABLE,
    })
}

/// The value that was given as `-`.
fn standard_input() -> Result<Bytes, Failure> {
    bounded(io::stdin().lock(), "standard input")
}

/// The file that was named, or standard input.
fn read(file: &OsStr) -> Result<Bytes, Failure> {
    if file == "-" {
        return standard_input();
    }
    let name = file.to_string_lossy();
    let opened = std::fs::File::open(file);
    let opened = opened.map_err(|err| usage(format!("cannot read {name}: {err}")))?;
    bounded(opened, &name)
}

/// All of `input`, which may be as long as the largest value.
fn bounded(input: impl Read, name: &str) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    let limit = MAX_VALUE_BYTES_CEILING;
    let read = input.take(limit as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|err| usage(format!("cannot read {name}: {err}")))?;
    if bytes.len() > limit {
        let message = format!("{name} has more than {limit} bytes, the limit of any value");
        return Err(usage(message));
    }
    Ok(bytes.into())
}
