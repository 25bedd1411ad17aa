//! Segment files: their header, the index of their records, and reading them back.
//! Never decides what a damaged record means; `recovery` does.
//! Invariant: a segment visible under its final name has a complete, durable header.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{DiskFile, read_exact_at};
use crate::format::{Unreadable, check_magic};
use crate::record::{
    LARGEST, LogId, RECORD_ALIGN, RECORD_HEADER_LEN, Record, RecordHeader, looks_like_header,
    u32_at, u64_at,
};

/// Bytes before the first record: one sector, which disks write as a whole.
pub(crate) const SEGMENT_HEADER_LEN: u64 = 512;

/// The digit is the format version. Records of version 1 had no group.
const MAGIC: &[u8; 8] = b"MKVSEG2\n";
/// Place of the version.
const VERSION_AT: usize = 6;
const FLAG_SYNCED: u32 = 1;
const FLAG_STARTS_LOG: u32 = 2;
const FLAG_HAS_PREVIOUS: u32 = 4;
const CRC_AT: usize = SEGMENT_HEADER_LEN as usize - 4;

/// The first sector of a segment. Little-endian: magic, flags u32 at 8, checksum of the record
/// before u32 at 12, store u64, generation, salt, first index, term, leader and index of the
/// record before, zeros, CRC u32 at 508.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// Random id of the data directory, so that a segment copied from another node is refused.
    pub(crate) store: u64,
    /// Number of this use of a file as a segment; larger than that of every segment before.
    pub(crate) generation: u64,
    /// Random; part of every record's checksum.
    pub(crate) salt: u64,
    /// Index of the first record.
    pub(crate) first: u64,
    /// Whether records in it are synced before they are acknowledged.
    pub(crate) synced: bool,
    /// Whether everything in older generations is dropped: the log begins here, after `previous`.
    pub(crate) starts_log: bool,
    /// The record before the first one; none where the log begins without any.
    pub(crate) previous: Option<LogId>,
    /// Checksum of that record; 0 where the log begins.
    pub(crate) previous_checksum: u32,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_LEN as usize] {
        let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
        let mut flags = 0;
        flags |= if self.synced { FLAG_SYNCED } else { 0 };
        flags |= if self.starts_log { FLAG_STARTS_LOG } else { 0 };
        flags |= if self.previous.is_some() {
            FLAG_HAS_PREVIOUS
        } else {
            0
        };
        let previous = self.previous.unwrap_or(LogId {
            term: 0,
            leader: 0,
            index: 0,
        });
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.previous_checksum.to_le_bytes());
        let numbers = [
            self.store,
            self.generation,
            self.salt,
            self.first,
            previous.term,
            previous.leader,
            previous.index,
        ];
        for (at, number) in numbers.iter().enumerate() {
            bytes[16 + at * 8..24 + at * 8].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`Unreadable::Version`] for an intact header of another format version,
    /// [`Unreadable::Damaged`] if the bytes are no complete header, or name an index or a generation
    /// that none has.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_LEN as usize]) -> Result<Self, Unreadable> {
        if u32_at(bytes, CRC_AT) != crc32fast::hash(&bytes[..CRC_AT]) {
            return Err(Unreadable::Damaged);
        }
        check_magic(bytes, MAGIC, VERSION_AT)?;
        let flags = u32_at(bytes, 8);
        let number = |at: usize| u64_at(bytes, 16 + at * 8);
        let previous = LogId {
            term: number(4),
            leader: number(5),
            index: number(6),
        };
        let numbers = [number(1), number(3)];
        if !previous.is_sane() || numbers.iter().any(|number| *number >= LARGEST) {
            return Err(Unreadable::Damaged);
        }
        Ok(Self {
            store: number(0),
            generation: number(1),
            salt: number(2),
            first: number(3),
            synced: flags & FLAG_SYNCED != 0,
            starts_log: flags & FLAG_STARTS_LOG != 0,
            previous: (flags & FLAG_HAS_PREVIOUS != 0).then_some(previous),
            previous_checksum: u32_at(bytes, 12),
        })
    }
}

/// The index of a live segment: the offset of each record, and the leader that proposed it.
pub(crate) struct SegmentIndex {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) header: SegmentHeader,
    /// Offset after the last record.
    pub(crate) end: u64,
    /// Offset of each record in units of `RECORD_ALIGN`: 4 bytes per record, segments to 32 GiB.
    positions: Vec<u32>,
    /// Term and leader from an index on; a few per segment at most.
    runs: Vec<(u64, u64, u64)>,
}

impl SegmentIndex {
    pub(crate) fn new(path: PathBuf, file: Arc<dyn DiskFile>, header: SegmentHeader) -> Self {
        let (positions, runs) = (Vec::new(), Vec::new());
        Self {
            path,
            file,
            header,
            end: SEGMENT_HEADER_LEN,
            positions,
            runs,
        }
    }

    pub(crate) fn first(&self) -> u64 {
        self.header.first
    }

    /// Index after the last record.
    pub(crate) fn next(&self) -> u64 {
        self.header.first + self.positions.len() as u64
    }

    /// Adds the record that starts where the last one ended.
    pub(crate) fn push(&mut self, id: LogId, len: u64) {
        self.positions.push((self.end / RECORD_ALIGN) as u32);
        self.end += len;
        if !matches!(self.runs.last(), Some(&(_, term, leader)) if (term, leader) == (id.term, id.leader))
        {
            self.runs.push((id.index, id.term, id.leader));
        }
    }

    /// Forgets the records from `from` on. Their bytes stay.
    pub(crate) fn cut(&mut self, from: u64) {
        if from >= self.next() {
            return;
        }
        let keep = from.saturating_sub(self.header.first) as usize;
        self.end = u64::from(self.positions[keep]) * RECORD_ALIGN;
        self.positions.truncate(keep);
        self.runs.retain(|&(index, _, _)| index < from);
    }

    /// Identity of a record in this segment.
    pub(crate) fn id_at(&self, index: u64) -> Option<LogId> {
        if index < self.first() || index >= self.next() {
            return None;
        }
        let run = self
            .runs
            .partition_point(|&(first, _, _)| first <= index)
            .checked_sub(1)?;
        let (_, term, leader) = self.runs[run];
        Some(LogId {
            term,
            leader,
            index,
        })
    }

    /// Offset of a record, or of the end for `next()`.
    pub(crate) fn position(&self, index: u64) -> u64 {
        match self.positions.get((index - self.first()) as usize) {
            Some(&position) => u64::from(position) * RECORD_ALIGN,
            None => self.end,
        }
    }
}

/// A run of records in one segment, to be read without any lock. Holding the file keeps it from
/// being recycled.
pub(crate) struct Extent {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) generation: u64,
    pub(crate) salt: u64,
    pub(crate) first: u64,
    pub(crate) offsets: Range<u64>,
}

impl Extent {
    /// Reads and verifies all records of the extent; their payloads share one buffer.
    pub(crate) fn read(&self, records: &mut Vec<Record>) -> io::Result<()> {
        let mut buffer = vec![0; (self.offsets.end - self.offsets.start) as usize];
        read_exact_at(&*self.file, self.offsets.start, &mut buffer)?;
        let buffer = Bytes::from(buffer);
        let mut at = 0;
        let mut index = self.first;
        while at < buffer.len() {
            let record = self.decode(&buffer, at, index).map_err(|unreadable| {
                let offset = self.offsets.start + at as u64;
                let path = self.path.display();
                let what = format!(
                    "record {index} in `{path}` at offset {offset} has changed since it was \
                     written ({unreadable}); stop this node and replace it"
                );
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?;
            at += record.encoded_len() as usize;
            index += 1;
            records.push(record);
        }
        Ok(())
    }

    fn decode(&self, buffer: &Bytes, at: usize, index: u64) -> Result<Record, Unreadable> {
        let (header, _) = RecordHeader::decode(&buffer[at..], self.generation, self.salt)?;
        let start = at + RECORD_HEADER_LEN as usize;
        let end = start + header.payload_len as usize;
        if header.id.index != index || end > buffer.len() {
            return Err(Unreadable::Damaged);
        }
        let payload = buffer.slice(start..end);
        match crc32fast::hash(&payload) == header.payload_crc {
            true => Ok(Record {
                id: header.id,
                payload,
            }),
            false => Err(Unreadable::Damaged),
        }
    }
}

/// Reads a file front to back in large pieces; returned bytes are borrowed from the window.
pub(crate) struct Window<'a> {
    file: &'a dyn DiskFile,
    len: u64,
    start: u64,
    buffer: Vec<u8>,
}

/// One read per MiB keeps the number of system calls in recovery small.
const WINDOW: u64 = 1 << 20;

impl<'a> Window<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile) -> io::Result<Self> {
        Ok(Self {
            file,
            len: file.len()?,
            start: 0,
            buffer: Vec::new(),
        })
    }

    /// The bytes of a range; `None` if the file ends before. Nothing is allocated for a range
    /// that the file does not have.
    pub(crate) fn get(&mut self, offset: u64, len: u64) -> io::Result<Option<&[u8]>> {
        let Some(end) = offset.checked_add(len).filter(|&end| end <= self.len) else {
            return Ok(None);
        };
        let inside = offset >= self.start && end <= self.start + self.buffer.len() as u64;
        if !inside {
            let size = len.max(WINDOW).min(self.len - offset);
            self.buffer.resize(size as usize, 0);
            self.start = offset;
            read_exact_at(self.file, offset, &mut self.buffer)?;
        }
        let at = (offset - self.start) as usize;
        Ok(Some(&self.buffer[at..at + len as usize]))
    }
}

/// Where and why the scan of a segment ended before its limit.
pub(crate) struct Bad {
    pub(crate) offset: u64,
    /// Index that the record there should have.
    pub(crate) index: u64,
    /// Whether the bytes there begin like a record of this segment.
    pub(crate) remains: bool,
    pub(crate) what: &'static str,
    /// Damage, unless an intact record of another version or group is there.
    pub(crate) unreadable: Unreadable,
}

/// The result of reading a segment front to back.
pub(crate) struct Scan {
    pub(crate) bad: Option<Bad>,
    pub(crate) last: Option<LogId>,
    pub(crate) checksum: u32,
    pub(crate) committed: u64,
}

/// Reads records until `limit` (exclusive) or the first invalid one, into the index.
pub(crate) fn scan(segment: &mut SegmentIndex, limit: u64) -> io::Result<Scan> {
    let file = segment.file.clone();
    let mut window = Window::new(&*file)?;
    let header = segment.header;
    let mut scan = Scan {
        bad: None,
        last: header.previous,
        checksum: header.previous_checksum,
        committed: 0,
    };
    while segment.next() < limit {
        match check(
            &mut window,
            segment.end,
            segment.next(),
            &header,
            scan.checksum,
        )? {
            Ok((record, checksum)) => {
                segment.push(record.id, record.encoded_len());
                scan.last = Some(record.id);
                scan.checksum = checksum;
                scan.committed = scan.committed.max(record.committed);
            }
            Err(bad) => {
                scan.bad = Some(bad);
                break;
            }
        }
    }
    Ok(scan)
}

fn check(
    window: &mut Window<'_>,
    offset: u64,
    index: u64,
    segment: &SegmentHeader,
    previous: u32,
) -> io::Result<Result<(RecordHeader, u32), Bad>> {
    let bad = |remains, what| {
        Ok(Err(Bad {
            offset,
            index,
            remains,
            what,
            unreadable: Unreadable::Damaged,
        }))
    };
    let Some(bytes) = window.get(offset, RECORD_HEADER_LEN)? else {
        return bad(false, "the segment ends");
    };
    let looks = looks_like_header(bytes, segment.generation);
    let (header, checksum) = match RecordHeader::decode(bytes, segment.generation, segment.salt) {
        Ok(read) => read,
        Err(unreadable) => {
            let found = bad(looks, "the record's header is missing or damaged")?;
            return Ok(found.map_err(|bad| Bad { unreadable, ..bad }));
        }
    };
    if header.id.index != index || header.previous != previous {
        return bad(true, "the record does not follow the one before it");
    }
    let payload = window.get(offset + RECORD_HEADER_LEN, u64::from(header.payload_len))?;
    match payload {
        Some(payload) if crc32fast::hash(payload) == header.payload_crc => {
            Ok(Ok((header, checksum)))
        }
        _ => bad(true, "the record's payload is damaged"),
    }
}

/// The headers of the same use of a segment behind a bad record.
#[derive(Default)]
pub(crate) struct Behind {
    /// How many there are.
    pub(crate) count: usize,
    /// The highest durable frontier that any of them states.
    pub(crate) frontier: u64,
    /// Where the first intact one of another version or group is.
    pub(crate) unreadable: Option<(u64, Unreadable)>,
}

/// Searches behind a bad record for headers of the same use of the segment. Payloads are not checked.
pub(crate) fn look_behind(segment: &SegmentIndex, bad: &Bad) -> io::Result<Behind> {
    let mut window = Window::new(&*segment.file)?;
    let mut behind = Behind::default();
    let mut offset = bad.offset;
    while let Some(bytes) = window.get(offset, RECORD_HEADER_LEN)? {
        match RecordHeader::decode(bytes, segment.header.generation, segment.header.salt) {
            Ok((header, _)) => {
                behind.count += 1;
                behind.frontier = behind.frontier.max(header.frontier);
            }
            Err(Unreadable::Damaged) => {}
            Err(other) => {
                behind.unreadable.get_or_insert((offset, other));
            }
        }
        offset += RECORD_ALIGN;
    }
    Ok(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_header_survives_a_round_trip_and_no_flip() {
        let header = SegmentHeader {
            store: 1,
            generation: 2,
            salt: 3,
            first: 4,
            synced: true,
            starts_log: false,
            previous: Some(LogId {
                term: 5,
                leader: 6,
                index: 3,
            }),
            previous_checksum: 7,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = SegmentHeader::decode(&flipped);
            assert_eq!(read, Err(Unreadable::Damaged), "bit {bit}");
        }
        let mut first_version = bytes;
        first_version[VERSION_AT] = b'1';
        let crc = crc32fast::hash(&first_version[..CRC_AT]);
        first_version[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        let (found, known) = (b'1', b'2');
        let refused = Unreadable::Version { found, known };
        assert_eq!(SegmentHeader::decode(&first_version), Err(refused));
    }
}
