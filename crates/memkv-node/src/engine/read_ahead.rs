//! Reads the log ahead for an engine that starts.
//!
//! It replays the log in ranges of 64 entries, one after the other, on the thread of consensus. Each
//! of them by itself would be a small read that is waited for, so the records behind it come with it: up to
//! [`PIECE_BYTES`], but always one record. Never used once the engine runs: then the log changes, and
//! records that were read before may be gone from it.
//!
//! Invariant: at most one piece is held, and none from the engine's first change of the log on.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use memkv_disk::{Found, LogReader, Record};

use crate::Env;
use crate::env::blocking;
use crate::sync::lock::Mutex;

/// Bytes that are read at once: a replay hands itself to another thread once per mebibyte, and a disk
/// is as fast with pieces of this size as with larger ones.
const PIECE_BYTES: u64 = 1024 * 1024;

/// The piece of the log that was read last.
#[derive(Default)]
pub(crate) struct ReadAhead {
    piece: Mutex<Vec<Record>>,
    is_over: AtomicBool,
}

impl ReadAhead {
    /// The engine runs, or changes its log.
    pub(crate) fn end(&self) {
        if !self.is_over.swap(true, Ordering::Relaxed) {
            *self.piece.lock() = Vec::new();
        }
    }

    /// Whether a range is to be read with what follows it. Not a single entry: those come from
    /// all over the log.
    pub(super) fn is_for(&self, range: &Range<u64>) -> bool {
        !self.is_over.load(Ordering::Relaxed) && range.end.saturating_sub(range.start) > 1
    }

    /// The records of a range that is not in memory, from its beginning on, but perhaps not all. Reads
    /// missing records on a thread that may wait.
    ///
    /// # Errors
    /// As those of [`LogReader::read`].
    pub(super) async fn read(
        &self,
        log: &LogReader,
        range: Range<u64>,
        env: &Env,
    ) -> io::Result<Vec<Record>> {
        if let Some(records) = self.find(&range) {
            return Ok(records);
        }
        let records = match log.look(range.start..u64::MAX, PIECE_BYTES, usize::MAX) {
            Found::InMemory(records) => records,
            Found::OnDisk(cold) => blocking(env, || cold.read()).await??,
        };
        let wanted = records
            .iter()
            .take_while(|record| record.id.index < range.end);
        let wanted = wanted.cloned().collect();
        *self.piece.lock() = records;
        Ok(wanted)
    }

    fn find(&self, range: &Range<u64>) -> Option<Vec<Record>> {
        let piece = self.piece.lock();
        let first = piece.first()?.id.index;
        let from = usize::try_from(range.start.checked_sub(first)?).ok()?;
        let len = usize::try_from(range.end - range.start).ok()?;
        let found: Vec<Record> = piece.iter().skip(from).take(len).cloned().collect();
        (!found.is_empty()).then_some(found)
    }
}
