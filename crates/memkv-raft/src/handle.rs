//! Answers to peers' requests.
//!
//! Whatever is not meant for this node, cluster or version is refused with words before it reaches
//! the engine. What must keep its order on a lane is queued before the returned future is polled.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use memkv_store::SystemOp;
use openraft::raft::{AppendEntriesResponse, SnapshotResponse};
use tokio::time::Instant;

use crate::Frame;
use crate::bytes_io::{DecodeError, Reader};
use crate::engine::state_machine::SnapshotData;
use crate::engine::{Raft, Snapshot, SnapshotMeta, codec};
use crate::env::blocking;
use crate::identity::uuid_text;
use crate::node::{Inner, Leader};
use crate::space::Shortage;
use crate::wire::{self, Envelope, Kind, WIRE_VERSION};
use crate::{attend, confirm, copies, divergence, formation, forward, memory, publish};

/// How long a node without disk space keeps a leader waiting before it refuses, because the leader tries
/// again at once. Less than a leader waits for an answer.
const REFUSAL_PAUSE: Duration = Duration::from_millis(500);

/// A snapshot that a leader is sending.
pub(crate) struct Incoming {
    from: u64,
    index: u64,
    written: u64,
    receiver: memkv_storage::SnapshotReceiver,
}

type Answer = BoxFuture<'static, Frame>;

fn answer(frame: Frame) -> Answer {
    Box::pin(ready(frame))
}

fn bad(error: &DecodeError) -> Frame {
    wire::refused(&format!(
        "unreadable request ({error}); this node speaks peer protocol {WIRE_VERSION}: run the same \
         memkv version on all nodes"
    ))
}

/// Answers one request.
pub(crate) fn handle(inner: &Arc<Inner>, request: Bytes) -> Answer {
    let (envelope, body) = match Envelope::decode(request) {
        Ok(decoded) => decoded,
        Err(error) => return answer(bad(&error)),
    };
    if envelope.kind.is_introduction() {
        return formation::introduction(inner, envelope, body);
    }
    if envelope.kind == Kind::Recall {
        return answer(recall(inner, &envelope));
    }
    if let Err(why) = meant_for_us(inner, &envelope) {
        return answer(wire::refused(&why));
    }
    if let Err(too_old) = inner.levels().check(envelope.level) {
        inner.fail(too_old.into());
        return answer(wire::refused(&too_old.to_string()));
    }
    inner.memory.note_boot(envelope.from, envelope.boot);
    let Some(raft) = inner.raft.get().cloned() else {
        return answer(wire::refused("this node has not joined its cluster yet"));
    };
    if envelope.kind.is_for_clients() {
        inner.askers.note(envelope.from);
    }
    match envelope.kind {
        Kind::Append => append(inner.clone(), raft, &envelope, body),
        Kind::Vote | Kind::PreVote => vote(inner.clone(), raft, envelope.kind, body),
        Kind::TransferLeader => transfer(raft, body),
        Kind::SnapshotChunk => snapshot_chunk(inner.clone(), &envelope, body),
        Kind::SnapshotInstall => snapshot_install(inner.clone(), raft, &envelope, body),
        Kind::Propose => propose(inner, body.0),
        Kind::OpenSession => open_session(inner, &envelope, body),
        Kind::ReadIndex => read_index(inner.clone()),
        Kind::Confirm => answer(confirm::answer(inner, body).unwrap_or_else(|error| bad(&error))),
        Kind::Matched => answer(copies::answer(inner, body).unwrap_or_else(|error| bad(&error))),
        Kind::Attend => Box::pin(attend::receive(
            inner.leader.subscribe(),
            inner.peers.my_id(),
        )),
        Kind::Publish => publish::receive(inner, body).unwrap_or_else(|error| answer(bad(&error))),
        Kind::Recall => answer(recall(inner, &envelope)),
        Kind::Checkpoints => answer(divergence::answer(inner)),
        Kind::Hello | Kind::Prepare | Kind::Join => formation::introduction(inner, envelope, body),
    }
}

/// Tells a node of this cluster what is remembered of it, whatever id it knows this one by.
fn recall(inner: &Inner, envelope: &Envelope) -> Frame {
    match inner.peers.cluster() {
        Some(cluster) if cluster == envelope.cluster => memory::answer(inner, envelope.from),
        _ => wire::refused("this node belongs to another cluster or to none"),
    }
}

/// Whether a request can be read: what [`handle`] does with any bytes before the engine sees them.
#[must_use]
pub fn is_readable(request: Bytes) -> bool {
    let Ok((envelope, mut body)) = Envelope::decode(request) else {
        return false;
    };
    match envelope.kind {
        Kind::Append => codec::decode_append(body).is_ok(),
        Kind::Vote | Kind::PreVote => codec::read_vote_request(&mut body).is_ok(),
        Kind::TransferLeader => codec::read_transfer_request(&mut body).is_ok(),
        Kind::Propose => memkv_store::check_group(&body.0).is_ok(),
        Kind::Publish => publish::Publication::decode(body).is_ok(),
        _ => true,
    }
}

/// Refuses what belongs to another cluster, or to another life of this address.
fn meant_for_us(inner: &Inner, envelope: &Envelope) -> Result<(), String> {
    let Some(identity) = inner.peers.identity() else {
        return Err("this node is empty: it belongs to no cluster yet".to_owned());
    };
    if envelope.cluster != identity.cluster {
        return Err(format!(
            "this is node {} of cluster {}, the request is for cluster {}: two clusters are mixed \
             in a configuration, or a data directory was copied",
            inner.peers.me.name,
            uuid_text(&identity.cluster),
            uuid_text(&envelope.cluster),
        ));
    }
    if envelope.to != identity.node_id {
        return Err(format!(
            "this is node id {}, the request is for node id {}: the node that had that id here is \
             gone",
            identity.node_id, envelope.to,
        ));
    }
    Ok(())
}

fn append(inner: Arc<Inner>, raft: Raft, envelope: &Envelope, body: Reader) -> Answer {
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
    inner.memory.note_mark(leader.id, leader.term, durable);
    let entries = request.entries.len();
    if entries > 0 && !inner.space.take(entries, bytes) {
        return no_space(&inner);
    }
    Box::pin(async move {
        // What an older build cannot read is acknowledged only once this directory says so.
        if let Err(error) = inner.use_level(level).await {
            return wire::refused(&error.to_string());
        }
        match raft.append_entries(request).await {
            Ok(response) => {
                if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                    inner.hear();
                    inner.clock.follow(leader, clock, arrived);
                    inner.clock.written().await;
                }
                wire::ok(|out| {
                    codec::put_append_response(out, &response);
                    out.put_u8(inner.space.own() as u8);
                })
            }
            Err(error) => wire::refused(&error.to_string()),
        }
    })
}

/// Refuses what this node's disk has no room for. The leader takes it for a node that cannot be reached:
/// nothing is acknowledged, and it tries again.
fn no_space(inner: &Inner) -> Answer {
    let refused = wire::refused(&inner.space.refuse(&inner.peers.me.name));
    Box::pin(async move {
        tokio::time::sleep(REFUSAL_PAUSE).await;
        refused
    })
}

fn vote(inner: Arc<Inner>, raft: Raft, kind: Kind, mut body: Reader) -> Answer {
    let request = match codec::read_vote_request(&mut body) {
        Ok(request) => request,
        Err(error) => return answer(bad(&error)),
    };
    if kind == Kind::Vote {
        let candidate = request.vote.leader_id;
        inner.memory.note_mark(candidate.node_id, candidate.term, 0);
    }
    if !request.leadership_transfer && attend::owes_lease(inner.as_ref()) {
        return answer(wire::refused("this node hears a leader"));
    }
    Box::pin(async move {
        let response = if kind == Kind::Vote {
            raft.vote(request).await
        } else {
            raft.pre_vote(request).await
        };
        match response {
            Ok(response) => wire::ok(|out| {
                codec::put_vote_response(out, &response);
                wire::put_clock(out, inner.clock.read());
            }),
            Err(error) => wire::refused(&error.to_string()),
        }
    })
}

fn transfer(raft: Raft, mut body: Reader) -> Answer {
    let request = match codec::read_transfer_request(&mut body) {
        Ok(request) => request,
        Err(error) => return answer(bad(&error)),
    };
    Box::pin(async move {
        match raft.handle_transfer_leader(request).await {
            Ok(response) => wire::ok(|out| codec::put_transfer_response(out, &response)),
            Err(error) => wire::refused(&error.to_string()),
        }
    })
}

fn propose(inner: &Arc<Inner>, group: Bytes) -> Answer {
    // Queued here, in the order of arrival.
    let outcome = match inner.batcher.propose(group) {
        Ok(outcome) => outcome,
        Err(error) => return answer(wire::refused(&format!("unreadable commands: {error}"))),
    };
    Box::pin(outcome.map(|outcome| {
        let outcome = outcome.unwrap_or(crate::session::GroupOutcome::Unknown);
        wire::ok(|out| out.put_u8(forward::outcome_byte(outcome)))
    }))
}

fn open_session(inner: &Arc<Inner>, envelope: &Envelope, mut body: Reader) -> Answer {
    let highest = match body.u32("highest level") {
        Ok(highest) => highest,
        Err(error) => return answer(bad(&error)),
    };
    let op = SystemOp::OpenSession {
        node: envelope.from,
        boot: envelope.boot,
        highest,
    };
    let outcome = inner.batcher.propose_system(op);
    Box::pin(async move {
        match outcome.await {
            Ok(outcome) if forward::may_be_open(&outcome) => wire::ok(|_| {}),
            Ok(Ok(_)) => wire::refused("the entry has opened another session; try again"),
            Ok(Err(error)) => wire::refused(&error.to_string()),
            Err(_) => wire::refused("the node is stopping"),
        }
    })
}

fn read_index(inner: Arc<Inner>) -> Answer {
    Box::pin(async move {
        let (joined, _) = inner.led_reads.join();
        inner.led_reads.ring();
        match joined.await {
            Ok(index) => wire::ok(|out| out.put_u64_le(index)),
            Err(failed) => wire::refused(&failed.0),
        }
    })
}

fn snapshot_chunk(inner: Arc<Inner>, envelope: &Envelope, mut body: Reader) -> Answer {
    let from = envelope.from;
    let fields = (|| Ok((body.u64("index")?, body.u64("offset")?, body.blob("chunk")?)))();
    let (index, offset, chunk) = match fields {
        Ok(fields) => fields,
        Err(error) => return answer(bad(&error)),
    };
    if inner.space.own() == Shortage::Exhausted {
        return no_space(&inner);
    }
    Box::pin(async move {
        let mut slot = inner.incoming.lock().await;
        if offset == 0 {
            let receiver = inner.storage.snapshots.receive();
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
            return wire::refused("this chunk does not follow the last one; start again");
        };
        let written = offset + chunk.len() as u64;
        let result = blocking(&inner.env, move || {
            let result = incoming.receiver.write_raw(offset, &chunk);
            result.map(|()| incoming)
        })
        .await
        .and_then(|result| result);
        match result {
            Ok(mut incoming) => {
                incoming.written = written;
                *slot = Some(incoming);
                wire::ok(|_| {})
            }
            Err(error) => wire::refused(&format!("cannot write a snapshot: {error}")),
        }
    })
}

fn snapshot_install(
    inner: Arc<Inner>,
    raft: Raft,
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
        let incoming = inner.incoming.lock().await.take_if(|incoming| {
            (incoming.from, incoming.index, incoming.written) == (from, index, size)
        });
        let Some(incoming) = incoming else {
            return wire::refused("this snapshot is not complete here; start again");
        };
        if let Err(error) = inner.use_level(level).await {
            return wire::refused(&error.to_string());
        }
        if let Some(left_out) = inner.lines.installing.say() {
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
        match raft.install_full_snapshot(vote, snapshot).await {
            Ok(SnapshotResponse { vote }) => wire::ok(|out: &mut BytesMut| {
                codec::put_vote(out, &vote);
            }),
            Err(error) => wire::refused(&error.to_string()),
        }
    })
}
