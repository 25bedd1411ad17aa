//! The disk of the log: how long it takes to make a small write durable, and how much is free.
//! Writes one file of its own beside the node's directories and removes it, also after an error.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Finding, size};
use crate::settings::Settings;

/// Writes that are measured, so that the 99th percentile is not the worst one.
const WRITES: usize = 200;

/// A disk that is slower has told enough by then.
const LONGEST: Duration = Duration::from_secs(5);

/// Length of a write: a small entry of the log.
const WRITE_BYTES: usize = 512;

/// Less is too little for the log beside anything else (256 MiB).
const LEAST_FREE_BYTES: u64 = 256 << 20;

/// A file that is removed when this is dropped.
struct Own(PathBuf);

impl Drop for Own {
    fn drop(&mut self) {
        // It may never have come into being.
        let _ = fs::remove_file(&self.0);
    }
}

/// Times of writes that were made durable, ascending.
struct Times(Vec<Duration>);

impl Times {
    /// The time within which so many percent of the writes were durable.
    fn percentile(&self, percent: usize) -> Duration {
        let at = (self.0.len() * percent).div_ceil(100).saturating_sub(1);
        self.0.get(at).copied().unwrap_or_default()
    }
}

/// Measures.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let log = Path::new(&settings.config.log_path);
    let dir = beside(log);
    let measured = measure(&dir).map(|times| judge(settings, &dir, &times));
    let fsync = measured.unwrap_or_else(|error| {
        let found = format!("cannot write in {}: {error}", dir.display());
        Finding::bad(
            "fsync",
            found,
            "run this as the user of the node, with --data as the node has it",
        )
    });
    let mut findings = vec![fsync];
    if is_elsewhere(log, &dir) {
        let found = format!(
            "{} is on another disk than {}, which was measured",
            log.display(),
            dir.display()
        );
        findings.push(Finding::warn(
            "log",
            found,
            "look at that disk too: memkv_server doctor with --data there",
        ));
    }
    findings.push(free(&dir));
    findings
}

/// The nearest directory above a node's own that exists.
fn beside(log: &Path) -> PathBuf {
    let absolute = std::path::absolute(log).unwrap_or_else(|_| log.to_path_buf());
    let above = absolute.ancestors().skip(1);
    let found = above
        .filter(|dir| dir.is_dir())
        .map(Path::to_path_buf)
        .next();
    found.unwrap_or_else(|| PathBuf::from("."))
}

fn is_elsewhere(log: &Path, dir: &Path) -> bool {
    let device = |path| fs::metadata(path).map(|metadata| metadata.dev());
    match (device(log), device(dir)) {
        (Ok(log), Ok(dir)) => log != dir,
        // There is no log yet.
        _ => false,
    }
}

fn measure(dir: &Path) -> io::Result<Times> {
    let own = Own(dir.join(format!(".memkv-doctor-{}", std::process::id())));
    let mut file = File::options().write(true).create_new(true).open(&own.0)?;
    let began = Instant::now();
    let mut times = Vec::with_capacity(WRITES);
    while times.len() < WRITES && began.elapsed() < LONGEST {
        let started = Instant::now();
        file.write_all(&[0x5a; WRITE_BYTES])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok(Times(times))
}

fn judge(settings: &Settings, dir: &Path, times: &Times) -> Finding {
    let config = &settings.config;
    let p99 = times.percentile(99);
    let found = format!(
        "{} writes to {}: p50 {:.1?}, p99 {p99:.1?}, max {:.1?}",
        times.0.len(),
        dir.display(),
        times.percentile(50),
        times.percentile(100)
    );
    let heartbeat = Duration::from_millis(config.heartbeat_interval_ms);
    let election = Duration::from_millis(config.election_timeout_ms);
    if p99 >= election / 2 {
        let found = format!(
            "{found}; half of election_timeout_ms is {:.0?}: leaders will be lost",
            election / 2
        );
        return Finding::bad(
            "fsync",
            found,
            "give the log a faster disk, or raise election_timeout_ms on all nodes",
        );
    }
    if p99 >= heartbeat {
        let found =
            format!("{found}; that is longer than heartbeat_interval_ms: each write waits for it");
        return Finding::warn("fsync", found, "give the log a faster disk, of its own");
    }
    Finding::ok("fsync", found)
}

fn free(dir: &Path) -> Finding {
    let Ok(disk) = rustix::fs::statvfs(dir) else {
        let found = "the system does not tell how much is free".to_owned();
        return Finding::warn("disk space", found, "look with df");
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let limit = crate::memory_limit::memory_limit().unwrap_or(0);
    let found = format!("{} are free on the disk of {}", size(free), dir.display());
    if free < LEAST_FREE_BYTES {
        return Finding::bad(
            "disk space",
            found,
            "free some, or enlarge the disk: writes are refused soon",
        );
    }
    // Two snapshots of all keys, which take 60 % of the memory, and the log.
    if free < limit.saturating_mul(2) {
        let found = format!("{found}, less than twice the memory ({})", size(limit));
        return Finding::warn(
            "disk space",
            found,
            "enlarge the disk if the keys are to fill the memory: it holds two snapshots and the log",
        );
    }
    Finding::ok("disk space", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = Times((1..=200).map(Duration::from_millis).collect());
        let ms = |percent| times.percentile(percent).as_millis();
        assert_eq!((ms(50), ms(99), ms(100)), (100, 198, 200));
        assert_eq!(Times(Vec::new()).percentile(99), Duration::ZERO);
    }

    #[test]
    fn a_measurement_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let times = measure(dir.path()).unwrap();
        assert!(!times.0.is_empty() && times.0.is_sorted());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(measure(&dir.path().join("absent")).is_err());
    }

    #[test]
    fn the_directory_above_the_log_is_measured_also_before_there_is_any() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(beside(&dir.path().join("n1/log/")), dir.path());
        fs::create_dir_all(dir.path().join("n1/log")).unwrap();
        assert_eq!(beside(&dir.path().join("n1/log/")), dir.path().join("n1"));
    }
}
