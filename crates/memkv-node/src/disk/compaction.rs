//! The time of a snapshot, and the part of the log that is removed after it: the original's `max_log_count`, with
//! a floor that keeps small settings from rewriting the data set over and over. And the part of the log
//! that stays in memory: the entries that a member does not have yet.

use std::sync::Arc;
use std::time::Duration;

use crate::NodeConfig;
use crate::disk::storage::Storage;
use crate::engine::handle::{Engine, Matched};
use crate::engine::network::{Transfer, Transfers};

/// How often the log's size is looked at. A log grows by some megabytes meanwhile at worst.
const INTERVAL: Duration = Duration::from_millis(100);
/// Most log that is kept for a snapshot in transfer, unless the snapshot is larger: a peer that
/// takes it can then go on from the log instead of needing the next snapshot.
const TRANSFER_LOG_BYTES: u64 = 256 * 1024 * 1024;

/// Largest segment that a log far beyond its count grows to: as much as a disk writes in a fraction
/// of a second, so that recycling stays smooth.
const LARGEST_SEGMENT: u64 = 64 * 1024 * 1024;

/// Bytes of the next segments. A log that must stay long, because the data set is large or a peer
/// slow, would otherwise become thousands of small files: from twice the count on, each doubling of
/// the count doubles the size.
fn segment_bytes(configured: u64, segments: usize, max_segments: usize) -> u64 {
    // As the log rounds it.
    let configured = configured.next_multiple_of(64 * 1024);
    let excess = segments / max_segments.max(1);
    let doublings = excess.checked_ilog2().unwrap_or(0).min(16);
    configured
        .saturating_mul(1 << doublings)
        .min(LARGEST_SEGMENT.max(configured))
}

/// Looks after the log until the node stops.
pub(crate) async fn run(
    config: Arc<NodeConfig>,
    storage: Storage,
    transfers: Arc<Transfers>,
    engine: Engine,
) {
    // Size of the log behind the last snapshot when it was begun, to know what it covered.
    let mut requested_at: Option<u64> = None;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let report = engine.report();
        let progress = report.progress;
        let (snapshot, purged, applied) = (progress.snapshot, progress.purged, progress.applied);
        if let Some(through) = everywhere(applied, &report.matched) {
            storage.wal.forget_through(through);
        }
        if let Some(snapshot) = snapshot
            && purged.is_none_or(|purged| purged < snapshot)
        {
            let keep_from = kept_for_transfers(&transfers.active(), storage.log.size_bytes());
            let upto = keep_from.map_or(snapshot, |from| snapshot.min(from));
            if purged.is_none_or(|purged| purged < upto)
                && let Err(error) = engine.purge_to(upto).await
            {
                tracing::debug!(%error, "the engine takes no purge any more");
                return;
            }
        }
        if requested_at.is_some_and(|index| snapshot.is_some_and(|snapshot| snapshot >= index)) {
            requested_at = None;
        }
        let segments = storage.log.segment_count();
        let bytes = segment_bytes(config.max_log_size, segments, config.max_log_count);
        storage.wal.set_segment_bytes(bytes);
        let covered = storage.snapshots.file_len();
        let due = is_due(
            segments,
            config.max_log_count,
            storage.log.size_bytes(),
            covered,
            config.snapshot_growth_percent,
        );
        if due && requested_at.is_none() && applied > snapshot {
            requested_at = applied;
            if let Err(error) = engine.snapshot().await {
                tracing::debug!(%error, "the engine takes no snapshot any more");
                return;
            }
        }
    }
}

/// The last entry that is applied here and that each member has, as far as this node must know: only
/// a leader sends entries.
fn everywhere(applied: Option<u64>, matched: &Matched) -> Option<u64> {
    let mut members = matched.members.iter();
    members.try_fold(applied?, |least, (_, matched)| Some(least.min((*matched)?)))
}

/// Whether the log is long enough for a snapshot.
fn is_due(
    segments: usize,
    max_segments: usize,
    log_bytes: u64,
    snapshot_bytes: u64,
    growth_percent: u32,
) -> bool {
    segments > max_segments
        && log_bytes >= snapshot_bytes.saturating_mul(u64::from(growth_percent)) / 100
}

/// The lowest index that a snapshot in transfer needs the log from, if the log is still small
/// enough to be kept for it.
fn kept_for_transfers(active: &[Transfer], log_bytes: u64) -> Option<u64> {
    let first = active.iter().min_by_key(|transfer| transfer.index)?;
    let bound = TRANSFER_LOG_BYTES.max(first.bytes);
    (log_bytes <= bound).then_some(first.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_grow_while_the_log_is_far_beyond_its_count() {
        let size = 64 * 1024;
        assert_eq!(segment_bytes(size, 6, 6), size);
        assert_eq!(segment_bytes(size, 11, 6), size);
        assert_eq!(segment_bytes(size, 12, 6), size * 2);
        assert_eq!(segment_bytes(size, 24, 6), size * 4);
        assert_eq!(segment_bytes(size, usize::MAX, 6), 64 * 1024 * 1024);
        let large = 1 << 30;
        assert_eq!(
            segment_bytes(large, 24, 6),
            large,
            "never below what is configured"
        );
    }

    #[test]
    fn a_snapshot_waits_for_segments_and_for_growth() {
        assert!(
            !is_due(6, 6, 1 << 20, 0, 50),
            "not more segments than allowed"
        );
        assert!(is_due(7, 6, 1 << 20, 0, 50), "the first snapshot");
        assert!(
            !is_due(7, 6, 1 << 20, 1 << 30, 50),
            "a megabyte of log against a gigabyte of data"
        );
        assert!(is_due(7, 6, 1 << 29, 1 << 30, 50));
    }

    #[test]
    fn the_log_in_memory_ends_where_the_slowest_member_is() {
        let matched = |members: &[(u64, Option<u64>)]| Matched {
            last: Some(9),
            members: members.to_vec(),
        };
        let all = matched(&[(1, Some(9)), (2, Some(4)), (3, Some(8))]);
        assert_eq!(everywhere(Some(7), &all), Some(4));
        assert_eq!(everywhere(Some(3), &all), Some(3), "not applied here");
        let unknown = matched(&[(1, Some(9)), (2, None)]);
        assert_eq!(everywhere(Some(7), &unknown), None);
        assert_eq!(everywhere(Some(7), &matched(&[])), Some(7), "a follower");
    }
}
