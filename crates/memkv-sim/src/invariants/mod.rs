//! The invariants that hold at every moment, under any fault: Raft's safety properties (Raft paper,
//! figure 3) and memkv's promise that what is committed is on the disks of a majority.
//!
//! Only looks; it remembers only what it has observed itself.
//! Invariants of its own: an entry's identity is `(index, term, leader)`, since the engine lets a
//! later candidate of the same term take over; memory grows with the run and is never pruned.

mod known;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use memkv_disk::LogId;
use memkv_node::{Inspection, Node};
use memkv_store::{MemberState, Store};
use parking_lot::Mutex;

use crate::checker;
use crate::cluster::{Cluster, name};
use crate::committed_log::CommittedLog;
use crate::one_cluster::OneCluster;
use crate::operations::Operations;
use crate::promise::Promise;
use crate::settle::Rest;
use crate::timing::Timing;
use crate::witness::Witness;

/// Entries that are looked at again after a log was cut; more than a leader has in flight.
const TAIL: u64 = 64;

/// Everything that was seen so far.
pub(crate) struct Invariants(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// Host and process that led under a vote.
    leaders: BTreeMap<(u64, u64), (usize, u64)>,
    /// By index.
    committed: BTreeMap<u64, LogId>,
    /// Identity of the entry before, and checksum of the payload.
    entries: BTreeMap<LogId, (Option<LogId>, u32)>,
    /// Digest of the state, its revision and its hash of effects, by applied index.
    states: BTreeMap<u64, (u64, u64, Option<u64>)>,
    /// By node id: the highest committed entry that was seen durable there.
    acknowledged: BTreeMap<u64, LogId>,
    /// By node id: what was durable when its last process died.
    at_death: BTreeMap<u64, LogId>,
    hosts: Vec<SeenHost>,
    committed_log: CommittedLog,
    timing: Timing,
    one_cluster: OneCluster,
    witness: Witness,
}

#[derive(Default, Clone)]
struct SeenHost {
    /// What was durable when the last process died; `None` after a wipe.
    durable_at_death: Option<LogId>,
    node_id: u64,
    /// Process that the following belongs to.
    process: u64,
    /// The log was compared up to here.
    compared: Option<LogId>,
    /// Commits were compared up to here.
    committed_to: u64,
    applied: u64,
    revision: u64,
    stamp_ms: u64,
    purged: u64,
    /// Entries were refused for lack of space, so many times.
    entries_refused: u64,
    /// It led at the last look, and proposed nothing for lack of space.
    led_without_space: bool,
    /// There was a divergence alarm at the last look, and how often the store had been compared.
    alarm: bool,
    compared_rounds: u64,
    answered_by_snapshot: u64,
}

pub(crate) type Verdict = Result<(), (Promise, String)>;

pub(crate) fn fail(promise: Promise, seen: String) -> Verdict {
    Err((promise, seen))
}

/// Whether a log that ends at `end` holds a committed entry: it reaches as far, and its last entry
/// comes from no older leader (so its leader had the entry, by leader completeness).
fn covers(end: Option<LogId>, entry: LogId) -> bool {
    end.is_some_and(|end| {
        end.index >= entry.index && (end.term, end.leader) >= (entry.term, entry.leader)
    })
}

impl Invariants {
    pub(crate) fn new(nodes: usize) -> Self {
        Self(Mutex::new(Seen {
            hosts: vec![SeenHost::default(); nodes],
            timing: Timing::new(nodes),
            ..Seen::default()
        }))
    }

    /// A process dies: what it says is durable must be there when the next one starts.
    pub(crate) fn note_death(&self, slot: usize, node: &Node, micros: u64) {
        let mut seen = self.0.lock();
        let durable = node.durable();
        seen.hosts[slot].durable_at_death = durable;
        let Some(now) = node.inspect() else { return };
        seen.timing.note_last(slot, &now, micros);
        if let Some(durable) = durable {
            seen.at_death.insert(now.node_id, durable);
        }
    }

    /// A machine has no process now. `forgets`: it has also lost the log time that the process saved.
    pub(crate) fn note_clock(&self, slot: usize, forgets: bool, now: u64) {
        self.0.lock().timing.note_death(slot, forgets, now);
    }

    /// A directory was emptied on purpose.
    pub(crate) fn note_wipe(&self, slot: usize) {
        self.0.lock().hosts[slot].durable_at_death = None;
    }

    /// A process has started from its directory; `set_aside`: it found it corrupt and has put it
    /// away.
    pub(crate) fn check_recovery(
        &self,
        slot: usize,
        node: &Node,
        set_aside: bool,
    ) -> Result<(), String> {
        let mut seen = self.0.lock();
        if set_aside {
            seen.hosts[slot].durable_at_death = None;
        }
        let promised = seen.hosts[slot].durable_at_death;
        let found = node.durable();
        match promised {
            Some(promised) if !covers(found, promised) => Err(format!(
                "{} said that {promised:?} is durable, died, and came back with {found:?}",
                name(slot)
            )),
            _ => Ok(()),
        }
    }

    /// Looks at every node that runs.
    pub(crate) fn check(&self, cluster: &Cluster) {
        let mut seen = self.0.lock();
        let mut verdict = Ok(());
        for slot in 0..cluster.nodes() {
            let waited = cluster.hosts[slot].lock().disk.stats().forbidden;
            if waited > 0 {
                let seen = format!("{} did {waited} times", name(slot));
                verdict = fail(Promise::ConsensusNeverWaits, seen);
            }
        }
        let live = cluster.live();
        let nodes: Vec<Inspection> = live.iter().filter_map(|(_, node)| node.inspect()).collect();
        verdict = verdict.and_then(|()| commits_are_published(&nodes));
        for (slot, node) in live {
            let process = cluster.hosts[slot].lock().generation;
            if let Some(now) = node.inspect() {
                let status = node.status();
                verdict = verdict
                    .and_then(|()| {
                        let one = &mut seen.one_cluster;
                        one.look(slot, process, &now, &status, cluster)
                    })
                    .and_then(|()| seen.node(slot, process, &now, cluster))
                    .and_then(|()| table_holds_engine(slot, &node, &now))
                    .and_then(|()| seen.witness.look(slot, process, &now, cluster))
                    .and_then(|()| seen.machine(slot, &node, cluster))
                    .and_then(|()| seen.timing.look(slot, &now, cluster));
                replaced(slot, &node, &now, cluster);
            }
        }
        let seen = &mut *seen;
        let (log, sent) = (&mut seen.committed_log, &cluster.sent_by_users);
        let followed = log.follow(&seen.committed, sent, &cluster.trace);
        verdict = verdict.and(followed);
        verdict = verdict.and_then(|()| seen.levels(cluster));
        if let Err((promise, what)) = verdict {
            cluster.violated(promise, what);
        }
    }

    /// A node sends a request, now.
    pub(crate) fn sends(&self, from: usize, request: &Bytes, cluster: &Cluster) {
        let verdict = self.0.lock().witness.sends(from, request, cluster);
        if let Err((promise, what)) = verdict {
            cluster.violated(promise, what);
        }
    }

    /// Holds what clients saw against the log, and the expiries in it against time.
    pub(crate) fn check_history(&self, cluster: &Cluster, operations: &Operations, rest: &Rest) {
        let seen = self.0.lock();
        if let Err((promise, what)) =
            checker::all(&seen.committed_log, &seen.timing, cluster, operations, rest)
        {
            cluster.violated(promise, what);
        }
    }
}

impl Seen {
    fn last_committed(&self) -> Option<LogId> {
        self.committed.last_key_value().map(|(_, id)| *id)
    }

    fn node(&mut self, slot: usize, process: u64, now: &Inspection, cluster: &Cluster) -> Verdict {
        let host = &mut self.hosts[slot];
        if host.process != process {
            *host = SeenHost {
                process,
                node_id: host.node_id,
                ..SeenHost::default()
            };
        }
        if host.node_id != now.node_id {
            host.node_id = now.node_id;
            cluster.trace.count("identities taken");
        }
        let purged = now.log.purged().map_or(0, |id| id.index);
        if purged > host.purged {
            host.purged = purged;
            cluster.trace.count("logs compacted");
        }
        if now.entries_refused > host.entries_refused {
            host.entries_refused = now.entries_refused;
            cluster
                .trace
                .count("looks at entries refused for lack of space");
        }
        let without_space = now.leads.is_some() && now.refuses_for_space;
        if without_space && !host.led_without_space {
            cluster.trace.count("leaders that ran out of space");
        }
        host.led_without_space = without_space;
        let answered = now.answered_by_snapshot;
        (host.answered_by_snapshot..answered)
            .for_each(|_| cluster.trace.count("commands answered by a snapshot"));
        host.answered_by_snapshot = answered;
        if now.voters.len() > 1 {
            cluster.trace.count("looks at a joint configuration");
        }
        if now.divergence_alarm && !host.alarm {
            cluster.trace.count("divergence alarms");
        }
        host.alarm = now.divergence_alarm;
        let rounds = now.divergence_checks - host.compared_rounds;
        (0..rounds).for_each(|_| cluster.trace.count("comparisons of stores"));
        host.compared_rounds = now.divergence_checks;
        self.log(slot, now)?;
        self.commit(slot, now)?;
        self.acknowledgement(slot, now)?;
        self.leader(slot, process, now, cluster)?;
        Ok(())
    }

    /// Log matching: an entry has one content and one entry before it, in every log.
    fn log(&mut self, slot: usize, now: &Inspection) -> Verdict {
        let (Some(first), Some(last)) = (now.log.first(), now.log.last()) else {
            return Ok(());
        };
        let from = match self.hosts[slot].compared {
            Some(id) if now.log.id_at(id.index) == Some(id) => id.index + 1,
            Some(id) => id.index.saturating_sub(TAIL),
            None => 0,
        };
        let from = from.max(first.index);
        if from > last.index {
            return Ok(());
        }
        let Ok(records) = now.log.read(from..last.index + 1, u64::MAX, usize::MAX) else {
            return Ok(());
        };
        let mut previous = from.checked_sub(1).and_then(|before| now.log.id_at(before));
        for record in records {
            let this = (previous, crc32fast::hash(&record.payload));
            let known = *self.entries.entry(record.id).or_insert_with(|| {
                self.committed_log.saw(record.id, &record.payload);
                this
            });
            let agrees = known.1 == this.1 && (known.0 == this.0 || this.0.is_none());
            if !agrees && known.0.is_some() {
                let node = name(slot);
                let seen = format!(
                    "{node} has {:?} after {previous:?}, not {:?}",
                    record.id, known.0
                );
                return fail(Promise::LogMatching, seen);
            }
            if known.0.is_none() && this.0.is_some() {
                self.entries.insert(record.id, this);
            }
            previous = Some(record.id);
        }
        self.hosts[slot].compared = Some(last);
        Ok(())
    }

    /// What is committed at an index is committed for ever, and everywhere.
    fn commit(&mut self, slot: usize, now: &Inspection) -> Verdict {
        // While a snapshot is being installed, the log below it may hold what never was committed;
        // a log that has the committed entry itself also has what is committed before it.
        let has = |id: &LogId| now.log.id_at(id.index) == Some(*id);
        let Some(last) = now.committed.filter(has) else {
            return Ok(());
        };
        let first = now.log.first().map_or(last.index, |id| id.index);
        for index in self.hosts[slot].committed_to.max(first)..=last.index {
            let Some(id) = now.log.id_at(index) else {
                continue;
            };
            let known = *self.committed.entry(index).or_insert(id);
            if known != id {
                let node = name(slot);
                let seen = format!("{node} committed {id:?} where {known:?} had been committed");
                return fail(Promise::StateMachineSafety, seen);
            }
        }
        self.hosts[slot].committed_to = last.index;
        Ok(())
    }

    /// A node id keeps what it has acknowledged, in all its lives.
    fn acknowledgement(&mut self, slot: usize, now: &Inspection) -> Verdict {
        let known = self.acknowledged.get(&now.node_id).copied();
        if let Some(known) = known
            && !covers(now.durable, known)
        {
            let (node, id) = (name(slot), now.node_id);
            let seen = format!(
                "{node} (node id {id}) had {known:?} on its disk, committed, and now has {:?}",
                now.durable
            );
            return fail(Promise::AcknowledgedStays, seen);
        }
        let Some(durable) = now.durable else {
            return Ok(());
        };
        let held = self
            .committed
            .range(..=durable.index)
            .next_back()
            .map(|(_, id)| *id);
        // A deposed leader's entry may have its index and a higher term; where the log has nothing,
        // it has been compacted, which happens to committed entries only.
        let has = |held: &LogId| now.log.id_at(held.index).is_none_or(|id| id == *held);
        if let Some(held) = held.filter(|held| covers(Some(durable), *held) && has(held))
            && known.is_none_or(|known| known.index < held.index)
        {
            self.acknowledged.insert(now.node_id, held);
        }
        Ok(())
    }

    /// Election safety, leader completeness, and that what a leader commits is durable.
    fn leader(
        &mut self,
        slot: usize,
        process: u64,
        now: &Inspection,
        cluster: &Cluster,
    ) -> Verdict {
        let Some(vote) = now.leads else { return Ok(()) };
        let node = name(slot);
        let me = (slot, process);
        if !self.leaders.contains_key(&vote) {
            cluster.trace.count("elections");
            cluster
                .trace
                .line(format_args!("{node} leads in term {}", vote.0));
            self.complete(slot, vote, now)?;
        }
        let leader = *self.leaders.entry(vote).or_insert(me);
        if leader != me {
            let seen = format!("{node} leads under {vote:?} as process {me:?}, after {leader:?}");
            return fail(Promise::ElectionSafety, seen);
        }
        let Some(committed) = now.committed else {
            return Ok(());
        };
        // A membership counts for what is committed with it and after it.
        if now.membership_at.0 > committed.index {
            return Ok(());
        }
        for voters in &now.voters {
            let holders = self.holders(voters, committed, cluster);
            if holders.len() <= voters.len() / 2 {
                let seen = format!(
                    "{node} leads in term {} and committed {committed:?}, which is durable on \
                     {holders:?} of {voters:?} only",
                    vote.0
                );
                return fail(Promise::CommittedIsDurable, seen);
            }
        }
        Ok(())
    }

    /// A new leader has everything that was committed before.
    fn complete(&self, slot: usize, vote: (u64, u64), now: &Inspection) -> Verdict {
        let Some(committed) = self.last_committed() else {
            return Ok(());
        };
        let has = now.log.id_at(committed.index) == Some(committed)
            || now
                .log
                .purged()
                .is_some_and(|purged| purged.index >= committed.index);
        if has || vote <= (committed.term, committed.leader) {
            return Ok(());
        }
        let node = name(slot);
        let seen = format!(
            "{node} was elected in term {} without the committed {committed:?}; its log ends at {:?}",
            vote.0,
            now.log.last()
        );
        fail(Promise::LeaderCompleteness, seen)
    }

    /// The voters on whose disks an entry is, or was before the disk was taken away.
    fn holders(&self, voters: &BTreeSet<u64>, entry: LogId, cluster: &Cluster) -> BTreeSet<u64> {
        let held = |ends: &BTreeMap<u64, LogId>, id: &u64| covers(ends.get(id).copied(), entry);
        let mut holders: BTreeSet<u64> = voters
            .iter()
            .copied()
            .filter(|id| held(&self.acknowledged, id) || held(&self.at_death, id))
            .collect();
        for (_, node) in cluster.live() {
            if let Some(other) = node.inspect()
                && voters.contains(&other.node_id)
                && covers(other.durable, entry)
            {
                holders.insert(other.node_id);
            }
        }
        holders
    }

    /// No node applies what its build does not know.
    fn levels(&self, cluster: &Cluster) -> Verdict {
        for (slot, host) in self.hosts.iter().enumerate() {
            let process = cluster.hosts[slot].lock();
            let Some(life) = &process.life else { continue };
            if process.generation != host.process {
                continue;
            }
            let Some(raised) = self.committed_log.raises.above(life.build) else {
                continue;
            };
            if host.applied > raised {
                let (node, build, applied) = (name(slot), life.build, host.applied);
                let seen =
                    format!("{node} knows level {build} and applied {applied}, after {raised}");
                return fail(Promise::AppliesWhatItKnows, seen);
            }
        }
        Ok(())
    }

    /// State machine safety: equal logs make equal states, and a state only goes forward.
    fn machine(&mut self, slot: usize, node: &Node, cluster: &Cluster) -> Verdict {
        let applied = node.read_stale(Store::applied_index);
        let differs = cluster.hosts[slot].lock().differs;
        if let Some(generation) = differs {
            self.deviant(slot, node, generation, cluster);
            return Ok(());
        }
        let host = &mut self.hosts[slot];
        // Equal logs are cut differently: between two pieces there is nothing to compare.
        if applied == host.applied || node.read_stale(Store::is_within_entry) {
            return Ok(());
        }
        let (digest, revision, stamp, effects) = node.read_stale(|store| {
            let (digest, revision) = (store.digest(), store.revision());
            (digest, revision, store.stamp_ms(), store.effects())
        });
        let name = name(slot);
        if applied < host.applied || revision < host.revision || stamp < host.stamp_ms {
            let seen = format!(
                "{name} went from index {}, revision {}, stamp {} to {applied}, {revision}, {stamp}",
                host.applied, host.revision, host.stamp_ms
            );
            return fail(Promise::StateGoesForward, seen);
        }
        (host.applied, host.revision, host.stamp_ms) = (applied, revision, stamp);
        let this = (digest, revision, effects);
        let known = *self.states.entry(applied).or_insert(this);
        cluster.trace.line(format_args!(
            "{name} applied {applied}: state {digest:016x}"
        ));
        if known != this {
            let seen = format!(
                "{name} at index {applied} has digest {digest:016x}, revision {revision} and effects \
                 {effects:x?}, another had {:016x}, {} and {:x?}",
                known.0, known.1, known.2
            );
            return fail(Promise::EqualStates, seen);
        }
        Ok(())
    }

    /// A store that was made to differ is not compared until a restart has restored it.
    fn deviant(&self, slot: usize, node: &Node, generation: u64, cluster: &Cluster) {
        let (applied, this) = node.read_stale(|store| {
            let this = (store.digest(), store.revision(), store.effects());
            (store.applied_index(), this)
        });
        let is_within = node.read_stale(Store::is_within_entry);
        if is_within || self.states.get(&applied) != Some(&this) {
            return;
        }
        let mut host = cluster.hosts[slot].lock();
        if host.generation != generation {
            host.differs = None;
            host.loss.take_if(|loss| !loss.gone);
            cluster.trace.count("deviations that a restart undid");
        }
    }
}

/// A commit index that a follower got from its leader is counted in that leader's reads.
fn commits_are_published(nodes: &[Inspection]) -> Verdict {
    for leader in nodes.iter().filter(|node| node.leads.is_some()) {
        let counted = leader.told.max(leader.visible);
        let vote = (leader.term, leader.voted_for);
        let ahead = nodes.iter().find_map(|node| {
            let committed = node.committed?;
            let is_theirs = node.node_id != leader.node_id
                && (node.term, node.voted_for) == vote
                && (committed.term, committed.leader) == vote;
            (is_theirs && committed.index > counted).then_some((node.node_id, committed))
        });
        if let Some((id, committed)) = ahead {
            let seen = format!(
                "node {id} knows {committed:?} to be committed, and node {} which leads in term {} \
                 has told {} and applied {}",
                leader.node_id, leader.term, leader.told, leader.visible
            );
            return fail(Promise::KnownBeforeTold, seen);
        }
    }
    Ok(())
}

/// No id leaves the member table while the engine's membership holds it.
fn table_holds_engine(slot: usize, node: &Node, now: &Inspection) -> Verdict {
    let ids = now.voters.iter().flatten().chain(&now.learners);
    let gone = node.read_stale(|store| {
        let table = store.member_table();
        let mut ids = ids.copied();
        ids.find(|id| table.was_removed(*id))
    });
    match gone {
        Some(id) => {
            let seen = format!("{} has no seat for id {id}: {:?}", name(slot), now.voters);
            fail(Promise::TableHoldsEngine, seen)
        }
        None => Ok(()),
    }
}

/// Whether this node has joined a cluster that grows: it may have to wait for its vote.
fn has_joined(node: &Node, now: &Inspection, cluster: &Cluster) -> bool {
    let joined = node.read_stale(|store| {
        let row = store.member_table().row(now.node_id);
        row.is_some_and(|row| row.state == MemberState::Member)
    });
    joined && cluster.swarm.founders.is_some() && now.learners.contains(&now.node_id)
}

/// Notes that the cluster has given a lost host a new seat.
fn replaced(slot: usize, node: &Node, now: &Inspection, cluster: &Cluster) {
    let votes = (now.voters.len() == 1 && now.voters[0].contains(&now.node_id))
        || has_joined(node, now, cluster);
    let mut host = cluster.hosts[slot].lock();
    if votes && host.loss.is_some_and(|loss| loss.node_id != now.node_id) {
        host.loss = None;
        cluster.trace.count("replacements");
        cluster.trace.line(format_args!(
            "{} has a vote again, as {}",
            name(slot),
            now.node_id
        ));
    }
}
