//! Writes past the system's cache (`O_DIRECT`), each of which is durable when it returns.
//! Never shortens or names a file, and reads one only behind another writer or a failure.
//!
//! One call replaces a write and an fdatasync, the page cache keeps no copy, and an error is that of the
//! write itself. Such writes consist of whole blocks, so the block in which the last write ended is kept
//! in memory and written again with the next bytes. Invariants: bytes below the
//! offset of a write stay as they were; those behind its end, up to the end of a block, become zeros.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::OFlags;
use rustix::io::ReadWriteFlags;

use super::closing::Handle;
use super::real::{RealFile, retry};
use super::{DirectWriter, DiskFile, guard, zero_fill};

/// Offsets, lengths and memory of direct writes are multiples of this: the block of the usual file
/// systems, and no disk has larger sectors.
pub(super) const BLOCK: usize = 4096;

/// Most bytes of one call. A longer write is split, and synced once behind its last piece. So the buffer
/// stays small: every node needs one.
const PIECE: usize = 256 << 10;

/// Initial size of the buffer: most writes are not longer.
const SMALL: usize = 32 << 10;

/// The writer of one file.
pub(super) struct DirectFile {
    direct: RealFile,
    /// The same file through the cache, for the beginning of a block that another writer wrote.
    cached: Handle,
    /// Memory for a piece and the alignment, as far as it was needed.
    memory: Vec<u8>,
    /// The block in which the last write ended, up to that end.
    tail: Tail,
}

#[derive(Default)]
struct Tail {
    /// Offset of the block.
    start: u64,
    bytes: Vec<u8>,
}

impl DirectFile {
    /// A second handle of a file, for direct writes.
    ///
    /// # Errors
    /// Where the file system has none, or `/proc` is not there to open a file again.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
        let direct = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        Ok(Self {
            direct: RealFile(direct.into()),
            cached: file.try_clone()?.into(),
            memory: Vec::new(),
            tail: Tail::default(),
        })
    }

    fn write_blocks(&mut self, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        let start = offset - offset % BLOCK as u64;
        let ahead = (offset - start) as usize;
        self.load_tail(start, ahead)?;
        let total = ahead + bufs.iter().map(|buf| buf.len()).sum::<usize>();
        let memory = aligned(&mut self.memory, total.min(PIECE));
        memory[..ahead].copy_from_slice(&self.tail.bytes);
        let flags = if total <= PIECE {
            ReadWriteFlags::DSYNC
        } else {
            ReadWriteFlags::empty()
        };
        let (mut at, mut used) = (start, ahead);
        for mut buf in bufs.iter().map(|buf| &buf[..]) {
            while !buf.is_empty() {
                if used == PIECE {
                    write_all(&self.direct.0, at, &memory[..PIECE], flags)?;
                    (at, used) = (at + PIECE as u64, 0);
                }
                let (now, later) = buf.split_at(buf.len().min(PIECE - used));
                memory[used..used + now.len()].copy_from_slice(now);
                used += now.len();
                buf = later;
            }
        }
        let blocks = used.next_multiple_of(BLOCK);
        memory[used..blocks].fill(0);
        write_all(&self.direct.0, at, &memory[..blocks], flags)?;
        if total > PIECE {
            self.direct.sync_data()?;
        }
        let last = used - used % BLOCK;
        self.tail.start = at + last as u64;
        self.tail.bytes.clear();
        self.tail.bytes.extend_from_slice(&memory[last..used]);
        Ok(())
    }

    /// Makes `tail` the first `len` bytes of the block at `start`.
    fn load_tail(&mut self, start: u64, len: usize) -> io::Result<()> {
        let tail = &mut self.tail;
        if (tail.start, tail.bytes.len()) != (start, len) {
            tail.start = start;
            tail.bytes.resize(len, 0);
            self.cached.read_exact_at(&mut tail.bytes, start)?;
        }
        Ok(())
    }
}

impl DirectWriter for DirectFile {
    fn write(&mut self, offset: u64, bufs: &[IoSlice<'_>]) -> io::Result<()> {
        guard::check();
        let written = self.write_blocks(offset, bufs);
        if written.is_err() {
            self.tail = Tail::default();
        }
        written
    }

    fn zero(&mut self, from: u64, to: u64) -> io::Result<()> {
        guard::check();
        let block = BLOCK as u64;
        let (from, to) = (from.next_multiple_of(block), to.next_multiple_of(block));
        zero_fill(&self.direct, from, to)?;
        self.direct.sync_data()
    }
}

/// Memory of `len` bytes, in whole blocks and at a multiple of [`BLOCK`].
fn aligned(memory: &mut Vec<u8>, len: usize) -> &mut [u8] {
    if memory.len() < len.next_multiple_of(BLOCK) + BLOCK {
        let whole = if len <= SMALL { SMALL } else { PIECE };
        *memory = vec![0; whole + BLOCK];
    }
    let at = memory.as_ptr().align_offset(BLOCK);
    &mut memory[at..]
}

fn write_all(file: &File, mut at: u64, mut bytes: &[u8], flags: ReadWriteFlags) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = retry(|| rustix::io::pwritev2(file, &[IoSlice::new(bytes)], at, flags))?;
        // The rest of a short write must begin with a block, too.
        let written = written - written % BLOCK;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        at += written as u64;
    }
    Ok(())
}
