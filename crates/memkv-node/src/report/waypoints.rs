//! When this node's last entries were in its log, durable, committed and applied, so that a slow write can be
//! told by its stages. All times are this node's own, a follower's too.
//!
//! Never holds more than [`KEPT`] times of each kind, and decides nothing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::sync::lock::Mutex;

/// Times of each kind that are kept. A slow command is asked about when it is answered, and in between a node
/// appends some hundred times at most.
const KEPT: usize = 512;

/// Where the time of a write went, until its effect was applied here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// Until its entry was in this node's log: it waited for its group, for the leader and for the way there.
    pub queue: Duration,
    /// Until this node's disk had the entry, or a majority's had.
    pub fsync: Duration,
    /// Until this node knew that a majority had it.
    pub replicate: Duration,
    /// Until this node had applied it.
    pub apply: Duration,
}

/// Entries up to this index were there at this time.
type Mark = (u64, Instant);

/// The times of one kind, in the order of the indices.
#[derive(Default)]
struct Track(Mutex<VecDeque<Mark>>);

impl Track {
    fn note(&self, through: u64, at: Instant) {
        let mut marks = self.0.lock();
        // A truncated log takes other entries in the place of those.
        while marks.pop_back_if(|(index, _)| *index >= through).is_some() {}
        if marks.len() == KEPT {
            marks.pop_front();
        }
        marks.push_back((through, at));
    }

    /// When the entry at this index was there; nothing if that is not known.
    fn at(&self, index: u64) -> Option<Instant> {
        let marks = self.0.lock();
        let at = marks.partition_point(|(through, _)| *through < index);
        marks.get(at).map(|(_, at)| *at)
    }
}

/// The times of the last entries.
#[derive(Default)]
pub(crate) struct Waypoints {
    appended: Track,
    durable: Track,
    committed: Track,
    applied: Track,
    /// The last entry of each revision that the store had when it was looked at.
    revisions: Mutex<VecDeque<(u64, u64)>>,
}

impl std::fmt::Debug for Waypoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waypoints").finish_non_exhaustive()
    }
}

impl Waypoints {
    /// The log has entries up to this one.
    pub(crate) fn appended(&self, through: u64) {
        self.appended.note(through, Instant::now());
    }

    /// They are durable here.
    pub(crate) fn durable(&self, through: u64) {
        self.durable.note(through, Instant::now());
    }

    /// They are known to be committed.
    pub(crate) fn committed(&self, through: u64) {
        self.committed.note(through, Instant::now());
    }

    /// They are applied, and the store is at this revision.
    pub(crate) fn applied(&self, through: u64, revision: u64) {
        let mut revisions = self.revisions.lock();
        if revisions.len() == KEPT {
            revisions.pop_front();
        }
        // An entry that changes nothing has the revision of the one before.
        if revisions.back().is_none_or(|(last, _)| *last < revision) {
            revisions.push_back((revision, through));
        }
        drop(revisions);
        self.applied.note(through, Instant::now());
    }

    /// How long ago the entry at this index was in the log; zero if it is not there.
    pub(crate) fn age(&self, index: u64) -> Duration {
        let at = self.appended.at(index);
        at.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// The stages of a write that was submitted at this time and has made this revision; nothing if it made none, or
    /// if its entry is too long ago.
    pub(crate) fn stages(&self, revision: u64, submitted: Instant) -> Option<Stages> {
        if revision == 0 {
            return None;
        }
        let index = {
            let revisions = self.revisions.lock();
            let at = revisions.partition_point(|(known, _)| *known < revision);
            revisions.get(at)?.1
        };
        let applied = self.applied.at(index)?;
        let appended = self.appended.at(index)?.max(submitted);
        if applied < submitted {
            return None;
        }
        let committed = self
            .committed
            .at(index)?
            .clamp(appended, applied.max(appended));
        // A majority may be faster than this node's disk.
        let durable = self.durable.at(index).unwrap_or(committed);
        let durable = durable.clamp(appended, committed);
        Some(Stages {
            queue: appended - submitted,
            fsync: durable - appended,
            replicate: committed - durable,
            apply: applied.saturating_duration_since(committed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_write_is_told_by_its_stages() {
        let points = Waypoints::default();
        let start = Instant::now();
        points.appended.note(7, start + ms(1));
        points.appended.note(9, start + ms(3));
        points.durable.note(9, start + ms(23));
        points.committed.note(8, start + ms(24));
        points.committed.note(9, start + ms(28));
        points.applied(9, 100);
        points.applied.note(9, start + ms(29));
        let stages = Stages {
            queue: ms(3),
            fsync: ms(20),
            replicate: ms(5),
            apply: ms(1),
        };
        assert_eq!(points.stages(100, start), Some(stages));
        assert_eq!(points.stages(101, start), None, "not applied yet");
        let later = start + ms(60_000);
        assert_eq!(points.stages(100, later), None, "it made no revision");
    }

    #[test]
    fn a_majority_may_be_faster_than_the_disk() {
        let points = Waypoints::default();
        let start = Instant::now();
        points.appended.note(9, start);
        points.committed.note(9, start + ms(2));
        points.applied(9, 100);
        points.applied.note(9, start + ms(2));
        for durable in [None, Some(start + ms(50))] {
            if let Some(at) = durable {
                points.durable.note(9, at);
            }
            let stages = points.stages(100, start).unwrap();
            assert_eq!((stages.fsync, stages.replicate), (ms(2), ms(0)));
        }
    }

    #[test]
    fn times_are_kept_up_to_a_bound_and_truncated_entries_are_forgotten() {
        let points = Waypoints::default();
        for index in 0..10 * KEPT as u64 {
            points.appended(index);
            points.durable(index);
            points.committed(index);
            points.applied(index, index);
        }
        assert_eq!(points.revisions.lock().len(), KEPT);
        for track in [&points.appended, &points.durable, &points.applied] {
            assert_eq!(track.0.lock().len(), KEPT);
        }
        assert!(points.appended.at(0).is_some(), "at the latest then");
        points.appended(5_000);
        assert_eq!(points.appended.at(5_001), None);
    }
}
