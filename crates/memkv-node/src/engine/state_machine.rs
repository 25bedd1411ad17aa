//! The engine's state machine on `memkv-store`: apply, build a snapshot, install one.
//!
//! Apply (in `apply`) never makes the consensus thread wait, and fails only at a committed entry that
//! cannot be read, and after one that raises the feature level above what this build knows: it stops
//! there for good, since the entries after it depend on its effects on other nodes. Snapshots are built beside it:
//! the store keeps pre-images, so a builder that is slow, or waits for disk space, delays no write.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use memkv_disk::{LogId, SnapshotReader, SnapshotReceiver, SnapshotStore, SnapshotWriter};
use memkv_store::{SnapshotHead, Store};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};

use super::apply::Applier;
use super::{EngineLogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, codec, load};
use crate::Env;
use crate::env::{blocking, busy};
use crate::membership::members::Members;
use crate::pubsub::announce::Announcer;
use crate::replica::Replica;
use crate::report::counters::Counters;
use crate::report::event::Event;
use crate::time::log_clock::LogClock;

/// Entries that are looked at together.
const APPLY_CHUNK: usize = 16;
/// Shards that are written to a snapshot in one piece of blocking work, at most, and how long a piece
/// goes on: any task that waits for the processor or for the store waits for one piece at most.
const SHARDS_PER_PIECE: usize = 16;
const PIECE: Duration = Duration::from_micros(500);
/// Rest after each piece, in units of the time that it took: the writers' share of processor and
/// disk. Three nodes on two cores build at about the same time. While they did so in pieces of 1 ms
/// with twice as long a rest, a write took 2.8 times as long at the 99th percentile; with these it
/// is 1.7 times, and a million keys take 4 seconds.
const REST: u32 = 8;
/// There is no rest while more than this part of the cap is kept for it, as a divisor: what is overwritten
/// while a snapshot is written stays until it has been, and that could be as much again as all keys.
const SAVED_PART: u64 = 16;
/// Largest block of a snapshot, in bytes, before a value that is larger by itself.
pub(crate) const SNAPSHOT_BLOCK_BYTES: usize = 256 * 1024;
/// How long a snapshot that met a full disk waits before the next try.
const FULL_DISK_RETRY: Duration = Duration::from_secs(1);

/// A snapshot in the engine's hands. Small: the engine moves each of its commands several times, and
/// every one has room for this.
pub(crate) enum SnapshotData {
    /// A snapshot of this node, verified and durable.
    Stored(Box<SnapshotReader>),
    /// A snapshot that a leader sent, complete and not yet installed.
    Received(Box<SnapshotReceiver>),
    /// The snapshot of a machine to which nothing was applied. It has no file.
    Nothing,
}

const _: () = assert!(size_of::<SnapshotData>() <= 16);

/// The engine's handle on the replica.
pub(crate) struct StateMachine {
    applier: Applier,
    snapshots: SnapshotStore,
}

impl StateMachine {
    pub(crate) fn new(
        replica: Arc<Replica>,
        snapshots: SnapshotStore,
        clock: Arc<LogClock>,
        env: Env,
        counters: Arc<Counters>,
        announcer: Announcer,
        highest_level: u32,
    ) -> Self {
        let applier = Applier {
            replica,
            clock,
            announcer: Arc::new(announcer),
            counters,
            env,
            highest_level,
        };
        Self { applier, snapshots }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<EngineLogId>, StoredMembership), io::Error> {
        let machine = self.applier.replica.machine.read();
        let last = machine.last_applied.map(codec::engine_id);
        Ok((last, codec::stored_membership(&machine.membership)))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(APPLY_CHUNK);
        let mut follows = false;
        while let Some(chunk) = chunks.next().await {
            if std::mem::replace(&mut follows, true) {
                // Heartbeats and votes run on the same thread: let them run in between chunks.
                tokio::task::yield_now().await;
            }
            let chunk = chunk.into_iter().collect::<Result<Vec<_>, _>>()?;
            self.applier.apply(chunk).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            replica: self.applier.replica.clone(),
            snapshots: self.snapshots.clone(),
            env: self.applier.env.clone(),
            counters: self.applier.counters.clone(),
        }
    }

    /// The file becomes durable and the newest one before the state changes, so a crash in between
    /// leaves the old state with its log or the new one.
    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let (applier, snapshots) = (self.applier.clone(), self.snapshots.clone());
        let started = tokio::time::Instant::now();
        let last = meta.last_log_id.as_ref().map(codec::storage_id);
        let members = codec::members(&meta.last_membership);
        blocking(&self.applier.env, move || {
            let store = make_current(&snapshots, snapshot)?;
            let mut machine = applier.replica.machine.write();
            machine.installs += 1;
            let old = machine.replace(store, last, members);
            applier.replica.checkpoints.replaced(&machine.store);
            applier.clock.applied(machine.store.stamp_ms());
            // What the session tells clients is published before.
            applier.replica.publish(&machine);
            applier.replica.session.on_snapshot(&machine.store);
            drop(machine);
            drop(old);
            Ok::<_, io::Error>(())
        })
        .await??;
        self.applier
            .replica
            .timeline
            .note(&Event::SnapshotReceived {
                index: last.map_or(0, |last| last.index),
                took: started.elapsed(),
            });
        if let Some(last) = &meta.last_log_id {
            self.applier.replica.publish_applied(last.index);
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        let latest = blocking(&self.applier.env, move || snapshots.open_latest());
        latest.await??.map(stored_snapshot).transpose()
    }
}

/// The newest snapshot as the engine wants it.
fn stored_snapshot(reader: SnapshotReader) -> Result<Snapshot, io::Error> {
    let meta = engine_meta(reader.meta())?;
    Ok(Snapshot {
        meta,
        snapshot: SnapshotData::Stored(Box::new(reader)),
    })
}

fn engine_meta(meta: &memkv_disk::SnapshotMeta) -> Result<SnapshotMeta, io::Error> {
    let membership =
        codec::decode_stored_membership(meta.extra.clone()).map_err(io::Error::other)?;
    Ok(SnapshotMeta {
        last_log_id: Some(codec::engine_id(meta.last)),
        last_membership: membership,
    })
}

/// Makes a snapshot the newest one of this directory, durably, and reads it.
fn make_current(snapshots: &SnapshotStore, snapshot: SnapshotData) -> io::Result<Store> {
    match snapshot {
        SnapshotData::Nothing => return Ok(Store::new()),
        SnapshotData::Received(receiver) => {
            receiver.finish()?;
        }
        SnapshotData::Stored(reader) => {
            let ours = snapshots
                .latest()
                .is_some_and(|latest| latest.last == reader.meta().last);
            if !ours {
                copy(&reader, snapshots)?;
            }
        }
    }
    let loaded = load_latest(snapshots)?;
    loaded
        .map(|loaded| loaded.store)
        .ok_or_else(|| io::Error::other("the snapshot that was installed is gone"))
}

/// Takes over a snapshot of another directory.
fn copy(reader: &SnapshotReader, snapshots: &SnapshotStore) -> io::Result<()> {
    let mut receiver = snapshots.receive();
    let mut offset = 0;
    let mut chunk = vec![0; SNAPSHOT_BLOCK_BYTES];
    loop {
        let read = reader.read_raw(offset, &mut chunk)?;
        if read == 0 {
            return receiver.finish().map(drop);
        }
        receiver.write_raw(offset, &chunk[..read])?;
        offset += read as u64;
    }
}

/// A snapshot in memory.
pub(crate) struct Loaded {
    pub(crate) store: Store,
    /// The last entry that it covers, and the membership at that entry.
    pub(crate) last: LogId,
    pub(crate) members: Members,
}

/// Reads the newest snapshot into a store.
pub(crate) fn load_latest(snapshots: &SnapshotStore) -> io::Result<Option<Loaded>> {
    snapshots.open_latest()?.map(load_from).transpose()
}

/// Reads a snapshot into a store.
pub(crate) fn load_from(reader: SnapshotReader) -> io::Result<Loaded> {
    let meta = engine_meta(reader.meta())?;
    Ok(Loaded {
        last: reader.meta().last,
        members: codec::members(&meta.last_membership),
        store: load::load(reader)?,
    })
}

/// Builds snapshots of the replica, each of the moment when it is begun.
pub(crate) struct SnapshotBuilder {
    replica: Arc<Replica>,
    snapshots: SnapshotStore,
    env: Env,
    counters: Arc<Counters>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let _building = Building::begin(&self.counters);
        let started = tokio::time::Instant::now();
        let mut told = false;
        loop {
            match self.build_once().await {
                // An error here would stop the engine for good (`raft_core.rs:2030` of alpha.37);
                // a full disk must heal by itself.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "no space for a snapshot; trying again every second");
                    }
                    let replica = self.replica.clone();
                    let abort = move || {
                        replica.machine.write().store.abort_snapshot();
                        drop_garbage(&replica);
                    };
                    busy(&self.env, abort).await?;
                    tokio::time::sleep(FULL_DISK_RETRY).await;
                }
                // A leader's snapshot replaced the store; this one goes on from the new state.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                built => {
                    if told && built.is_ok() {
                        tracing::info!("there was space for a snapshot again");
                    }
                    let counter = &self.counters.snapshots_built;
                    counter.fetch_add(u64::from(built.is_ok()), Ordering::Relaxed);
                    self.tell(&built, started.elapsed());
                    return built;
                }
            }
        }
    }
}

/// A snapshot is being built while this lives.
struct Building(Arc<Counters>);

impl Building {
    fn begin(counters: &Arc<Counters>) -> Self {
        counters.building.store(true, Ordering::Relaxed);
        Self(counters.clone())
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.0.building.store(false, Ordering::Relaxed);
    }
}

impl SnapshotBuilder {
    /// Notes that a snapshot is built, if it is.
    fn tell(&self, built: &Result<Snapshot, io::Error>, took: Duration) {
        let Ok(snapshot) = built else { return };
        let SnapshotData::Stored(reader) = &snapshot.snapshot else {
            return;
        };
        let index = reader.meta().last.index;
        let bytes = reader.raw_len();
        let written = Event::SnapshotWritten { index, bytes, took };
        self.replica.timeline.note(&written);
    }

    async fn build_once(&mut self) -> Result<Snapshot, io::Error> {
        let begun = {
            // Between two entries.
            let _whole = self.replica.entries.lock().await;
            let replica = self.replica.clone();
            busy(&self.env, move || begin(&replica)).await??
        };
        let Some((meta, head, installs)) = begun else {
            let meta = SnapshotMeta::default();
            return Ok(Snapshot {
                meta,
                snapshot: SnapshotData::Nothing,
            });
        };
        let snapshots = self.snapshots.clone();
        let mut writer = blocking(&self.env, move || {
            let mut writer = snapshots.create(meta);
            writer.block(&head.encode())?;
            Ok::<_, io::Error>(writer)
        })
        .await??;
        loop {
            let replica = self.replica.clone();
            let started = tokio::time::Instant::now();
            let (returned, next) =
                blocking(&self.env, move || write_shards(&replica, installs, writer)).await??;
            writer = returned;
            match next {
                Next::Rest => tokio::time::sleep(started.elapsed() * REST).await,
                Next::Hurry => tokio::task::yield_now().await,
                Next::Done => break,
            }
        }
        let snapshots = self.snapshots.clone();
        let reader = blocking(&self.env, move || {
            writer.finish()?;
            snapshots.open_latest()
        })
        .await??;
        stored_snapshot(reader.ok_or_else(|| io::Error::other("the new snapshot is gone"))?)
    }
}

/// The description of a snapshot of the state at `last`, under this membership.
pub(crate) fn stored_meta(last: LogId, members: &Members) -> memkv_disk::SnapshotMeta {
    memkv_disk::SnapshotMeta {
        last,
        extra: codec::encode_stored_membership(&codec::stored_membership(members)),
    }
}

type Begun = (memkv_disk::SnapshotMeta, SnapshotHead, u64);

/// Begins a snapshot of the machine as it is; nothing if nothing was applied to it.
fn begin(replica: &Replica) -> io::Result<Option<Begun>> {
    let mut machine = replica.machine.write();
    let Some(last) = machine.last_applied else {
        return Ok(None);
    };
    let meta = stored_meta(last, &machine.membership);
    let head = machine.store.begin_snapshot().map_err(io::Error::other)?;
    Ok(Some((meta, head, machine.installs)))
}

/// What follows on a piece of a snapshot.
enum Next {
    Rest,
    /// Much is kept for it.
    Hurry,
    /// It was the last one.
    Done,
}

/// Writes the next shards; the lock is held for one shard at a time, to share its references. In
/// simulated time nothing takes time, and a piece is always as large as it may be.
fn write_shards(
    replica: &Replica,
    installs: u64,
    mut writer: SnapshotWriter,
) -> io::Result<(SnapshotWriter, Next)> {
    let started = tokio::time::Instant::now();
    let mut next = Next::Rest;
    for _ in 0..SHARDS_PER_PIECE {
        if started.elapsed() >= PIECE {
            break;
        }
        let shard = {
            let mut machine = replica.machine.write();
            if machine.installs != installs {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let store = &mut machine.store;
            let cap = store.memory().cap;
            if cap.is_some_and(|cap| store.saved_bytes() > cap / SAVED_PART) {
                next = Next::Hurry;
            }
            store.next_shard()
        };
        let Some(shard) = shard else {
            drop_garbage(replica);
            return Ok((writer, Next::Done));
        };
        shard.encode_blocks(SNAPSHOT_BLOCK_BYTES, &mut |block| writer.block(block))?;
    }
    Ok((writer, next))
}

/// Frees what the snapshot has kept. On an idle node the next entry, which would take it along, may be long
/// in coming.
fn drop_garbage(replica: &Replica) {
    let garbage = replica.machine.write().store.take_garbage();
    drop(garbage);
}
