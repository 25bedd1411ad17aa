//! The log of a directory that is only read: its segments up to the first flaw, and the records in them that
//! follow a snapshot. Never decides what a record means.

use std::io;
use std::path::{Path, PathBuf};

use super::Flaw;
use crate::OpenError;
use crate::disk::Disk;
use crate::record::{LogId, Record};
use crate::recovery::{self, Claims, judge, open_segment, overrides, purge_mark};
use crate::segment::{Extent, SegmentIndex, scan};

/// Bytes of records that are read at a time, but for a larger record.
const READ_BYTES: u64 = 1 << 20;

/// A segment, or the place where one is that cannot be read: what it held is not known, and neither is what
/// older segments hold from its first index on.
enum Piece {
    Whole(SegmentIndex),
    Unread { first: u64, flaw: Flaw },
}

impl Piece {
    fn first(&self) -> u64 {
        match self {
            Piece::Whole(segment) => segment.first(),
            Piece::Unread { first, .. } => *first,
        }
    }
}

/// The snapshot before the log.
pub(super) struct Covered {
    /// Its last entry; none without a snapshot.
    pub(super) last: Option<LogId>,
    /// Whether it is the newest one of the directory.
    pub(super) is_newest: bool,
}

/// The readable beginning of a log.
#[derive(Default)]
pub(super) struct Log {
    segments: Vec<SegmentIndex>,
    /// Why it ends, unless that is its own end.
    pub(super) stopped: Option<Flaw>,
    pub(super) passed_over: Vec<Flaw>,
    /// The highest index that a record states as committed; 0 for none.
    pub(super) committed: u64,
    /// The last record that the log need not hold.
    pub(super) purged: Option<LogId>,
    /// The next index to give out.
    next: u64,
}

impl Log {
    /// Reads the log in a directory, of which `claims` are the metadata's, behind a snapshot.
    pub(super) fn read(
        disk: &dyn Disk,
        dir: &Path,
        claims: Option<&Claims>,
        covered: &Covered,
    ) -> Result<Self, OpenError> {
        let names = match recovery::list(disk, dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => {
                other
                    .map_err(|error| OpenError::io("list", dir, error))?
                    .segments
            }
        };
        let newest = names.last().map_or(0, |(_, generation, _)| *generation);
        let mut log = Self::default();
        let unknown = Claims {
            store: 0,
            generation: 0,
            frontier: None,
            purged: None,
        };
        let store = claims.map(|claims| claims.store);
        let pieces = pieces(disk, dir, names, store);
        let is_readable = |piece: &Piece| matches!(piece, Piece::Whole(_));
        // A header that is lost may have dropped everything that is older, in favour of a snapshot.
        let is_certain = claims.is_some() && covered.is_newest;
        if !is_certain && !pieces.iter().all(is_readable) {
            log.stopped = pieces.into_iter().find_map(|piece| match piece {
                Piece::Unread { flaw, .. } => Some(flaw),
                Piece::Whole(_) => None,
            });
            return Ok(log);
        }
        let claims = claims.unwrap_or(&unknown);
        log.scan(pieces, claims);
        if newest < claims.generation && log.stopped.is_none() {
            let what = format!(
                "the metadata names log segments up to generation {:x}, but the newest one here has {newest:x}",
                claims.generation
            );
            log.stopped = Some(Flaw::new(dir, 0, what));
        }
        log.purged = purge_mark(&log.segments, claims);
        log.follow(dir, covered.last);
        Ok(log)
    }

    /// Reads segment after segment, up to the first flaw.
    fn scan(&mut self, pieces: Vec<Piece>, claims: &Claims) {
        let firsts: Vec<u64> = pieces.iter().map(Piece::first).collect();
        let synced: Vec<bool> = pieces.iter().map(is_synced).collect();
        let mut end: Option<(Option<LogId>, u32)> = None;
        for (at, piece) in pieces.into_iter().enumerate() {
            let mut segment = match piece {
                Piece::Whole(segment) => segment,
                Piece::Unread { flaw, .. } => {
                    self.stopped = Some(flaw);
                    return;
                }
            };
            let header = &segment.header;
            if end.is_some_and(|end| end != (header.previous, header.previous_checksum)) {
                let what = "the segment does not continue the one before it";
                self.stopped = Some(Flaw::new(&segment.path, 0, what));
                return;
            }
            let limit = firsts.get(at + 1).copied();
            let scanned = scan(&mut segment, limit.unwrap_or(u64::MAX));
            let found = match scanned {
                Ok(found) => found,
                Err(error) => {
                    let what = format!("it cannot be read: {error}");
                    self.stopped = Some(Flaw::new(&segment.path, segment.end, what));
                    self.segments.push(segment);
                    return;
                }
            };
            self.committed = self.committed.max(found.committed.saturating_sub(1));
            end = Some((found.last, found.checksum));
            if let Some(bad) = &found.bad {
                let later = firsts.iter().copied().zip(synced.iter().copied());
                let later: Vec<(u64, bool)> = later.skip(at + 1).collect();
                match judge(&segment, bad, &later, claims) {
                    Ok(None) => {}
                    Ok(Some(torn)) => {
                        let what =
                            "a write that the last stop cut short; it was never acknowledged";
                        self.passed_over
                            .push(Flaw::new(&torn.path, torn.offset, what));
                    }
                    Err(error) => self.stopped = Some(error.into()),
                }
                self.segments.push(segment);
                return;
            }
            self.segments.push(segment);
        }
    }

    /// Begins behind the snapshot, or with nothing where a record between is missing.
    fn follow(&mut self, dir: &Path, covered: Option<LogId>) {
        self.next = covered.map_or(0, |covered| covered.index + 1);
        let purged = self.purged.map_or(0, |purged| purged.index + 1);
        let first = self.segments.first().map(SegmentIndex::first);
        let begins = first.unwrap_or(purged).max(purged);
        let (dir, what) = if self.next < begins {
            let what = format!(
                "the log begins at index {begins}, and what is before it ends at {}: the entries between are in \
                 no file that can be read",
                match covered {
                    Some(covered) => format!("index {}", covered.index),
                    None => "nothing, since there is no snapshot".to_owned(),
                }
            );
            (dir.to_path_buf(), what)
        } else if let Some(other) = self.other_history(covered) {
            let what = "the log does not continue the snapshot: they are of two histories";
            (other, what.to_owned())
        } else {
            return;
        };
        let earlier = self.stopped.replace(Flaw::new(&dir, 0, what));
        self.passed_over.extend(earlier);
        self.segments.clear();
    }

    /// The segment that holds another entry than the snapshot's last one, at its index.
    fn other_history(&self, covered: Option<LogId>) -> Option<PathBuf> {
        let covered = covered?;
        let differs = |segment: &&SegmentIndex| {
            let previous = segment.header.previous;
            let previous = previous.filter(|previous| previous.index == covered.index);
            let found = segment.id_at(covered.index).or(previous);
            found.is_some_and(|found| found != covered)
        };
        let found = self.segments.iter().find(differs);
        found.map(|segment| segment.path.clone())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments
            .iter()
            .all(|segment| segment.next() <= self.next)
    }

    /// The next records; none after the last.
    pub(super) fn next(&mut self) -> Result<Vec<Record>, Flaw> {
        let mut records = Vec::new();
        let holds = |segment: &&SegmentIndex| self.next < segment.next();
        let Some(segment) = self.segments.iter().find(holds) else {
            return Ok(records);
        };
        let start = segment.position(self.next);
        let mut end = self.next + 1;
        while end < segment.next() && segment.position(end + 1) - start <= READ_BYTES {
            end += 1;
        }
        let extent = Extent {
            path: segment.path.clone(),
            file: segment.file.clone(),
            generation: segment.header.generation,
            salt: segment.header.salt,
            first: self.next,
            offsets: start..segment.position(end),
        };
        let read = extent.read(&mut records);
        read.map_err(|error| Flaw::new(&segment.path, start, error.to_string()))?;
        self.next = end;
        Ok(records)
    }
}

fn is_synced(piece: &Piece) -> bool {
    match piece {
        Piece::Whole(segment) => segment.header.synced,
        // Nothing says that it was not.
        Piece::Unread { .. } => true,
    }
}

/// The segments that no newer one overrides, by growing first index. `names` are in the order of generations;
/// they belong to this directory, or to that of the newest one.
fn pieces(
    disk: &dyn Disk,
    dir: &Path,
    names: Vec<(u64, u64, String)>,
    mut store: Option<u64>,
) -> Vec<Piece> {
    let mut read = Vec::new();
    for (first, generation, name) in names.into_iter().rev() {
        let path = dir.join(name);
        let opened = disk
            .open_to_read(&path)
            .map_err(|error| OpenError::io("open", &path, error))
            .and_then(|file| open_segment(path, file, (first, generation), store));
        read.push(match opened {
            Ok(segment) => {
                store.get_or_insert(segment.header.store);
                Piece::Whole(segment)
            }
            Err(error) => Piece::Unread {
                first,
                flaw: error.into(),
            },
        });
    }
    let mut kept: Vec<Piece> = Vec::new();
    for piece in read.into_iter().rev() {
        let starts_log = matches!(&piece, Piece::Whole(segment) if segment.header.starts_log);
        let first = piece.first();
        while kept
            .pop_if(|older| overrides(first, starts_log, older.first()))
            .is_some()
        {}
        kept.push(piece);
    }
    kept
}
