//! Finds the log in its directory after a clean end or a crash.
//! Never changes a file, except that it syncs the files that it has read; never treats damage as an end.
//!
//! Segments are ordered by generation. A newer one overrides everything in older ones from its
//! first index on (that is how a truncation is durable), and one that starts the log overrides
//! them all. The remaining segments must be one chain: each record carries the checksum of the one before,
//! each segment header that of the last record in the segment before.
//!
//! An invalid record ends the log only if nothing proves that it was ever durable: it is in the
//! last segment, no record behind it states a durable frontier above it, and neither does the
//! metadata. (Records of one write may reach the disk in any order, so valid ones behind it prove
//! nothing by themselves; each carries the frontier from before its own write.) Everything else is
//! corruption, and the node does not start. Not detectable: damage to the last write before a
//! crash, which nothing behind it vouches for.
//!
//! Segments written with `durability: "os"` state no frontier; the log ends at their first invalid
//! record, unless a synced segment follows.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::OpenError;
use crate::disk::{Disk, DiskFile, read_exact_at};
use crate::format::Unreadable;
use crate::layout::{is_spare_name, parse_segment_name};
use crate::record::LogId;
use crate::segment::{
    Bad, SEGMENT_HEADER_LEN, Scan, SegmentHeader, SegmentIndex, look_behind, scan,
};
use crate::writer::Spare;

/// A tail that was cut because it was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment.
    pub path: PathBuf,
    /// Where its valid part ends.
    pub offset: u64,
    /// Bytes from there to the end of the file, preallocated ones included.
    pub bytes: u64,
    /// Index from which on records are missing.
    pub index: u64,
}

/// The metadata's claims about the log.
pub(crate) struct Claims {
    pub(crate) store: u64,
    pub(crate) generation: u64,
    pub(crate) frontier: Option<LogId>,
    pub(crate) purged: Option<LogId>,
}

/// The log as found.
pub(crate) struct Recovered {
    pub(crate) segments: Vec<SegmentIndex>,
    pub(crate) obsolete: Vec<SegmentIndex>,
    pub(crate) spares: Vec<Spare>,
    pub(crate) next_generation: u64,
    pub(crate) purged: Option<LogId>,
    pub(crate) next: u64,
    pub(crate) last: Option<LogId>,
    pub(crate) checksum: u32,
    pub(crate) committed_next: u64,
    pub(crate) torn: Option<TornTail>,
    /// Whether writing must go on in a new segment.
    pub(crate) rotate: bool,
}

/// The names in the log directory that belong to the log.
pub(crate) struct Names {
    /// First index, generation, name.
    pub(crate) segments: Vec<(u64, u64, String)>,
    pub(crate) spares: Vec<String>,
}

pub(crate) fn list(disk: &dyn Disk, dir: &Path) -> io::Result<Names> {
    let mut names = Names {
        segments: Vec::new(),
        spares: Vec::new(),
    };
    for name in disk.read_dir(dir)? {
        if let Some((first, generation)) = parse_segment_name(&name) {
            names.segments.push((first, generation, name));
        } else if is_spare_name(&name) {
            names.spares.push(name);
        }
    }
    names.segments.sort_by_key(|&(_, generation, _)| generation);
    Ok(names)
}

/// Recovers the log of a node that has metadata.
pub(crate) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    names: Names,
    claims: &Claims,
) -> Result<Recovered, OpenError> {
    let io = |error| OpenError::io("read the log in", dir, error);
    // A crash could still undo a rename that is visible but not synced.
    disk.sync_dir(dir).map_err(io)?;
    let mut segments = open_segments(disk, dir, &names, claims)?;
    let newest = segments
        .last()
        .map_or(0, |segment| segment.header.generation);
    if newest < claims.generation {
        let what = format!(
            "the metadata names log segments up to generation {:x}, but the newest one here has \
             {newest:x}",
            claims.generation
        );
        return Err(OpenError::corrupt(dir, 0, what));
    }
    let next_generation = newest + 1;
    let mut obsolete = take_overridden(&mut segments);
    let purged = purge_mark(&segments, claims);
    let purged_next = purged.map_or(0, |id| id.index + 1);
    while segments.len() > 1 && segments[1].first() <= purged_next {
        obsolete.push(segments.remove(0));
    }
    let head = segments.first();
    if let Some(head) = head.filter(|s| s.first() > purged_next && !s.header.starts_log) {
        let what = format!(
            "the log starts at index {}, but must reach back to {purged_next}: a segment is missing",
            head.first()
        );
        return Err(OpenError::corrupt(&head.path, 0, what));
    }
    let mut recovered = Recovered {
        last: None,
        checksum: 0,
        next: segments.first().map_or(0, SegmentIndex::first),
        segments,
        obsolete,
        spares: open_spares(disk, dir, names.spares).map_err(io)?,
        next_generation,
        purged,
        committed_next: 0,
        torn: None,
        rotate: false,
    };
    recovered.scan_all(claims)?;
    if recovered.next < purged_next {
        // A purge beyond the end: everything here is covered by a snapshot.
        recovered.obsolete.append(&mut recovered.segments);
        (recovered.next, recovered.last, recovered.checksum) = (purged_next, purged, 0);
        recovered.rotate = true;
    }
    Ok(recovered)
}

fn open_segments(
    disk: &dyn Disk,
    dir: &Path,
    names: &Names,
    claims: &Claims,
) -> Result<Vec<SegmentIndex>, OpenError> {
    let mut segments = Vec::with_capacity(names.segments.len());
    for (first, generation, name) in &names.segments {
        let path = dir.join(name);
        let file = disk.open(&path);
        let file = file.map_err(|error| OpenError::io("read log segment", &path, error))?;
        let segment = open_segment(path, file, (*first, *generation), Some(claims.store))?;
        segments.push(segment);
    }
    Ok(segments)
}

/// Reads a segment's header, which must fit its name and the directory's own id, where that is known.
pub(crate) fn open_segment(
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    name: (u64, u64),
    store: Option<u64>,
) -> Result<SegmentIndex, OpenError> {
    let io = |error| OpenError::io("read log segment", &path, error);
    let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
    let read = match read_exact_at(&*file, 0, &mut bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Unreadable::Damaged),
        other => other.map(|()| SegmentHeader::decode(&bytes)).map_err(io)?,
    };
    let header = read.map_err(|unreadable| match unreadable {
        Unreadable::Damaged => OpenError::corrupt(&path, 0, "the segment's header is damaged"),
        other => OpenError::foreign(&path, 0, other),
    })?;
    if (header.first, header.generation) != name {
        let what = "the segment's header is of another segment";
        return Err(OpenError::corrupt(&path, 0, what));
    }
    if store.is_some_and(|store| store != header.store) {
        let what = "the segment belongs to another node's data directory";
        return Err(OpenError::corrupt(&path, 0, what));
    }
    Ok(SegmentIndex::new(path, file, header))
}

/// Removes segments that newer ones override as a whole; the rest has growing first indexes.
fn take_overridden(segments: &mut Vec<SegmentIndex>) -> Vec<SegmentIndex> {
    let mut obsolete = Vec::new();
    let mut kept: Vec<SegmentIndex> = Vec::new();
    for segment in segments.drain(..) {
        #[cfg(memkv_bugs)]
        if crate::bugs::active(crate::bugs::Bug::OlderOfTwoSegments)
            && kept
                .last()
                .is_some_and(|older| older.first() == segment.first())
        {
            obsolete.push(segment);
            continue;
        }
        let (first, starts_log) = (segment.first(), segment.header.starts_log);
        while let Some(older) = kept.pop_if(|older| overrides(first, starts_log, older.first())) {
            obsolete.push(older);
        }
        kept.push(segment);
    }
    *segments = kept;
    obsolete
}

/// Whether a segment overrides all of an older one, which begins at `older`.
pub(crate) fn overrides(first: u64, starts_log: bool, older: u64) -> bool {
    starts_log || older >= first
}

/// The log is purged up to the metadata's mark, or up to the snapshot that replaced all of it.
pub(crate) fn purge_mark(segments: &[SegmentIndex], claims: &Claims) -> Option<LogId> {
    let start = segments.first().filter(|segment| segment.header.starts_log);
    let start = start.and_then(|segment| segment.header.previous);
    match (claims.purged, start) {
        (Some(mark), Some(start)) => Some(if mark.index >= start.index {
            mark
        } else {
            start
        }),
        (mark, start) => mark.or(start),
    }
}

fn open_spares(disk: &dyn Disk, dir: &Path, names: Vec<String>) -> io::Result<Vec<Spare>> {
    let mut spares = Vec::new();
    for name in names {
        let path = dir.join(name);
        let file = disk.open(&path)?;
        spares.push(Spare { path, file });
    }
    Ok(spares)
}

impl Recovered {
    fn scan_all(&mut self, claims: &Claims) -> Result<(), OpenError> {
        for at in 0..self.segments.len() {
            let limit = self.segments.get(at + 1).map(SegmentIndex::first);
            let found = self.scan_one(at, limit)?;
            (self.last, self.checksum) = (found.last, found.checksum);
            self.next = self.segments[at].next();
            self.committed_next = self.committed_next.max(found.committed);
            let Some(bad) = found.bad else { continue };
            let later: Vec<(u64, bool)> = self.segments[at + 1..]
                .iter()
                .map(|later| (later.first(), later.header.synced))
                .collect();
            self.torn = judge(&self.segments[at], &bad, &later, claims)?;
            self.rotate = self.torn.is_some();
            // A cut in an unsynced segment: later segments continue a record that is lost.
            self.obsolete.extend(self.segments.drain(at + 1..));
            break;
        }
        Ok(())
    }

    fn scan_one(&mut self, at: usize, limit: Option<u64>) -> Result<Scan, OpenError> {
        let previous = (self.last, self.checksum);
        let segment = &mut self.segments[at];
        let header = segment.header;
        if at > 0 && (header.previous, header.previous_checksum) != previous {
            let what = "the segment does not continue the one before it";
            return Err(OpenError::corrupt(&segment.path, 0, what));
        }
        let io = |error| OpenError::io("read log segment", &segment.path, error);
        if limit.is_none() || !header.synced {
            // Bytes that a killed process wrote but did not sync are readable and not yet durable. After
            // a failed sync, the page cache may hold bytes that the disk does not have.
            segment.file.sync_data().map_err(io)?;
            segment.file.drop_cache();
        }
        segment.file.read_ahead();
        let path = segment.path.clone();
        scan(segment, limit.unwrap_or(u64::MAX))
            .map_err(|error| OpenError::io("read log segment", &path, error))
    }
}

/// Decides whether an invalid record is the end of the log or corruption. `later` are the first index of each
/// segment behind this one, and whether it is synced. Returns the tail that was never acknowledged, if there is one.
pub(crate) fn judge(
    segment: &SegmentIndex,
    bad: &Bad,
    later: &[(u64, bool)],
    claims: &Claims,
) -> Result<Option<TornTail>, OpenError> {
    let path = &segment.path;
    let io = |error| OpenError::io("read log segment", path, error);
    let behind = look_behind(segment, bad).map_err(io)?;
    let here = Some((bad.offset, bad.unreadable));
    let here = here.filter(|(_, unreadable)| *unreadable != Unreadable::Damaged);
    if let Some((offset, other)) = here.or(behind.unreadable) {
        return Err(OpenError::foreign(path, offset, other));
    }
    let mut frontier = behind.frontier;
    if claims.generation == segment.header.generation {
        frontier = frontier.max(claims.frontier.map_or(0, |id| id.index + 1));
    }
    let must_go_on =
        !later.is_empty() && (segment.header.synced || later.iter().any(|(_, synced)| *synced));
    if (frontier > bad.index || must_go_on) && !ignore_damage() {
        let known = frontier.max(later.first().map_or(0, |(first, _)| *first));
        let what = format!(
            "{}; record {} was there, since the log was durable up to index {}",
            bad.what,
            bad.index,
            known.saturating_sub(1)
        );
        return Err(OpenError::corrupt(path, bad.offset, what));
    }
    if !bad.remains && behind.count == 0 && later.is_empty() {
        return Ok(None);
    }
    Ok(Some(TornTail {
        path: path.clone(),
        offset: bad.offset,
        bytes: segment.file.len().map_err(io)?.saturating_sub(bad.offset),
        index: bad.index,
    }))
}

#[cfg(memkv_bugs)]
fn ignore_damage() -> bool {
    crate::bugs::active(crate::bugs::Bug::TruncateAtBadChecksum)
}

#[cfg(not(memkv_bugs))]
const fn ignore_damage() -> bool {
    false
}
