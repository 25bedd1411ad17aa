//! Answers to peers' requests.
//!
//! Whatever is not meant for this node, cluster or version is refused with words before it reaches
//! the engine. What must keep its order on a lane is queued before the returned future is polled.

use std::future::ready;
use std::sync::Arc;

use bytes::{BufMut, Bytes};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use memkv_store::SystemOp;

use crate::Frame;
use crate::disk::memory;
use crate::engine::inbound;
use crate::leadership::failure_detector;
use crate::membership::form;
use crate::membership::identity::uuid_text;
use crate::node::Inner;
use crate::peer::encoding::{DecodeError, Reader};
use crate::peer::message::{self, Envelope, Kind, WIRE_VERSION};
use crate::pubsub::publish;
use crate::read::leadership_check;
use crate::replica::divergence;
use crate::write::copies;
use crate::write::sender;

pub(crate) type Answer = BoxFuture<'static, Frame>;

/// An answer that needs no wait.
pub(crate) fn answer(frame: Frame) -> Answer {
    Box::pin(ready(frame))
}

/// The answer to what cannot be read.
pub(crate) fn bad(error: &DecodeError) -> Frame {
    message::refused(&format!(
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
        return form::introduction(inner, envelope, body);
    }
    if envelope.kind == Kind::Recall {
        return answer(recall(inner, &envelope));
    }
    if let Err(why) = meant_for_us(inner, &envelope) {
        return answer(message::refused(&why));
    }
    if let Err(too_old) = inner.levels().check(envelope.level) {
        inner.fail(too_old.into());
        return answer(message::refused(&too_old.to_string()));
    }
    inner.memory.note_boot(envelope.from, envelope.boot);
    let Some(engine) = inner.engine.get().cloned() else {
        return answer(message::refused("this node has not joined its cluster yet"));
    };
    if envelope.kind.is_for_clients() {
        inner.commit_interest.note(envelope.from);
    }
    match envelope.kind {
        Kind::Append => inbound::append(inner.clone(), engine, &envelope, body),
        Kind::Vote | Kind::PreVote => inbound::vote(inner.clone(), engine, envelope.kind, body),
        Kind::TransferLeader => inbound::transfer(engine, body),
        Kind::SnapshotChunk => inbound::snapshot_chunk(inner.clone(), &envelope, body),
        Kind::SnapshotInstall => inbound::snapshot_install(inner.clone(), engine, &envelope, body),
        Kind::Propose => propose(inner, body.0),
        Kind::OpenSession => open_session(inner, &envelope, body),
        Kind::ReadIndex => read_index(inner.clone()),
        Kind::Confirm => {
            answer(leadership_check::answer(inner, body).unwrap_or_else(|error| bad(&error)))
        }
        Kind::Matched => answer(copies::answer(inner, body).unwrap_or_else(|error| bad(&error))),
        Kind::Attend => Box::pin(failure_detector::receive(
            inner.leader.subscribe(),
            inner.peers.my_id(),
        )),
        Kind::Publish => publish::receive(inner, body).unwrap_or_else(|error| answer(bad(&error))),
        Kind::Recall => answer(recall(inner, &envelope)),
        Kind::Checkpoints => answer(divergence::answer(inner)),
        Kind::Hello | Kind::Prepare | Kind::Join => form::introduction(inner, envelope, body),
    }
}

/// Tells a node of this cluster what is remembered of it, whatever id it knows this one by.
fn recall(inner: &Inner, envelope: &Envelope) -> Frame {
    match inner.peers.cluster() {
        Some(cluster) if cluster == envelope.cluster => memory::answer(inner, envelope.from),
        _ => message::refused("this node belongs to another cluster or to none"),
    }
}

/// Whether a request can be read: what `handle` does with any bytes before the engine sees them.
#[must_use]
pub fn is_readable(request: Bytes) -> bool {
    let Ok((envelope, body)) = Envelope::decode(request) else {
        return false;
    };
    match envelope.kind {
        Kind::Append | Kind::Vote | Kind::PreVote | Kind::TransferLeader => {
            inbound::is_readable(envelope.kind, body)
        }
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

fn propose(inner: &Arc<Inner>, group: Bytes) -> Answer {
    // Queued here, in the order of arrival.
    let outcome = match inner.batcher.propose(group) {
        Ok(outcome) => outcome,
        Err(error) => return answer(message::refused(&format!("unreadable commands: {error}"))),
    };
    Box::pin(outcome.map(|outcome| {
        let outcome = outcome.unwrap_or(crate::write::session::GroupOutcome::Unknown);
        message::ok(|out| out.put_u8(sender::outcome_byte(outcome)))
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
            Ok(outcome) if sender::may_be_open(&outcome) => message::ok(|_| {}),
            Ok(Ok(_)) => message::refused("the entry has opened another session; try again"),
            Ok(Err(error)) => message::refused(&error.to_string()),
            Err(_) => message::refused("the node is stopping"),
        }
    })
}

fn read_index(inner: Arc<Inner>) -> Answer {
    Box::pin(async move {
        let (joined, _) = inner.leader_reads.join();
        inner.leader_reads.wake();
        match joined.await {
            Ok(index) => message::ok(|out| out.put_u64_le(index)),
            Err(failed) => message::refused(&failed.0),
        }
    })
}
