//! The file format of backups: one place that writes it and reads it, for the server and the client alike.
//! Never opens a file or a socket, and never interprets what a backup holds.
//!
//! A backup is a head, blocks, and an end. All integers are little-endian:
//!
//! ```text
//! magic "MEMKVBAK", version u32, length of the head u32, CRC-32 of all before it and of the head u32
//! head: a JSON object, see [`Head`]
//! blocks: "BLCK", number u64 from 0, stored length u32, content length u32, CRC-32 u32, stored bytes
//! end:    "DONE", number of blocks u64, content bytes u64, SHA-256 of all bytes before it
//! ```
//!
//! The stored bytes of a block are its content as one zstd frame; the CRC covers the block's header before
//! it and the stored bytes. Nothing follows the end. The contents of all blocks, one behind the other, are
//! *records*: each a length u32 and so many bytes. The records are the blocks of a snapshot, as
//! `memkv-store` encodes and verifies them. A record may begin in one block and end in another, so a block
//! takes [`CONTENT_BYTES`] of memory at most, however large a value is.
//!
//! A field of the head that a reader does not know is passed over. A change that a reader must know raises
//! [`VERSION`].
//!
//! Invariants: a reader gives out nothing of a block that it has not verified; no length is allocated before
//! it was bounded; a file with any bit flipped, cut anywhere or with a byte more is refused.

#![forbid(unsafe_code)]

#[cfg(memkv_bugs)]
pub mod bugs;
mod error;
mod head;
mod rank;
mod reader;
mod writer;

pub use error::{BackupError, Location};
pub use head::{Head, TermStart};
pub use rank::{Rank, shared};
pub use reader::{BackupReader, Summary};
pub use writer::BackupWriter;

/// Version of the format.
pub const VERSION: u32 = 1;

/// The first bytes of a backup.
pub const MAGIC: &[u8; 8] = b"MEMKVBAK";

/// Most content in a block, in bytes: small enough to hold one for each reader, and large enough for zstd to
/// find what repeats (256 KiB).
pub const CONTENT_BYTES: usize = 256 * 1024;

/// Most bytes of a record: a snapshot's largest block, which is one value of 64 MiB with its key.
pub const MAX_RECORD_BYTES: usize = 65 << 20;

/// Most terms that a head lists. Each costs up to 40 bytes of the head's 64 KiB.
pub const MAX_TERMS: usize = 256;

/// Most bytes of the head.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Most bytes of a block as it is stored: zstd adds less than this to content that does not compress.
const MAX_STORED_BYTES: usize = CONTENT_BYTES + 4096;

/// Magic, version, length and checksum before the head.
const START_LEN: usize = 20;

/// Kind, number, both lengths and the checksum before a block's stored bytes.
const BLOCK_HEADER_LEN: usize = 24;

/// Kind, number of blocks, content bytes and the digest.
const END_LEN: usize = 20 + DIGEST_LEN;

/// SHA-256.
const DIGEST_LEN: usize = 32;

const BLOCK: &[u8; 4] = b"BLCK";
const DONE: &[u8; 4] = b"DONE";
