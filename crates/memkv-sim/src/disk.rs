//! The faults of disks: power losses, errors, flipped bits.
//! Never touches the bytes for which memkv promises nothing (see [`flip`]).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memkv_disk::disk::Disk;
use memkv_disk::disk::guard;
pub(crate) use memkv_disk::disk::sim::SimDisk;
use memkv_disk::disk::sim::{Op, Step};
use memkv_disk::{Layout, Options};

use crate::host::Death;
use crate::rng::Rng;
use crate::trace::Trace;

/// The names of a disk's files.
type Names = BTreeMap<PathBuf, u64>;

/// Length of the header before the payload of a record of the log, see `memkv-disk`.
const RECORD_HEADER_LEN: usize = 72;

/// Directories of a node, below `/memkv`.
const DIRECTORIES: [&str; 3] = ["/memkv/log", "/memkv/metadata", "/memkv/snapshot"];

/// The disk as the next process finds it.
pub(crate) fn after(disk: &SimDisk, death: Death, rng: &Rng, trace: &Trace) -> Arc<SimDisk> {
    // A disk that stopped in the middle of an operation has lost its power already.
    if death == Death::Process && disk.is_powered() {
        return Arc::new(disk.kill());
    }
    if !disk.is_powered() {
        trace.count("processes ended inside a disk operation");
    }
    let before = disk.stats();
    let next = disk.crash(rng.next());
    let after = disk.stats();
    trace.count("power losses");
    if after.direct > 0 {
        trace.count("power losses after direct writes");
    }
    if after.sectors_lost > before.sectors_lost {
        trace.count("power losses that lost sectors");
        if after.sectors_kept > before.sectors_kept {
            trace.count("power losses that tore writes");
        }
    }
    if after.names_lost > before.names_lost {
        trace.count("power losses that lost names");
    }
    if has_twin_segments(&next) {
        trace.count("power losses that left two segments of one index");
    }
    Arc::new(next)
}

/// Lets the disk fail soon: with an error of one operation, or by stopping in the middle of one.
pub(crate) fn fail_soon(disk: &SimDisk, operations: u64, with_error: bool, rng: &Rng) {
    if with_error {
        let op = *rng.pick(&[Op::Sync, Op::Sync, Op::Write, Op::Read]);
        disk.fail_next(op, io::ErrorKind::Other);
    } else {
        disk.crash_at_op(disk.op_count() + operations);
    }
}

/// Cuts the power at a step like this, after `skip` of them; `counter` counts that.
pub(crate) fn crash_when(
    disk: &SimDisk,
    skip: u64,
    (trace, counter): (Arc<Trace>, &'static str),
    is_like: fn(Step, &Path, &Names) -> bool,
) {
    let left = AtomicU64::new(skip);
    let strike = move |step: Step, path: &Path, names: &Names| {
        let strikes = is_like(step, path, names) && left.fetch_sub(1, Ordering::Relaxed) == 0;
        if strikes {
            trace.count(counter);
        }
        strikes
    };
    disk.crash_when(Some(Arc::new(strike)));
}

/// Whether a step saves a vote or an identity.
pub(crate) fn saves_metadata(step: Step, path: &Path, _: &Names) -> bool {
    let is_metadata = path.to_string_lossy().contains("/metadata-");
    is_metadata && matches!(step, Step::Write | Step::Sync)
}

/// Whether a step frees a segment while another one begins at the same index.
pub(crate) fn frees_twin(step: Step, path: &Path, names: &Names) -> bool {
    let Some(first) = first_index(path).filter(|_| matches!(step, Step::Rename | Step::Remove))
    else {
        return false;
    };
    let others = names.keys().filter(|name| *name != path);
    others
        .filter_map(|name| first_index(name))
        .any(|other| other == first)
}

/// First index in the name of a segment, with its directory.
fn first_index(path: &Path) -> Option<(&Path, &str)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    Some((path.parent()?, name.split_once('-')?.0))
}

/// Whether two segments begin at one index: the older was to go, and did not.
fn has_twin_segments(disk: &SimDisk) -> bool {
    let files = disk.files();
    let firsts: Vec<_> = files
        .iter()
        .filter_map(|(path, _)| first_index(path))
        .collect();
    // In the order of their names.
    firsts.windows(2).any(|pair| pair[0] == pair[1])
}

/// Leaves this many bytes of free space, besides the reserve that the process holds. Without a
/// reserve the disk stays as it is: nothing is promised to a node whose last bytes are taken.
pub(crate) fn fill(disk: &SimDisk, free: u64) {
    let free_space = guard::allow(|| disk.free_space(Path::new(DIRECTORIES[0])));
    let unbounded = free_space.unwrap_or(0);
    let reserve = Path::new(DIRECTORIES[0]).join("reserve");
    let holds_reserve = disk.files().iter().any(|(path, _)| *path == reserve);
    // Less than half of everything is free: this disk is full already.
    if holds_reserve && unbounded > u64::MAX / 2 {
        disk.set_capacity(Some(u64::MAX - unbounded + free));
    }
}

/// Leaves this much of a disk to a process that has not begun yet, and no reserve; whether the disk was
/// not full already.
pub(crate) fn use_up(disk: &SimDisk, left: u64) -> bool {
    guard::allow(|| {
        // There may be none.
        let _ = disk.remove_file(&Path::new(DIRECTORIES[0]).join("reserve"));
        let free = disk.free_space(Path::new(DIRECTORIES[0])).unwrap_or(0);
        let unbounded = free > u64::MAX / 2;
        if unbounded {
            disk.set_capacity(Some(u64::MAX - free + left));
        }
        unbounded
    })
}

/// Gives a full disk its space back.
pub(crate) fn empty(disk: &SimDisk) {
    disk.set_capacity(None);
}

/// Takes back what [`fail_soon`] and [`fill`] have set and what has not struck yet.
pub(crate) fn mend(disk: &SimDisk) {
    // Operations are counted from 1.
    disk.crash_at_op(0);
    disk.crash_when(None);
    disk.fail_no_more();
    disk.slow_reads(Duration::ZERO);
    empty(disk);
}

/// The state that the next process would find on this disk: the term of its vote, and the end of its
/// log. The engine may not show yet what it has written.
pub(crate) fn held(disk: &SimDisk) -> Option<(u64, u64)> {
    let layout = Layout::under(Path::new("/memkv"));
    let fork = Arc::new(disk.fork());
    let opened = guard::allow(|| memkv_disk::open(fork, &layout, Options::default())).ok()?;
    let term = opened.metadata.hard_state.map_or(0, |vote| vote.term);
    let log = opened.log.last().map_or(0, |id| id.index);
    let snapshot = opened.snapshots.latest().map_or(0, |meta| meta.last.index);
    Some((term, log.max(snapshot)))
}

/// How many directories were set aside on this disk.
pub(crate) fn quarantines(disk: &SimDisk) -> usize {
    DIRECTORIES
        .iter()
        .filter_map(|dir| guard::allow(|| disk.read_dir(Path::new(dir))).ok())
        .flatten()
        .filter(|name| name.starts_with("quarantine-"))
        .count()
}

/// Flips a bit of a record, if it and the one behind it are in the newest segment; whether it did.
///
/// The one behind it must have been written when this one was durable.
pub(crate) fn flip_record(disk: &SimDisk, index: u64, rng: &Rng) -> bool {
    let log = Path::new(DIRECTORIES[0]);
    let files = disk.files();
    let is_segment = |path: &Path| path.parent() == Some(log) && path.extension().is_some();
    let mut segments = files.iter().filter(|(path, _)| is_segment(path));
    let Some((path, len)) = segments.next_back() else {
        return false;
    };
    let mut bytes = vec![0; *len as usize];
    let mut read = || guard::allow(|| disk.open(path)?.read_at(0, &mut bytes));
    if read().is_err() {
        return false;
    }
    let records = records(path, &bytes);
    match (records.get(&index), records.get(&(index + 1))) {
        (Some((at, len)), Some(_)) => {
            disk.flip_bit(path, at + rng.below(*len), (rng.next() % 8) as u32)
        }
        _ => false,
    }
}

/// Where the records of a segment are, by index: their headers say so, at multiples of eight. A file
/// that was used before has others, of another generation.
fn records(path: &Path, bytes: &[u8]) -> BTreeMap<u64, (u64, u64)> {
    let name = path.file_stem().and_then(|name| name.to_str());
    let generation = name
        .and_then(|name| u64::from_str_radix(name.split_once('-')?.1, 16).ok())
        .unwrap_or(0);
    let u64_at = |header: &[u8], at: usize| {
        let bytes = header.get(at..at + 8)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    };
    let record = |at: usize| {
        let header = bytes.get(at..at + RECORD_HEADER_LEN)?;
        let is_record = header.starts_with(b"MKR2") && u64_at(header, 8)? == generation;
        let payload = u64_at(header, 0)? >> 32;
        let index = u64_at(header, 16)?;
        is_record.then_some((index, (at as u64, RECORD_HEADER_LEN as u64 + payload)))
    };
    (0..bytes.len()).step_by(8).filter_map(record).collect()
}

/// Flips a bit where memkv promises to notice, and says in which file.
///
/// Not in the two newest segments: a bit flipped in the last batch looks like a torn write, which
/// DESIGN excludes from the promise.
pub(crate) fn flip(disk: &SimDisk, rng: &Rng) -> Option<String> {
    let files = disk.files();
    let with = |end: &'static str| {
        let live = |path: &Path| !path.to_string_lossy().contains("quarantine-");
        files.iter().filter(move |(path, len)| {
            *len > 0 && live(path) && path.to_string_lossy().ends_with(end)
        })
    };
    let mut segments: Vec<&(PathBuf, u64)> = with(".log").collect();
    // Names sort by first index, which is the order in the log.
    segments.truncate(segments.len().saturating_sub(2));
    let others = with(".snap")
        .chain(with("metadata-a"))
        .chain(with("metadata-b"));
    let candidates: Vec<&(PathBuf, u64)> = segments.into_iter().chain(others).collect();
    if candidates.is_empty() {
        return None;
    }
    let (path, len) = rng.pick(&candidates);
    let flipped = disk.flip_bit(path, rng.below(*len), (rng.next() % 8) as u32);
    flipped.then(|| path.display().to_string())
}
