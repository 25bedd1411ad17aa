//! Raft's messages from peers, handed to the engine: entries, votes, transfers of leadership, snapshots.
//!
//! Requests for other nodes are refused before (`peer/server.rs`). Invariants: entries for which the disk
//! has no room never reach the engine; those of a higher feature level do once this directory says that
//! it is in use.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use memkv_disk::SnapshotStore;
use memkv_store::EDGE_LEVEL;
use openraft::raft::{AppendEntriesResponse, SnapshotResponse};
use tokio::time::Instant;

use super::handle::Engine;
use super::state_machine::SnapshotData;
use super::{Snapshot, SnapshotMeta, codec};
use crate::Env;
use crate::capacity::watch::{CapacityWatch, NEAR_BIT};
use crate::disk::memory::Memory;
use crate::disk::space::{Shortage, SpaceWatch};
use crate::env::blocking;
use crate::leadership::cause::Cause;
use crate::leadership::known::Leadership;
use crate::leadership::leader::Leader;
use crate::membership::record::Record;
use crate::peer::answer::{Answer, answer, bad};
use crate::peer::encoding::Reader;
use crate::peer::message::{self, Envelope, Kind};
use crate::report::seldom::Lines;
use crate::time::log_clock::LogClock;

/// How long a node without disk space keeps a leader waiting before it refuses, because the leader tries
/// again at once. Less than a leader waits for an answer.
const REFUSAL_PAUSE: Duration = Duration::from_millis(500);

/// A snapshot that a leader is sending.
pub(crate) struct Incoming {
    from: u64,
    index: u64,
    written: u64,
    receiver: memkv_disk::SnapshotReceiver,
}

/// Whether such a message can be read.
pub(crate) fn is_readable(kind: Kind, mut body: Reader) -> bool {
    match kind {
        Kind::Append => codec::decode_append(body).is_ok(),
        Kind::Vote | Kind::PreVote => codec::read_vote_request(&mut body).is_ok(),
        Kind::TransferLeader => codec::read_transfer_request(&mut body).is_ok(),
        _ => false,
    }
}

/// Receives what other nodes send to this node's engine.
pub(crate) struct Inbound {
    pub(crate) engine: Engine,
    /// This node's name, for messages.
    pub(crate) name: String,
    pub(crate) memory: Arc<Memory>,
    pub(crate) space: Arc<SpaceWatch>,
    pub(crate) capacity: Arc<CapacityWatch>,
    pub(crate) record: Arc<Record>,
    pub(crate) leadership: Arc<Leadership>,
    pub(crate) clock: Arc<LogClock>,
    pub(crate) snapshots: SnapshotStore,
    pub(crate) env: Env,
    pub(crate) lines: Arc<Lines>,
    /// The snapshot that is under way to this node.
    pub(crate) incoming: tokio::sync::Mutex<Option<Incoming>>,
}

impl Inbound {
    pub(crate) fn append(self: Arc<Self>, envelope: &Envelope, body: Reader) -> Answer {
        let (clock, level, arrived) = (envelope.clock, envelope.level, Instant::now());
        let bytes = body.0.len();
        let (request, durable) = match codec::decode_append(body) {
            Ok(decoded) => decoded,
            Err(error) => return answer(bad(&error)),
        };
        let leader = Leader {
            term: request.vote.leader_id.term,
            id: request.vote.leader_id.node_id,
        };
        self.memory.note_mark(leader.id, leader.term, durable);
        let entries = request.entries.len();
        if entries > 0 && !self.space.take(entries, bytes) {
            return self.no_space();
        }
        Box::pin(async move {
            // Entries that an older build cannot read are acknowledged only once this directory says so.
            if let Err(error) = self.record.use_level(level).await {
                return message::refused(&error.to_string());
            }
            match self.engine.raft().append_entries(request).await {
                Ok(response) => {
                    if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                        self.leadership.hear();
                        self.clock.follow(leader, clock, arrived);
                        self.clock.persisted().await;
                    }
                    message::ok(|out| {
                        codec::put_append_response(out, &response);
                        // A leader of a lower level does not know the bit.
                        let is_near = level >= EDGE_LEVEL && self.capacity.is_near();
                        let near = if is_near { NEAR_BIT } else { 0 };
                        out.put_u8(self.space.own() as u8 | near);
                    })
                }
                Err(error) => message::refused(&error.to_string()),
            }
        })
    }

    /// Refuses what this node's disk has no room for. The leader takes it for a node that cannot be reached:
    /// nothing is acknowledged, and it tries again.
    fn no_space(&self) -> Answer {
        let refused = message::refused(&self.space.refuse(&self.name));
        Box::pin(async move {
            tokio::time::sleep(REFUSAL_PAUSE).await;
            refused
        })
    }

    pub(crate) fn vote(self: Arc<Self>, kind: Kind, mut body: Reader) -> Answer {
        let request = match codec::read_vote_request(&mut body) {
            Ok(request) => request,
            Err(error) => return answer(bad(&error)),
        };
        if kind == Kind::Vote {
            let candidate = request.vote.leader_id;
            self.memory.note_mark(candidate.node_id, candidate.term, 0);
        }
        if !request.leadership_transfer && self.leadership.owes_lease() {
            return answer(message::refused("this node hears a leader"));
        }
        Box::pin(async move {
            let response = if kind == Kind::Vote {
                self.engine.raft().vote(request).await
            } else {
                self.engine.raft().pre_vote(request).await
            };
            match response {
                Ok(response) => message::ok(|out| {
                    codec::put_vote_response(out, &response);
                    message::put_clock(out, self.clock.answer());
                }),
                Err(error) => message::refused(&error.to_string()),
            }
        })
    }

    pub(crate) fn transfer(self: Arc<Self>, mut body: Reader) -> Answer {
        let request = match codec::read_transfer_request(&mut body) {
            Ok(request) => request,
            Err(error) => return answer(bad(&error)),
        };
        let from = request.from_leader().leader_id.node_id;
        self.leadership.causes.note(Cause::HandedOver { from });
        Box::pin(async move {
            match self.engine.raft().handle_transfer_leader(request).await {
                Ok(response) => message::ok(|out| codec::put_transfer_response(out, &response)),
                Err(error) => message::refused(&error.to_string()),
            }
        })
    }

    pub(crate) fn snapshot_chunk(self: Arc<Self>, envelope: &Envelope, mut body: Reader) -> Answer {
        let from = envelope.from;
        let fields = (|| Ok((body.u64("index")?, body.u64("offset")?, body.blob("chunk")?)))();
        let (index, offset, chunk) = match fields {
            Ok(fields) => fields,
            Err(error) => return answer(bad(&error)),
        };
        if self.space.own() == Shortage::Exhausted {
            return self.no_space();
        }
        Box::pin(async move {
            let mut slot = self.incoming.lock().await;
            if offset == 0 {
                let receiver = self.snapshots.receive();
                *slot = Some(Incoming {
                    from,
                    index,
                    written: 0,
                    receiver,
                });
            }
            let expected = slot.take_if(|incoming| {
                (incoming.from, incoming.index, incoming.written) == (from, index, offset)
            });
            let Some(mut incoming) = expected else {
                return message::refused("this chunk does not follow the last one; start again");
            };
            let written = offset + chunk.len() as u64;
            let result = blocking(&self.env, move || {
                let result = incoming.receiver.write_raw(offset, &chunk);
                result.map(|()| incoming)
            })
            .await
            .and_then(|result| result);
            match result {
                Ok(mut incoming) => {
                    incoming.written = written;
                    *slot = Some(incoming);
                    message::ok(|_| {})
                }
                Err(error) => message::refused(&format!("cannot write a snapshot: {error}")),
            }
        })
    }

    pub(crate) fn snapshot_install(
        self: Arc<Self>,
        envelope: &Envelope,
        mut body: Reader,
    ) -> Answer {
        let (from, level) = (envelope.from, envelope.level);
        let fields = (|| {
            let vote = codec::read_vote(&mut body)?;
            let last_log_id = body.option("last log id", codec::read_log_id)?;
            let last_membership = codec::decode_stored_membership(body.blob("membership")?)?;
            Ok((
                vote,
                SnapshotMeta {
                    last_log_id,
                    last_membership,
                },
                body.u64("size")?,
            ))
        })();
        let (vote, meta, size) = match fields {
            Ok(fields) => fields,
            Err(error) => return answer(bad(&error)),
        };
        Box::pin(async move {
            let index = meta.last_log_id.as_ref().map_or(0, |id| id.index);
            let incoming = self.incoming.lock().await.take_if(|incoming| {
                (incoming.from, incoming.index, incoming.written) == (from, index, size)
            });
            let Some(incoming) = incoming else {
                return message::refused("this snapshot is not complete here; start again");
            };
            if let Err(error) = self.record.use_level(level).await {
                return message::refused(&error.to_string());
            }
            if let Some(left_out) = self.lines.installing.say() {
                tracing::info!(
                    index,
                    bytes = size,
                    left_out,
                    "installing the leader's snapshot"
                );
            }
            let snapshot = Snapshot {
                meta,
                snapshot: SnapshotData::Received(Box::new(incoming.receiver)),
            };
            match self
                .engine
                .raft()
                .install_full_snapshot(vote, snapshot)
                .await
            {
                Ok(SnapshotResponse { vote }) => message::ok(|out: &mut BytesMut| {
                    codec::put_vote(out, &vote);
                }),
                Err(error) => message::refused(&error.to_string()),
            }
        })
    }
}
