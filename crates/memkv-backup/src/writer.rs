//! Writes a backup, piece by piece. Never holds more than one block.

use std::io::{self, Write};

use sha2::{Digest, Sha256};

use crate::head::Head;
use crate::{
    BLOCK, BLOCK_HEADER_LEN, CONTENT_BYTES, DONE, MAGIC, MAX_HEAD_BYTES, MAX_RECORD_BYTES, VERSION,
};

/// zstd's own default: a third of a core writes what a disk or a network takes.
const LEVEL: i32 = zstd::DEFAULT_COMPRESSION_LEVEL;

/// Writes a backup into `out`. Call order: for each record [`begin_record`](Self::begin_record) and
/// [`put`](Self::put) until it is whole, then [`finish`](Self::finish); a backup that was not finished is
/// refused by every reader.
pub struct BackupWriter<W> {
    out: W,
    digest: Sha256,
    /// The content of the block that is being filled.
    content: Vec<u8>,
    /// Bytes of the present record that are still to come.
    left: usize,
    blocks: u64,
    content_bytes: u64,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a backup: writes the head.
    ///
    /// # Errors
    /// Of `out`, or [`io::ErrorKind::InvalidInput`] if the head is too long.
    pub fn new(out: W, head: &Head) -> io::Result<Self> {
        let head = serde_json::to_vec(head)?;
        if head.len() > MAX_HEAD_BYTES {
            return Err(misuse("the head of the backup is too long"));
        }
        let mut writer = Self {
            out,
            digest: Sha256::new(),
            content: Vec::with_capacity(CONTENT_BYTES),
            left: 0,
            blocks: 0,
            content_bytes: 0,
        };
        let mut start = MAGIC.to_vec();
        start.extend_from_slice(&VERSION.to_le_bytes());
        start.extend_from_slice(&(head.len() as u32).to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&start);
        checksum.update(&head);
        start.extend_from_slice(&checksum.finalize().to_le_bytes());
        writer.write(&start)?;
        writer.write(&head)?;
        Ok(writer)
    }

    /// Begins a record of so many bytes.
    ///
    /// # Errors
    /// Of `out`, or [`io::ErrorKind::InvalidInput`] if the one before is not whole, or this one has more
    /// than [`MAX_RECORD_BYTES`].
    pub fn begin_record(&mut self, len: usize) -> io::Result<()> {
        if self.left > 0 {
            return Err(misuse("the record before is not whole"));
        }
        let encoded = u32::try_from(len).ok().filter(|_| len <= MAX_RECORD_BYTES);
        let encoded = encoded.ok_or_else(|| misuse("a record is too long"))?;
        self.fill(&encoded.to_le_bytes())?;
        self.left = len;
        Ok(())
    }

    /// Adds bytes to the record.
    ///
    /// # Errors
    /// Of `out`, or [`io::ErrorKind::InvalidInput`] if they are more than the record still lacks.
    pub fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.left.checked_sub(bytes.len());
        self.left = left.ok_or_else(|| misuse("a record has more bytes than was said"))?;
        self.fill(bytes)
    }

    /// Writes a whole record.
    ///
    /// # Errors
    /// As of [`begin_record`](Self::begin_record).
    pub fn record(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.begin_record(bytes.len())?;
        self.put(bytes)
    }

    /// Writes the end, and returns `out`.
    ///
    /// # Errors
    /// Of `out`, or [`io::ErrorKind::InvalidInput`] if the last record is not whole.
    pub fn finish(mut self) -> io::Result<W> {
        if self.left > 0 {
            return Err(misuse("the last record is not whole"));
        }
        if !self.content.is_empty() {
            self.block()?;
        }
        let mut end = DONE.to_vec();
        end.extend_from_slice(&self.blocks.to_le_bytes());
        end.extend_from_slice(&self.content_bytes.to_le_bytes());
        self.write(&end)?;
        let digest = self.digest.finalize_reset();
        self.out.write_all(&digest)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Where the backup goes.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    fn fill(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = CONTENT_BYTES - self.content.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.content.extend_from_slice(now);
            bytes = later;
            if self.content.len() == CONTENT_BYTES {
                self.block()?;
            }
        }
        Ok(())
    }

    fn block(&mut self) -> io::Result<()> {
        let stored = zstd::bulk::compress(&self.content, LEVEL)?;
        let mut header = Vec::with_capacity(BLOCK_HEADER_LEN);
        header.extend_from_slice(BLOCK);
        header.extend_from_slice(&self.blocks.to_le_bytes());
        header.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        header.extend_from_slice(&(self.content.len() as u32).to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header);
        checksum.update(&stored);
        header.extend_from_slice(&checksum.finalize().to_le_bytes());
        self.write(&header)?;
        self.write(&stored)?;
        self.blocks += 1;
        self.content_bytes += self.content.len() as u64;
        self.content.clear();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.out.write_all(bytes)
    }
}

fn misuse(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
