//! `/v1/status` and `/metrics`: the node's own view, answered without a leader. None of them ever changes anything.

use memkv_node as raft;
use memkv_proto::{Durability, Member, Phase, Role, Status};

use super::app::Api;
use super::head::Head;
use super::response::Response;
use crate::backend::Backend;
use crate::failure;

/// `GET /v1/status`.
pub(super) fn status<B: Backend>(api: &Api<B>, head: &Head) -> Response {
    if let Err(refusal) = api.judge(head, "info", &|_| {}) {
        return Response::error(refusal.code, refusal.detail);
    }
    match api.backend() {
        Some(backend) => Response::json(200, document(backend.status()).to_json()),
        None => Response::problem(&failure::loading()),
    }
}

/// `GET /metrics`.
pub(super) fn metrics<B: Backend>(api: &Api<B>, head: &Head) -> Response {
    if !api.settings().metrics_public
        && let Err(refusal) = api.judge(head, "info", &|_| {})
    {
        return Response::error(refusal.code, refusal.detail);
    }
    match api.metrics() {
        Some(text) => Response {
            status: 200,
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            headers: Vec::new(),
            body: text.into(),
        },
        None => Response::problem(&failure::loading()),
    }
}

fn document(status: raft::NodeStatus) -> Status {
    let raft::NodeStatus { snapshot, .. } = &status;
    Status {
        snapshot_index: snapshot.as_ref().map_or(0, |log_id| log_id.index),
        name: status.name,
        role: role(status.role),
        leader: status.leader,
        term: status.term,
        commit_index: status.commit_index,
        applied_index: status.applied_index,
        members: status.members.into_iter().map(member).collect(),
        durability: if status.sync {
            Durability::Sync
        } else {
            Durability::Os
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        feature_level: status.level,
        cluster: status.cluster.map(uuid),
        node_id: status.node_id,
        revision: status.revision,
        keys: status.keys as u64,
        keys_cost: status.memory.cost,
        maxmemory: status.memory.cap,
        maxmemory_policy: status.memory.policy.name().to_owned(),
        memory_low: status.memory_low,
        phase: phase(status.phase),
        message: status.message,
        log_segments: status.log_segments as u64,
        alarms: crate::tls::alarms(),
    }
}

fn member(member: raft::MemberStatus) -> Member {
    Member {
        name: member.name,
        addr: member.addr,
        role: role(member.role),
        highest_feature_level: member.highest_level,
        state: member.state.map_or("", |state| state.name()).to_owned(),
        lag: member.lag,
        answers: member.answers,
    }
}

fn role(role: raft::Role) -> Role {
    match role {
        raft::Role::Leader => Role::Leader,
        raft::Role::Follower => Role::Follower,
        raft::Role::Candidate => Role::Candidate,
        raft::Role::Learner => Role::Learner,
    }
}

pub(super) fn phase(phase: raft::Phase) -> Phase {
    match phase {
        raft::Phase::Forming => Phase::Forming,
        raft::Phase::Joining => Phase::Joining,
        raft::Phase::Serving => Phase::Serving,
        // It neither votes nor acknowledges, and its message says why.
        raft::Phase::Stopped => Phase::Quarantined,
    }
}

/// The usual text of a UUID (RFC 9562, section 4).
pub(crate) fn uuid(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_has_its_usual_form() {
        let bytes = std::array::from_fn(|at| at as u8 * 0x11);
        assert_eq!(uuid(bytes), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
