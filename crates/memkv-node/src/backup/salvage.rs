//! What a stopped directory still holds: the newest snapshot that is whole and the entries behind it, up to the first
//! that is missing or damaged, through the store's own apply.
//!
//! Never changes the directory, never goes on behind a gap, and never tells an entry that is not known to be committed
//! from one that is: a directory alone cannot know. Invariant: the state is one that this node has had or would have
//! had, if every entry in its log had been committed.

use std::io;
use std::sync::atomic::Ordering;

use memkv_disk::disk::Disk;
use memkv_disk::{Flaw, Layout, LogId, OpenError, Record, Salvage};
use memkv_store::{SnapshotHead, Store};

use crate::TooOld;
use crate::engine::replay;
use crate::engine::state_machine::{Loaded, SNAPSHOT_BLOCK_BYTES, load_from};
use crate::membership::identity::{Identity, uuid_text};
use crate::membership::levels;
use crate::membership::life::{Life, State};

/// Why nothing can be salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// There is nothing in it.
    #[error(
        "`{0}` and its neighbours hold no data of a node: name the directory that the node ran in, or give its \
         configuration with --config"
    )]
    Nothing(String),
    /// There is something, and none of it can be used.
    #[error("nothing in this directory can be used: {}", list(.0))]
    NothingWhole(Vec<Flaw>),
    /// It belongs to no cluster.
    #[error(
        "this directory belongs to no cluster: its node has {0}, and no client was ever told that anything in it \
         was done"
    )]
    NoCluster(&'static str),
    /// Its identity is of another format.
    #[error(
        "the identity in this directory cannot be read ({0}): use the memkv version that wrote it"
    )]
    Identity(String),
    /// A node has marked it.
    #[error(
        "the node marked this directory as one that must not be used: {0}. Salvage the directories of other nodes; if \
         there is no other, say --condemned, and compare what it holds with what you know"
    )]
    Condemned(String),
    /// Metadata and state are of two clusters.
    #[error(
        "the metadata are of cluster {metadata}, and the state is of cluster {state}: they do not belong together"
    )]
    TwoClusters {
        /// The UUID in the metadata.
        metadata: String,
        /// That of the state.
        state: String,
    },
    /// This build is older than the state.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// The snapshot is whole and holds no state.
    #[error(
        "the snapshot is whole, and its content is no state: {0}; use the memkv version that wrote it"
    )]
    Load(io::Error),
}

/// Flaws, for a message.
fn list(flaws: &[Flaw]) -> String {
    let texts: Vec<String> = flaws.iter().map(Flaw::to_string).collect();
    texts.join("; ")
}

/// The state of a directory, and how it came about. While it lives, no node begins to work on the directory.
pub struct Salvaged {
    /// The cluster's UUID.
    pub cluster: [u8; 16],
    /// The node's name; none if its metadata are lost.
    pub node: Option<String>,
    /// The last entry in the state.
    pub last: LogId,
    /// The highest index that is known to be committed, which may be above the last one here; 0 for none.
    pub committed: u64,
    /// The first index of each term, as far as the directory says, in order.
    pub terms: Vec<LogId>,
    /// Why the entries end where they do, unless that is the log's own end.
    pub stopped: Option<Flaw>,
    /// Everything else that was passed over.
    pub passed_over: Vec<Flaw>,
    /// Why a node has marked the directory.
    pub condemned: Option<String>,
    /// Whether the directory has lock files, so that no node can begin to work on it meanwhile.
    pub locked: bool,
    /// The boot counter of its node; none if its metadata are lost.
    pub boot: Option<u64>,
    /// Whether this node is the only one of its cluster that votes.
    pub votes_alone: bool,
    store: Store,
    _directory: Salvage,
}

/// Reads what a stopped directory holds, for a build that knows feature levels up to `highest_level`. One that a
/// node has marked as not to be used is read only if `condemned` says so. Blocks its thread.
///
/// # Errors
///
/// [`SalvageError`]. Damage is none, as long as anything is whole.
pub fn salvage(
    disk: &dyn Disk,
    layout: &Layout,
    highest_level: u32,
    condemned: bool,
) -> Result<Salvaged, SalvageError> {
    let mut directory = Salvage::open(disk, layout)?;
    if let Some(why) = directory.condemned.as_ref().filter(|_| !condemned) {
        return Err(SalvageError::Condemned(why.clone()));
    }
    let identity = identity(&directory, highest_level)?;
    if directory.is_empty() {
        return Err(
            match (directory.metadata.is_some(), directory.stopped.take()) {
                (false, None) if directory.passed_over.len() <= 1 => {
                    SalvageError::Nothing(layout.metadata.display().to_string())
                }
                (_, stopped) => {
                    let flaws = stopped.into_iter().chain(directory.passed_over);
                    SalvageError::NothingWhole(flaws.collect())
                }
            },
        );
    }
    let mut replay = Replay::begin(&directory, highest_level)?;
    loop {
        let read = directory.next_records();
        let done = match read {
            Ok(records) if records.is_empty() => break,
            Ok(records) => replay.apply(records, &layout.log)?,
            Err(flaw) => Some(flaw),
        };
        if let Some(flaw) = done {
            let later = directory.stopped.replace(flaw);
            directory.passed_over.extend(later);
            break;
        }
    }
    let formed = replay.store.member_table().cluster();
    let (Some(cluster), Some(last)) = (formed, replay.last) else {
        return Err(match directory.stopped.take() {
            Some(stopped) => SalvageError::NothingWhole(vec![stopped]),
            None => SalvageError::NoCluster("not applied the first entry of one"),
        });
    };
    if let Some(other) = identity.as_ref().filter(|own| own.cluster != cluster) {
        return Err(SalvageError::TwoClusters {
            metadata: uuid_text(&other.cluster),
            state: uuid_text(&cluster),
        });
    }
    let own = identity.as_ref().map(|identity| identity.node_id);
    Ok(Salvaged {
        cluster,
        votes_alone: own.is_some_and(|own| replay.voters == [own]),
        node: identity.map(|identity| identity.name),
        last,
        committed: directory.committed,
        terms: replay.terms,
        stopped: directory.stopped.take(),
        passed_over: std::mem::take(&mut directory.passed_over),
        condemned: directory.condemned.take(),
        locked: directory.locked,
        boot: directory.metadata.as_ref().map(|metadata| metadata.boot),
        store: replay.store,
        _directory: directory,
    })
}

impl Salvaged {
    /// A hash of the whole state, as [`Store::digest`] makes it.
    pub fn digest(&self) -> u64 {
        self.store.digest()
    }

    /// Begins to give out the state, with its head. The head is also its first block.
    ///
    /// # Errors
    ///
    /// If it is given out already.
    pub fn begin(&mut self) -> io::Result<SnapshotHead> {
        self.store.begin_snapshot().map_err(io::Error::other)
    }

    /// Gives out the blocks behind the head, as those of a snapshot.
    ///
    /// # Errors
    ///
    /// Of `block`.
    pub fn blocks(&mut self, mut block: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        while let Some(shard) = self.store.next_shard() {
            shard.encode_blocks(SNAPSHOT_BLOCK_BYTES, &mut block)?;
        }
        Ok(())
    }
}

/// The identity in the metadata; none if those are lost.
fn identity(directory: &Salvage, highest_level: u32) -> Result<Option<Identity>, SalvageError> {
    let Some(metadata) = &directory.metadata else {
        return Ok(None);
    };
    let life = Life::resume(metadata.identity.clone(), [0; 16]);
    let life = life.map_err(|error| SalvageError::Identity(error.to_string()))?;
    levels::check(life.level.load(Ordering::Acquire), highest_level)?;
    match life.state() {
        State::Running(identity) => {
            levels::check(identity.level, highest_level)?;
            Ok(Some(identity))
        }
        State::Prepared(_) => Err(SalvageError::NoCluster(
            "agreed to one that was not formed as far as it knows",
        )),
        State::Blank | State::Proposing(_) | State::Stopped => {
            Err(SalvageError::NoCluster("not joined one yet"))
        }
    }
}

/// A store that follows a log.
struct Replay {
    store: Store,
    last: Option<LogId>,
    terms: Vec<LogId>,
    voters: Vec<u64>,
    highest_level: u32,
}

impl Replay {
    /// Begins with the snapshot, if there is one.
    fn begin(directory: &Salvage, highest_level: u32) -> Result<Self, SalvageError> {
        let mut replay = Self {
            store: Store::new(),
            last: None,
            terms: Vec::new(),
            voters: Vec::new(),
            highest_level,
        };
        let Some(reader) = directory.snapshot().map_err(SalvageError::Load)? else {
            return Ok(replay);
        };
        let loaded = load_from(reader).map_err(SalvageError::Load)?;
        let Loaded {
            store,
            last,
            members,
        } = loaded;
        levels::check(store.member_table().level(), highest_level)?;
        replay.voters = members.voters().into_iter().collect();
        (replay.store, replay.last) = (store, Some(last));
        replay.terms.push(last);
        Ok(replay)
    }

    /// Applies records; gives back why, if one of them cannot be.
    fn apply(
        &mut self,
        records: Vec<Record>,
        log: &std::path::Path,
    ) -> Result<Option<Flaw>, TooOld> {
        for record in records {
            let id = record.id;
            if let Err(why) = self.apply_one(record) {
                return Ok(Some(Flaw {
                    path: log.to_path_buf(),
                    offset: 0,
                    what: format!(
                        "entry {} of term {} is whole, and this build cannot read it: {why}",
                        id.index, id.term
                    ),
                }));
            }
            self.last = Some(id);
            if self.terms.last().is_none_or(|last| last.term != id.term) {
                self.terms.push(id);
            }
            drop(self.store.take_garbage());
            levels::check(self.store.member_table().level(), self.highest_level)?;
        }
        Ok(None)
    }

    fn apply_one(&mut self, record: Record) -> Result<(), String> {
        if let Some(voters) = replay::apply(&mut self.store, record)? {
            self.voters = voters;
        }
        Ok(())
    }
}
