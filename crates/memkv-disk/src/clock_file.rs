//! The file `clock`: a reading of the log clock, next to one of the machine's own clock.
//!
//! It is never synced. It only serves a process that starts again on a machine that has stayed up,
//! where the operating system still has the last write (unless the disk failed: then it may have an
//! older reading). After a reboot the boot id differs and the reading is ignored. Invariant: a reading
//! is returned only if its checksum fits.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use crate::OpenError;
use crate::disk::{Disk, DiskFile};
use crate::layout::{CLOCK_FILE, Layout};
use crate::record::{u32_at, u64_at};

const MAGIC: &[u8; 8] = b"MKVCLCK2";
/// Magic, boot id, two times, a flag and the checksum.
const LEN: usize = 8 + 16 + 8 + 8 + 1 + 4;
/// Place of the CRC, which covers everything before it.
const CRC_AT: usize = LEN - 4;

/// Two clocks, read at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockReading {
    /// Names the machine's current run: drawn anew at every boot.
    pub boot_id: u128,
    /// Milliseconds since that boot, suspension included.
    pub boot_ms: u64,
    /// Log time in milliseconds since the Unix epoch.
    pub log_ms: u64,
    /// Log time comes from messages alone, all of which may have been late.
    pub is_second_hand: bool,
}

/// The open file.
pub struct ClockFile(Arc<dyn DiskFile>);

impl ClockFile {
    /// Opens or creates the file; returns its reading, if it holds one.
    ///
    /// # Errors
    /// [`OpenError::Io`] if the operating system refuses. A file without a valid reading is none.
    pub fn open(
        disk: &dyn Disk,
        layout: &Layout,
    ) -> Result<(Self, Option<ClockReading>), OpenError> {
        let path = layout.metadata.join(CLOCK_FILE);
        let error = |error| OpenError::io("open", &path, error);
        let file = open_or_create(disk, &path).map_err(error)?;
        let mut bytes = [0; LEN];
        let len = file.read_at(0, &mut bytes).map_err(error)?;
        let reading = (len == LEN).then(|| decode(&bytes)).flatten();
        Ok((Self(file), reading))
    }

    /// Overwrites the reading.
    ///
    /// # Errors
    /// Those of the write; the file then may hold no valid reading.
    pub fn save(&self, reading: &ClockReading) -> io::Result<()> {
        self.0.write_at(0, &[IoSlice::new(&encode(reading))])
    }
}

fn open_or_create(disk: &dyn Disk, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
    match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => disk.create(path),
        opened => opened,
    }
}

fn encode(reading: &ClockReading) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..24].copy_from_slice(&reading.boot_id.to_le_bytes());
    bytes[24..32].copy_from_slice(&reading.boot_ms.to_le_bytes());
    bytes[32..40].copy_from_slice(&reading.log_ms.to_le_bytes());
    bytes[40] = u8::from(reading.is_second_hand);
    let crc = crc32fast::hash(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; LEN]) -> Option<ClockReading> {
    let valid =
        bytes.starts_with(MAGIC) && u32_at(bytes, CRC_AT) == crc32fast::hash(&bytes[..CRC_AT]);
    valid.then(|| ClockReading {
        boot_id: u128::from(u64_at(bytes, 8)) | u128::from(u64_at(bytes, 16)) << 64,
        boot_ms: u64_at(bytes, 24),
        log_ms: u64_at(bytes, 32),
        is_second_hand: bytes[40] != 0,
    })
}

/// The machine's boot id, and the milliseconds since that boot. `None` where the operating system
/// has no such id: then every start counts as one after a reboot.
pub fn boot_clock() -> Option<(u128, u64)> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let id = u128::from_str_radix(&id.trim().replace('-', ""), 16).ok()?;
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let millis = now.tv_sec.checked_mul(1000)? + now.tv_nsec / 1_000_000;
    Some((id, u64::try_from(millis).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::sim::SimDisk;

    const READING: ClockReading = ClockReading {
        boot_id: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
        boot_ms: 77,
        log_ms: 1_700_000_000_123,
        is_second_hand: true,
    };

    fn open(disk: &dyn Disk) -> (ClockFile, Option<ClockReading>) {
        let layout = Layout::under(Path::new("/memkv"));
        disk.create_dir_all(&layout.metadata).unwrap();
        ClockFile::open(disk, &layout).unwrap()
    }

    #[test]
    fn a_reading_is_found_again_by_the_next_process() {
        let disk = SimDisk::new(1);
        let (file, none) = open(&disk);
        assert_eq!(none, None);
        file.save(&READING).unwrap();
        assert_eq!(open(&disk).1, Some(READING));
    }

    #[test]
    fn every_flipped_bit_makes_the_reading_invalid() {
        let bytes = encode(&READING);
        assert_eq!(decode(&bytes), Some(READING));
        for bit in 0..LEN * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn the_machine_has_a_boot_clock_that_goes_forward() {
        let (id, first) = boot_clock().unwrap();
        let (same, second) = boot_clock().unwrap();
        assert_eq!(id, same);
        assert!(second >= first);
    }
}
