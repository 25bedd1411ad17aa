//! The engine's requests to peers, over [`Transport`](crate::Transport).
//!
//! Appends are pipelined: the next request goes out before the answer to the last one is in, and
//! the lane keeps their order. Heartbeats and votes have a lane of their own. Snapshots go in
//! chunks, each of which waits for the one before, so a slow peer slows the reading of the file and
//! nothing else.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::lock::Mutex;
use bytes::{BufMut, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use memkv_disk::{SnapshotReader, WalHandle};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::impls::EmptyNode;
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tokio::time::Instant;

use super::state_machine::SnapshotData;
use super::streaming::{Answer, Holding, Request, Streaming};
use super::{Snapshot, SnapshotMeta, TypeConfig, Vote, codec};
use crate::capacity::watch::{CapacityWatch, NEAR_BIT};
use crate::disk::memory::Memory;
use crate::disk::space::{Shortage, SpaceWatch};
use crate::env::blocking;
use crate::peer::client::{PeerError, Peers};
use crate::peer::encoding::{DecodeError, Reader, put_blob, put_option};
use crate::peer::message::Kind;
use crate::read::commit_interest::CommitInterest;
use crate::read::published::Published;
use crate::time::log_clock::LogClock;
use crate::{Env, Frame, Lane};

/// Shortest wait for the answer to entries. The engine offers one heartbeat interval, but a
/// follower answers only after its fsync, and a disk may stall for longer; a link that breaks is
/// noticed at once without any timeout.
const APPEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of one snapshot chunk: large enough for disk and network to stream, small enough that it
/// is sent in a few milliseconds.
const CHUNK_BYTES: usize = 256 * 1024;
/// A peer that does not take a chunk for this long gets the snapshot again from the start.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// Installing reads the whole file and fills the store: bounded by disk speed, so generous.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

/// Pause before each request to a peer that could not be reached. The engine's own doubles from 200
/// ms on, for as long as the peer is away and once more when it is back, so a node that restarts
/// within a second waited another second for the entries that it had missed. Here a link waits before it
/// connects again, so this is only for requests that fail without having been sent.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(20);

/// A transfer that fails is begun again at once, for as long as the peer is away. It is logged again
/// after so long without any attempt.
const QUIET: Duration = Duration::from_secs(60);

/// Snapshots on their way to peers, by peer: the log behind them must stay.
#[derive(Default)]
pub(crate) struct Transfers {
    active: Mutex<BTreeMap<u64, Transfer>>,
    /// The peer of the last one, and when it began.
    told: Mutex<BTreeMap<u64, Instant>>,
}

/// A snapshot on its way.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    /// Last index that the snapshot covers.
    pub(crate) index: u64,
    /// Its size.
    pub(crate) bytes: u64,
}

impl Transfers {
    /// All transfers that go on.
    pub(crate) fn active(&self) -> Vec<Transfer> {
        self.active.lock().values().copied().collect()
    }

    /// A peer has taken the first piece of a snapshot. Whether that is news, and not another attempt.
    fn begins(&self, peer: u64) -> bool {
        let now = Instant::now();
        let before = self.told.lock().insert(peer, now);
        before.is_none_or(|before| now - before >= QUIET)
    }

    /// A peer has all of a snapshot: the next one is news.
    fn is_done(&self, peer: u64) {
        self.told.lock().remove(&peer);
    }
}

/// Ends a transfer's entry, however the transfer ends.
struct TransferGuard<'a>(&'a Transfers, u64);

impl Drop for TransferGuard<'_> {
    fn drop(&mut self) {
        self.0.active.lock().remove(&self.1);
    }
}

/// Makes the engine's links to peers.
pub(crate) struct Network {
    pub(crate) peers: Arc<Peers>,
    pub(crate) env: Env,
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) space: Arc<SpaceWatch>,
    pub(crate) capacity: Arc<CapacityWatch>,
    pub(crate) commit_interest: Arc<CommitInterest>,
    pub(crate) published: Arc<Published>,
    pub(crate) memory: Arc<Memory>,
    pub(crate) wal: WalHandle,
}

/// One link of the engine to one peer.
pub(crate) struct Link {
    to: u64,
    /// Where append requests go: heartbeats must not stand behind entries.
    append_lane: Lane,
    peers: Arc<Peers>,
    env: Env,
    transfers: Arc<Transfers>,
    clock: Arc<LogClock>,
    space: Arc<SpaceWatch>,
    capacity: Arc<CapacityWatch>,
    commit_interest: Arc<CommitInterest>,
    published: Arc<Published>,
    memory: Arc<Memory>,
    wal: WalHandle,
}

impl Network {
    fn link(&self, to: u64, append_lane: Lane) -> Link {
        Link {
            to,
            append_lane,
            peers: self.peers.clone(),
            env: self.env.clone(),
            transfers: self.transfers.clone(),
            clock: self.clock.clone(),
            space: self.space.clone(),
            capacity: self.capacity.clone(),
            commit_interest: self.commit_interest.clone(),
            published: self.published.clone(),
            memory: self.memory.clone(),
            wal: self.wal.clone(),
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _node: &EmptyNode) -> Link {
        self.link(target, Lane::Append)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &EmptyNode) -> Link {
        self.link(target, Lane::Control)
    }
}

fn rpc_error(error: &PeerError) -> RPCError<TypeConfig> {
    match error {
        PeerError::Unreachable(_) | PeerError::NoListener(_) | PeerError::Refused(_) => {
            RPCError::Unreachable(Unreachable::new(error))
        }
        PeerError::Lost(_) => RPCError::Network(NetworkError::new(error)),
    }
}

fn bad_answer(error: &DecodeError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

#[cfg(memkv_bugs)]
fn publishes_late() -> bool {
    crate::bugs::active(crate::bugs::Bug::PublishCommitLate)
}

#[cfg(not(memkv_bugs))]
const fn publishes_late() -> bool {
    false
}

impl Link {
    fn append(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>>> {
        let commit = request.leader_commit.as_ref().map_or(0, |id| id.index);
        if !publishes_late() {
            self.published.publish_commit(commit);
        }
        let term = request.vote.leader_id.term;
        self.clock.lead(term);
        let durable = self.wal.durable().map_or(0, |id| id.index);
        let header = self.peers.envelope(Kind::Append, self.to);
        let frame = codec::encode_append(request, durable, header);
        let call = self.peers.call(self.to, self.append_lane, frame, timeout);
        let (space, memory, to) = (self.space.clone(), self.memory.clone(), self.to);
        let capacity = self.capacity.clone();
        let last = request.entries.last().map(|entry| entry.log_id);
        let last = last.or(request.prev_log_id);
        #[cfg(memkv_bugs)]
        let published = self.published.clone();
        Box::pin(async move {
            let answer = call.await;
            #[cfg(memkv_bugs)]
            published.publish_commit(commit);
            let mut body = answer.map_err(|error| rpc_error(&error))?;
            let read = |body: &mut Reader| {
                let response = codec::read_append_response(body)?;
                let shortage = body.u8("space")?;
                let (is_near, shortage) = (shortage & NEAR_BIT != 0, shortage & !NEAR_BIT);
                let shortage = Shortage::from_u8(shortage).ok_or(DecodeError::Bad {
                    what: "space",
                    value: u64::from(shortage),
                })?;
                Ok((response, shortage, is_near))
            };
            let (response, shortage, is_near) =
                read(&mut body).map_err(|error| bad_answer(&error))?;
            space.note(to, shortage);
            capacity.note(to, is_near);
            let acknowledged = match &response {
                AppendEntriesResponse::Success => last,
                AppendEntriesResponse::PartialSuccess(through) => *through,
                AppendEntriesResponse::Conflict | AppendEntriesResponse::HigherVote(_) => None,
            };
            if let Some(through) = acknowledged {
                memory.note_mark(to, term, through.index);
            }
            Ok(response)
        })
    }

    /// Sends a request on a lane and waits for its answer.
    async fn ask(
        &self,
        lane: Lane,
        kind: Kind,
        timeout: Duration,
        put: impl FnOnce(&mut BytesMut),
    ) -> Result<Reader, RPCError<TypeConfig>> {
        let mut request = self.peers.envelope(kind, self.to);
        put(&mut request);
        self.peers
            .call(self.to, lane, Frame(vec![request.freeze()]), timeout)
            .await
            .map_err(|error| rpc_error(&error))
    }

    async fn ask_vote(
        &self,
        kind: Kind,
        request: &VoteRequest<TypeConfig>,
        timeout: Duration,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut body = self
            .ask(Lane::Control, kind, timeout, |out| {
                codec::put_vote_request(out, request)
            })
            .await?;
        let response = codec::read_vote_response(&mut body).map_err(|error| bad_answer(&error))?;
        // The winner has an answer of a majority: if any of them knows the time, the next leader does.
        let clock =
            crate::peer::message::read_clock(&mut body).map_err(|error| bad_answer(&error))?;
        let [own, peers] = [&request.last_log_id, &response.last_log_id]
            .map(|last| last.as_ref().map_or(0, |id| id.leader_id.term));
        self.clock.learn(clock, own.saturating_sub(peers));
        if kind == Kind::Vote && response.vote_granted {
            self.memory
                .note_mark(self.to, request.vote.leader_id.term, 0);
        }
        self.clock.persisted().await;
        Ok(response)
    }

    async fn send_snapshot(
        &self,
        vote: Vote,
        snapshot: Snapshot,
    ) -> Result<SnapshotResponse<TypeConfig>, RPCError<TypeConfig>> {
        let SnapshotData::Stored(reader) = snapshot.snapshot else {
            return Err(RPCError::Unreachable(Unreachable::from_string(
                "not a stored snapshot",
            )));
        };
        let total = reader.raw_len();
        let index = snapshot.meta.last_log_id.as_ref().map_or(0, |id| id.index);
        self.transfers.active.lock().insert(
            self.to,
            Transfer {
                index,
                bytes: total,
            },
        );
        let _guard = TransferGuard(&self.transfers, self.to);
        let reader = Arc::new(reader);
        let mut offset = 0;
        while offset < total {
            let source = reader.clone();
            let chunk = blocking(&self.env, move || read_chunk(&source, offset))
                .await
                .and_then(|read| read)
                .map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
            if chunk.is_empty() {
                return Err(RPCError::Unreachable(Unreachable::from_string(
                    "the snapshot is cut",
                )));
            }
            let next = offset + chunk.len() as u64;
            self.ask(Lane::Snapshot, Kind::SnapshotChunk, CHUNK_TIMEOUT, |out| {
                out.put_u64_le(index);
                out.put_u64_le(offset);
                put_blob(out, &chunk);
            })
            .await?;
            if offset == 0 && self.transfers.begins(self.to) {
                let to = self.peers.name_of(self.to);
                tracing::info!(
                    %to, through = index, bytes = total,
                    "sending a snapshot: the log does not reach back to what this node lacks"
                );
            }
            offset = next;
        }
        let vote = self.install(vote, &snapshot.meta, total).await?;
        self.transfers.is_done(self.to);
        Ok(SnapshotResponse::new(vote))
    }

    /// Has the peer install the snapshot that it was sent. Returns the peer's vote.
    async fn install(
        &self,
        vote: Vote,
        meta: &SnapshotMeta,
        total: u64,
    ) -> Result<Vote, RPCError<TypeConfig>> {
        let put = |out: &mut BytesMut| {
            codec::put_vote(out, &vote);
            put_option(out, meta.last_log_id.as_ref(), codec::put_log_id);
            put_blob(out, &codec::encode_stored_membership(&meta.last_membership));
            out.put_u64_le(total);
        };
        let (kind, within) = (Kind::SnapshotInstall, INSTALL_TIMEOUT);
        let mut body = self.ask(Lane::Snapshot, kind, within, put).await?;
        codec::read_vote(&mut body).map_err(|error| bad_answer(&error))
    }
}

/// The bytes of a snapshot from `offset` on, one chunk at most; none at its end.
fn read_chunk(snapshot: &SnapshotReader, offset: u64) -> std::io::Result<Vec<u8>> {
    let left = snapshot.raw_len().saturating_sub(offset);
    let len = usize::try_from(left)
        .unwrap_or(CHUNK_BYTES)
        .min(CHUNK_BYTES);
    let mut chunk = vec![0; len];
    let read = snapshot.read_raw(offset, &mut chunk)?;
    chunk.truncate(read);
    Ok(chunk)
}

impl RaftNetworkV2<TypeConfig> for Link {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.append(&request, option.hard_ttl()).await
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<
        's,
        Result<
            BoxStream<'s, Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>>,
            RPCError<TypeConfig>,
        >,
    >
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
    {
        let timeout = option.hard_ttl().max(APPEND_TIMEOUT);
        let link: &'s Self = self;
        let holding = matches!(link.append_lane, Lane::Append).then_some(Holding {
            commit_interest: &link.commit_interest,
            peer: link.to,
        });
        let send = move |request| link.pipelined(request, timeout);
        let streaming = Streaming::new(input, holding, send);
        let answers = futures_util::stream::unfold(Some(streaming), |streaming| async move {
            let mut streaming = streaming?;
            let answer = streaming.next_answer().await?;
            // After anything but success the engine starts a new stream; what is still on its way
            // has no receiver of its answer.
            let goes_on = matches!(&answer, Ok(Ok(_)));
            Some((answer, goes_on.then_some(streaming)))
        });
        Box::pin(async move { Ok(answers.boxed()) })
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE)))
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Kind::Vote, &request, option.hard_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask_vote(Kind::PreVote, &request, option.hard_ttl())
            .await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            biased;
            closed = cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot) => sent.map_err(StreamingError::from),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut body = self
            .ask(
                Lane::Control,
                Kind::TransferLeader,
                option.hard_ttl(),
                |out| {
                    codec::put_transfer_request(out, &request);
                },
            )
            .await?;
        codec::read_transfer_response(&mut body).map_err(|error| bad_answer(&error))
    }
}

impl Link {
    /// Sends an append request of a stream; its range tells the meaning of its success.
    fn pipelined(&self, request: Request, timeout: Duration) -> BoxFuture<'static, Answer> {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let answer = self.append(&request, timeout);
        Box::pin(async move {
            match answer.await? {
                AppendEntriesResponse::Conflict if prev.is_none() => {
                    // Nothing can conflict with the start of the log.
                    Err(RPCError::Network(NetworkError::from_string(
                        "conflict at the log's start",
                    )))
                }
                response => Ok(response.into_stream_result(prev, last)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_transfer_that_begins_again_and_again_is_told_once() {
        let transfers = Transfers::default();
        assert!(transfers.begins(2));
        let told = (0..1_000).filter(|_| transfers.begins(2)).count();
        assert_eq!(told, 0);
        assert!(transfers.begins(3), "to another peer");
        transfers.is_done(2);
        assert!(transfers.begins(2), "the next snapshot");
        tokio::time::advance(QUIET - Duration::from_millis(1)).await;
        assert!(!transfers.begins(2), "the same outage");
        tokio::time::advance(QUIET).await;
        assert!(transfers.begins(2), "another outage");
    }
}
