//! How fast the disk makes an append durable: the floor of every acknowledged write.

use std::fs::File;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::load::Histogram;

/// A write of one page, as a small batch of the log is.
const PAGE: [u8; 4096] = [7; 4096];

/// The median time of `fdatasync` after an append of 4 KiB to a growing file.
///
/// # Errors
///
/// If there is no temporary directory, or its disk is full.
pub(crate) fn sync_time(during: Duration) -> Result<Duration, String> {
    let failed = |error| format!("cannot measure the disk: {error}");
    let dir = tempfile::tempdir().map_err(failed)?;
    let mut file = File::create(dir.path().join("append")).map_err(failed)?;
    let mut times = Histogram::default();
    let began = Instant::now();
    while began.elapsed() < during {
        file.write_all(&PAGE).map_err(failed)?;
        let at = Instant::now();
        file.sync_data().map_err(failed)?;
        times.add(at.elapsed());
    }
    Ok(times.quantile(0.5))
}
