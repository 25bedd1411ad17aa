//! The file `reset-admin`: a user that an operator of a stopped node wants to have all rights and a new password.
//! The node takes it into the cluster once it is part of it, and removes the file then.
//!
//! Opaque to this crate but for its form. Invariants: the file is there as a whole or not at all; it belongs to
//! one cluster; a process that works on the directory keeps others from writing it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::OpenError;
use crate::disk::{DirLock, Disk, read_exact_at};
use crate::layout::{Layout, RESET_FILE};
use crate::metadata::{self, Found};
use crate::record::{u32_at, u64_at};

const MAGIC: &[u8; 8] = b"MKVRSET1";
/// Magic, cluster, what the user must be, lengths of name and hash.
const HEAD_LEN: usize = 8 + 16 + 8 + 4 + 4;
const CRC_LEN: usize = 4;
/// Most bytes of the name and of the hash each: well above what the store takes.
const MAX_TEXT: usize = 1024;
/// What the user must be, while no node has looked.
const UNSEEN: u64 = u64::MAX;

/// The request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetAdmin {
    /// The cluster's UUID.
    pub cluster: [u8; 16],
    /// The user's name.
    pub user: Bytes,
    /// The hash of its new password, never the password.
    pub hash: Bytes,
    /// The revision that last changed the user when a node first looked, 0 if there was no such user; the request
    /// is void once the user has changed. So it takes effect once, however often the node starts.
    pub expected: Option<u64>,
}

/// A directory on which no process works, for as long as this lives.
pub struct Stopped {
    /// What the directory holds as the node's identity; opaque.
    pub identity: Bytes,
    metadata: PathBuf,
    _lock: Box<dyn DirLock>,
}

impl Stopped {
    /// Takes the directory with the metadata of a node that does not run. It must exist.
    ///
    /// # Errors
    /// [`OpenError::Locked`] if the node runs, and the others of metadata that cannot be read.
    pub fn open(disk: &dyn Disk, metadata: &Path) -> Result<Self, OpenError> {
        let io = |error| OpenError::io("read", metadata, error);
        disk.read_dir(metadata).map_err(io)?;
        let lock = disk.lock(metadata).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked {
                path: metadata.to_path_buf(),
                source,
            },
            _ => OpenError::io("lock", metadata, source),
        })?;
        let refused = |what| OpenError::Metadata {
            path: metadata.to_path_buf(),
            what,
        };
        let identity = match metadata::read(disk, metadata).map_err(io)? {
            Found::Value(stored, _) => stored.value.identity,
            Found::Nothing => Bytes::new(),
            Found::Foreign(copy, what) => return Err(OpenError::foreign(&copy, 0, what)),
            Found::Bad => return Err(refused("is damaged in both copies")),
        };
        Ok(Self {
            identity,
            metadata: metadata.to_path_buf(),
            _lock: lock,
        })
    }

    /// Leaves a request in the directory, in the place of one that is there; durable when it returns.
    ///
    /// # Errors
    /// [`OpenError::Io`] if the operating system refuses.
    pub fn request(&self, disk: &dyn Disk, request: &ResetAdmin) -> Result<(), OpenError> {
        write(disk, &self.metadata, request)
    }
}

impl ResetAdmin {
    /// The request in the directory, if there is one.
    ///
    /// # Errors
    /// [`OpenError::Io`] if the operating system refuses, [`OpenError::Corrupt`] if the file is damaged.
    pub fn find(disk: &dyn Disk, layout: &Layout) -> Result<Option<Self>, OpenError> {
        let path = layout.metadata.join(RESET_FILE);
        let io = |error| OpenError::io("read", &path, error);
        let file = match disk.open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let most = (HEAD_LEN + 2 * MAX_TEXT + CRC_LEN) as u64;
        let mut bytes = vec![0; file.len().map_err(io)?.min(most + 1) as usize];
        read_exact_at(&*file, 0, &mut bytes).map_err(io)?;
        let damaged = || OpenError::corrupt(&path, 0, "it is no request of `acl reset-admin`");
        decode(&bytes).map(Some).ok_or_else(damaged)
    }

    /// Writes it in the place of the one that is there; durable when it returns.
    ///
    /// # Errors
    /// [`OpenError::Io`] if the operating system refuses.
    pub fn save(&self, disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
        write(disk, &layout.metadata, self)
    }

    /// Removes the request from the directory; durable when it returns.
    ///
    /// # Errors
    /// [`OpenError::Io`] if the operating system refuses.
    pub fn remove(disk: &dyn Disk, layout: &Layout) -> Result<(), OpenError> {
        let path = layout.metadata.join(RESET_FILE);
        let remove = || {
            disk.remove_file(&path)?;
            disk.sync_dir(&layout.metadata)
        };
        remove().map_err(|error| OpenError::io("remove", &path, error))
    }
}

fn write(disk: &dyn Disk, dir: &Path, request: &ResetAdmin) -> Result<(), OpenError> {
    let (path, part) = (dir.join(RESET_FILE), dir.join(format!("{RESET_FILE}.part")));
    let write = || {
        let file = disk.create(&part)?;
        file.write_at(0, &[IoSlice::new(&encode(request))])?;
        file.sync_data()?;
        disk.rename(&part, &path)?;
        disk.sync_dir(dir)
    };
    write().map_err(|error| OpenError::io("write", &path, error))
}

fn encode(request: &ResetAdmin) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&request.cluster);
    bytes.extend_from_slice(&request.expected.unwrap_or(UNSEEN).to_le_bytes());
    for text in [&request.user, &request.hash] {
        bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
    }
    bytes.extend_from_slice(&request.user);
    bytes.extend_from_slice(&request.hash);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<ResetAdmin> {
    if bytes.len() < HEAD_LEN + CRC_LEN || !bytes.starts_with(MAGIC) {
        return None;
    }
    let (user, hash) = (u32_at(bytes, 32) as usize, u32_at(bytes, 36) as usize);
    if user > MAX_TEXT || hash > MAX_TEXT || bytes.len() != HEAD_LEN + user + hash + CRC_LEN {
        return None;
    }
    let (content, crc) = bytes.split_at(bytes.len() - CRC_LEN);
    if crc != crc32fast::hash(content).to_le_bytes() {
        return None;
    }
    let (head, texts) = content.split_at(HEAD_LEN);
    let (user, hash) = texts.split_at(user);
    let expected = u64_at(bytes, 24);
    Some(ResetAdmin {
        cluster: head.get(8..24)?.try_into().ok()?,
        user: Bytes::copy_from_slice(user),
        hash: Bytes::copy_from_slice(hash),
        expected: (expected != UNSEEN).then_some(expected),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Options;
    use crate::disk::sim::SimDisk;

    fn request(expected: Option<u64>) -> ResetAdmin {
        ResetAdmin {
            cluster: [7; 16],
            user: Bytes::from_static(b"admin"),
            hash: Bytes::from_static(b"$argon2id$..."),
            expected,
        }
    }

    #[test]
    fn a_request_is_left_in_a_stopped_directory_found_and_removed() {
        let disk = SimDisk::new(1);
        let layout = Layout::under(Path::new("/memkv"));
        assert!(
            Stopped::open(&disk, &layout.metadata).is_err(),
            "there is none"
        );
        let opened = crate::open(Arc::new(disk.clone()), &layout, Options::default()).unwrap();
        let running = Stopped::open(&disk, &layout.metadata);
        assert!(matches!(running, Err(OpenError::Locked { .. })));
        drop(opened);
        for wanted in [request(None), request(Some(3))] {
            let stopped = Stopped::open(&disk, &layout.metadata).unwrap();
            assert_eq!(stopped.identity, Bytes::new());
            stopped.request(&disk, &wanted).unwrap();
            drop(stopped);
            assert_eq!(ResetAdmin::find(&disk, &layout).unwrap(), Some(wanted));
        }
        request(Some(4)).save(&disk, &layout).unwrap();
        assert_eq!(
            ResetAdmin::find(&disk, &layout).unwrap(),
            Some(request(Some(4)))
        );
        ResetAdmin::remove(&disk, &layout).unwrap();
        assert_eq!(ResetAdmin::find(&disk, &layout).unwrap(), None);
    }

    #[test]
    fn every_flipped_bit_and_every_other_length_is_damage() {
        let bytes = encode(&request(Some(1)));
        assert_eq!(decode(&bytes), Some(request(Some(1))));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(decode(&[&bytes[..], b"x"].concat()), None);
    }
}
