//! Inflicts faults on a run, as its seed decides.
//!
//! It may do anything at any time except what memkv does not promise to survive: it never takes
//! the directories of more than a minority, and never before the cluster has its first entry.
//! Invariant: every fault is counted and traced when it is inflicted.

use std::sync::Arc;
use std::time::Duration;

use memkv_raft::{Lane, Phase};
use tokio::time::Instant;

use crate::cluster::{Cluster, Loss, WALL_CLOCK_START_MS, name};
use crate::dice::Dice;
use crate::disk;
use crate::host::Death;
use crate::net::{Cuts, Shape};
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
/// Most free space on a full disk, in bytes.
const FULL_DISK_BYTES: u64 = 256 * 1024;
/// How long the old copy of a disk may take to be outgrown, and to be found.
const OLD_DISK_PATIENCE: Duration = Duration::from_secs(5);
/// Longest time of one read.
const SLOWEST_READ: Duration = Duration::from_secs(1);
/// Most disk operations before a death inside them.
const DISK_OPERATIONS: u64 = 40;

/// The task that inflicts faults.
pub(crate) struct Nemesis {
    cluster: Arc<Cluster>,
    dice: Dice,
    /// Some node has served.
    formed: bool,
}

impl Nemesis {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Self {
        let dice = Dice::new(cluster.seed(), "nemesis");
        Self {
            cluster,
            dice,
            formed: false,
        }
    }

    /// Inflicts faults until it is dropped.
    pub(crate) async fn run(mut self) {
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
            tokio::time::sleep(self.dice.wait(every)).await;
            if !formed && self.cluster.nodes() > 1 && self.dice.coin() {
                self.ambush(*self.dice.pick(&EARLY_AMBUSHES), EARLY_AMBUSH_MS);
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
            .dice
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
        let slot = self.dice.index(self.cluster.nodes());
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
            Fault::SlowReads => self.slow_reads(slot),
        }
    }

    fn note(&self, what: &str) {
        self.cluster.trace.line(format_args!("nemesis: {what}"));
    }

    fn death(&self) -> Death {
        if self.dice.coin() {
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
        let together = self.dice.coin();
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

    /// From some operation on, the disk does nothing any more; the process finds out and dies.
    fn break_disk(&self, slot: usize, kind: &'static str) {
        let operations = self.dice.between(1, DISK_OPERATIONS);
        self.note(&format!(
            "{}'s disk fails after {operations} operations",
            name(slot)
        ));
        self.cluster.trace.count(kind);
        let mut host = self.cluster.hosts[slot].lock();
        host.excused = true;
        disk::fail_soon(&host.disk, operations, kind == "disk errors", &self.dice);
    }

    fn stop(&self, slot: usize) {
        self.cluster.trace.count("orderly stops");
        let cluster = self.cluster.clone();
        tokio::spawn(async move { cluster.stop(slot).await });
    }

    /// An ambush at some kind of request, and what makes nodes send such requests.
    fn provoke(&self, slot: usize) {
        let ambush = *self.dice.pick(&AMBUSHES);
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
        let (at_receiver, mut skip) = (self.dice.coin(), self.dice.below(3));
        let until = Instant::now() + self.dice.millis(lasts_ms.0, lasts_ms.1);
        self.note(&format!(
            "ambush at {kind}, receiver: {at_receiver}, after {skip}"
        ));
        let cluster = Arc::downgrade(&self.cluster);
        let (death, delay) = (self.death(), self.dice.millis(0, 3));
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

    fn partition(&mut self, victim: usize) {
        self.cluster.trace.count("partitions");
        let leader = self.cluster.leader().filter(|_| self.dice.below(4) == 0);
        if let Some(leader) = leader {
            self.depose_unheard(leader);
        } else {
            let shape = *self.dice.pick(&Shape::ALL);
            let cuts = shape.draw(self.cluster.nodes(), victim, &self.dice);
            self.note(&format!("{} around {}", shape.name(), name(victim)));
            self.cluster.trace.count(shape.name());
            self.cluster.net.cut(cuts);
        }
        self.heal_later(self.dice.millis(100, 8_000));
    }

    /// The leader is alone but for its reads: it is deposed, does not hear of it, and asks its voters.
    fn depose_unheard(&self, leader: usize) {
        self.note(&format!("isolation of {} but for its reads", name(leader)));
        self.cluster.trace.count("partitions that spare reads");
        let alone = Shape::Isolated.draw(self.cluster.nodes(), leader, &self.dice);
        self.cluster.net.cut(alone.sparing(Lane::Read));
    }

    fn heal_later(&mut self, after: Duration) {
        let until = Instant::now() + after;
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            cluster.trace.line(format_args!("nemesis: links heal"));
            cluster.net.heal();
        });
    }

    async fn flap(&mut self) {
        self.cluster.trace.count("flapping links");
        self.note("links flap");
        let nodes = self.cluster.nodes();
        for _ in 0..self.dice.between(3, 20) {
            let mut cuts = Cuts::none(nodes);
            let (from, to) = (self.dice.index(nodes), self.dice.index(nodes));
            cuts.set(from, to, true);
            cuts.set(to, from, self.dice.coin());
            self.cluster.net.cut(cuts);
            tokio::time::sleep(self.dice.millis(20, 700)).await;
            self.cluster.net.heal();
            tokio::time::sleep(self.dice.millis(20, 700)).await;
        }
    }

    fn storm(&self) {
        self.cluster.trace.count("storms");
        self.note("storm");
        let fair = self.cluster.swarm.weather.clone();
        self.cluster.net.set_weather(fair.stormy(&self.dice));
        let (cluster, lasts) = (self.cluster.clone(), self.dice.millis(500, 5_000));
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            cluster.net.set_weather(fair);
        });
    }

    fn slow_disk(&self, slot: usize) {
        let lasts = self.dice.millis(200, 6_000);
        let stall = self.dice.coin();
        self.cluster
            .trace
            .count(if stall { "disk stalls" } else { "slow disks" });
        self.note(&format!(
            "{}'s disk is slow for {lasts:?}, stall: {stall}",
            name(slot)
        ));
        let until = Instant::now() + lasts;
        {
            let mut host = self.cluster.hosts[slot].lock();
            if stall {
                host.disk_stalled_until = Some(until);
            } else {
                host.disk_slowness = self.dice.between(5, 50);
            }
        }
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            let mut host = cluster.hosts[slot].lock();
            host.disk_slowness = 1;
            host.disk_stalled_until = None;
        });
    }

    /// What is not in memory takes up to a second to come. A restart before that makes sure that little
    /// of the log is.
    fn slow_reads(&self, slot: usize) {
        self.cluster.trace.count("spells of slow reads");
        let lasts = self.dice.millis(1_000, 8_000);
        self.note(&format!(
            "{}'s disk is slow to read for {lasts:?}",
            name(slot)
        ));
        if self.dice.coin() {
            self.crash(slot, "to read its log anew");
        }
        let disk = self.cluster.hosts[slot].lock().disk.clone();
        disk.slow_reads(SLOWEST_READ);
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            disk.slow_reads(Duration::ZERO);
        });
    }

    /// Whether one more directory may be taken, and this one's node is a member that has data.
    fn may_lose(&self, slot: usize) -> bool {
        let losses = |slot: usize| self.cluster.hosts[slot].lock().loss.is_some();
        let lost = (0..self.cluster.nodes())
            .filter(|slot| losses(*slot))
            .count();
        !losses(slot)
            && lost < self.cluster.minority()
            && self
                .cluster
                .live()
                .iter()
                .any(|(_, node)| node.status().phase == Phase::Serving)
            && self.cluster.invariants.node_id(slot) != 0
    }

    fn wipe(&self, slot: usize) {
        if self.may_lose(slot) {
            self.cluster.trace.count("wipes");
            self.cluster.wipe(slot);
        }
    }

    fn corrupt(&self, slot: usize) {
        if !self.may_lose(slot) {
            return;
        }
        self.cluster.kill(slot, Death::Process, "to be corrupted");
        // The clock's file may be hit, or set aside with the directory.
        let now = self.cluster.trace.micros();
        self.cluster.invariants.note_clock(slot, true, now);
        {
            let mut host = self.cluster.hosts[slot].lock();
            if let Some(what) = disk::flip(&host.disk, &self.dice) {
                self.note(&format!("a bit of {} flips in {what}", name(slot)));
                self.cluster.trace.count("flipped bits");
                let node_id = self.cluster.invariants.node_id(slot);
                host.loss = Some(Loss {
                    node_id,
                    gone: false,
                });
            }
        }
        self.cluster.start_after(slot, self.dice.millis(10, 2_000));
    }

    fn clock(&self, slot: usize) {
        self.cluster.trace.count("clock jumps");
        let hour = 3_600_000;
        let jump = self.dice.below(2 * hour).cast_signed() - hour.cast_signed();
        self.note(&format!("{}'s clock is off by {jump} ms", name(slot)));
        debug_assert!(hour < WALL_CLOCK_START_MS);
        self.cluster.hosts[slot].lock().skew_ms = jump;
    }

    /// Puts a disk back to what it was, once a node that goes on remembers better; all are reachable
    /// then. Where that does not come about, nothing is promised and nothing is done.
    async fn old_disk(&self, slot: usize) {
        self.try_old_disk(slot).await;
        let weather = self.cluster.swarm.weather.clone();
        self.cluster.net.set_weather(weather);
    }

    async fn try_old_disk(&self, slot: usize) {
        let Some(now) = self.cluster.node(slot).and_then(|node| node.inspect()) else {
            return;
        };
        let image = self.cluster.hosts[slot].lock().disk.image();
        // The copy holds this or less.
        let held = (now.term, now.log.last().map_or(0, |id| id.index));
        self.quiet();
        let deadline = Instant::now() + OLD_DISK_PATIENCE;
        while !self.is_outgrown(slot, now.node_id, held) {
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !self.may_lose(slot) {
            return;
        }
        self.cluster.trace.count("disks put back");
        self.note(&format!("{}'s disk goes back in time", name(slot)));
        self.cluster.put_back(slot, image);
        let deadline = Instant::now() + OLD_DISK_PATIENCE;
        while self.cluster.hosts[slot].lock().is_old {
            if Instant::now() >= deadline {
                let seen = format!("{} goes on with an old disk", name(slot));
                let promise = "a disk that went back in time is set aside";
                return self.cluster.violated(promise, seen);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends what may come between nodes.
    fn quiet(&self) {
        self.cluster.net.ignore_all();
        self.cluster.net.heal();
        let calm = self.cluster.swarm.weather.calm();
        self.cluster.net.set_weather(calm);
    }

    /// Whether all other nodes go on, and one remembers more of this one than was `held`.
    fn is_outgrown(&self, slot: usize, node_id: u64, held: (u64, u64)) -> bool {
        let others = || (0..self.cluster.nodes()).filter(|other| *other != slot);
        let goes_on = |other: usize| {
            let host = self.cluster.hosts[other].lock();
            host.life.is_some() && host.disk.is_powered() && !host.excused && !host.stops
        };
        let remembers = |other: usize| {
            let mark = self.cluster.node(other)?.remembers(node_id)?;
            Some(mark > held)
        };
        others().all(goes_on)
            && others().any(|other| remembers(other) == Some(true))
            && self.cluster.invariants.node_id(slot) == node_id
    }

    /// One disk, or all of them, have hardly any space for a while.
    fn full_disks(&self, slot: usize) {
        self.cluster.trace.count("full disks");
        let slots = if self.dice.coin() {
            slot..slot + 1
        } else {
            0..self.cluster.nodes()
        };
        let lasts = self.dice.millis(1_000, 8_000);
        self.note(&format!("disks {slots:?} are full for {lasts:?}"));
        for slot in slots.clone() {
            let free = self.dice.below(FULL_DISK_BYTES);
            disk::fill(&self.cluster.hosts[slot].lock().disk, free);
        }
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            for slot in slots {
                disk::empty(&cluster.hosts[slot].lock().disk);
            }
        });
    }

    /// Ends everything that does not end by itself: links, weather, disks, clocks.
    pub(crate) fn relent(cluster: &Arc<Cluster>) {
        cluster.trace.line(format_args!("nemesis: relents"));
        cluster.net.ignore_all();
        cluster.net.heal();
        cluster.net.calm_down(&cluster.swarm.weather);
        for slot in 0..cluster.nodes() {
            let stopped = {
                let mut host = cluster.hosts[slot].lock();
                host.disk_slowness = 1;
                host.disk_stalled_until = None;
                disk::mend(&host.disk);
                !host.disk.is_powered()
            };
            if stopped {
                cluster.restart(slot, Death::Power, "its disk has stopped");
            } else {
                cluster.start(slot);
            }
        }
    }
}
