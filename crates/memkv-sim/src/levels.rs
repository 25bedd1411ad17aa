//! Builds of two ages in one cluster: the promises of their feature levels, and the operator who reads
//! the errors of an old build and starts the newer one.
//!
//! Hosts run a build that knows level [`OLD`] or [`NEW`]; the nemesis changes it. Only the log and what
//! nodes say is looked at. Invariants of its own: the level in the log is that of the entries so far.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use memkv_node::{Phase, TooOld};
use memkv_store::{HIGHEST_LEVEL, MemberChange, SystemOp, SystemOutcome};

use crate::cluster::{Cluster, name};
use crate::host::Death;
use crate::invariants::Verdict;
use crate::promise::Promise;
use crate::trace::Trace;

/// The highest level of the older build.
pub(crate) const OLD: u32 = HIGHEST_LEVEL - 1;
/// The highest level of the newer build.
pub(crate) const NEW: u32 = HIGHEST_LEVEL;

/// How often the operator looks at what nodes say.
const LOOK: Duration = Duration::from_millis(500);
/// How long a node has been refused before the operator starts a newer build, in milliseconds.
const PATIENCE_MS: (u64, u64) = (0, 4_000);

/// The levels in the log, up to some entry.
#[derive(Default)]
pub(crate) struct Raises {
    /// By node id: what it has advertised with its latest boot.
    advertised: BTreeMap<u64, u32>,
    /// Index and new level of each raise, formation being the first.
    raised: Vec<(u64, u32)>,
}

impl Raises {
    /// The level after the entries so far; 0 before formation.
    pub(crate) fn level(&self) -> u32 {
        self.raised.last().map_or(0, |(_, level)| *level)
    }

    /// The entry that raised the cluster above a level.
    pub(crate) fn above(&self, level: u32) -> Option<u64> {
        let raise = self.raised.iter().find(|(_, raised)| *raised > level);
        raise.map(|(index, _)| *index)
    }

    /// Takes a system operation of the log into account.
    ///
    /// # Errors
    /// The fault of the operation.
    pub(crate) fn follow(
        &mut self,
        index: u64,
        op: &SystemOp,
        outcome: &SystemOutcome,
        trace: &Trace,
    ) -> Verdict {
        match (op, outcome) {
            (SystemOp::Form { level, .. }, SystemOutcome::Done) => {
                self.raised.push((index, *level));
                trace.count(match *level {
                    OLD => "clusters formed at the older level",
                    _ => "clusters formed at a higher level",
                });
            }
            (SystemOp::OpenSession { node, highest, .. }, SystemOutcome::SessionOpened { .. }) => {
                self.advertised.insert(*node, *highest);
            }
            (
                SystemOp::AdmitNode { highest, .. }
                | SystemOp::Members(MemberChange::Admit { highest, .. }),
                SystemOutcome::NodeAdmitted { id },
            ) if *highest < self.level() => {
                let seen = format!(
                    "{index}: node {id}, which knows level {highest}, is admitted at level {}",
                    self.level()
                );
                return Err((Promise::AdmittedIfItKnows, seen));
            }
            (SystemOp::RaiseLevel { to, ids }, SystemOutcome::Done) => {
                if *to <= self.level() {
                    let seen = format!("{index}: the level goes from {} to {to}", self.level());
                    return Err((Promise::RaisedWhenAllKnow, seen));
                }
                let advertised = |id: &u64| self.advertised.get(id).copied().unwrap_or(0);
                if let Some(id) = ids.iter().find(|id| advertised(id) < *to) {
                    let seen = format!(
                        "{index}: raised to {to}, and node {id} has advertised {}",
                        advertised(id)
                    );
                    return Err((Promise::RaisedWhenAllKnow, seen));
                }
                self.raised.push((index, *to));
                trace.count("levels raised");
                trace.line(format_args!("{index} raises the level to {to}"));
            }
            (SystemOp::RaiseLevel { .. }, SystemOutcome::Refused { .. }) => {
                trace.count("raises refused");
            }
            _ => {}
        }
        Ok(())
    }
}

impl Cluster {
    /// A node has stopped or not started because its build is too old: the operator starts the newer
    /// one.
    pub(crate) fn too_old(self: &Arc<Self>, slot: usize, why: TooOld) {
        let (build, was_new) = {
            let host = self.hosts[slot].lock();
            (host.build, host.was_new)
        };
        // The nemesis may have brought a newer build since the process began.
        if why.highest > build || why.level <= why.highest {
            let seen = format!(
                "{} runs a build of level {build} and says: {why}",
                name(slot)
            );
            return self.violated(Promise::TooOldOnlyIfTooOld, seen);
        }
        if !was_new {
            let seen = format!("{} never ran another build, and says: {why}", name(slot));
            return self.violated(Promise::RaisedWhenAllKnow, seen);
        }
        self.trace.count("old builds that stopped");
        self.hosts[slot].lock().set_build(NEW);
        self.restart(slot, Death::Process, "to run the newer build");
    }

    /// Starts the newer build where an older one is told that it cannot join, for ever.
    pub(crate) async fn operate(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            for (slot, node) in self.live() {
                let status = node.status();
                let words = format!("this build knows levels up to {OLD}");
                if status.phase != Phase::Joining || !status.message.contains(&words) {
                    continue;
                }
                tokio::time::sleep(self.rng.millis(PATIENCE_MS.0, PATIENCE_MS.1)).await;
                self.trace.count("old builds that were not admitted");
                self.hosts[slot].lock().set_build(NEW);
                self.restart(slot, Death::Process, "to join with the newer build");
            }
        }
    }
}
