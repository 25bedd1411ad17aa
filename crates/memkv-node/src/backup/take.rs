//! A finished snapshot that holds everything that was acknowledged before it was asked for.
//!
//! The snapshot that the node has is shared if it is new enough; else the engine builds one, as it does for
//! itself. Never walks the store for a backup: a slow reader holds a file.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use memkv_disk::SnapshotReader;
use tokio::time::Instant;

use crate::RequestError;
use crate::env::blocking;
use crate::group::Group;
use crate::membership::life::State;

/// How often it is looked whether the snapshot is there. It takes seconds where there are many keys.
const LOOK: Duration = Duration::from_millis(20);

/// Longest wait for a snapshot: one of a hundred million keys takes some minutes, one on a full disk waits
/// until there is space.
const BUILD_WITHIN: Duration = Duration::from_secs(900);

/// How long the engine has to begin with a snapshot that it was asked for.
const BEGIN_WITHIN: Duration = Duration::from_secs(1);

/// A finished snapshot of a state that a majority has confirmed after this was called.
///
/// # Errors
///
/// As of a read; [`RequestError::NoLeader`] also if no snapshot could be built in time.
pub(crate) async fn take(group: Arc<Group>) -> Result<SnapshotReader, RequestError> {
    group.reads.barrier.wait().await?;
    let needed = {
        let machine = group.replica.machine.read();
        group.replica.check_reads()?;
        machine.last_applied.map_or(0, |last| last.index)
    };
    let snapshots = &group.storage.snapshots;
    let began = Instant::now();
    let mut asked: Option<(Instant, u64)> = None;
    loop {
        let latest = snapshots.latest().map_or(0, |meta| meta.last.index);
        if latest >= needed && latest > 0 {
            break;
        }
        if group.introducer.record.life.state() == State::Stopped {
            return Err(RequestError::Stopping);
        }
        if began.elapsed() > BUILD_WITHIN {
            let detail = format!(
                "no snapshot was built within {BUILD_WITHIN:?}; look for warnings about disk space in \
                 this node's log"
            );
            return Err(RequestError::NoLeader { detail });
        }
        // One that was under way when this one was asked for may have begun too early.
        let is_building = group.process.counters.building.load(Ordering::Relaxed);
        let is_asked = asked.is_some_and(|(at, then)| {
            then == latest && (is_building || at.elapsed() < BEGIN_WITHIN)
        });
        if !is_asked {
            asked = Some((Instant::now(), latest));
            let engine = group.engine.get().ok_or(RequestError::Stopping)?;
            let begun = engine.snapshot().await;
            begun.map_err(|_| RequestError::Stopping)?;
        }
        tokio::time::sleep(LOOK).await;
    }
    let snapshots = snapshots.clone();
    let opened = blocking(&group.process.env, move || snapshots.open_latest()).await;
    let unreadable = |error: std::io::Error| RequestError::NoLeader {
        detail: format!("the snapshot cannot be read: {error}; take the backup from another node"),
    };
    let opened = opened.and_then(|opened| opened).map_err(unreadable)?;
    opened.ok_or(RequestError::Stopping)
}
