//! Why a backup cannot be read: what is wrong, and where.

use std::fmt;
use std::io;

/// A part of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Location {
    /// The head.
    Head,
    /// The block of this number, from 0.
    Block(u64),
    /// The end, which holds the digest.
    End,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Head => write!(f, "the head"),
            Location::Block(number) => write!(f, "block {number}"),
            Location::End => write!(f, "the end"),
        }
    }
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The file begins like no backup.
    #[error(
        "this is no backup of memkv: it does not begin with \"MEMKVBAK\"; name a file that `memkv_client backup save` wrote"
    )]
    NotABackup,
    /// A newer build has written it.
    #[error(
        "this backup has format {found}, and this build reads format {known}: use the memkv version that wrote it, or a newer one"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// The format that this build reads.
        known: u32,
    },
    /// Bytes were changed.
    #[error("the backup is damaged in {location}, at byte {offset}: {what}; use another backup")]
    Damaged {
        /// The part.
        location: Location,
        /// Where that part begins, in bytes from the beginning of the file.
        offset: u64,
        /// What does not fit.
        what: &'static str,
    },
    /// The file ends too early.
    #[error(
        "the backup is cut off in {location}, which begins at byte {offset}: it was not written to its end; use another backup"
    )]
    CutOff {
        /// The part.
        location: Location,
        /// Where that part begins, in bytes from the beginning of the file.
        offset: u64,
    },
    /// The file cannot be read.
    #[error("the backup cannot be read at byte {offset}: {source}")]
    Io {
        /// Where the reading stopped, in bytes from the beginning of the file.
        offset: u64,
        /// The reason.
        source: io::Error,
    },
}
