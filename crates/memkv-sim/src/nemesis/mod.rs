//! Inflicts faults on a run, as its seed decides.
//!
//! It may inflict any fault at any time that memkv promises to survive. It never takes the directories of
//! more than a minority; only `forming` takes directories of a cluster that is being formed.
//! Invariant: every fault is counted and traced when it is inflicted.

mod builds;
pub(crate) mod disks;
pub(crate) mod false_start;
mod forming;
pub(crate) mod growth;
mod links;
mod members;
mod moves;
pub(crate) mod stores;

use std::sync::Arc;
use std::time::Duration;

use memkv_node::Phase;
use tokio::time::Instant;

use crate::cluster::{Cluster, WALL_CLOCK_START_MS, name};
use crate::host::Death;
use crate::rng::Rng;
use crate::swarm::Fault;

/// How long an ambush lasts, in milliseconds: a replacement takes some seconds to come to its
/// later requests.
const AMBUSH_MS: (u64, u64) = (2_000, 15_000);
/// The same during formation, which must have a chance to end.
const EARLY_AMBUSH_MS: (u64, u64) = (100, 1_000);
/// A kind of request at which processes die, and the counter of that.
type Ambush = (&'static str, &'static str);
/// The steps of formation, replacement, snapshots and hand-over.
const AMBUSHES: [Ambush; 10] = [
    ("Hello", "crashes at Hello"),
    ("Join", "crashes at Join"),
    ("SnapshotChunk", "crashes at SnapshotChunk"),
    ("SnapshotChunk", "crashes at SnapshotChunk"),
    ("SnapshotInstall", "crashes at SnapshotInstall"),
    ("SnapshotInstall", "crashes at SnapshotInstall"),
    ("TransferLeader", "crashes at TransferLeader"),
    ("Vote", "crashes at Vote"),
    ("Append", "crashes at Append"),
    ("OpenSession", "crashes at OpenSession"),
];
/// Requests of a cluster that is being formed.
const EARLY_AMBUSHES: [Ambush; 5] = [
    ("Hello", "crashes at Hello"),
    ("Prepare", "crashes at Prepare"),
    ("Prepare", "crashes at Prepare"),
    ("Vote", "crashes at Vote"),
    ("Append", "crashes at Append"),
];
/// Time between faults during formation, which takes a second or two when nodes start one by one.
const EARLY_FAULTS_EVERY: Duration = Duration::from_millis(300);

/// The task that inflicts faults.
pub(crate) struct Nemesis {
    cluster: Arc<Cluster>,
    rng: Rng,
    /// Some node has served.
    formed: bool,
}

impl Nemesis {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        let rng = Rng::new(cluster.seed(), "nemesis");
        Self {
            cluster,
            rng,
            formed: false,
        }
    }

    /// Inflicts faults until it is dropped.
    pub(crate) async fn run(mut self) {
        if self.cluster.swarm.wrong_lists {
            self.disturb_formation().await;
        }
        if !self.cluster.swarm.early_faults {
            while !self.is_formed() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        loop {
            self.formed |= self.is_formed();
            let formed = self.formed;
            let every = self.cluster.swarm.fault_every;
            let every = if formed {
                every
            } else {
                every.min(EARLY_FAULTS_EVERY)
            };
            tokio::time::sleep(self.rng.wait(every)).await;
            if !formed && self.cluster.nodes() > 1 && self.rng.coin() {
                self.ambush(*self.rng.pick(&EARLY_AMBUSHES), EARLY_AMBUSH_MS);
            } else if let Some(fault) = self.draw() {
                self.inflict(fault).await;
            }
        }
    }

    fn is_formed(&self) -> bool {
        self.cluster
            .live()
            .iter()
            .any(|(_, node)| node.status().phase == Phase::Serving)
    }

    fn draw(&self) -> Option<Fault> {
        let faults = &self.cluster.swarm.faults;
        let mut point = self
            .rng
            .below(faults.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in faults {
            if point < *weight {
                return Some(*fault);
            }
            point -= weight;
        }
        None
    }

    async fn inflict(&mut self, fault: Fault) {
        let slot = self.rng.index(self.cluster.nodes());
        match fault {
            Fault::Crash => self.crash(slot, "crash"),
            Fault::CrashLeader => {
                if let Some(leader) = self.cluster.leader() {
                    self.cluster.trace.count("leader crashes");
                    self.crash(leader, "crash of the leader");
                }
            }
            Fault::PowerLoss => self.power_loss(),
            Fault::CrashInWrite => self.break_disk(slot, "crashes inside disk operations"),
            Fault::DiskError => self.break_disk(slot, "disk errors"),
            Fault::CrashOnRequest => self.provoke(slot),
            Fault::Stop => self.stop(slot),
            Fault::Partition => self.partition(slot),
            Fault::Flap => self.flap().await,
            Fault::Storm => self.storm(),
            Fault::SlowDisk => self.slow_disk(slot),
            Fault::Wipe => self.wipe(slot),
            Fault::Corrupt => self.corrupt(slot),
            Fault::Clock => self.clock(slot),
            Fault::FullDisk => self.full_disks(slot),
            Fault::OldDisk => self.old_disk(slot).await,
            Fault::SlowReads => self.slow_reads(slot, self.rng.coin()),
            Fault::SlowLeader => {
                if let Some(leader) = self.cluster.leader() {
                    self.cluster.trace.count("leaders slow to apply");
                    self.slow_reads(leader, false);
                }
            }
            Fault::CrashInMetadata => self.crash_in_metadata(slot),
            Fault::CrashInTruncation => self.crash_in_truncation().await,
            Fault::LoseTwo => self.lose_two().await,
            Fault::ChangeAlone => self.change_alone(slot).await,
            Fault::ChangeUnsettled => self.change_unsettled(slot).await,
            Fault::CutEntries => self.cut_entries(slot).await,
            Fault::CorruptEnd => self.corrupt_end(slot).await,
            Fault::ChangeMembers => self.change_members(slot).await,
            Fault::FalseStart => self.false_start(slot).await,
            // Builds change in clusters that serve.
            Fault::Upgrade if self.formed => self.upgrade(slot),
            Fault::Downgrade if self.formed => self.downgrade(slot),
            Fault::Upgrade | Fault::Downgrade => {}
            // A list of nodes that is wrong besides would keep them apart for good.
            Fault::Move if self.formed && !self.cluster.swarm.wrong_lists => self.relocate(slot),
            Fault::Move => {}
            Fault::Deviate => self.deviate(slot).await,
            Fault::FalseReport => self.lie(slot),
        }
    }

    fn note(&self, what: &str) {
        self.cluster.trace.line(format_args!("nemesis: {what}"));
    }

    fn death(&self) -> Death {
        if self.rng.coin() {
            Death::Power
        } else {
            Death::Process
        }
    }

    fn crash(&self, slot: usize, why: &str) {
        self.cluster.trace.count("crashes");
        self.cluster.restart(slot, self.death(), why);
    }

    fn power_loss(&self) {
        self.cluster.trace.count("power losses of all");
        let together = self.rng.coin();
        for slot in 0..self.cluster.nodes() {
            if together {
                self.cluster.kill(slot, Death::Power, "power loss of all");
                self.cluster.start_after(slot, Duration::from_millis(500));
            } else {
                self.cluster
                    .restart(slot, Death::Power, "power loss of all");
            }
        }
    }

    fn stop(&self, slot: usize) {
        self.cluster.trace.count("orderly stops");
        let cluster = self.cluster.clone();
        tokio::spawn(async move { cluster.stop(slot).await });
    }

    /// An ambush at some kind of request, and a fault that makes nodes send such requests.
    fn provoke(&self, slot: usize) {
        let ambush = *self.rng.pick(&AMBUSHES);
        self.ambush(ambush, AMBUSH_MS);
        match ambush.0 {
            "Hello" => self.crash(slot, "to come back with a Hello"),
            "Join" | "SnapshotChunk" | "SnapshotInstall" => self.wipe(slot),
            "TransferLeader" => {
                if let Some(leader) = self.cluster.leader() {
                    self.stop(leader);
                }
            }
            _ => {}
        }
    }

    /// The next request of this kind, or one soon after, kills its receiver, or its sender.
    fn ambush(&self, (kind, counter): Ambush, lasts_ms: (u64, u64)) {
        let (at_receiver, mut skip) = (self.rng.coin(), self.rng.below(3));
        let until = Instant::now() + self.rng.millis(lasts_ms.0, lasts_ms.1);
        self.note(&format!(
            "ambush at {kind}, receiver: {at_receiver}, after {skip}"
        ));
        let cluster = Arc::downgrade(&self.cluster);
        let (death, delay) = (self.death(), self.rng.millis(0, 3));
        self.cluster.net.observe(Box::new(move |from, to, seen| {
            if seen != kind || skip > 0 {
                skip -= u64::from(seen == kind);
                return Instant::now() <= until;
            }
            if let Some(cluster) = cluster.upgrade() {
                cluster.trace.count(counter);
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    cluster.restart(if at_receiver { to } else { from }, death, kind);
                });
            }
            false
        }));
    }

    fn clock(&self, slot: usize) {
        self.cluster.trace.count("clock jumps");
        let hour = 3_600_000;
        let jump = self.rng.below(2 * hour).cast_signed() - hour.cast_signed();
        self.note(&format!("{}'s clock is off by {jump} ms", name(slot)));
        debug_assert!(hour < WALL_CLOCK_START_MS);
        self.cluster.hosts[slot].lock().skew_ms = jump;
    }

    /// Ends everything that does not end by itself: links, weather, disks, clocks.
    pub(crate) fn relent(cluster: &Arc<Cluster>) {
        cluster.trace.line(format_args!("nemesis: relents"));
        cluster.net.ignore_all();
        cluster.net.heal();
        cluster.net.calm_down(&cluster.swarm.weather);
        cluster.correct_lists();
    }
}
