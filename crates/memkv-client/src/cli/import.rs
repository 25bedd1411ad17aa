//! `import`: writes the keys that a file of lines names, as `export` has written them.
//!
//! A file is read twice: nothing is written before all of it was found to be right. Standard input and pipes are read
//! once, so what precedes a bad line is written. Each line is one write, many at a time; two of one key follow each other as in
//! the file. Never sends a write of unknown outcome again: it says from which line to go on.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use memkv_client::{Client, Condition, Error, SetOptions};
use memkv_proto::ErrorCode;
use memkv_proto::error::exit;
use tokio::sync::mpsc::{Receiver, channel};

use super::args::{Format, Import};
use super::line::{self, Line};
use super::output::{Imported, Printer, Talk};
use super::progress::Progress;
use super::{Failure, now_ms, usage};

/// Writes under way at a time: a leader puts those that arrive together into one log entry.
const WRITES: usize = 64;

/// Bytes of keys and values under way at a time, if it is more than one write: few nodes are given more memory for
/// requests.
const WRITE_BYTES: usize = 16 << 20;

/// Bytes that are read at a time.
const READ_BYTES: usize = 1 << 20;

/// Reads all lines and says what would be written. Asks no node.
pub(super) fn try_out(choice: &Import, format: Format) -> Result<u8, Failure> {
    let mut lines = Lines::open(choice)?;
    let mut would = Imported::default();
    let now = now_ms();
    while let Some((_, line)) = lines.next()? {
        match is_gone(&line, now) {
            true => would.expired += 1,
            false => would.written += 1,
        }
    }
    Printer::new(format).imported(&would, true)?;
    Ok(exit::OK)
}

/// Writes the lines.
pub(super) async fn import(
    client: &Client,
    printer: &Printer,
    choice: &Import,
) -> Result<u8, Failure> {
    // A pipe, such as that of `<(zcat keys.gz)`, can be read once only.
    if choice.file.is_file() {
        let mut lines = Lines::open(choice)?;
        while lines.next()?.is_some() {}
    }
    let mut lines = read_aside(choice.clone());
    let mut progress = Progress::begin();
    let mut writes = Writes::new(client, choice.nx);
    let failure = loop {
        // A line may be long in coming; what is under way goes on meanwhile.
        let line = tokio::select! {
            Some(written) = writes.under_way.next() => {
                match writes.finish(written) {
                    Ok(()) => continue,
                    Err(failed) => break Some(failed),
                }
            }
            line = lines.recv() => line,
        };
        match line {
            None => break None,
            Some(Err(failed)) => break Some(failed),
            Some(Ok((at, line, bytes))) => {
                progress.advance(bytes);
                if let Err(failed) = writes.begin(at, line).await {
                    break Some(failed);
                }
            }
        }
    };
    // What is under way comes to its end either way, and the first line that failed is where to go on.
    let rest = writes.end().await;
    let first = [failure, rest]
        .into_iter()
        .flatten()
        .min_by_key(|(at, _)| *at);
    progress.end();
    let Some((at, failure)) = first else {
        printer
            .imported(&writes.done, false)
            .map_err(Failure::Unprinted)?;
        return Ok(exit::OK);
    };
    let Imported { written, .. } = writes.done;
    Talk::new().note(&format!(
        "{written} keys were written; all lines before line {at} are done: --from-line {at} goes on there"
    ));
    Err(failure)
}

/// A line that was not written, and why.
type Failed = (u64, Failure);

/// Lines that wait to be written: few, since each may hold 64 MiB.
const READ_AHEAD: usize = 2;

/// Reads lines on a thread of its own: each with its number and its bytes. Ends with the receiver, with the process, or
/// after the last line.
fn read_aside(choice: Import) -> Receiver<Result<(u64, Line, u64), Failed>> {
    let (send, lines) = channel(READ_AHEAD);
    thread::spawn(move || {
        let mut source = match Lines::open(&choice) {
            Ok(source) => source,
            // A receiver that is gone needs no word of it.
            Err(failure) => return drop(send.blocking_send(Err((choice.from_line, failure)))),
        };
        loop {
            let read = match source.next() {
                Ok(None) => return,
                Ok(Some((at, line))) => Ok((at, line, source.text.len() as u64 + 1)),
                Err(failure) => Err((source.at, failure)),
            };
            if send.blocking_send(read).is_err() {
                return;
            }
        }
    });
    lines
}

/// Writes under way.
struct Writes<'a> {
    client: &'a Client,
    options: SetOptions,
    under_way: FuturesUnordered<Write<'a>>,
    keys: HashSet<Bytes>,
    bytes: usize,
    done: Imported,
}

type Write<'a> = std::pin::Pin<Box<dyn Future<Output = Written> + 'a>>;

struct Written {
    at: u64,
    key: Bytes,
    bytes: usize,
    /// The revision; none if the key was there.
    outcome: Result<Option<u64>, Error>,
}

impl<'a> Writes<'a> {
    fn new(client: &'a Client, absent: bool) -> Self {
        let condition = match absent {
            true => Condition::Absent,
            false => Condition::Always,
        };
        Self {
            client,
            options: SetOptions {
                ttl: None,
                condition,
            },
            under_way: FuturesUnordered::new(),
            keys: HashSet::new(),
            bytes: 0,
            done: Imported::default(),
        }
    }

    /// Begins to write a line once there is room, and no other write of its key.
    async fn begin(&mut self, at: u64, line: Line) -> Result<(), Failed> {
        let bytes = line.key.len() + line.value.len();
        while self.under_way.len() >= WRITES
            || (self.bytes + bytes > WRITE_BYTES && !self.under_way.is_empty())
            || self.keys.contains(&line.key)
        {
            self.finish_one().await?;
        }
        let now = now_ms();
        if is_gone(&line, now) {
            self.done.expired += 1;
            return Ok(());
        }
        let ttl = line
            .expires_ms
            .map(|at| Duration::from_millis(at.saturating_sub(now)));
        let options = SetOptions {
            ttl,
            ..self.options
        };
        self.bytes += bytes;
        self.keys.insert(line.key.clone());
        let client = self.client;
        self.under_way.push(Box::pin(async move {
            let outcome = client.set_with(&line.key, line.value, &options).await;
            Written {
                at,
                key: line.key,
                bytes,
                outcome,
            }
        }));
        Ok(())
    }

    /// Waits for all, and returns the first line that failed.
    async fn end(&mut self) -> Option<Failed> {
        let mut first: Option<Failed> = None;
        while !self.under_way.is_empty() {
            if let Err(failed) = self.finish_one().await {
                let is_first = first.as_ref().is_none_or(|(at, _)| failed.0 < *at);
                first = if is_first { Some(failed) } else { first };
            }
        }
        first
    }

    async fn finish_one(&mut self) -> Result<(), Failed> {
        match self.under_way.next().await {
            Some(written) => self.finish(written),
            None => Ok(()),
        }
    }

    fn finish(&mut self, written: Written) -> Result<(), Failed> {
        self.bytes -= written.bytes;
        self.keys.remove(&written.key);
        match written.outcome {
            Ok(_) => self.done.written += 1,
            Err(error) if error.code() == ErrorCode::PreconditionFailed => self.done.present += 1,
            Err(error) => return Err((written.at, error.into())),
        }
        Ok(())
    }
}

/// The lines that are to be written.
struct Lines<'a> {
    source: Box<dyn BufRead>,
    name: String,
    choice: &'a Import,
    text: Vec<u8>,
    /// The line that was read last, from 1.
    at: u64,
}

impl<'a> Lines<'a> {
    fn open(choice: &'a Import) -> Result<Self, Failure> {
        let name = choice.file.display().to_string();
        let source: Box<dyn BufRead> = match choice.file == Path::new("-") {
            true => Box::new(BufReader::with_capacity(READ_BYTES, io::stdin())),
            false => {
                let opened = File::open(&choice.file);
                let opened = opened.map_err(|err| usage(format!("cannot read {name}: {err}")))?;
                Box::new(BufReader::with_capacity(READ_BYTES, opened))
            }
        };
        Ok(Self {
            source,
            name,
            choice,
            text: Vec::new(),
            at: 0,
        })
    }

    /// The next line that is chosen, and its number. Empty lines are passed over.
    fn next(&mut self) -> Result<Option<(u64, Line)>, Failure> {
        loop {
            self.at += 1;
            let bad = |why: String| {
                Failure::Backup(format!(
                    "line {} of {} is refused: {why}",
                    self.at, self.name
                ))
            };
            let is_there = line::read(&mut self.source, &mut self.text);
            if !is_there.map_err(|err| bad(err.to_string()))? {
                return Ok(None);
            }
            if self.at < self.choice.from_line || self.text.trim_ascii().is_empty() {
                continue;
            }
            let line = line::parse(&self.text).map_err(bad)?;
            if line.key.starts_with(self.choice.prefix.as_bytes()) {
                return Ok(Some((self.at, line)));
            }
        }
    }
}

/// Whether a key has no time left.
fn is_gone(line: &Line, now_ms: u64) -> bool {
    line.expires_ms.is_some_and(|at| at <= now_ms)
}
