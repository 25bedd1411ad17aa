//! A node's status and numbers, put together from its parts.
//!
//! Never blocks for long and never asks a peer. Invariant: a node that has no leader still answers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::group::Group;
use crate::report::stats::{NodeStats, Peaks, PeerStats};
use crate::report::status::{MemberStatus, NodeStatus, Phase, Role};

/// The engine's part of a status.
struct Standing {
    role: Role,
    term: u64,
    commit: u64,
    voters: BTreeSet<u64>,
}

impl Group {
    /// See [`crate::Node::status`].
    pub(crate) fn status(&self) -> NodeStatus {
        let process = &self.process;
        let peers = &process.peers;
        let leader_id = self.leadership.leader_id();
        let (phase, message) = self.situation(leader_id);
        let standing = self.standing();
        let members = self.members(leader_id, &standing.voters);
        let voters = standing.voters.len();
        let voters_answering = self.voters_answering(leader_id, &standing.voters);
        let applied = self.replica.applied_state();
        NodeStatus {
            name: peers.me.name.clone(),
            node_id: peers.my_id(),
            cluster: peers.cluster(),
            phase,
            message,
            role: standing.role,
            leader: leader_id.map(|id| peers.name_of(id)),
            term: standing.term,
            commit_index: standing.commit,
            applied_index: self.replica.applied_index(),
            snapshot: self.storage.snapshots.latest().map(|meta| meta.last),
            log_segments: self.storage.log.segment_count(),
            revision: applied.revision,
            keys: applied.keys,
            building_snapshot: process.counters.building.load(Ordering::Relaxed),
            disk_low: process.space.is_low(),
            memory: applied.memory,
            memory_low: process.capacity.is_near(),
            sync: process.config.sync,
            level: peers.levels.in_use(),
            members,
            voters,
            voters_answering,
        }
    }

    /// The phase, and the sentence that an operator should read first.
    fn situation(&self, leader_id: Option<u64>) -> (Phase, String) {
        let process = &self.process;
        let (phase, mut message) = process.lifecycle.phase();
        if message.is_empty() {
            message = self.divergence.alarm();
        }
        if message.is_empty() {
            message = process.space.detail();
        }
        if message.is_empty() {
            message = process.capacity.detail();
        }
        let diagnosed = !process.lifecycle.diagnosis().is_empty();
        let says_why = message.is_empty() || (diagnosed && phase != Phase::Stopped);
        if says_why && leader_id.is_none() {
            message = format!("no leader: {}", process.lifecycle.no_leader(None));
        }
        (phase, message)
    }

    fn standing(&self) -> Standing {
        let Some(engine) = self.engine.get() else {
            return Standing {
                role: Role::Learner,
                term: 0,
                commit: 0,
                voters: BTreeSet::new(),
            };
        };
        let report = engine.report();
        Standing {
            role: report.standing.role,
            term: report.standing.term,
            commit: report.progress.committed.map_or(0, |id| id.index),
            voters: report.members.voters(),
        }
    }

    /// Voters that answer, if this node can say so: see [`NodeStatus::voters_answering`].
    fn voters_answering(&self, leader_id: Option<u64>, voters: &BTreeSet<u64>) -> Option<usize> {
        let me = self.process.peers.my_id();
        if leader_id.is_none() {
            return Some(usize::from(voters.contains(&me)));
        }
        let engine = self.engine.get().filter(|engine| engine.is_leader())?;
        let within = self.process.config.election_timeout;
        let answering = voters.iter().filter(|id| engine.answered(**id, within));
        Some(answering.count())
    }

    /// The members in the order of their names; before there are any, the nodes of the configuration.
    fn members(&self, leader_id: Option<u64>, voters: &BTreeSet<u64>) -> Vec<MemberStatus> {
        let process = &self.process;
        let table = self.replica.member_table();
        let highest_of = |id| {
            table
                .advertised(id)
                .map_or(0, |advertised| advertised.highest)
        };
        let role_of = |id| match id {
            id if Some(id) == leader_id => Role::Leader,
            id if voters.contains(&id) => Role::Follower,
            _ => Role::Learner,
        };
        let leading = self.engine.get().filter(|engine| engine.is_leader());
        let matched = leading.map(|engine| engine.matched());
        let lag = |id| match &matched {
            Some(_) if Some(id) == leader_id => Some(0),
            Some(matched) => {
                let has = matched.of_member(id)?;
                Some(matched.last.unwrap_or(0).saturating_sub(has))
            }
            None => None,
        };
        let within = process.config.election_timeout;
        let known = process.peers.members().into_iter();
        let mut members: Vec<MemberStatus> = known
            .map(|member| MemberStatus {
                role: role_of(member.id),
                highest_level: highest_of(member.id),
                state: table.row(member.id).map(|row| row.state),
                lag: lag(member.id),
                answers: leading.map(|engine| engine.answered(member.id, within)),
                id: member.id,
                name: member.name,
                addr: member.addr,
            })
            .collect();
        if members.is_empty() {
            let configured = process.config.peers.iter().chain([&process.config.me]);
            let as_member = |peer: &crate::Peer| MemberStatus {
                id: 0,
                name: peer.name.clone(),
                addr: peer.addr.clone(),
                role: Role::Learner,
                highest_level: 0,
                state: None,
                lag: None,
                answers: None,
            };
            members = configured.map(as_member).collect();
        }
        members.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        members
    }
}

impl Group {
    /// See [`crate::Node::stats`].
    pub(crate) fn stats(&self) -> NodeStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let process = &self.process;
        let counters = &process.counters;
        let disk_free = count(&counters.disk_free);
        NodeStats {
            leader_changes: count(&counters.leader_changes),
            proposals_pending: self.writes.batcher.pending() as u64,
            proposals_failed: count(&counters.failed_proposals),
            forwarded: count(&counters.forwarded),
            peer_lag: self.peer_lag(),
            snapshots_built: count(&counters.snapshots_built),
            snapshots_installed: self.replica.applied_state().installs,
            disk_free: (disk_free != u64::MAX).then_some(disk_free),
            disk_low: process.space.is_low(),
            memory_limit: process.config.memory_limit,
            growth_refused: count(&counters.growth_refused),
            divergence_checks: self.divergence.rounds(),
            divergence_alarm: !self.divergence.alarm().is_empty(),
            publications_unconfirmed: count(&process.publisher.unconfirmed),
            clock_steps: count(&counters.clock_steps),
            fsync: self.storage.wal.fsync_durations(),
            apply: counters.apply.counted(),
            read_batch: counters.read_batch.counted(),
            peers: self.peers(),
        }
    }

    /// See [`crate::Node::take_peaks`].
    pub(crate) fn take_peaks(&self) -> Peaks {
        let counters = &self.process.counters;
        let leaderless = counters.leaderless.swap(0, Ordering::Relaxed);
        Peaks {
            fsync: Duration::from_nanos(self.storage.wal.take_longest_fsync()),
            apply: Duration::from_nanos(counters.apply.take_peak()),
            leaderless: Duration::from_nanos(leaderless),
        }
    }

    /// The other members, as this node has heard them.
    fn peers(&self) -> Vec<PeerStats> {
        let (known, waypoints) = (&self.process.peers, &self.process.counters.waypoints);
        let me = known.my_id();
        let matched = self.engine.get().map(|engine| engine.matched());
        let last = matched.as_ref().and_then(|matched| matched.last);
        let lag = |id| {
            let members = matched.as_ref().map(|matched| &matched.members)?;
            let (_, has) = members.iter().find(|(member, _)| *member == id)?;
            let has = has.unwrap_or(0);
            let entries = last.unwrap_or(0).saturating_sub(has);
            let since = match entries {
                0 => Duration::ZERO,
                _ => waypoints.age(has + 1),
            };
            Some((entries, since))
        };
        let others = known.members().into_iter().filter(|member| member.id != me);
        let mut peers: Vec<PeerStats> = others
            .map(|member| {
                let contact = known.contacts.of(member.id);
                PeerStats {
                    id: member.id,
                    fails: contact.fails,
                    last_contact: contact.heard_at.map(|at| at.elapsed()),
                    round_trip: contact.round_trip(),
                    sent: contact.sent,
                    received: contact.received,
                    lag: lag(member.id),
                    name: member.name,
                    addr: member.addr,
                }
            })
            .collect();
        peers.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        peers
    }

    fn peer_lag(&self) -> Vec<(String, u64)> {
        let Some(engine) = self.engine.get() else {
            return Vec::new();
        };
        let matched = engine.matched();
        let last = matched.last.unwrap_or(0);
        let known = &self.process.peers;
        let me = known.my_id();
        let peers = matched.members.into_iter().filter(|(id, _)| *id != me);
        let lag = |has: Option<u64>| last.saturating_sub(has.unwrap_or(0));
        peers
            .map(|(id, has)| (known.name_of(id), lag(has)))
            .collect()
    }
}
