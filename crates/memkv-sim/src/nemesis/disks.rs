//! The nemesis's faults of disks and directories.
//!
//! Never takes the directories of more than a minority, nor touches bytes for which nothing is promised.

use std::time::Duration;

use memkv_node::Phase;
use tokio::time::Instant;

use super::{Nemesis, growth};
use crate::cluster::{Loss, name};
use crate::disk;
use crate::host::Death;
use crate::levels::OLD;
use crate::net::Topology;
use crate::promise::Promise;

/// Most free space on a full disk, in bytes.
const FULL_DISK_BYTES: u64 = 256 * 1024;
/// Space on a disk that is used up when its node begins: enough for votes and segments, and not for
/// entries.
const USED_UP_BYTES: (u64, u64) = (1 << 20, 4 << 20);
/// How long disks have no space.
const FULL_DISK_MS: (u64, u64) = (1_000, 8_000);
/// How long the old copy of a disk may take to be outgrown, and to be found.
const OLD_DISK_PATIENCE: Duration = Duration::from_secs(5);
/// How many times longer an operation takes on a slow disk, at most.
const SLOWEST: u32 = 50;
/// Longest time of one read.
pub(crate) const SLOWEST_READ: Duration = Duration::from_secs(1);
/// Steps in which metadata is saved: each copy is written and synced.
const METADATA_STEPS: u64 = 4;
/// How long a node may take to write something, and how often to look for that: less than most disks
/// take for one write.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);
const WRITE_LOOK: Duration = Duration::from_micros(200);
/// Most disk operations before a death inside them.
const DISK_OPERATIONS: u64 = 40;

impl Nemesis {
    /// From some operation on, the disk does nothing any more; the process finds out and dies.
    pub(super) fn break_disk(&self, slot: usize, kind: &'static str) {
        let operations = self.rng.between(1, DISK_OPERATIONS);
        self.note(&format!(
            "{}'s disk fails after {operations} operations",
            name(slot)
        ));
        self.cluster.trace.count(kind);
        let mut host = self.cluster.hosts[slot].lock();
        host.excused = true;
        disk::fail_soon(&host.disk, operations, kind == "disk errors", &self.rng);
    }

    pub(super) fn slow_disk(&self, slot: usize) {
        let lasts = self.rng.millis(200, 6_000);
        let stall = self.rng.coin();
        self.cluster
            .trace
            .count(if stall { "disk stalls" } else { "slow disks" });
        self.note(&format!(
            "{}'s disk is slow for {lasts:?}, stall: {stall}",
            name(slot)
        ));
        let until = Instant::now() + lasts;
        let mut host = self.cluster.hosts[slot].lock();
        if stall {
            host.disk_stalled_until = until;
        } else {
            let slowness = *self.rng.pick(&[5, 10, 20, SLOWEST]);
            host.disk_slow = (slowness, until);
        }
    }

    /// Reads of entries that are not in memory take up to a second. A restart before that makes sure that
    /// few entries are in memory.
    pub(super) fn slow_reads(&self, slot: usize, anew: bool) {
        self.cluster.trace.count("spells of slow reads");
        let lasts = self.rng.millis(1_000, 8_000);
        self.note(&format!(
            "{}'s disk is slow to read for {lasts:?}",
            name(slot)
        ));
        if anew {
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
    pub(super) fn may_lose(&self, slot: usize) -> bool {
        let losses = |slot: usize| self.cluster.hosts[slot].lock().loss.is_some();
        let lost = (0..self.cluster.nodes())
            .filter(|slot| losses(*slot))
            .count();
        !losses(slot)
            && lost < self.cluster.minority()
            && growth::may_lose(&self.cluster, lost)
            && self
                .cluster
                .live()
                .iter()
                .any(|(_, node)| node.status().phase == Phase::Serving)
            && self.cluster.invariants.node_id(slot) != 0
    }

    pub(super) fn wipe(&self, slot: usize) {
        if self.may_lose(slot) {
            self.cluster.trace.count("wipes");
            self.cluster.wipe(slot);
        }
    }

    pub(super) fn corrupt(&self, slot: usize) {
        if !self.may_lose(slot) {
            return;
        }
        self.cluster.kill(slot, Death::Process, "to be corrupted");
        // The clock's file may be hit, or set aside with the directory.
        let now = self.cluster.trace.micros();
        self.cluster.invariants.note_clock(slot, true, now);
        {
            let mut host = self.cluster.hosts[slot].lock();
            if let Some(what) = disk::flip(&host.disk, &self.rng) {
                self.note(&format!("a bit of {} flips in {what}", name(slot)));
                self.cluster.trace.count("flipped bits");
                let node_id = self.cluster.invariants.node_id(slot);
                host.loss = Some(Loss {
                    node_id,
                    gone: false,
                });
            }
        }
        self.cluster.start_after(slot, self.rng.millis(10, 2_000));
    }

    /// Flips a bit of the last record on which a later write says that it was durable before it, as soon
    /// as there is such a write: what else is behind the record says nothing of it.
    pub(super) async fn corrupt_end(&self, slot: usize) {
        if !self.may_lose(slot) {
            return;
        }
        let durable = || self.cluster.node(slot).and_then(|node| node.durable());
        let Some(before) = durable() else { return };
        let deadline = Instant::now() + WRITE_PATIENCE;
        while durable().is_some_and(|now| now.index == before.index) {
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(WRITE_LOOK).await;
        }
        if durable().is_none_or(|now| now.index < before.index) || !self.may_lose(slot) {
            return;
        }
        self.cluster
            .kill(slot, Death::Process, "to be corrupted at its end");
        {
            let mut host = self.cluster.hosts[slot].lock();
            if disk::flip_record(&host.disk, before.index, &self.rng) {
                self.note(&format!("a bit of {}'s {before:?} flips", name(slot)));
                self.cluster.trace.count("flipped bits close to the end");
                let node_id = self.cluster.invariants.node_id(slot);
                host.loss = Some(Loss {
                    node_id,
                    gone: false,
                });
            }
        }
        self.cluster.start_after(slot, self.rng.millis(10, 2_000));
    }

    /// Puts a disk back to what it was, once a node that goes on remembers better; all are reachable
    /// then. Otherwise nothing is promised and nothing is done.
    pub(super) async fn old_disk(&self, slot: usize) {
        self.try_old_disk(slot).await;
        let weather = self.cluster.swarm.weather.clone();
        self.cluster.net.set_weather(weather);
    }

    async fn try_old_disk(&self, slot: usize) {
        let Some(now) = self.cluster.node(slot).and_then(|node| node.inspect()) else {
            return;
        };
        if self.cluster.hosts[slot].lock().build == OLD {
            // It may have to be replaced by the newer build first.
            return;
        }
        let image = self.cluster.hosts[slot].lock().disk.image();
        // The copy is on another disk, which is neither slow to read nor full.
        disk::mend(&image);
        let Some(held) = disk::held(&image) else {
            return;
        };
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
                let promise = Promise::OldDiskIsFound;
                return self.cluster.violated(promise, seen);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Removes all obstacles between nodes.
    pub(super) fn quiet(&self) {
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
            host.life.is_some() && host.disk.is_powered() && !host.excused && host.stops.is_none()
        };
        let remembers = |other: usize| {
            let mark = self.cluster.node(other)?.remembers(node_id)?;
            Some(mark > held)
        };
        others().all(goes_on)
            && others().any(|other| remembers(other) == Some(true))
            && self.cluster.invariants.node_id(slot) == node_id
    }

    /// A disk is used up for a while: that of a node that begins without a reserve, or the leader's, of
    /// which the next writes take the last.
    fn used_up(&self, slot: usize) {
        let lasts = self.rng.millis(FULL_DISK_MS.0, FULL_DISK_MS.1);
        let leader = self.cluster.leader().filter(|_| self.rng.coin());
        let slot = leader.unwrap_or(slot);
        self.note(&format!("{}'s disk is used up for {lasts:?}", name(slot)));
        if leader.is_some() {
            self.cluster.trace.count("disks of leaders used up");
            disk::fill(&self.cluster.hosts[slot].lock().disk, 0);
        } else {
            self.crash(slot, "to begin without a reserve");
            let left = self.rng.between(USED_UP_BYTES.0, USED_UP_BYTES.1);
            if disk::use_up(&self.cluster.hosts[slot].lock().disk, left) {
                self.cluster.trace.count("disks used up");
            }
        }
        let cluster = self.cluster.clone();
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            disk::empty(&cluster.hosts[slot].lock().disk);
        });
    }

    /// One disk, or all of them, have hardly any space for a while.
    pub(super) fn full_disks(&self, slot: usize) {
        self.cluster.trace.count("full disks");
        if self.rng.below(3) == 0 {
            return self.used_up(slot);
        }
        let slots = if self.rng.coin() {
            slot..slot + 1
        } else {
            0..self.cluster.nodes()
        };
        let lasts = self.rng.millis(FULL_DISK_MS.0, FULL_DISK_MS.1);
        self.note(&format!("disks {slots:?} are full for {lasts:?}"));
        for slot in slots.clone() {
            let free = self.rng.below(FULL_DISK_BYTES);
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

    /// The next vote or identity that a node saves is the last thing that it does: both copies of its
    /// metadata may be torn then, if anything is wrong.
    pub(super) fn crash_in_metadata(&self, slot: usize) {
        self.note("power goes while metadata is saved");
        for slot in 0..self.cluster.nodes() {
            if self.rng.coin() {
                continue;
            }
            let mut host = self.cluster.hosts[slot].lock();
            host.excused = true;
            let counted = (
                self.cluster.trace.clone(),
                "power losses inside the metadata",
            );
            let skip = self.rng.below(METADATA_STEPS);
            disk::crash_when(&host.disk, skip, counted, disk::saves_metadata);
        }
        // Then there are votes to save.
        self.crash(self.cluster.leader().unwrap_or(slot), "so that others vote");
    }

    /// The leader is left alone with what it has proposed, so that its end of the log gives way to the
    /// others'. Whichever node then puts a segment in another one's place dies between the two steps
    /// of that.
    pub(super) async fn crash_in_truncation(&self) {
        let Some(leader) = self.cluster.leader() else {
            return;
        };
        self.note(&format!("{} will lose its end", name(leader)));
        for host in &self.cluster.hosts {
            let mut host = host.lock();
            host.excused = true;
            let counted = (
                self.cluster.trace.clone(),
                "power losses between two segments",
            );
            disk::crash_when(&host.disk, 0, counted, disk::frees_twin);
        }
        let alone = Topology::Isolated.draw(self.cluster.nodes(), leader, &self.rng);
        self.cluster.net.cut(alone);
        tokio::time::sleep(self.rng.millis(1_000, 2_500)).await;
        self.cluster.net.heal();
    }
}
