//! The file `peers`: the node's memory of its peers, opaque to this crate.
//!
//! It has two slots, written in turn and synced only at an orderly stop: the newest save may be lost, and a
//! torn write loses one slot at most. Invariant: a returned value was saved as a whole. Never interprets
//! it.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::OpenError;
use crate::disk::{Disk, DiskFile};
use crate::layout::{CONDEMNED_FILE, Layout, PEERS_FILE};
use crate::record::{u32_at, u64_at};

const MAGIC: &[u8; 8] = b"MKVPEER1";
/// Bytes of a slot: a page.
const SLOT_LEN: usize = 4096;
/// Magic, number of the save, length of the payload.
const HEAD_LEN: usize = 8 + 8 + 4;
/// The checksum, behind the payload.
const CRC_LEN: usize = 4;

/// Most bytes of the reason why a directory was condemned that are read.
pub(crate) const MAX_REASON: usize = SLOT_LEN;

/// Most bytes of a value.
pub const MAX_PEERS_BYTES: usize = SLOT_LEN - HEAD_LEN - CRC_LEN;

/// The open file.
pub struct PeersFile {
    file: Arc<dyn DiskFile>,
    /// Number of the last save.
    sequence: Mutex<u64>,
}

impl PeersFile {
    /// Opens or creates the file; returns the last saved value, if there is one.
    ///
    /// # Errors
    /// [`OpenError::Io`] if the operating system refuses. A file without a valid slot holds nothing.
    pub fn open(disk: &dyn Disk, layout: &Layout) -> Result<(Self, Option<Bytes>), OpenError> {
        let path = layout.metadata.join(PEERS_FILE);
        let error = |error| OpenError::io("open", &path, error);
        let file = match disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(&path),
            opened => opened,
        }
        .map_err(error)?;
        let mut newest: Option<(u64, Bytes)> = None;
        for slot in 0..2 {
            let mut bytes = vec![0; SLOT_LEN];
            let len = file
                .read_at(slot * SLOT_LEN as u64, &mut bytes)
                .map_err(error)?;
            bytes.truncate(len);
            let found = decode(&bytes);
            newest = newest
                .into_iter()
                .chain(found)
                .max_by_key(|(sequence, _)| *sequence);
        }
        let (sequence, payload) = newest.unzip();
        let sequence = Mutex::new(sequence.unwrap_or(0));
        Ok((Self { file, sequence }, payload))
    }

    /// Saves at most [`MAX_PEERS_BYTES`] in the slot of the save before the last one.
    ///
    /// # Errors
    /// Those of the write, and `InvalidInput` if the value is too long. The last save stays.
    pub fn save(&self, payload: &[u8]) -> io::Result<()> {
        if payload.len() > MAX_PEERS_BYTES {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut sequence = self.sequence.lock();
        let next = sequence.wrapping_add(1);
        let at = (next % 2) * SLOT_LEN as u64;
        self.file
            .write_at(at, &[IoSlice::new(&encode(next, payload))])?;
        *sequence = next;
        Ok(())
    }

    /// Makes the saves durable.
    ///
    /// # Errors
    /// Those of the sync.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn encode(sequence: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(SLOT_LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&sequence.to_le_bytes());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.resize(SLOT_LEN, 0);
    bytes
}

fn decode(slot: &[u8]) -> Option<(u64, Bytes)> {
    if slot.len() < HEAD_LEN || !slot.starts_with(MAGIC) {
        return None;
    }
    let len = u32_at(slot, 16) as usize;
    if len > MAX_PEERS_BYTES || slot.len() < HEAD_LEN + len + CRC_LEN {
        return None;
    }
    let end = HEAD_LEN + len;
    let valid = u32_at(slot, end) == crc32fast::hash(&slot[..end]);
    valid.then(|| {
        (
            u64_at(slot, 8),
            Bytes::copy_from_slice(&slot[HEAD_LEN..end]),
        )
    })
}

/// Marks the directory as one that must not be used any more, for this reason: from now on
/// [`open`](crate::open) calls it corrupt. Durable when it returns.
///
/// # Errors
/// [`OpenError::Io`] if the operating system refuses.
pub fn condemn(disk: &dyn Disk, layout: &Layout, why: &str) -> Result<(), OpenError> {
    let path = layout.metadata.join(CONDEMNED_FILE);
    let write = || {
        let file = disk.create(&path)?;
        file.write_at(0, &[IoSlice::new(why.as_bytes())])?;
        file.sync_data()?;
        disk.sync_dir(&layout.metadata)
    };
    write().map_err(|error| OpenError::io("write", &path, error))
}

/// Refuses a directory that was condemned.
pub(crate) fn check_condemned(disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
    let path = layout.metadata.join(CONDEMNED_FILE);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(OpenError::io("open", &path, error)),
    };
    let mut why = vec![0; MAX_REASON];
    let len = file
        .read_at(0, &mut why)
        .map_err(|error| OpenError::io("read", &path, error))?;
    why.truncate(len);
    Err(corrupt(&path, &why))
}

fn corrupt(path: &Path, why: &[u8]) -> OpenError {
    OpenError::corrupt(path, 0, String::from_utf8_lossy(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    fn layout(disk: &dyn Disk) -> Layout {
        let layout = Layout::under(Path::new("/memkv"));
        disk.create_dir_all(&layout.metadata).unwrap();
        layout
    }

    #[test]
    fn the_last_save_is_found_again() {
        let disk = SimDisk::new(1);
        let layout = layout(&disk);
        let (file, none) = PeersFile::open(&disk, &layout).unwrap();
        assert_eq!(none, None);
        for payload in [&b"first"[..], b"second", b"", &[7; MAX_PEERS_BYTES]] {
            file.save(payload).unwrap();
            let (_, found) = PeersFile::open(&disk, &layout).unwrap();
            assert_eq!(found.as_deref(), Some(payload));
        }
        assert!(file.save(&[0; MAX_PEERS_BYTES + 1]).is_err());
    }

    #[test]
    fn a_torn_or_flipped_slot_leaves_the_one_before() {
        let (old, new) = (encode(4, b"old"), encode(5, b"new"));
        assert_eq!(decode(&new), Some((5, Bytes::from_static(b"new"))));
        let used = HEAD_LEN + 3 + CRC_LEN;
        for bit in 0..used * 8 {
            let mut flipped = new.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        for len in 0..used {
            assert_eq!(decode(&new[..len]), None);
        }
        // The next save overwrites the older slot only.
        let disk = SimDisk::new(1);
        let layout = layout(&disk);
        let file = disk.create(&layout.metadata.join(PEERS_FILE)).unwrap();
        file.write_at(0, &[IoSlice::new(&old)]).unwrap();
        file.write_at(SLOT_LEN as u64, &[IoSlice::new(&new[..used - 1])])
            .unwrap();
        let (file, found) = PeersFile::open(&disk, &layout).unwrap();
        assert_eq!(found.as_deref(), Some(&b"old"[..]));
        file.save(b"third").unwrap();
        let (_, found) = PeersFile::open(&disk, &layout).unwrap();
        assert_eq!(found.as_deref(), Some(&b"third"[..]));
    }
}
