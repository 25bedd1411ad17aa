//! Log records: their identity, their bytes on disk, and the checks that make one valid.
//! Never touches a file. Payloads are opaque and never copied.
//! Invariants: a header is valid only for the generation and salt of its segment; a length is
//! bounded before anything is allocated.

use bytes::Bytes;

use crate::format::{GROUP, Unreadable, check_group, check_magic};

/// Position and origin of a log record.
///
/// Ordered by term, then leader, then index: the order in which Raft compares logs (Raft §5.4.1;
/// the leader is part of it because two leaders of one term never exist, so it decides nothing,
/// but keeps the order total).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// Term in which the record was proposed.
    pub term: u64,
    /// Node id of the leader that proposed it.
    pub leader: u64,
    /// Position in the log; the first record of a log is 0.
    pub index: u64,
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.term, self.leader, self.index)
    }
}

impl LogId {
    /// Whether a log can reach that index and term.
    pub(crate) fn is_sane(self) -> bool {
        self.index < LARGEST && self.term < LARGEST
    }
}

/// One log record. Cloning shares the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its position and origin.
    pub id: LogId,
    /// Its content; at most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

impl Record {
    /// Bytes that the record takes in a segment.
    pub fn encoded_len(&self) -> u64 {
        encoded_len(self.payload.len() as u64)
    }
}

/// Term and vote (Raft §5.1, figure 2), written as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: u64,
    /// Node id voted for in that term.
    pub voted_for: u64,
    /// Whether that vote is known to have been granted by a quorum.
    pub committed: bool,
}

/// Most bytes in one payload: far above any entry that the layers above allow (a value is at most
/// 64 MiB), and small enough that lengths fit 32 bits with room to spare.
pub const MAX_PAYLOAD: u64 = 512 << 20;

/// Bytes of a record's header.
pub const RECORD_HEADER_LEN: u64 = 72;

/// Records start at multiples of this, so that recovery can search for headers.
pub(crate) const RECORD_ALIGN: u64 = 8;

/// Indexes, terms and generations grow by one, so none reaches this. A larger number on a disk is damage,
/// even if its checksum fits. Additions to numbers below it cannot overflow.
pub(crate) const LARGEST: u64 = 1 << 62;

/// The last byte is the format version. Version 1 had no group.
const MAGIC: &[u8; 4] = b"MKR2";
/// Place of the version.
const VERSION_AT: usize = 3;

/// Bytes that a record with such a payload takes in a segment.
pub(crate) fn encoded_len(payload: u64) -> u64 {
    (RECORD_HEADER_LEN + payload).next_multiple_of(RECORD_ALIGN)
}

/// The header before every payload. All integers are little-endian:
///
/// ```text
///  0 magic u32      4 payload length u32    8 generation u64   16 index u64
/// 24 term u64      32 leader u64           40 frontier u64     48 committed u64
/// 56 checksum of the record before u32     60 payload CRC u32
/// 64 group u32     68 header CRC u32, seeded with the segment's salt
/// ```
///
/// The generation, the salt (a secret random number per segment, kept in the segment's header)
/// and the data directory's own id in that header take the place of a cluster tag: a record can
/// be mistaken neither for one of an earlier use of the same blocks, nor for one of another node,
/// nor can a client forge one inside a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) payload_len: u32,
    pub(crate) generation: u64,
    pub(crate) id: LogId,
    /// Every record below this index was durable before this one was written; 0 is none.
    pub(crate) frontier: u64,
    /// Every record below this index was known to be committed; 0 is none. A hint.
    pub(crate) committed: u64,
    /// Checksum of the record before.
    pub(crate) previous: u32,
    pub(crate) payload_crc: u32,
}

impl RecordHeader {
    /// The header's bytes and the record's checksum, which the next record carries. It covers the
    /// payload through its CRC, and all records before through `previous`.
    pub(crate) fn encode(&self, salt: u64) -> ([u8; RECORD_HEADER_LEN as usize], u32) {
        let mut bytes = [0; RECORD_HEADER_LEN as usize];
        bytes[0..4].copy_from_slice(MAGIC);
        bytes[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.index.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.id.term.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.id.leader.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.frontier.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.committed.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.previous.to_le_bytes());
        bytes[60..64].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[64..68].copy_from_slice(&GROUP.to_le_bytes());
        let checksum = header_checksum(&bytes, salt);
        bytes[68..72].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// Reads a header of this generation and salt, with its checksum.
    /// The payload is not read, and its length is not above [`MAX_PAYLOAD`].
    ///
    /// # Errors
    /// [`Unreadable::Version`] and [`Unreadable::Group`] for an intact header of another format
    /// version or Raft group, [`Unreadable::Damaged`] for anything else.
    pub(crate) fn decode(
        bytes: &[u8],
        generation: u64,
        salt: u64,
    ) -> Result<(Self, u32), Unreadable> {
        let bytes = bytes
            .first_chunk::<{ RECORD_HEADER_LEN as usize }>()
            .filter(|bytes| u64_at(*bytes, 8) == generation)
            .ok_or(Unreadable::Damaged)?;
        let checksum = u32_at(bytes, 68);
        if checksum != header_checksum(bytes, salt) {
            return Err(Unreadable::Damaged);
        }
        check_magic(bytes, MAGIC, VERSION_AT)?;
        check_group(u32_at(bytes, 64))?;
        let header = Self {
            payload_len: u32_at(bytes, 4),
            generation,
            id: LogId {
                index: u64_at(bytes, 16),
                term: u64_at(bytes, 24),
                leader: u64_at(bytes, 32),
            },
            frontier: u64_at(bytes, 40),
            committed: u64_at(bytes, 48),
            previous: u32_at(bytes, 56),
            payload_crc: u32_at(bytes, 60),
        };
        let numbers = [header.frontier, header.committed];
        let is_sane = u64::from(header.payload_len) <= MAX_PAYLOAD
            && header.id.is_sane()
            && numbers.iter().all(|number| *number < LARGEST);
        match is_sane {
            true => Ok((header, checksum)),
            false => Err(Unreadable::Damaged),
        }
    }

    /// Bytes of the whole record.
    pub(crate) fn encoded_len(&self) -> u64 {
        encoded_len(u64::from(self.payload_len))
    }
}

/// Whether these bytes start like a header of this generation, be it damaged or not.
pub(crate) fn looks_like_header(bytes: &[u8], generation: u64) -> bool {
    bytes.len() >= 16 && bytes.starts_with(MAGIC) && u64_at(bytes, 8) == generation
}

fn header_checksum(bytes: &[u8; RECORD_HEADER_LEN as usize], salt: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&bytes[..68]);
    hasher.finalize()
}

/// The little-endian number at `at`; the caller has checked the length.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The little-endian number at `at`; the caller has checked the length.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> RecordHeader {
        RecordHeader {
            payload_len: 5,
            generation: 7,
            id: LogId {
                term: 3,
                leader: 2,
                index: 11,
            },
            frontier: 9,
            committed: 8,
            previous: 0xdead_beef,
            payload_crc: crc32fast::hash(b"hello"),
        }
    }

    #[test]
    fn header_survives_a_round_trip_and_no_flip() {
        let (bytes, checksum) = header().encode(42);
        assert_eq!(
            RecordHeader::decode(&bytes, 7, 42),
            Ok((header(), checksum))
        );
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = RecordHeader::decode(&flipped, 7, 42);
            assert_eq!(read, Err(Unreadable::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn header_of_another_generation_or_salt_is_refused() {
        let (bytes, _) = header().encode(42);
        let damaged = Err(Unreadable::Damaged);
        assert_eq!(RecordHeader::decode(&bytes, 8, 42), damaged);
        assert_eq!(RecordHeader::decode(&bytes, 7, 43), damaged);
        assert_eq!(RecordHeader::decode(&bytes[..71], 7, 42), damaged);
    }

    #[test]
    fn header_of_another_version_or_group_is_refused_by_name() {
        let changed = |at: usize, to: u8| {
            let (mut bytes, _) = header().encode(42);
            bytes[at] = to;
            let checksum = header_checksum(&bytes, 42);
            bytes[68..72].copy_from_slice(&checksum.to_le_bytes());
            RecordHeader::decode(&bytes, 7, 42)
        };
        let (found, known) = (b'1', b'2');
        assert_eq!(changed(3, b'1'), Err(Unreadable::Version { found, known }));
        assert_eq!(changed(64, 3), Err(Unreadable::Group(3)));
        assert_eq!(changed(67, 1), Err(Unreadable::Group(1 << 24)));
    }

    #[test]
    fn numbers_that_no_log_reaches_are_refused_though_their_checksums_fit() {
        let change: [fn(&mut RecordHeader); 4] = [
            |header| header.id.index = LARGEST,
            |header| header.id.term = u64::MAX,
            |header| header.frontier = u64::MAX,
            |header| header.committed = u64::MAX,
        ];
        for change in change {
            let mut changed = header();
            change(&mut changed);
            let (bytes, _) = changed.encode(42);
            let read = RecordHeader::decode(&bytes, 7, 42);
            assert_eq!(read, Err(Unreadable::Damaged), "{changed:?}");
        }
    }

    #[test]
    fn hostile_length_is_refused_though_its_checksum_fits() {
        let (bytes, _) = RecordHeader {
            payload_len: u32::MAX,
            ..header()
        }
        .encode(42);
        let read = RecordHeader::decode(&bytes, 7, 42);
        assert_eq!(read, Err(Unreadable::Damaged));
    }
}
