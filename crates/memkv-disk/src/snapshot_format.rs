//! The bytes of a snapshot file, which also travel between nodes as they are.
//! Never interprets blocks or the extra data. Never allocates a length before bounding it.
//!
//! All integers are little-endian:
//!
//! ```text
//! magic "MKVSNAP1", index u64, term u64, leader u64, extra length u32, CRC u32, extra
//! blocks: kind u32 ("BLCK", last "DONE"), length u32, CRC of the content u32, chain u32, content
//! ```
//!
//! The CRC in front covers header and extra; `chain` is the CRC of the chain value before it, the
//! kind, the length and the content's CRC, so that blocks can be neither swapped nor left out.
//! The content of the last block is the number of blocks and of their bytes; the file ends there.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{DiskFile, read_exact_at};
use crate::record::{LogId, u32_at, u64_at};

/// Most bytes in one block: a value of 64 MiB, its key, and their description.
pub const MAX_BLOCK: usize = 65 << 20;

/// Most bytes of `SnapshotMeta::extra`.
pub const MAX_EXTRA: usize = 1 << 20;

pub(crate) const MAGIC: &[u8; 8] = b"MKVSNAP1";
const HEADER_LEN: usize = 40;
const BLOCK_HEADER_LEN: usize = 16;
const BLOCK: u32 = u32::from_le_bytes(*b"BLCK");
const DONE: u32 = u32::from_le_bytes(*b"DONE");
/// Content of the last block.
const TOTALS_LEN: usize = 16;

/// The description of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last record whose effect it contains.
    pub last: LogId,
    /// Opaque to storage, at most [`MAX_EXTRA`] bytes.
    pub extra: Bytes,
}

/// The next chain value, and the block's header.
fn block_header(chain: u32, kind: u32, content: &[u8]) -> ([u8; BLOCK_HEADER_LEN], u32) {
    let mut bytes = [0; BLOCK_HEADER_LEN];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[4..8].copy_from_slice(&(content.len() as u32).to_le_bytes());
    bytes[8..12].copy_from_slice(&crc32fast::hash(content).to_le_bytes());
    let chain = next_chain(chain, &bytes);
    bytes[12..].copy_from_slice(&chain.to_le_bytes());
    (bytes, chain)
}

fn next_chain(chain: u32, block_header: &[u8; BLOCK_HEADER_LEN]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&chain.to_le_bytes());
    hasher.update(&block_header[..12]);
    hasher.finalize()
}

fn header_crc(header: &[u8; HEADER_LEN], extra: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..HEADER_LEN - 4]);
    hasher.update(extra);
    hasher.finalize()
}

/// Produces a snapshot's bytes, piece by piece.
pub(crate) struct Encoder {
    chain: u32,
    blocks: u64,
    bytes: u64,
}

impl Encoder {
    /// The encoder and the file's first bytes.
    pub(crate) fn new(meta: &SnapshotMeta) -> (Self, Vec<u8>) {
        let mut header = [0; HEADER_LEN];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&meta.last.index.to_le_bytes());
        header[16..24].copy_from_slice(&meta.last.term.to_le_bytes());
        header[24..32].copy_from_slice(&meta.last.leader.to_le_bytes());
        header[32..36].copy_from_slice(&(meta.extra.len() as u32).to_le_bytes());
        let crc = header_crc(&header, &meta.extra);
        header[36..].copy_from_slice(&crc.to_le_bytes());
        let mut bytes = header.to_vec();
        bytes.extend_from_slice(&meta.extra);
        (
            Self {
                chain: crc,
                blocks: 0,
                bytes: 0,
            },
            bytes,
        )
    }

    /// The header that comes before a block.
    pub(crate) fn block(&mut self, content: &[u8]) -> [u8; BLOCK_HEADER_LEN] {
        let (header, chain) = block_header(self.chain, BLOCK, content);
        self.chain = chain;
        self.blocks += 1;
        self.bytes += content.len() as u64;
        header
    }

    /// The file's last bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        let mut totals = [0; TOTALS_LEN];
        totals[..8].copy_from_slice(&self.blocks.to_le_bytes());
        totals[8..].copy_from_slice(&self.bytes.to_le_bytes());
        let (header, _) = block_header(self.chain, DONE, &totals);
        [&header[..], &totals].concat()
    }
}

/// Reads a snapshot front to back and verifies everything on the way. Also gives access to the
/// raw bytes, for sending them to another node.
pub struct SnapshotReader {
    file: Arc<dyn DiskFile>,
    meta: SnapshotMeta,
    len: u64,
    offset: u64,
    chain: u32,
    blocks: u64,
    bytes: u64,
    done: bool,
}

impl SnapshotReader {
    pub(crate) fn open(file: Arc<dyn DiskFile>) -> io::Result<Self> {
        let len = file.len()?;
        let mut header = [0; HEADER_LEN];
        read_exact_at(&*file, 0, &mut header)?;
        let extra_len = u32_at(&header, 32) as usize;
        if &header[..8] != MAGIC || extra_len > MAX_EXTRA {
            return Err(damaged(0, "it does not start like a snapshot"));
        }
        let offset = (HEADER_LEN + extra_len) as u64;
        if offset > len {
            return Err(damaged(0, "it ends within its header"));
        }
        let mut extra = vec![0; extra_len];
        read_exact_at(&*file, HEADER_LEN as u64, &mut extra)?;
        let crc = u32_at(&header, 36);
        if crc != header_crc(&header, &extra) {
            return Err(damaged(0, "its header is damaged"));
        }
        let last = LogId {
            index: u64_at(&header, 8),
            term: u64_at(&header, 16),
            leader: u64_at(&header, 24),
        };
        if !last.is_sane() {
            return Err(damaged(0, "it claims more entries than a log can have"));
        }
        let meta = SnapshotMeta {
            last,
            extra: extra.into(),
        };
        Ok(Self {
            file,
            meta,
            len,
            offset,
            chain: crc,
            blocks: 0,
            bytes: 0,
            done: false,
        })
    }

    /// The description of the snapshot.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// The next block, or `None` after the last one; by then every byte was verified.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] for a damaged file.
    pub fn next_block(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.done {
            return Ok(None);
        }
        let mut header = [0; BLOCK_HEADER_LEN];
        read_exact_at(&*self.file, self.offset, &mut header)?;
        let (kind, len) = (u32_at(&header, 0), u32_at(&header, 4) as usize);
        if next_chain(self.chain, &header) != u32_at(&header, 12) {
            return Err(damaged(
                self.offset,
                "a block's header is damaged or out of place",
            ));
        }
        let start = self.offset + BLOCK_HEADER_LEN as u64;
        if len > MAX_BLOCK || start + len as u64 > self.len {
            return Err(damaged(self.offset, "a block is longer than the file"));
        }
        let mut content = vec![0; len];
        read_exact_at(&*self.file, start, &mut content)?;
        if crc32fast::hash(&content) != u32_at(&header, 8) {
            return Err(damaged(self.offset, "a block is damaged"));
        }
        self.offset = start + len as u64;
        self.chain = u32_at(&header, 12);
        match kind {
            BLOCK => {
                self.blocks += 1;
                self.bytes += len as u64;
                Ok(Some(content))
            }
            DONE if len == TOTALS_LEN
                && (u64_at(&content, 0), u64_at(&content, 8)) == (self.blocks, self.bytes)
                && self.offset == self.len =>
            {
                self.done = true;
                Ok(None)
            }
            _ => Err(damaged(self.offset, "it does not end as it should")),
        }
    }

    /// Length of the file.
    pub fn raw_len(&self) -> u64 {
        self.len
    }

    /// Reads the file's bytes unchanged; fewer than requested only at its end. Independent of
    /// `next_block`, and verified only by the receiver.
    pub fn read_raw(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buf)
    }

    /// Reads the rest of the file, only to verify it.
    pub(crate) fn verify(&mut self) -> io::Result<()> {
        while self.next_block()?.is_some() {}
        Ok(())
    }
}

fn damaged(offset: u64, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("snapshot damaged at {offset}: {what}"),
    )
}

/// Writes a piece at the end of a growing file.
pub(crate) fn append(file: &dyn DiskFile, offset: u64, pieces: &[&[u8]]) -> io::Result<u64> {
    let slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
    file.write_at(offset, &slices)?;
    Ok(pieces.iter().map(|piece| piece.len() as u64).sum())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::Disk;
    use crate::disk::sim::SimDisk;

    fn file(bytes: &[u8]) -> Arc<dyn DiskFile> {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new("/")).unwrap();
        let file = disk.create(Path::new("/a")).unwrap();
        append(&*file, 0, &[bytes]).unwrap();
        file
    }

    fn meta() -> SnapshotMeta {
        let last = LogId {
            term: 1,
            leader: 2,
            index: 3,
        };
        SnapshotMeta {
            last,
            extra: Bytes::from_static(b"extra"),
        }
    }

    #[test]
    fn hostile_lengths_are_refused_though_their_checksums_fit() {
        for len in [u32::MAX, MAX_BLOCK as u32 + 1, 100] {
            let (encoder, mut bytes) = Encoder::new(&meta());
            let mut header = [0; BLOCK_HEADER_LEN];
            header[..4].copy_from_slice(&BLOCK.to_le_bytes());
            header[4..8].copy_from_slice(&len.to_le_bytes());
            let chain = next_chain(encoder.chain, &header);
            header[12..].copy_from_slice(&chain.to_le_bytes());
            bytes.extend_from_slice(&header);
            bytes.extend_from_slice(&[0; 99]);
            let mut reader = SnapshotReader::open(file(&bytes)).unwrap();
            let error = reader.next_block().unwrap_err();
            assert!(
                error.to_string().contains("longer than the file"),
                "{error}"
            );
        }
        let (_, mut bytes) = Encoder::new(&meta());
        bytes[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(SnapshotReader::open(file(&bytes)).is_err());
    }

    #[test]
    fn blocks_can_be_neither_swapped_nor_left_out() {
        let (mut encoder, start) = Encoder::new(&meta());
        let blocks: Vec<_> = [b"one", b"two"]
            .map(|b| [&encoder.block(b)[..], b].concat())
            .into();
        let end = encoder.finish();
        let read = |pieces: &[&[u8]]| {
            let mut reader = SnapshotReader::open(file(&pieces.concat()))?;
            reader.verify()
        };
        assert!(read(&[&start, &blocks[0], &blocks[1], &end]).is_ok());
        assert!(read(&[&start, &blocks[1], &blocks[0], &end]).is_err());
        assert!(read(&[&start, &blocks[0], &end]).is_err());
        assert!(read(&[&start, &blocks[0], &blocks[1]]).is_err());
        assert!(read(&[&start, &blocks[0], &blocks[1], &end, b"more"]).is_err());
    }
}
