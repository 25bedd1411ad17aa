//! Term, vote and the other small facts of a node, in two checksummed copies.
//! Never guesses: without a valid copy there is no value.
//!
//! Every save writes and syncs the first copy, then the second, and is acknowledged only after
//! both. So whichever single copy is torn by a crash or rots later, the other one holds the last
//! acknowledged value: a vote cannot be rolled back by one bad copy. (Copies that alternate would
//! halve the cost, but the newest value would exist only once, and its rot would be indistinguishable
//! from a torn write.) Votes are rare, so the second sync costs little.
//!
//! Invariant: at every moment at least one copy on disk is complete and holds the last
//! acknowledged value or a newer one.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, read_exact_at, zero_fill};
use crate::format::{GROUP, Unreadable, check_group, check_magic};
use crate::layout::METADATA_FILES;
use crate::record::{HardState, LARGEST, LogId, u32_at, u64_at};

/// Most bytes of the identity blob.
pub const MAX_IDENTITY: usize = 64 << 10;

/// The digit is the format version. Version 1 had no group.
const MAGIC: &[u8; 8] = b"MKVMETA2";
/// Place of the version.
const VERSION_AT: usize = 7;
/// Bytes before the identity blob.
const FIXED_LEN: usize = 256;
/// Place of the identity's length; the Raft group follows.
const IDENTITY_LEN_AT: usize = 8 + 20 * 8;
const GROUP_AT: usize = IDENTITY_LEN_AT + 4;
/// Most bytes of a copy.
pub(crate) const LONGEST_COPY: u64 = (FIXED_LEN + MAX_IDENTITY) as u64;
/// Place of the CRC, which covers everything before it and the blob.
const CRC_AT: usize = FIXED_LEN - 4;
/// Size of a copy when it is created: every value up to an identity of 3.75 KiB, which is more
/// than any seen, is then overwritten in place without changing the file's length.
const INITIAL_LEN: u64 = 4096;

/// The value of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata {
    /// Term and vote; none before the first save.
    pub hard_state: Option<HardState>,
    /// Opaque to storage, at most [`MAX_IDENTITY`] bytes.
    pub identity: Bytes,
    /// Boot counter as last saved.
    pub boot: u64,
    /// Some record known to be committed, present in the log or purged; may be far behind.
    pub committed_hint: Option<LogId>,
    /// Last record known to be durable when this was written, or after recovery the log's end.
    pub frontier: Option<LogId>,
}

/// The content of a copy: the public value and the crate's own fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stored {
    pub(crate) value: Metadata,
    /// Number of the save; 0 is never on disk.
    pub(crate) sequence: u64,
    /// Random id of the data directory.
    pub(crate) store: u64,
    /// Generation of the newest segment when `frontier` was taken; 0 is none.
    pub(crate) generation: u64,
    /// The log up to this record may be purged from disk.
    pub(crate) purged: Option<LogId>,
}

impl Stored {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_LEN + self.value.identity.len());
        bytes.extend_from_slice(MAGIC);
        for number in [self.sequence, self.store, self.generation, self.value.boot] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        let hard_state = self.value.hard_state;
        let vote = hard_state.map(|h| (u64::from(h.committed), h.term, h.voted_for));
        let id = |id: Option<LogId>| id.map(|id| (id.index, id.term, id.leader));
        let (committed, frontier) = (id(self.value.committed_hint), id(self.value.frontier));
        for triple in [vote, committed, frontier, id(self.purged)] {
            let (a, b, c) = triple.unwrap_or_default();
            for number in [u64::from(triple.is_some()), a, b, c] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&(self.value.identity.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&GROUP.to_le_bytes());
        bytes.resize(FIXED_LEN, 0);
        bytes.extend_from_slice(&self.value.identity);
        let crc = checksum(&bytes);
        bytes[CRC_AT..FIXED_LEN].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a copy.
    ///
    /// # Errors
    /// [`Unreadable::Version`] and [`Unreadable::Group`] for an intact copy of another format
    /// version or Raft group, [`Unreadable::Damaged`] for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() < FIXED_LEN {
            return Err(Unreadable::Damaged);
        }
        let number = |at: usize| u64_at(bytes, 8 + at * 8);
        let identity_len = u32_at(bytes, IDENTITY_LEN_AT) as usize;
        if identity_len > MAX_IDENTITY || bytes.len() < FIXED_LEN + identity_len {
            return Err(Unreadable::Damaged);
        }
        let bytes = &bytes[..FIXED_LEN + identity_len];
        if checksum(bytes) != u32_at(bytes, CRC_AT) {
            return Err(Unreadable::Damaged);
        }
        check_magic(bytes, MAGIC, VERSION_AT)?;
        check_group(u32_at(bytes, GROUP_AT))?;
        let triple = |at: usize| {
            let at = 4 + at * 4;
            (number(at) != 0).then(|| (number(at + 1), number(at + 2), number(at + 3)))
        };
        let id = |at| {
            triple(at).map(|(index, term, leader)| LogId {
                term,
                leader,
                index,
            })
        };
        let vote = triple(0).map(|(c, term, voted_for)| {
            let committed = c != 0;
            HardState {
                term,
                voted_for,
                committed,
            }
        });
        let stored = Self {
            value: Metadata {
                hard_state: vote,
                identity: Bytes::copy_from_slice(&bytes[FIXED_LEN..]),
                boot: number(3),
                committed_hint: id(1),
                frontier: id(2),
            },
            sequence: number(0),
            store: number(1),
            generation: number(2),
            purged: id(3),
        };
        match stored.is_sane() {
            true => Ok(stored),
            false => Err(Unreadable::Damaged),
        }
    }
}

impl Stored {
    /// Whether everything that grows by one is where that can lead.
    fn is_sane(&self) -> bool {
        let term = self.value.hard_state.map_or(0, |vote| vote.term);
        let numbers = [self.sequence, self.generation, self.value.boot, term];
        let ids = [self.value.committed_hint, self.value.frontier, self.purged];
        numbers.iter().all(|number| *number < LARGEST)
            && ids.into_iter().flatten().all(LogId::is_sane)
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..CRC_AT]);
    hasher.update(&bytes[FIXED_LEN..]);
    hasher.finalize()
}

/// The content of the metadata directory.
pub(crate) enum Found {
    /// Neither copy exists: nothing was ever acknowledged here.
    Nothing,
    /// The newest value, and which of the copies are valid.
    Value(Box<Stored>, [bool; 2]),
    /// This copy is intact and of another format version or Raft group.
    Foreign(PathBuf, Unreadable),
    /// At least one copy exists and none is valid.
    Bad,
}

/// Reads both copies, dropping the page cache first so that the disk itself is seen.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Found> {
    read_with(dir, &|path| {
        let file = disk.open(path)?;
        file.sync_data()?;
        file.drop_cache();
        Ok(file)
    })
}

/// The same, of files that `open` gives.
pub(crate) fn read_with(
    dir: &Path,
    open: &dyn Fn(&Path) -> io::Result<Arc<dyn DiskFile>>,
) -> io::Result<Found> {
    let mut exist = 0;
    let mut copies: [Option<Stored>; 2] = [None, None];
    for (name, copy) in METADATA_FILES.iter().zip(&mut copies) {
        let file = match open(&dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        exist += 1;
        // A longer file is not ours; the bytes beyond cannot be part of a valid copy.
        let len = file.len()?.min(LONGEST_COPY);
        let mut bytes = vec![0; len as usize];
        read_exact_at(&*file, 0, &mut bytes)?;
        *copy = match Stored::decode(&bytes) {
            Ok(stored) => Some(stored),
            Err(Unreadable::Damaged) => None,
            Err(other) => return Ok(Found::Foreign(dir.join(name), other)),
        };
    }
    let valid = [copies[0].is_some(), copies[1].is_some()];
    match copies
        .into_iter()
        .flatten()
        .max_by_key(|stored| stored.sequence)
    {
        Some(newest) => Ok(Found::Value(Box::new(newest), valid)),
        None if exist == 0 => Ok(Found::Nothing),
        None => Ok(Found::Bad),
    }
}

/// The two open copies.
pub(crate) struct MetadataFiles {
    copies: [(PathBuf, Arc<dyn DiskFile>); 2],
    stored: Stored,
}

impl MetadataFiles {
    /// Opens or creates both copies and writes `stored` into them, which repairs a bad one.
    /// `first_valid` says that the first copy is valid: then the second is written before it, so
    /// that there is a valid copy at every moment.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        mut stored: Stored,
        first_valid: bool,
    ) -> io::Result<Self> {
        stored.sequence += 1;
        let open = |name| Self::open_copy(disk, dir, name, &stored);
        let [first, second] = METADATA_FILES;
        let copies = if first_valid {
            let second = open(second)?;
            [open(first)?, second]
        } else {
            [open(first)?, open(second)?]
        };
        Ok(Self { copies, stored })
    }

    fn open_copy(
        disk: &dyn Disk,
        dir: &Path,
        name: &str,
        stored: &Stored,
    ) -> io::Result<(PathBuf, Arc<dyn DiskFile>)> {
        let path = dir.join(name);
        match disk.open(&path) {
            Ok(file) => {
                write_copy(&*file, &stored.encode())?;
                Ok((path, file))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Complete before it has its name: a copy that exists was valid once.
                let temporary = dir.join(format!("{name}.tmp"));
                let file = disk.create(&temporary)?;
                zero_fill(&*file, 0, INITIAL_LEN)?;
                write_copy(&*file, &stored.encode())?;
                disk.rename(&temporary, &path)?;
                disk.sync_dir(dir)?;
                Ok((path, file))
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Makes a changed value durable in both copies.
    pub(crate) fn save(&mut self, change: impl FnOnce(&mut Stored)) -> io::Result<()> {
        change(&mut self.stored);
        self.stored.sequence += 1;
        let bytes = self.stored.encode();
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::MetadataAtOnce) {
            return self.write_at_once(&bytes);
        }
        for (path, file) in &self.copies {
            write_copy(&**file, &bytes).map_err(|error| {
                let path = path.display();
                io::Error::new(
                    error.kind(),
                    format!("cannot write metadata `{path}`: {error}"),
                )
            })?;
        }
        Ok(())
    }

    #[cfg(memkv_bugs)]
    fn write_at_once(&self, bytes: &[u8]) -> io::Result<()> {
        let files = || self.copies.iter().map(|(_, file)| file);
        files().try_for_each(|file| file.write_at(0, &[IoSlice::new(bytes)]))?;
        files().try_for_each(|file| file.sync_data())
    }
}

fn write_copy(file: &dyn DiskFile, bytes: &[u8]) -> io::Result<()> {
    file.write_at(0, &[IoSlice::new(bytes)])?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> Stored {
        let id = |index| {
            Some(LogId {
                term: 4,
                leader: 2,
                index,
            })
        };
        Stored {
            value: Metadata {
                hard_state: Some(HardState {
                    term: 9,
                    voted_for: 3,
                    committed: true,
                }),
                identity: Bytes::from_static(b"identity"),
                boot: 12,
                committed_hint: id(7),
                frontier: id(8),
            },
            sequence: 5,
            store: 77,
            generation: 6,
            purged: id(0),
        }
    }

    #[test]
    fn value_round_trips_and_every_flip_is_refused() {
        let bytes = stored().encode();
        assert_eq!(Stored::decode(&bytes), Ok(stored()));
        assert_eq!(
            Stored::decode(&Stored::default().encode()),
            Ok(Stored::default())
        );
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = Stored::decode(&flipped);
            assert_eq!(read, Err(Unreadable::Damaged), "bit {bit}");
        }
        for len in 0..bytes.len() {
            let read = Stored::decode(&bytes[..len]);
            assert_eq!(read, Err(Unreadable::Damaged), "cut to {len}");
        }
    }

    #[test]
    fn another_version_or_group_is_refused_by_name() {
        let changed = |at: usize, to: u8| {
            let mut bytes = stored().encode();
            bytes[at] = to;
            let crc = checksum(&bytes);
            bytes[CRC_AT..FIXED_LEN].copy_from_slice(&crc.to_le_bytes());
            Stored::decode(&bytes)
        };
        let (found, known) = (b'1', b'2');
        let version = Unreadable::Version { found, known };
        assert_eq!(changed(VERSION_AT, b'1'), Err(version));
        assert_eq!(changed(GROUP_AT, 5), Err(Unreadable::Group(5)));
    }
}
