//! Answers to peers' requests.
//!
//! Requests for another node, cluster or version are rejected with a reason before they reach the
//! engine. Requests that must keep their order on a lane are queued before the returned future is polled.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use futures_util::FutureExt;
use memkv_store::SystemOp;

use crate::Frame;
use crate::capacity::cap;
use crate::engine::inbound;
use crate::group::Group;
use crate::leadership::{failure_detector, rival};
use crate::membership::identity::uuid_text;
use crate::membership::moves;
use crate::membership::verb_wire;
use crate::peer::answer::{Answer, answer, bad};
use crate::peer::client::Peers;
use crate::peer::encoding::{DecodeError, Reader};
use crate::peer::message::{self, Envelope, Kind};
use crate::pubsub::publish;
use crate::read::barrier::Barrier;
use crate::read::leadership_check;
use crate::replica::divergence;
use crate::write::batcher::Batcher;
use crate::write::sender;
use crate::write::session::GroupOutcome;

/// Answers one request; `proven` is the node that the other side has proved to be, if it has.
pub(crate) fn handle(group: &Group, proven: Option<&str>, request: Bytes) -> Answer {
    let process = &group.process;
    let bytes = request.len();
    let (envelope, body) = match Envelope::decode(request) {
        Ok(decoded) => decoded,
        Err(error) => return answer(bad(&error)),
    };
    if let Some(name) = proven
        && let table = group.replica.member_table()
        && let seat = table.member(envelope.from).map(|seat| &*seat.name)
        && let Err(why) = comes_from(name, &envelope, seat)
    {
        return answer(message::refused(&why));
    }
    if envelope.kind.is_open() {
        return open(group, envelope, body);
    }
    if let Err(why) = meant_for_us(&process.peers, &envelope) {
        rival::note_member_call(&process.called, &process.peers, &envelope);
        return answer(message::refused(&why));
    }
    if let Err(too_old) = process.peers.levels.check(envelope.level) {
        process.lifecycle.fail(too_old.into());
        return answer(message::refused(&too_old.to_string()));
    }
    group.memory.note_boot(envelope.from, envelope.boot);
    process.peers.contacts.heard(envelope.from, bytes);
    let Some(inbound) = group.inbound.get().cloned() else {
        return answer(message::refused("this node has not joined its cluster yet"));
    };
    if envelope.kind.is_for_clients() {
        group.reads.commit_interest.note(envelope.from);
    }
    match envelope.kind {
        Kind::Append => inbound.append(&envelope, body),
        Kind::Vote | Kind::PreVote if was_removed(group, envelope.from) => {
            answer(message::refused("the node was removed from this cluster"))
        }
        Kind::Vote | Kind::PreVote => inbound.vote(envelope.kind, body),
        Kind::TransferLeader => inbound.transfer(body),
        Kind::SnapshotChunk => inbound.snapshot_chunk(&envelope, body),
        Kind::SnapshotInstall => inbound.snapshot_install(&envelope, body),
        Kind::Propose => propose(&group.writes.batcher, body.0),
        Kind::OpenSession => open_session(&group.writes.batcher, &envelope, body),
        Kind::AnnounceMemory => cap::receive(&group.writes.batcher, &envelope, body),
        Kind::ReadIndex => read_index(group.reads.barrier.clone()),
        Kind::Confirm => or_bad(leadership_check::answer(
            &group.reads.barrier.published,
            body,
        )),
        Kind::Matched => or_bad(group.writes.copies.answer(body)),
        Kind::Administer => verb_wire::administer(group.verbs.clone(), body),
        Kind::Members => answer(verb_wire::list(&group.verbs)),
        Kind::Attend => Box::pin(failure_detector::receive(
            group.leadership.subscribe(),
            process.peers.my_id(),
        )),
        Kind::Publish => {
            publish::receive(&process.publisher, body).unwrap_or_else(|error| answer(bad(&error)))
        }
        Kind::Checkpoints => answer(divergence::answer(
            &group.replica,
            &group.divergence,
            process.peers.boot,
        )),
        Kind::Hello | Kind::Prepare | Kind::Join | Kind::Recall | Kind::Moved => {
            open(group, envelope, body)
        }
    }
}

/// Answers what is asked before the recipient's id is known.
fn open(group: &Group, envelope: Envelope, body: Reader) -> Answer {
    if envelope.kind == Kind::Recall {
        return answer(recall(group, &envelope));
    }
    rival::note(&group.process.introduced, &envelope);
    match envelope.kind {
        Kind::Moved => answer(moves::receive(group, &envelope, body)),
        _ => group.introducer.answer(envelope, body),
    }
}

fn or_bad(frame: Result<Frame, DecodeError>) -> Answer {
    answer(frame.unwrap_or_else(|error| bad(&error)))
}

/// Tells a node of this cluster the memory of it, under any id by which it knows this one.
fn recall(group: &Group, envelope: &Envelope) -> Frame {
    match group.process.peers.cluster() {
        Some(cluster) if cluster == envelope.cluster => group.memory.answer(envelope.from),
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

/// Rejects requests that do not come as the node that the connection belongs to, or under an id that the
/// member table gives to another one; `seat` is the name that it gives to the id.
fn comes_from(name: &str, envelope: &Envelope, seat: Option<&str>) -> Result<(), String> {
    if envelope.name != name {
        return Err(format!(
            "the connection is that of the node {name:?}, and the request comes as {:?}",
            envelope.name
        ));
    }
    match seat {
        Some(seat) if seat != name => Err(format!(
            "the connection is that of the node {name:?}, and the request comes under the id {} of {seat:?}",
            envelope.from
        )),
        _ => Ok(()),
    }
}

/// Whether that node is gone from the cluster for good. It is no voter then: the engine's membership loses a node
/// before the member table does.
fn was_removed(group: &Group, id: u64) -> bool {
    #[cfg(memkv_bugs)]
    if crate::bugs::active(crate::bugs::Bug::TableBeforeEngine) {
        return false;
    }
    group.replica.member_table().was_removed(id)
}

/// Rejects requests for another cluster, or for an earlier node at this address.
fn meant_for_us(peers: &Peers, envelope: &Envelope) -> Result<(), String> {
    let Some(identity) = peers.identity() else {
        return Err("this node is empty: it belongs to no cluster yet".to_owned());
    };
    if envelope.cluster != identity.cluster {
        return Err(format!(
            "this is node {} of cluster {}, the request is for cluster {}: two clusters are mixed \
             in a configuration, or a data directory was copied",
            peers.me.name,
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

fn propose(batcher: &Batcher, group: Bytes) -> Answer {
    // Queued here, in the order of arrival.
    let outcome = match batcher.propose(group) {
        Ok(outcome) => outcome,
        Err(error) => return answer(message::refused(&format!("unreadable commands: {error}"))),
    };
    Box::pin(outcome.map(|outcome| {
        let outcome = outcome.unwrap_or(GroupOutcome::Unknown);
        message::ok(|out| out.put_u8(sender::outcome_byte(outcome)))
    }))
}

fn open_session(batcher: &Batcher, envelope: &Envelope, mut body: Reader) -> Answer {
    let highest = match body.u32("highest level") {
        Ok(highest) => highest,
        Err(error) => return answer(bad(&error)),
    };
    let op = SystemOp::OpenSession {
        node: envelope.from,
        boot: envelope.boot,
        highest,
    };
    let outcome = batcher.propose_system(op);
    Box::pin(async move {
        match outcome.await {
            Ok(outcome) if sender::may_be_open(&outcome) => message::ok(|_| {}),
            Ok(Ok(_)) => message::refused("the entry has opened another session; try again"),
            Ok(Err(error)) => message::refused(&error.to_string()),
            Err(_) => message::refused("the node is stopping"),
        }
    })
}

fn read_index(barrier: Arc<Barrier>) -> Answer {
    Box::pin(async move {
        let (joined, _) = barrier.leader_reads.join();
        barrier.leader_reads.wake();
        match joined.await {
            Ok(index) => message::ok(|out| out.put_u64_le(index)),
            Err(failed) => message::refused(&failed.0),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::fake::{Fakes, Script, identity};

    fn envelope(cluster: [u8; 16], to: u64) -> Envelope {
        let fakes = Fakes::new(Script::Silence);
        let request = fakes.peers.envelope(Kind::Append, to);
        let (decoded, _) = Envelope::decode(request.freeze()).unwrap();
        Envelope { cluster, ..decoded }
    }

    #[tokio::test]
    async fn a_request_comes_as_the_node_that_the_connection_belongs_to() {
        let from = |name: &str, id| {
            let name = name.to_owned();
            let from = id;
            Envelope {
                name,
                from,
                ..envelope([1; 16], 1)
            }
        };
        for seat in [None, Some("n3")] {
            assert_eq!(comes_from("n3", &from("n3", 3), seat), Ok(()), "{seat:?}");
        }
        let named = comes_from("n3", &from("n2", 3), Some("n3")).unwrap_err();
        assert!(
            named.contains("\"n3\"") && named.contains("\"n2\""),
            "{named}"
        );
        let numbered = comes_from("n3", &from("n3", 2), Some("n2")).unwrap_err();
        assert!(numbered.contains("id 2"), "{numbered}");
    }

    #[tokio::test]
    async fn only_requests_for_this_node_of_this_cluster_are_taken() {
        let fakes = Fakes::new(Script::Silence);
        let mine = identity();
        let check = |cluster, to| meant_for_us(&fakes.peers, &envelope(cluster, to));
        assert_eq!(check(mine.cluster, mine.node_id), Ok(()));
        let foreign = check([9; 16], mine.node_id).unwrap_err();
        assert!(foreign.contains("two clusters are mixed"), "{foreign}");
        let other = check(mine.cluster, 2).unwrap_err();
        assert!(
            other.contains("node id 1") && other.contains("node id 2"),
            "{other}"
        );
    }
}
