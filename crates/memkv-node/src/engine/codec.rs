//! memkv's own encoding of what the engine stores and sends: votes, log ids, memberships, entries
//! and its requests. Version 1; the envelope of each message and the header of each record carry
//! the version.
//!
//! An entry's payload is one piece of shared bytes that goes to the WAL, to every peer and to apply
//! as it is. Its first byte says what it is: none at all, a blank entry; [`MEMBERSHIP_TAG`], a
//! membership; anything else is the version byte of a `memkv-store` batch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use memkv_disk::{HardState, LogId, Record};
use openraft::entry::RaftEntry;
use openraft::impls::{EmptyNode, leader_id_adv};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{EntryPayload, Membership as EngineMembership};

use crate::membership::members::Members;

use super::{Batch, EngineLogId, Entry, Membership, StoredMembership, TypeConfig, Vote};
use crate::Frame;
use crate::peer::encoding::{DecodeError, Reader, len32, put_option};

/// First byte of a payload that holds a membership; no batch version reaches it.
const MEMBERSHIP_TAG: u8 = 0xff;

/// The membership that the engine keeps, as this crate does.
pub(crate) fn members(stored: &StoredMembership) -> Members {
    let membership = stored.membership();
    Members {
        configs: membership.get_joint_config().clone(),
        learners: membership.learner_ids().collect(),
        at: stored.log_id().as_ref().map(storage_id),
    }
}

/// The same for the engine.
pub(crate) fn stored_membership(members: &Members) -> StoredMembership {
    let learners = members.learners.iter().copied();
    let membership = Membership::new_with_defaults(members.configs.clone(), learners);
    StoredMembership::new(members.at.map(engine_id), membership)
}

pub(crate) fn engine_id(id: LogId) -> EngineLogId {
    openraft::LogId {
        leader_id: leader_id_adv::LeaderId {
            term: id.term,
            node_id: id.leader,
        },
        index: id.index,
    }
}

pub(crate) fn storage_id(id: &EngineLogId) -> LogId {
    LogId {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn engine_vote(hard_state: HardState) -> Vote {
    Vote {
        leader_id: leader_id_adv::LeaderId {
            term: hard_state.term,
            node_id: hard_state.voted_for,
        },
        committed: hard_state.committed,
    }
}

pub(crate) fn hard_state(vote: &Vote) -> HardState {
    HardState {
        term: vote.leader_id.term,
        voted_for: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

/// The entry that the logs of all founders begin with, as if the first of them had led in term 0:
/// equal in all of them, so none of them is needed for the others to begin.
pub(crate) fn first_entry(voters: &BTreeSet<u64>) -> Entry {
    let leader_id = leader_id_adv::LeaderId {
        term: 0,
        node_id: voters.first().copied().unwrap_or(0),
    };
    let nodes: BTreeMap<u64, EmptyNode> = voters.iter().map(|id| (*id, EmptyNode {})).collect();
    openraft::Entry {
        log_id: openraft::LogId {
            leader_id,
            index: 0,
        },
        payload: EntryPayload::Membership(EngineMembership::from(nodes)),
    }
}

/// The record that holds an entry. The payload of a batch is shared, not copied.
pub(crate) fn record(entry: &Entry) -> Record {
    let payload = match &entry.payload {
        EntryPayload::Blank => Bytes::new(),
        EntryPayload::Normal(batch) => batch.0.clone(),
        EntryPayload::Membership(membership) => {
            let mut out = BytesMut::new();
            out.put_u8(MEMBERSHIP_TAG);
            put_membership(&mut out, membership);
            out.freeze()
        }
    };
    Record {
        id: storage_id(&entry.log_id),
        payload,
    }
}

/// The entry that a record holds.
pub(crate) fn entry(record: Record) -> Result<Entry, DecodeError> {
    let payload = match record.payload.first() {
        None => EntryPayload::Blank,
        Some(&MEMBERSHIP_TAG) => {
            let mut reader = Reader(record.payload.slice(1..));
            let membership = read_membership(&mut reader)?;
            reader.end("membership")?;
            EntryPayload::Membership(membership)
        }
        Some(_) => EntryPayload::Normal(Batch(record.payload)),
    };
    Ok(Entry::new(engine_id(record.id), payload))
}

fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_u32_le(len32(configs.len()));
    for config in configs {
        out.put_u32_le(len32(config.len()));
        for id in config {
            out.put_u64_le(*id);
        }
    }
    let nodes: Vec<u64> = membership.nodes().map(|(id, _)| *id).collect();
    out.put_u32_le(len32(nodes.len()));
    for id in nodes {
        out.put_u64_le(id);
    }
}

fn read_membership(reader: &mut Reader) -> Result<Membership, DecodeError> {
    let configs = reader.list("membership", |reader| {
        let ids = reader.list("voters", |reader| reader.u64("voter"))?;
        Ok(ids.into_iter().collect::<BTreeSet<u64>>())
    })?;
    let nodes = reader.list("nodes", |reader| reader.u64("node"))?;
    let nodes: BTreeMap<u64, EmptyNode> = nodes.into_iter().map(|id| (id, EmptyNode {})).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    EngineMembership::new(configs, nodes).map_err(|_| DecodeError::Bad {
        what: "membership",
        value: 0,
    })
}

/// A snapshot's membership, as it is kept beside the snapshot.
pub(crate) fn encode_stored_membership(membership: &StoredMembership) -> Bytes {
    let mut out = BytesMut::new();
    put_option(&mut out, membership.log_id().as_ref(), put_log_id);
    put_membership(&mut out, membership.membership());
    out.freeze()
}

pub(crate) fn decode_stored_membership(bytes: Bytes) -> Result<StoredMembership, DecodeError> {
    let mut reader = Reader(bytes);
    let id = reader.option("membership id", read_log_id)?;
    let membership = read_membership(&mut reader)?;
    reader.end("membership")?;
    Ok(StoredMembership::new(id, membership))
}

pub(crate) fn put_log_id(out: &mut BytesMut, id: &EngineLogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.leader_id.node_id);
    out.put_u64_le(id.index);
}

pub(crate) fn read_log_id(reader: &mut Reader) -> Result<EngineLogId, DecodeError> {
    Ok(engine_id(LogId {
        term: reader.u64("term")?,
        leader: reader.u64("leader")?,
        index: reader.u64("index")?,
    }))
}

pub(crate) fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.node_id);
    out.put_u8(u8::from(vote.committed));
}

pub(crate) fn read_vote(reader: &mut Reader) -> Result<Vote, DecodeError> {
    Ok(engine_vote(HardState {
        term: reader.u64("term")?,
        voted_for: reader.u64("candidate")?,
        committed: reader.bool("committed")?,
    }))
}

/// Header fields, then one part per payload: the payloads are shared with the log.
pub(crate) fn encode_append(
    request: &AppendEntriesRequest<TypeConfig>,
    durable: u64,
    mut header: BytesMut,
) -> Frame {
    put_vote(&mut header, &request.vote);
    header.put_u64_le(durable);
    put_option(&mut header, request.prev_log_id.as_ref(), put_log_id);
    put_option(&mut header, request.leader_commit.as_ref(), put_log_id);
    header.put_u32_le(len32(request.entries.len()));
    let records: Vec<Record> = request.entries.iter().map(record).collect();
    for (entry, record) in request.entries.iter().zip(&records) {
        put_log_id(&mut header, &entry.log_id);
        header.put_u32_le(len32(record.payload.len()));
    }
    let mut parts = vec![header.freeze()];
    parts.extend(records.into_iter().map(|record| record.payload));
    Frame(parts)
}

/// Payloads below this are copied out of the request that brought them: the log keeps recent ones in
/// memory, and a hundred bytes must not keep a whole network buffer alive. A larger one is most of
/// its buffer anyway.
const COPY_BELOW: usize = 64 * 1024;

fn unpinned(payload: Bytes) -> Bytes {
    if payload.len() < COPY_BELOW {
        Bytes::copy_from_slice(&payload)
    } else {
        payload
    }
}

pub(crate) fn decode_append(
    mut reader: Reader,
) -> Result<(AppendEntriesRequest<TypeConfig>, u64), DecodeError> {
    let vote = read_vote(&mut reader)?;
    let durable = reader.u64("durable index")?;
    let prev_log_id = reader.option("previous log id", read_log_id)?;
    let leader_commit = reader.option("commit index", read_log_id)?;
    let headers = reader.list("entries", |reader| {
        Ok((read_log_id(reader)?, reader.u32("payload length")? as usize))
    })?;
    let mut entries = Vec::with_capacity(headers.len());
    for (id, len) in headers {
        let payload = unpinned(reader.take(len, "payload")?);
        entries.push(entry(Record {
            id: storage_id(&id),
            payload,
        })?);
    }
    reader.end("append request")?;
    let request = AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    };
    Ok((request, durable))
}

pub(crate) fn put_append_response(
    out: &mut BytesMut,
    response: &AppendEntriesResponse<TypeConfig>,
) {
    match response {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(id) => {
            out.put_u8(1);
            put_option(out, id.as_ref(), put_log_id);
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            put_vote(out, vote);
        }
    }
}

pub(crate) fn read_append_response(
    reader: &mut Reader,
) -> Result<AppendEntriesResponse<TypeConfig>, DecodeError> {
    match reader.u8("append response")? {
        0 => Ok(AppendEntriesResponse::Success),
        1 => Ok(AppendEntriesResponse::PartialSuccess(
            reader.option("log id", read_log_id)?,
        )),
        2 => Ok(AppendEntriesResponse::Conflict),
        3 => Ok(AppendEntriesResponse::HigherVote(read_vote(reader)?)),
        value => Err(DecodeError::Bad {
            what: "append response",
            value: u64::from(value),
        }),
    }
}

pub(crate) fn put_vote_request(out: &mut BytesMut, request: &VoteRequest<TypeConfig>) {
    put_vote(out, &request.vote);
    put_option(out, request.last_log_id.as_ref(), put_log_id);
    out.put_u8(u8::from(request.leadership_transfer));
}

pub(crate) fn read_vote_request(
    reader: &mut Reader,
) -> Result<VoteRequest<TypeConfig>, DecodeError> {
    let mut request = VoteRequest::new(
        read_vote(reader)?,
        reader.option("last log id", read_log_id)?,
    );
    request.leadership_transfer = reader.bool("leadership transfer")?;
    Ok(request)
}

pub(crate) fn put_vote_response(out: &mut BytesMut, response: &VoteResponse<TypeConfig>) {
    put_vote(out, &response.vote);
    out.put_u8(u8::from(response.vote_granted));
    put_option(out, response.last_log_id.as_ref(), put_log_id);
}

pub(crate) fn read_vote_response(
    reader: &mut Reader,
) -> Result<VoteResponse<TypeConfig>, DecodeError> {
    let vote = read_vote(reader)?;
    let granted = reader.bool("granted")?;
    let last = reader.option("last log id", read_log_id)?;
    Ok(VoteResponse::new(vote, last, granted))
}

pub(crate) fn put_transfer_request(
    out: &mut BytesMut,
    request: &TransferLeaderRequest<TypeConfig>,
) {
    put_vote(out, request.from_leader());
    out.put_u64_le(*request.to_node_id());
    put_option(out, request.last_log_id(), put_log_id);
}

pub(crate) fn read_transfer_request(
    reader: &mut Reader,
) -> Result<TransferLeaderRequest<TypeConfig>, DecodeError> {
    let from = read_vote(reader)?;
    let to = reader.u64("transfer target")?;
    let last = reader.option("last log id", read_log_id)?;
    Ok(TransferLeaderRequest::new(from, to, last))
}

pub(crate) fn put_transfer_response(
    out: &mut BytesMut,
    response: &TransferLeaderResponse<TypeConfig>,
) {
    match response {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            put_vote(out, expected);
            put_vote(out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            put_option(out, expected.as_ref(), put_log_id);
            put_option(out, actual.as_ref(), put_log_id);
        }
    }
}

pub(crate) fn read_transfer_response(
    reader: &mut Reader,
) -> Result<TransferLeaderResponse<TypeConfig>, DecodeError> {
    match reader.u8("transfer response")? {
        0 => Ok(Ok(())),
        1 => Ok(Err(TransferLeaderError::VoteChanged {
            expected: read_vote(reader)?,
            actual: read_vote(reader)?,
        })),
        2 => Ok(Err(TransferLeaderError::LogNotFlushed {
            expected: reader.option("log id", read_log_id)?,
            actual: reader.option("log id", read_log_id)?,
        })),
        value => Err(DecodeError::Bad {
            what: "transfer response",
            value: u64::from(value),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_membership_is_the_same_on_both_sides_of_the_adapter() {
        let joint = Members {
            configs: vec![[1, 2, 3].into(), [2, 3, 4].into()],
            learners: [7].into(),
            at: Some(id(3, 9)),
        };
        for known in [Members::default(), joint] {
            assert_eq!(members(&stored_membership(&known)), known);
        }
        let none = StoredMembership::default();
        assert_eq!(stored_membership(&members(&none)), none);
    }

    fn id(term: u64, index: u64) -> LogId {
        LogId {
            term,
            leader: 2,
            index,
        }
    }

    fn request() -> AppendEntriesRequest<TypeConfig> {
        let membership = EngineMembership::new(
            vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 9])],
            [1, 2, 3, 9, 12]
                .map(|id| (id, EmptyNode {}))
                .into_iter()
                .collect::<BTreeMap<_, _>>(),
        )
        .unwrap();
        AppendEntriesRequest {
            vote: engine_vote(HardState {
                term: 4,
                voted_for: 2,
                committed: true,
            }),
            prev_log_id: Some(engine_id(id(3, 6))),
            entries: vec![
                Entry::new(engine_id(id(4, 7)), EntryPayload::Blank),
                Entry::new(
                    engine_id(id(4, 8)),
                    EntryPayload::Normal(Batch(Bytes::from_static(b"\x01batch"))),
                ),
                Entry::new(engine_id(id(4, 9)), EntryPayload::Membership(membership)),
            ],
            leader_commit: None,
        }
    }

    #[test]
    fn an_append_request_survives_the_wire() {
        let request = request();
        let frame = encode_append(&request, 77, BytesMut::new());
        let (read, durable) = decode_append(Reader(frame.into_bytes())).unwrap();
        assert_eq!(durable, 77);
        assert_eq!(format!("{request:?}"), format!("{read:?}"));
    }

    #[test]
    fn a_small_payload_does_not_keep_its_request_alive() {
        let whole = encode_append(&request(), 77, BytesMut::new()).into_bytes();
        let buffer = whole.as_ptr_range();
        let (read, _) = decode_append(Reader(whole)).unwrap();
        let EntryPayload::Normal(batch) = &read.entries[1].payload else {
            panic!("the second entry holds a batch");
        };
        assert!(!buffer.contains(&batch.0.as_ptr()));
    }

    #[test]
    fn a_cut_append_request_is_refused_at_every_length() {
        let whole = encode_append(&request(), 77, BytesMut::new()).into_bytes();
        for len in 0..whole.len() {
            assert!(
                decode_append(Reader(whole.slice(..len))).is_err(),
                "cut at {len}"
            );
        }
    }

    #[test]
    fn a_batch_is_shared_between_entry_and_record() {
        let batch = Bytes::from_static(b"\x01batch");
        let entry = Entry::new(
            engine_id(id(1, 1)),
            EntryPayload::Normal(Batch(batch.clone())),
        );
        assert_eq!(record(&entry).payload.as_ptr(), batch.as_ptr());
    }
}
