//! Reading the log: from memory where it is recent, else from the segments.
//! Never waits for the writer's disk operations; the shared lock is held for moments only.
//! Invariant: a returned record was appended, and not truncated or purged, when the call began.

use std::io;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use crate::record::{LogId, Record};
use crate::segment::Extent;
use crate::shared::Shared;

/// Where the requested records are.
pub enum Found {
    /// All of them are in memory.
    InMemory(Vec<Record>),
    /// Some must be read first.
    OnDisk(ColdRecords),
}

/// Records that must be read from the disk, and those in memory that follow them. Later changes of the
/// log do not affect them.
pub struct ColdRecords {
    extents: Vec<Extent>,
    recent: Vec<Record>,
}

impl ColdRecords {
    /// Reads them. Blocks on the disk.
    ///
    /// # Errors
    /// As those of [`LogReader::read`].
    pub fn read(self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for extent in &self.extents {
            extent.read(&mut records)?;
        }
        records.extend(self.recent);
        Ok(records)
    }
}

/// A view of the log that follows every append at once. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    pub(crate) shared: Arc<Shared>,
}

impl LogReader {
    /// Identity of the first record that is not purged; `None` if there is no record.
    pub fn first(&self) -> Option<LogId> {
        let inner = self.shared.inner.lock();
        inner.log.id_at(inner.log.first)
    }

    /// Identity of the last record, or of the last purged one where no record is left; `None`
    /// for a log that never had any.
    pub fn last(&self) -> Option<LogId> {
        self.shared.inner.lock().log.last()
    }

    /// The last purged record.
    pub fn purged(&self) -> Option<LogId> {
        self.shared.inner.lock().log.purged
    }

    /// Identity of a record; also of the last purged one.
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        self.shared.inner.lock().log.id_at(index)
    }

    /// The last record of each leader within a range of the log. Never waits for the disk.
    pub fn last_of_each_leader(&self, range: RangeInclusive<u64>) -> Vec<LogId> {
        let inner = self.shared.inner.lock();
        let log = &inner.log;
        let end = range.end().saturating_add(1).min(log.next);
        let mut index = (*range.start()).max(log.first);
        let mut ids = Vec::new();
        while index < end {
            let Some(of) = log.id_at(index) else { break };
            let is_of = |id: LogId| (id.term, id.leader) == (of.term, of.leader);
            // Within a log, terms and leaders never go back.
            let (mut last, mut after) = (of, end);
            while after - last.index > 1 {
                let middle = last.index + (after - last.index) / 2;
                match log.id_at(middle).filter(|id| is_of(*id)) {
                    Some(id) => last = id,
                    None => after = middle,
                }
            }
            ids.push(last);
            index = after;
        }
        ids
    }

    /// The records of a range, in order and without gaps: from the first one that still exists,
    /// up to `max_records` records and `max_bytes` bytes on disk, but always one if there is one.
    ///
    /// # Errors
    /// Of the disk, or [`io::ErrorKind::InvalidData`] for a record that was damaged after it was
    /// written. Blocks on the disk for records that are no longer in memory.
    pub fn read(
        &self,
        range: Range<u64>,
        max_bytes: u64,
        max_records: usize,
    ) -> io::Result<Vec<Record>> {
        match self.look(range, max_bytes, max_records) {
            Found::InMemory(records) => Ok(records),
            Found::OnDisk(cold) => cold.read(),
        }
    }

    /// The same without waiting for the disk: records in memory, or else the reads that are needed.
    pub fn look(&self, range: Range<u64>, max_bytes: u64, max_records: usize) -> Found {
        let (extents, recent) = self
            .shared
            .inner
            .lock()
            .log
            .plan(range, max_bytes, max_records);
        if extents.is_empty() {
            Found::InMemory(recent)
        } else {
            Found::OnDisk(ColdRecords { extents, recent })
        }
    }

    /// Number of live segments.
    pub fn segment_count(&self) -> usize {
        self.shared.inner.lock().log.segments.len()
    }

    /// Bytes of records in live segments.
    pub fn size_bytes(&self) -> u64 {
        self.shared
            .inner
            .lock()
            .log
            .segments
            .iter()
            .map(|segment| segment.end)
            .sum()
    }
}
