//! Reads a backup front to back, and verifies it on the way. Never holds more than one block and one record.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

use crate::error::{BackupError, Location};
use crate::head::Head;
use crate::{
    BLOCK, BLOCK_HEADER_LEN, CONTENT_BYTES, DIGEST_LEN, DONE, END_LEN, MAGIC, MAX_HEAD_BYTES,
    MAX_RECORD_BYTES, MAX_STORED_BYTES, START_LEN, VERSION,
};

/// What a backup was found to be once all of it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of their content.
    pub content_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The digest of the file.
    pub digest: [u8; DIGEST_LEN],
}

/// Reads a backup from `source`.
pub struct BackupReader<R> {
    source: R,
    head: Head,
    digest: Sha256,
    /// Bytes read so far.
    offset: u64,
    blocks: u64,
    content_bytes: u64,
    /// The content of the last block, and how much of it was given out.
    content: Vec<u8>,
    used: usize,
    summary: Option<Summary>,
}

impl<R: Read> BackupReader<R> {
    /// Reads and verifies the head.
    ///
    /// # Errors
    /// [`BackupError`] if this is no backup that this build reads.
    pub fn open(source: R) -> Result<Self, BackupError> {
        let head = Head {
            cluster: String::new(),
            level: 0,
            revision: 0,
            log_time_ms: 0,
            keys: 0,
            hash_seed: 0,
            term: 0,
            index: 0,
            node: String::new(),
            written_by: String::new(),
            salvaged: false,
            committed: 0,
            terms: Vec::new(),
            stopped: None,
            condemned: None,
        };
        let mut reader = Self {
            source,
            head,
            digest: Sha256::new(),
            offset: 0,
            blocks: 0,
            content_bytes: 0,
            content: Vec::new(),
            used: 0,
            summary: None,
        };
        reader.head = reader.read_head()?;
        Ok(reader)
    }

    /// What the backup holds.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Bytes of the file that were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.offset
    }

    /// The next record, or nothing after the last one; by then every byte of the backup was verified.
    ///
    /// # Errors
    /// [`BackupError`]: the records so far were part of no whole backup.
    pub fn next_record(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        let mut len = [0; 4];
        let got = self.take(&mut len)?;
        if got == 0 {
            return Ok(None);
        }
        let bounded = usize::try_from(u32::from_le_bytes(len)).ok();
        let bounded = bounded.filter(|len| got == 4 && *len <= MAX_RECORD_BYTES);
        let Some(len) = bounded else {
            return Err(self.damaged("its records do not fit together"));
        };
        let mut record = Vec::new();
        while record.len() < len {
            let piece = (len - record.len()).min(CONTENT_BYTES);
            let start = record.len();
            record.resize(start + piece, 0);
            let room = record.get_mut(start..).unwrap_or_default();
            if self.take(room)? < piece {
                return Err(self.damaged("its last record is not whole"));
            }
        }
        Ok(Some(record))
    }

    /// Verifies all that is still to come.
    ///
    /// # Errors
    /// [`BackupError`] with the first part that is not as it was written.
    pub fn verify(mut self) -> Result<Summary, BackupError> {
        loop {
            if let Some(summary) = self.summary.take() {
                return Ok(summary);
            }
            self.block()?;
        }
    }

    /// Fills `out` with content; less only at the end of the backup.
    fn take(&mut self, out: &mut [u8]) -> Result<usize, BackupError> {
        let mut filled = 0;
        while filled < out.len() {
            let rest = self.content.get(self.used..).unwrap_or_default();
            if rest.is_empty() {
                if self.summary.is_some() {
                    break;
                }
                self.block()?;
                continue;
            }
            let room = out.get_mut(filled..).unwrap_or_default();
            let count = rest.len().min(room.len());
            room[..count].copy_from_slice(&rest[..count]);
            filled += count;
            self.used += count;
        }
        Ok(filled)
    }

    fn read_head(&mut self) -> Result<Head, BackupError> {
        let mut start = [0; START_LEN];
        let (magic, rest) = start.split_at_mut(MAGIC.len());
        // A short foreign file is a foreign file.
        match self.fill(magic, Location::Head, 0) {
            Ok(()) if magic == MAGIC => {}
            Ok(()) | Err(BackupError::CutOff { .. }) => return Err(BackupError::NotABackup),
            Err(error) => return Err(error),
        }
        self.fill(rest, Location::Head, 0)?;
        let damaged = |what| {
            Err(BackupError::Damaged {
                location: Location::Head,
                offset: 0,
                what,
            })
        };
        let (version, len, checksum) = (u32_at(&start, 8), u32_at(&start, 12), u32_at(&start, 16));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > MAX_HEAD_BYTES {
            return damaged("it is too long");
        }
        let mut head = vec![0; len];
        self.fill(&mut head, Location::Head, 0)?;
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(start.get(..16).unwrap_or_default());
        hasher.update(&head);
        // Before the version: a flipped bit in it is damage. All formats begin like this one.
        if hasher.finalize() != checksum {
            return damaged("its checksum does not fit");
        }
        if version != VERSION {
            return Err(BackupError::Newer {
                found: version,
                known: VERSION,
            });
        }
        self.digest.update(start);
        self.digest.update(&head);
        match serde_json::from_slice(&head) {
            Ok(head) => Ok(head),
            Err(_) => damaged("it is not the description of a backup"),
        }
    }

    /// Reads the next block, or the end.
    fn block(&mut self) -> Result<(), BackupError> {
        let (location, start) = (Location::Block(self.blocks), self.offset);
        let damaged = |what| BackupError::Damaged {
            location,
            offset: start,
            what,
        };
        self.used = 0;
        self.content.clear();
        let mut header = [0; BLOCK_HEADER_LEN];
        let (kind, rest) = header.split_at_mut(4);
        self.fill(kind, location, start)?;
        if kind == DONE {
            return self.end(start);
        }
        if kind != BLOCK {
            return Err(damaged("it does not begin like a block"));
        }
        self.fill(rest, location, start)?;
        let number = u64_at(&header, 4);
        let stored_len = usize::try_from(u32_at(&header, 12)).unwrap_or(usize::MAX);
        let content_len = usize::try_from(u32_at(&header, 16)).unwrap_or(usize::MAX);
        if stored_len > MAX_STORED_BYTES || content_len > CONTENT_BYTES {
            return Err(damaged("its length is beyond the limit"));
        }
        let mut stored = vec![0; stored_len];
        self.fill(&mut stored, location, start)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(header.get(..20).unwrap_or_default());
        checksum.update(&stored);
        if checksum.finalize() != u32_at(&header, 20) {
            return Err(damaged("its checksum does not fit"));
        }
        if number != self.blocks {
            return Err(damaged("another block stands here"));
        }
        let content = zstd::bulk::decompress(&stored, content_len);
        let content = content.map_err(|_| damaged("it cannot be decompressed"))?;
        if content.len() != content_len {
            return Err(damaged("it decompresses to another length"));
        }
        self.digest.update(header);
        self.digest.update(&stored);
        self.blocks += 1;
        self.content_bytes += content_len as u64;
        self.content = content;
        Ok(())
    }

    fn end(&mut self, start: u64) -> Result<(), BackupError> {
        let mut rest = [0; END_LEN - 4];
        self.fill(&mut rest, Location::End, start)?;
        let (counts, digest) = rest.split_at(16);
        self.digest.update(DONE);
        self.digest.update(counts);
        let computed: [u8; DIGEST_LEN] = self.digest.finalize_reset().into();
        let counted = (u64_at(counts, 0), u64_at(counts, 8)) == (self.blocks, self.content_bytes);
        let damaged = |what| {
            Err(BackupError::Damaged {
                location: Location::End,
                offset: start,
                what,
            })
        };
        if digest != computed {
            return damaged("the digest of the whole does not fit");
        }
        if !counted {
            return damaged("blocks are missing or too many");
        }
        let end = self.offset;
        if self.read_some(&mut [0])? > 0 {
            return damaged("more bytes follow");
        }
        self.summary = Some(Summary {
            blocks: self.blocks,
            content_bytes: self.content_bytes,
            file_bytes: end,
            digest: computed,
        });
        Ok(())
    }

    /// Reads exactly so many bytes of a part that begins at `start`.
    fn fill(&mut self, out: &mut [u8], location: Location, start: u64) -> Result<(), BackupError> {
        let mut filled = 0;
        while let Some(room) = out.get_mut(filled..).filter(|room| !room.is_empty()) {
            match self.read_some(room)? {
                0 => {
                    return Err(BackupError::CutOff {
                        location,
                        offset: start,
                    });
                }
                read => filled += read,
            }
        }
        Ok(())
    }

    fn read_some(&mut self, out: &mut [u8]) -> Result<usize, BackupError> {
        loop {
            match self.source.read(out) {
                Ok(read) => {
                    self.offset += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(BackupError::Io {
                        offset: self.offset,
                        source,
                    });
                }
            }
        }
    }

    fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged {
            location: Location::Block(self.blocks.saturating_sub(1)),
            offset: self.offset,
            what,
        }
    }
}

/// The integer at an offset of an array that has it.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(found.copied().unwrap_or_default())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u64::from_le_bytes(found.copied().unwrap_or_default())
}
