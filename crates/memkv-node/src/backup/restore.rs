//! Makes an empty directory that of a new cluster of one node, with the keys, users and settings of a
//! snapshot.
//!
//! All of the snapshot is loaded, and so verified, before anything is written. The directory is marked until it
//! is whole (`Restoring` in memkv-disk). Invariants: the new cluster has a UUID of its own; its revisions are
//! above all that the old one has given out; nothing of a directory that holds data is changed.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use memkv_disk::disk::Disk;
use memkv_disk::{LogId, OpenError, Options, Restoring};
use memkv_store::{LoadError, Loader, Member, Refounding, Store};

use crate::engine::state_machine::{SNAPSHOT_BLOCK_BYTES, stored_meta};
use crate::membership::identity::Identity;
use crate::membership::levels;
use crate::membership::life::{Life, State};
use crate::membership::members::Members;
use crate::peer::message::MemberInfo;
use crate::{NodeConfig, StartError, TooOld};

/// The only member's id.
const NODE: u64 = 1;

/// The position in the log that the restored state stands for. No leader has led yet, as with the first entry
/// of a cluster that forms.
const LAST: LogId = LogId {
    term: 0,
    leader: NODE,
    index: 1,
};

/// Revisions in a second, at most, for all that a cluster gives out to stay below the first of a later
/// restore: ten times what three nodes write.
const REVISIONS_A_SECOND: u64 = 1 << 20;

/// The highest revision that a restore may begin with. JSON in other languages holds whole numbers up to
/// 2^53 exactly; half of that is left for the writes to come.
const HIGHEST_REVISION: u64 = 1 << 52;

/// How a snapshot is to be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// 128 random bits, for the UUID of the new cluster.
    pub cluster: u128,
    /// 128 random bits, for the number of the directory.
    pub directory: u128,
    /// The revision of the restore; see [`revision_of_restore`].
    pub revision: u64,
    /// By how much each deadline moves, in milliseconds.
    pub later_ms: u64,
    /// Whether the users come along. Otherwise the cluster begins with those of the configuration.
    pub keep_users: bool,
    /// The time by which keys are counted as due, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// What was restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The UUID of the new cluster.
    pub cluster: [u8; 16],
    /// The number of its keys.
    pub keys: u64,
    /// How many of them are past their deadline: they go when the node first leads.
    pub due: u64,
    /// Its first revision.
    pub revision: u64,
    /// Its feature level.
    pub level: u32,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The wall clock is behind the state's log time.
    #[error(
        "this machine's clock is {behind_s} s behind the backup's time, so its revisions could be given \
         out twice: set the clock, or say --revision-above N with a number that no revision of the old \
         cluster has reached"
    )]
    ClockBehind {
        /// By how much, in seconds, rounded up.
        behind_s: u64,
    },
    /// The first revision would not be above the snapshot's.
    #[error(
        "the first revision would be {first}, and the backup has reached {reached}: say --revision-above N \
         with a number that no revision of the old cluster has reached"
    )]
    RevisionTooLow {
        /// The revision of the restore.
        first: u64,
        /// That of the snapshot.
        reached: u64,
    },
    /// The revision that was asked for leaves no room.
    #[error(
        "--revision-above must be below {HIGHEST_REVISION}: revisions only rise, and need room"
    )]
    RevisionTooHigh,
    /// The records cannot be read.
    #[error(transparent)]
    Source(io::Error),
    /// They are no whole snapshot.
    #[error("the backup does not hold a whole state: {0}; use another backup")]
    Load(#[from] LoadError),
    /// This build is older than the state.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// The configuration does not fit.
    #[error(transparent)]
    Config(StartError),
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The snapshot cannot be written. The directory does not open; restore into it again.
    #[error(
        "cannot write the restored data: {0}; make room, and restore again into the same directory"
    )]
    Write(io::Error),
}

/// The first revision of a restore: `above` and one more, or Unix time in seconds times 2^20, so that each
/// restore begins above all that the ones before have given out since.
///
/// # Errors
///
/// [`RestoreError`] if that does not hold for certain: `reached` and `log_time_ms` are those of the snapshot,
/// `now_ms` is the wall clock.
pub fn revision_of_restore(
    reached: u64,
    log_time_ms: u64,
    now_ms: u64,
    above: Option<u64>,
) -> Result<u64, RestoreError> {
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::RestoreRevisions) {
        return Ok(reached + 1);
    }
    let first = match above {
        Some(above) if above >= HIGHEST_REVISION => return Err(RestoreError::RevisionTooHigh),
        Some(above) => above + 1,
        None if now_ms < log_time_ms => {
            let behind_s = (log_time_ms - now_ms).div_ceil(1000);
            return Err(RestoreError::ClockBehind { behind_s });
        }
        // In milliseconds, so that two restores in one second differ.
        None => {
            let first = u128::from(now_ms) * u128::from(REVISIONS_A_SECOND) / 1000;
            u64::try_from(first).unwrap_or(u64::MAX)
        }
    };
    match first {
        first if first <= reached => Err(RestoreError::RevisionTooLow { first, reached }),
        first if first > HIGHEST_REVISION => Err(RestoreError::RevisionTooHigh),
        first => Ok(first),
    }
}

/// Makes the configured directory, which must hold no data, that of a new cluster of this node alone, with the
/// state in `blocks`: those of a snapshot, in order. Blocks its thread.
///
/// # Errors
///
/// [`RestoreError`]. Unless it is [`RestoreError::Write`], nothing was changed.
pub fn restore(
    config: &NodeConfig,
    disk: Arc<dyn Disk>,
    plan: &RestorePlan,
    blocks: &mut dyn FnMut() -> io::Result<Option<Vec<u8>>>,
) -> Result<Restored, RestoreError> {
    config.check_first_users().map_err(RestoreError::Config)?;
    let cluster = crate::membership::identity::random_uuid(plan.cluster);
    let mut store = load(config, plan, cluster, blocks)?;
    let level = store.member_table().level();
    levels::check(level, config.highest_level)?;
    let options = Options {
        max_log_size: config.max_log_size,
        sync: config.sync,
        cache_bytes: config.log_cache_bytes,
    };
    let restoring = Restoring::begin(disk, &config.layout, options)?;
    let members = Members {
        configs: vec![BTreeSet::from([NODE])],
        learners: BTreeSet::new(),
        at: Some(LAST),
    };
    let mut writer = restoring.snapshot(stored_meta(LAST, &members));
    let mut write = || {
        let head = store.begin_snapshot().map_err(io::Error::other)?;
        writer.block(&head.encode())?;
        while let Some(shard) = store.next_shard() {
            shard.encode_blocks(SNAPSHOT_BLOCK_BYTES, &mut |block| writer.block(block))?;
        }
        Ok(())
    };
    write().map_err(RestoreError::Write)?;
    writer.finish().map_err(RestoreError::Write)?;
    let life = Life::resume(bytes::Bytes::new(), plan.directory.to_be_bytes());
    let life = life.map_err(|error| RestoreError::Write(io::Error::other(error)))?;
    life.level.store(level, Ordering::Relaxed);
    let identity = State::Running(identity(config, cluster, level));
    restoring.finish(LAST, life.record(&identity))?;
    Ok(Restored {
        cluster,
        keys: store.len() as u64,
        due: store.keys_due(plan.now_ms),
        revision: store.revision(),
        level,
    })
}

/// Loads the state as that of the new cluster.
fn load(
    config: &NodeConfig,
    plan: &RestorePlan,
    cluster: [u8; 16],
    blocks: &mut dyn FnMut() -> io::Result<Option<Vec<u8>>>,
) -> Result<Store, RestoreError> {
    let mut loader = Loader::refounding(Refounding {
        cluster,
        durability_sync: config.sync,
        member: Member {
            id: NODE,
            name: config.me.name.clone(),
            addr: config.me.addr.clone(),
            pending: false,
        },
        index: LAST.index,
        revision: plan.revision,
        later_ms: plan.later_ms,
        users: (!plan.keep_users).then(|| config.first_users.clone()),
    });
    while let Some(block) = blocks().map_err(RestoreError::Source)? {
        loader.block(&block)?;
    }
    Ok(loader.finish()?)
}

/// It is no founder: its log does not begin with the first entry of a cluster that forms.
fn identity(config: &NodeConfig, cluster: [u8; 16], level: u32) -> Identity {
    Identity {
        cluster,
        node_id: NODE,
        name: config.me.name.clone(),
        sync: config.sync,
        members: vec![MemberInfo {
            id: NODE,
            name: config.me.name.clone(),
            addr: config.me.addr.clone(),
        }],
        founder: false,
        level,
    }
}
