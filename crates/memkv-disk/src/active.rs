//! The active segment, and the way of its bytes to the disk.
//! Never encodes a record, never starts or names a segment; `writer` does.
//!
//! Records are written past the system's cache where the file system can do that: durable with one
//! call. A direct write does not make earlier cached writes durable, so none is made while such a write
//! waits for a sync: the header of a new segment, and zeros that were written with it.
//! Invariants: everything written before `sync` returned is durable; only zeros, or records of another
//! generation, lie between `offset` and `zeroed_to`.

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::disk::{DirectWriter, DiskFile, is_refusal, zero_fill};
use crate::segment::SegmentHeader;
use crate::space::{Reserve, is_full};
use memkv_metrics::Histogram;

/// Zeros are written this far ahead at most: the cost comes in small pieces, never as a stall of a
/// whole segment, and once per MiB in the file system's journal.
const ZERO_AHEAD: u64 = 1 << 20;

pub(crate) struct Active {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) header: SegmentHeader,
    /// Name to take once the header is durable.
    pub(crate) publish: Option<PathBuf>,
    /// Where the last record ends.
    pub(crate) offset: u64,
    /// Everything below is allocated and written.
    pub(crate) zeroed_to: u64,
    pub(crate) capacity: u64,
    /// Whether a write must still be synced.
    pub(crate) dirty: bool,
    /// None where the file system supports no direct writes, or records are not synced.
    pub(crate) direct: Option<Box<dyn DirectWriter>>,
    /// Whether the file system has refused a direct write.
    pub(crate) refused: bool,
}

impl Active {
    /// Writes records behind the last one, with one call. `dirty` tells whether they are durable then.
    pub(crate) fn write(
        &mut self,
        records: &[IoSlice<'_>],
        bytes: u64,
        reserve: &Reserve,
        fsync: &Histogram,
    ) -> io::Result<()> {
        let started = Instant::now();
        let written = reserve.write(|| {
            let durable = self.write_direct(records)?;
            if !durable {
                self.file.write_at(self.offset, records)?;
            }
            Ok(durable)
        });
        if written.map_err(|error| self.failed("write", &error))? {
            fsync.count_duration(started.elapsed(), 1);
        } else {
            self.dirty = true;
        }
        self.offset += bytes;
        self.zero_ahead(reserve)
    }

    /// Writes records durably, if one call can do that: `false` if nothing was done.
    fn write_direct(&mut self, records: &[IoSlice<'_>]) -> io::Result<bool> {
        if self.dirty || skip_fsync() {
            return Ok(false);
        }
        let Some(direct) = &mut self.direct else {
            return Ok(false);
        };
        let written = direct.write(self.offset, records);
        self.unless_refused(written)
    }

    /// Whether a direct write was made. No further one is tried on a file system that opens a file for
    /// direct writes and then refuses one.
    fn unless_refused(&mut self, written: io::Result<()>) -> io::Result<bool> {
        match written {
            Err(error) if is_refusal(&error) => {
                tracing::warn!(
                    %error,
                    segment = %self.path.display(),
                    "the file system refuses direct writes: the log goes through the system's \
                     cache, with a write and a sync each"
                );
                self.direct = None;
                self.refused = true;
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }

    /// Writes zeros; `dirty` tells whether they are durable.
    fn write_zeros(&mut self, from: u64, to: u64) -> io::Result<()> {
        if !self.dirty
            && let Some(direct) = &mut self.direct
        {
            let written = direct.zero(from, to);
            if self.unless_refused(written)? {
                return Ok(());
            }
        }
        self.dirty = true;
        zero_fill(&*self.file, from, to)
    }

    /// Extends the zeroed part, if the records have reached its end. A full disk is no error here:
    /// the next write itself may still fit.
    pub(crate) fn zero_ahead(&mut self, reserve: &Reserve) -> io::Result<()> {
        let end = self.offset;
        if end < self.zeroed_to || self.zeroed_to >= self.capacity {
            self.zeroed_to = self.zeroed_to.max(end);
            return Ok(());
        }
        let to = self.capacity.min(end + ZERO_AHEAD).max(end);
        let written = reserve.write(|| self.write_zeros(end, to));
        match written {
            Ok(()) => self.zeroed_to = to,
            Err(error) if is_full(&error) => self.zeroed_to = end,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Makes all writes durable.
    pub(crate) fn sync(&mut self, fsync: &Histogram) -> io::Result<()> {
        let skipped = skip_fsync() && self.publish.is_none();
        if self.dirty && !skipped {
            let started = Instant::now();
            let synced = self.file.sync_data();
            synced.map_err(|error| self.failed("sync", &error))?;
            fsync.count_duration(started.elapsed(), 1);
        }
        self.dirty = false;
        Ok(())
    }

    fn failed(&self, what: &str, error: &io::Error) -> io::Error {
        let path = self.path.display();
        io::Error::new(
            error.kind(),
            format!("cannot {what} log segment `{path}`: {error}"),
        )
    }
}

#[cfg(memkv_bugs)]
fn skip_fsync() -> bool {
    crate::bugs::active(crate::bugs::Bug::SkipFsync)
}

#[cfg(not(memkv_bugs))]
const fn skip_fsync() -> bool {
    false
}
