//! The state that the log's handle, its readers and its one writer share: the recent records, the index
//! of the segments, and the queue.
//! Never touches the disk while its lock is held.
//!
//! There are two views of the log. The *logical* one changes when a call is made (`first`, `next`,
//! the cache); the *physical* one (`segments`) changes when the writer has executed that call.
//! They agree below `stable_next`: the end of the written records, cut by every truncation that is
//! still queued.
//!
//! Invariants: every record in `stable_next..next` is in the cache; the cache is contiguous and
//! ends at `next`; `first <= next`.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::{Condvar, Mutex};

use crate::record::{LogId, Record};
use crate::segment::{Extent, SegmentIndex};
use crate::wal::Job;
use memkv_metrics::Histogram;

/// The cache's memory is not shrunk below room for this many records: that would gain too little.
const SMALL_CACHE: usize = 1024;

/// Called after each change of the queue.
pub(crate) type Wakeup = Arc<dyn Fn() + Send + Sync>;

/// Everything shared, behind one lock that is held for moments only.
pub(crate) struct Shared {
    pub(crate) inner: Mutex<Inner>,
    /// Wakes the writer.
    pub(crate) work: Condvar,
    /// Bytes of the next new segment.
    pub(crate) segment_bytes: AtomicU64,
    /// How long the fsyncs of segments take.
    pub(crate) fsync: Histogram,
}

pub(crate) struct Inner {
    pub(crate) log: LogState,
    pub(crate) queue: Vec<Job>,
    /// Why no further work is accepted.
    pub(crate) stopped: Option<(io::ErrorKind, String)>,
    pub(crate) shutdown: bool,
    pub(crate) wakeup: Option<Wakeup>,
}

pub(crate) struct LogState {
    pub(crate) purged: Option<LogId>,
    /// Index of the first record; equal to `next` if there is none.
    pub(crate) first: u64,
    /// Index that the next record gets.
    pub(crate) next: u64,
    pub(crate) committed: Option<LogId>,
    cache: VecDeque<Record>,
    cache_bytes: u64,
    cache_limit: u64,
    /// Queued truncations: the first index that each drops.
    cuts: VecDeque<u64>,
    pub(crate) segments: VecDeque<SegmentIndex>,
    /// Index after the last written record, physically.
    pub(crate) written_next: u64,
    /// Index after the last durable record, physically.
    pub(crate) durable_next: u64,
}

impl LogState {
    pub(crate) fn new(cache_limit: u64) -> Self {
        Self {
            purged: None,
            first: 0,
            next: 0,
            committed: None,
            cache: VecDeque::new(),
            cache_bytes: 0,
            cache_limit,
            cuts: VecDeque::new(),
            segments: VecDeque::new(),
            written_next: 0,
            durable_next: 0,
        }
    }

    /// Whether nothing was ever appended or purged, so that the log may begin anywhere.
    pub(crate) fn is_untouched(&self) -> bool {
        self.first == self.next && self.purged.is_none()
    }

    /// Index of the first cached record.
    fn cache_first(&self) -> u64 {
        self.next - self.cache.len() as u64
    }

    fn below_cuts(&self, index: u64) -> u64 {
        self.cuts.iter().fold(index, |index, &cut| index.min(cut))
    }

    pub(crate) fn durable(&self) -> Option<LogId> {
        let next = self.below_cuts(self.durable_next).min(self.next);
        next.checked_sub(1).and_then(|index| self.id_at(index))
    }

    /// Identity of the last record, or of the last purged one if there is none.
    pub(crate) fn last(&self) -> Option<LogId> {
        if self.first == self.next {
            self.purged
        } else {
            self.id_at(self.next - 1)
        }
    }

    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        if index >= self.next {
            return None;
        }
        if index < self.first {
            return self.purged.filter(|purged| purged.index == index);
        }
        match index.checked_sub(self.cache_first()) {
            Some(at) => self.cache.get(at as usize).map(|record| record.id),
            None => self
                .segment_of(index)
                .and_then(|segment| segment.id_at(index)),
        }
    }

    fn segment_of(&self, index: u64) -> Option<&SegmentIndex> {
        let after = self
            .segments
            .partition_point(|segment| segment.first() <= index);
        after.checked_sub(1).and_then(|at| self.segments.get(at))
    }

    pub(crate) fn append(&mut self, records: &[Record]) {
        for record in records {
            self.cache_bytes += record.encoded_len();
            self.cache.push_back(record.clone());
        }
        self.next += records.len() as u64;
        self.evict();
    }

    /// Drops the records from `from` on, and notes that the disk still has them.
    pub(crate) fn cut(&mut self, from: u64) {
        while self.cache_first() < self.next && self.next > from {
            self.next -= 1;
            if let Some(record) = self.cache.pop_back() {
                self.cache_bytes -= record.encoded_len();
            }
        }
        self.next = self.next.min(from);
        self.cuts.push_back(from);
    }

    /// Drops everything; the log continues at `first`.
    pub(crate) fn reset(&mut self, purged: Option<LogId>, first: u64) {
        self.cache.clear();
        self.cache_bytes = 0;
        (self.first, self.next, self.purged) = (first, first, purged);
        self.cuts.push_back(0);
    }

    /// The writer has executed the oldest queued truncation.
    pub(crate) fn cut_executed(&mut self, next: u64) {
        self.cuts.pop_front();
        self.written_next = next;
        self.durable_next = self.durable_next.min(next);
    }

    pub(crate) fn purge(&mut self, id: LogId) {
        self.purged = Some(id);
        self.first = self.first.max(id.index + 1);
        self.evict();
    }

    /// Drops cached records that are purged, or that are on disk and exceed the cache's size.
    pub(crate) fn evict(&mut self) {
        self.evict_while(|log, _| log.cache_bytes > log.cache_limit);
    }

    /// Drops cached records up to `through` that are on disk: no reader is expected to need them soon.
    pub(crate) fn forget(&mut self, through: u64) {
        self.evict_while(|_, index| index <= through);
        // Frees the memory that a burst needed.
        if self.cache.capacity() > SMALL_CACHE.max(self.cache.len() * 8) {
            self.cache.shrink_to(self.cache.len() * 2);
        }
    }

    /// Drops cached records from the front on, as long as they are purged, or on disk and not needed.
    fn evict_while(&mut self, may_go: impl Fn(&Self, u64) -> bool) {
        let stable = self.below_cuts(self.written_next);
        while let Some(front) = self.cache.front() {
            let index = front.id.index;
            let purged = index < self.first;
            if !purged && (index >= stable || !may_go(self, index)) {
                break;
            }
            self.cache_bytes -= front.encoded_len();
            self.cache.pop_front();
        }
    }

    /// Splits the records from `start` on into those that must be read from disk and those in memory,
    /// within the budgets, but at least one record.
    pub(crate) fn plan(
        &self,
        range: std::ops::Range<u64>,
        max_bytes: u64,
        max_records: usize,
    ) -> (Vec<Extent>, Vec<Record>) {
        let (mut extents, mut records) = (Vec::new(), Vec::new());
        let mut index = range.start.max(self.first);
        let end = range.end.min(self.next);
        let (mut bytes, mut count) = (0u64, 0usize);
        let mut fits = |len: u64| {
            bytes = bytes.saturating_add(len);
            count += 1;
            count == 1 || (bytes <= max_bytes && count <= max_records)
        };
        while index < end.min(self.cache_first()) {
            let Some(segment) = self.segment_of(index) else {
                break;
            };
            let start = index;
            let stop = end.min(self.cache_first()).min(segment.next());
            while index < stop && fits(segment.position(index + 1) - segment.position(index)) {
                index += 1;
            }
            if index > start {
                extents.push(Extent {
                    path: segment.path.clone(),
                    file: segment.file.clone(),
                    generation: segment.header.generation,
                    salt: segment.header.salt,
                    first: start,
                    offsets: segment.position(start)..segment.position(index),
                });
            }
            if index < stop || index == start {
                return (extents, records);
            }
        }
        while index < end {
            let Some(record) = self.cache.get((index - self.cache_first()) as usize) else {
                break;
            };
            if !fits(record.encoded_len()) {
                break;
            }
            records.push(record.clone());
            index += 1;
        }
        (extents, records)
    }
}

impl Inner {
    /// The error that answers calls after the worker has ended.
    pub(crate) fn stopped_error(&self) -> Option<io::Error> {
        self.stopped
            .as_ref()
            .map(|(kind, text)| io::Error::new(*kind, text.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_is_forgotten() {
        let mut log = LogState::new(u64::MAX);
        let record = |index| Record {
            id: LogId {
                term: 1,
                leader: 1,
                index,
            },
            payload: vec![b'x'; 10].into(),
        };
        let records: Vec<Record> = (0..3000).map(record).collect();
        log.append(&records);
        log.forget(2999);
        assert_eq!(log.cache_first(), 0, "nothing is written");
        log.written_next = 2990;
        log.forget(99);
        assert_eq!(log.cache_first(), 100);
        log.forget(2999);
        assert_eq!(log.cache_first(), 2990);
        assert_eq!(log.cache_bytes, 10 * record(0).encoded_len());
        assert!(log.cache.capacity() < 100, "{}", log.cache.capacity());
        let (extents, cached) = log.plan(2990..3000, u64::MAX, usize::MAX);
        assert!(extents.is_empty());
        assert_eq!(cached, records[2990..]);
    }
}
