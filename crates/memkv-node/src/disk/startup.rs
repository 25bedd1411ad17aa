//! The start in the data directory: opens it, checks whose it is, loads the newest snapshot.
//! Rejects, with the reason, a directory that would mix two nodes or lose entries.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memkv_disk::disk::Disk;
use memkv_disk::{
    ClockFile, ClockReading, LogReader, Metadata, OpenError, RecoveryReport, SnapshotStore,
};

use crate::disk::memory::{Memory, Remembered};
use crate::engine::state_machine::load_latest;
use crate::env::blocking;
use crate::membership::identity::uuid_text;
use crate::membership::levels;
use crate::membership::life::{self, Life, State};
use crate::replica::Replica;
use crate::{Env, NodeConfig, StartError};

/// A directory that this node may work with.
pub(crate) struct Directory {
    pub(crate) opened: memkv_disk::Opened,
    pub(crate) life: Life,
    /// Where an earlier content of it was set aside.
    pub(crate) quarantined: Option<PathBuf>,
    pub(crate) clock: (ClockFile, Option<ClockReading>),
}

/// Opens the directory and checks whose it is, where that may wait for the disk. `new` is the number
/// of an empty one.
pub(crate) async fn open(
    config: &NodeConfig,
    disk: Arc<dyn Disk>,
    env: &Env,
    new: life::Directory,
) -> Result<Directory, StartError> {
    config.check_first_users()?;
    let config = config.clone();
    let open = move || {
        let opened = open_or_set_aside(&config, disk.clone())?;
        let life = check_identity(&config, &opened.metadata, new)?;
        Ok(Directory {
            life,
            quarantined: memkv_disk::quarantined(&*disk, &config.layout)?,
            clock: ClockFile::open(&*disk, &config.layout)?,
            opened,
        })
    };
    blocking(env, open)
        .await
        .map_err(|error| StartError::Load(format!("cannot open the directory: {error}")))?
}

/// Opens the directory, or sets a corrupt one aside so that the node can be replaced.
fn open_or_set_aside(
    config: &NodeConfig,
    disk: Arc<dyn Disk>,
) -> Result<memkv_disk::Opened, StartError> {
    let options = memkv_disk::Options {
        max_log_size: config.max_log_size,
        sync: config.sync,
        cache_bytes: config.log_cache_bytes,
    };
    let opened = match memkv_disk::open(disk.clone(), &config.layout, options.clone()) {
        Err(error @ OpenError::Corrupt { .. }) if config.knows_others() => {
            let aside = memkv_disk::quarantine(disk.clone(), &config.layout)?;
            tracing::error!(
                %error,
                moved_to = %aside.display(),
                "the directory is quarantined; this node asks the cluster to be replaced"
            );
            memkv_disk::open(disk, &config.layout, options)?
        }
        opened => opened?,
    };
    tell(&opened.recovery);
    Ok(opened)
}

/// Tells the operator what recovery mended: a disk that damages one file will damage another.
fn tell(recovery: &RecoveryReport) {
    for snapshot in &recovery.bad_snapshots {
        tracing::warn!(
            snapshot = %snapshot.display(),
            "a damaged snapshot is set aside as .bad; an older one and the log hold the same data. \
             Check this disk"
        );
    }
    if recovery.metadata_repaired {
        tracing::warn!(
            "one of the two copies of the metadata was damaged or missing and was written anew. \
             If the machine did not lose power, check this disk"
        );
    }
    if let Some(tail) = &recovery.torn_tail {
        tracing::info!(
            segment = %tail.path.display(),
            offset = tail.offset,
            "a write that the last stop cut short is removed; it was never acknowledged"
        );
    }
}

/// The life that the directory belongs to, which must fit the configuration. `new` is the number of
/// an empty one.
fn check_identity(
    config: &NodeConfig,
    metadata: &Metadata,
    new: life::Directory,
) -> Result<Life, StartError> {
    let life = Life::resume(metadata.identity.clone(), new)
        .map_err(|error| StartError::Load(format!("the identity is unreadable: {error}")))?;
    let (identity, runs) = match life.state() {
        State::Running(identity) => (identity, true),
        State::Prepared(agreed) => (agreed.proposal, false),
        State::Blank | State::Proposing(_) | State::Stopped => return Ok(life),
    };
    let level = identity.level.max(life.level.load(Ordering::Acquire));
    levels::check(level, config.highest_level)?;
    let cluster = uuid_text(&identity.cluster);
    if identity.name != config.me.name {
        return Err(StartError::Identity(format!(
            "the data directory {} node {} of cluster {cluster}, the configuration says {}: give \
             each node a directory of its own, or correct its id",
            if runs {
                "belongs to"
            } else {
                "has agreed to become that of"
            },
            identity.name,
            config.me.name,
        )));
    }
    if runs && identity.sync != config.sync {
        return Err(StartError::Identity(format!(
            "cluster {cluster} was formed with another durability than this configuration has: \
             all nodes of a cluster share it, and it cannot change while it exists",
        )));
    }
    Ok(life)
}

/// Opens what this node remembers of its peers. `own` is what its own disk holds.
pub(crate) async fn open_memory(
    config: &NodeConfig,
    disk: Arc<dyn Disk>,
    env: &Env,
    state: &State,
    own: Remembered,
) -> Result<Memory, StartError> {
    let identity = match state {
        State::Running(identity) => Some(identity.clone()),
        _ => None,
    };
    let layout = config.layout.clone();
    let open = move || Memory::open(&*disk, &layout, identity.as_ref(), own);
    let opened = blocking(env, open).await;
    let opened = opened.map_err(|error| StartError::Load(error.to_string()))?;
    Ok(opened?)
}

/// Loads the newest snapshot, if there is one.
pub(crate) async fn load_snapshot(
    replica: &Replica,
    snapshots: &SnapshotStore,
    env: &Env,
    highest_level: u32,
) -> Result<(), StartError> {
    let snapshots = snapshots.clone();
    let loaded = blocking(env, move || load_latest(&snapshots)).await;
    let loaded = loaded
        .and_then(|loaded| loaded)
        .map_err(|error| StartError::Load(format!("cannot load the snapshot: {error}")))?;
    if let Some(loaded) = loaded {
        levels::check(loaded.store.member_table().level(), highest_level)?;
        let mut machine = replica.machine.write();
        drop(machine.replace(loaded.store, Some(loaded.last), loaded.members));
        replica.checkpoints.replaced(&machine.store);
        replica.publish(&machine);
        drop(machine);
        replica.publish_applied(loaded.last.index);
    }
    Ok(())
}

/// The snapshot must reach as far as the log was purged: the entries between them would be nowhere.
pub(crate) fn check_gap(replica: &Replica, log: &LogReader) -> Result<(), StartError> {
    let applied = replica
        .machine
        .read()
        .last_applied
        .as_ref()
        .map(|id| id.index);
    match log.purged() {
        Some(purged) if applied.is_none_or(|applied| applied < purged.index) => {
            Err(StartError::Load(format!(
                "the log begins after index {}, the snapshot ends at {}: a snapshot is missing. \
                 Restore it, or move the directory away so that the cluster replaces this node",
                purged.index,
                applied.map_or("nothing".to_owned(), |index| index.to_string()),
            )))
        }
        _ => Ok(()),
    }
}
