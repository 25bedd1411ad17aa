//! What kind of run a seed is: size, settings, workload and which faults happen how often.
//!
//! Each seed switches most things off and a few on (swarm testing: Groce et al., ISSTA 2012), so
//! that faults which hide each other also occur alone. Never looks at anything but the seed.

use std::time::Duration;

use crate::net::Weather;
use crate::rng::Rng;

/// A kind of fault that the nemesis inflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// One process dies; what it had not synced is lost with probability one half.
    Crash,
    /// A node comes back with a build that knows a higher feature level.
    Upgrade,
    /// A node comes back with the build from before.
    Downgrade,
    /// The leader's process dies.
    CrashLeader,
    /// All hosts lose power at once.
    PowerLoss,
    /// A process dies somewhere inside a sequence of disk operations.
    CrashInWrite,
    /// A process dies when it receives a certain kind of request.
    CrashOnRequest,
    /// An orderly stop, with a hand-over of leadership.
    Stop,
    /// Some links are cut, in one of the shapes.
    Partition,
    /// Links flap.
    Flap,
    /// The network gets much worse for a while.
    Storm,
    /// A disk is slow, or stalls.
    SlowDisk,
    /// A write or an fsync fails.
    DiskError,
    /// A directory is emptied while its process is down.
    Wipe,
    /// A bit of a directory flips while its process is down.
    Corrupt,
    /// A wall clock jumps.
    Clock,
    /// A disk has hardly any space left, for a while.
    FullDisk,
    /// A disk is put back to an older copy of itself.
    OldDisk,
    /// Reads from a disk take up to a second each, for a while.
    SlowReads,
    /// A member starts on an empty directory, and then on its real one.
    FalseStart,
    /// One store computes one effect otherwise than the others.
    Deviate,
    /// A node tells its peers of another store than it has, for a while.
    FalseReport,
    /// The leader is slow to read entries that it must apply and that its followers have applied.
    SlowLeader,
    /// A process dies while it saves a vote or an identity.
    CrashInMetadata,
    /// A deposed leader dies while it frees segments that the others' log has replaced.
    CrashInTruncation,
    /// Two directories are emptied, and their nodes ask for new seats at the same moment.
    LoseTwo,
    /// A member is replaced while no majority reaches the leader.
    ChangeAlone,
    /// The leader is cut off, but for reads, while a change of membership is in its log.
    ChangeUnsettled,
    /// A follower gets no entries for a while, and still gets heartbeats.
    CutEntries,
    /// A bit flips close to the end of a log.
    CorruptEnd,
    /// An operator changes members or roles, or has another node lead.
    ChangeMembers,
    /// A host goes down and comes back at another address, or all of them do.
    Move,
}

impl Fault {
    /// All faults, with their weight against each other.
    const ALL: [(Fault, u64); 22] = [
        (Fault::Crash, 4),
        (Fault::Upgrade, 3),
        (Fault::Downgrade, 1),
        (Fault::CrashLeader, 3),
        (Fault::PowerLoss, 1),
        (Fault::CrashInWrite, 3),
        (Fault::CrashOnRequest, 3),
        (Fault::Stop, 1),
        (Fault::Partition, 6),
        (Fault::Flap, 2),
        (Fault::Storm, 2),
        (Fault::SlowDisk, 2),
        (Fault::DiskError, 1),
        (Fault::Wipe, 2),
        (Fault::Corrupt, 1),
        (Fault::Clock, 1),
        (Fault::FullDisk, 1),
        (Fault::OldDisk, 1),
        (Fault::SlowReads, 1),
        (Fault::FalseStart, 1),
        (Fault::Deviate, 1),
        (Fault::FalseReport, 1),
    ];

    /// Faults that aim at one moment, with their weight. They are drawn from a stream of their own, so
    /// that the rest of a seed's meaning does not depend on them.
    const AIMED: [(Fault, u64); 8] = [
        (Fault::SlowLeader, 3),
        (Fault::CrashInMetadata, 3),
        (Fault::CrashInTruncation, 3),
        (Fault::LoseTwo, 3),
        (Fault::ChangeAlone, 2),
        (Fault::ChangeUnsettled, 2),
        (Fault::CutEntries, 5),
        (Fault::CorruptEnd, 2),
    ];

    /// Nodes that it takes.
    fn least_nodes(self) -> usize {
        match self {
            Fault::Partition
            | Fault::Flap
            | Fault::Storm
            | Fault::CrashOnRequest
            | Fault::OldDisk
            | Fault::FalseStart
            | Fault::Deviate
            | Fault::FalseReport
            | Fault::SlowLeader => 2,
            Fault::CrashInTruncation
            | Fault::ChangeAlone
            | Fault::ChangeUnsettled
            | Fault::CutEntries
            | Fault::CorruptEnd => 3,
            // Two are a minority.
            Fault::LoseTwo => 5,
            _ => 1,
        }
    }
}

/// Everything that a seed decides before the run begins.
#[derive(Debug, Clone)]
pub struct Swarm {
    /// Nodes, 1 to 5.
    pub nodes: usize,
    /// Faults of this run with their weights; may be empty.
    pub faults: Vec<(Fault, u64)>,
    /// Mean time between two faults.
    pub fault_every: Duration,
    /// So many nodes found the cluster, and the others join it. Members and roles then change.
    pub founders: Option<usize>,
    /// Faults begin before the cluster is formed.
    pub early_faults: bool,
    /// Lists of nodes are wrong at first, and corrected between starts.
    pub wrong_lists: bool,
    /// They are so to the end, when all are corrected at once.
    pub lists_stay_wrong: bool,
    /// The network when nothing special happens.
    pub weather: Weather,
    /// A disk operation's usual time, in microseconds.
    pub disk_us: u64,
    /// Client tasks.
    pub clients: usize,
    /// Whether clients write more than one group of commands holds, while there is no leader.
    pub floods: bool,
    /// Keys that they use.
    pub keys: usize,
    /// Mean pause of a client between two operations.
    pub think: Duration,
    /// Operations out of 100 that read, of the plain ones.
    pub reads_percent: u64,
    /// Operations out of 100 that use more of the Redis interface than SET, DEL, GET and EXISTS.
    pub redis_percent: u64,
    /// Whether clients set memory caps.
    pub caps: bool,
    /// Whether clients act as users who lose rights.
    pub users: bool,
    /// Largest value, in bytes.
    pub value_bytes: u64,
    /// See `NodeConfig`.
    pub max_log_size: u64,
    /// See `NodeConfig`.
    pub log_cache_bytes: u64,
    /// See `NodeConfig`.
    pub max_log_count: usize,
    /// See `NodeConfig`.
    pub snapshot_growth_percent: u32,
    /// See `NodeConfig`.
    pub replace_after: Duration,
    /// Hosts out of 100 that begin with the older build.
    pub old_builds_percent: u64,
    /// See `NodeConfig`.
    pub raise_level_after: Duration,
    /// After the run has converged, everything loses power once more and must come back the same.
    pub final_power_loss: bool,
}

/// Chances per million.
const PERCENT: u64 = 10_000;

impl Swarm {
    /// The run that `seed` means.
    pub fn new(seed: u64) -> Self {
        let rng = Rng::new(seed, "swarm");
        let aim = Rng::new(seed, "aimed faults");
        // Three and five are the usual sizes, and most faults need them.
        let nodes = *rng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 5]);
        let mut faults: Vec<(Fault, u64)> = Fault::ALL
            .into_iter()
            .filter(|(fault, _)| nodes >= fault.least_nodes())
            .filter(|_| rng.chance(40 * PERCENT))
            .collect();
        if rng.chance(3 * PERCENT) {
            faults.clear();
        } else {
            let fits = |(fault, _): &(Fault, u64)| nodes >= fault.least_nodes();
            let aimed = Fault::AIMED.into_iter().filter(fits);
            faults.extend(aimed.filter(|_| aim.chance(20 * PERCENT)));
        }
        let value_bytes = *rng.pick(&[16, 16, 256, 256, 4_096, 4_096, 16_384, 65_536]);
        // Much data costs much time; a few large values show as much as many.
        let is_bulky = value_bytes > 4_096;
        let has = |wanted| faults.iter().any(|(fault, _)| *fault == wanted);
        // Entries in memory are never slow to read.
        let slow_leader = has(Fault::SlowLeader);
        // A node that has missed some entries then needs a snapshot.
        let cut_entries = has(Fault::CutEntries);
        let floods = !faults.is_empty() && aim.chance(20 * PERCENT);
        let (founders, changes) = changes(seed, nodes);
        let grows = founders.is_some();
        if !faults.is_empty() {
            faults.extend(changes);
        }
        Self {
            nodes,
            faults,
            founders,
            fault_every: rng.millis(300, 3_000),
            early_faults: rng.chance(30 * PERCENT),
            weather: weather(&rng),
            floods,
            disk_us: *rng.pick(&[100, 500, 2_000, 8_000]),
            clients: *rng.pick(&[2, 4, 8]),
            keys: *rng.pick(&[1, 3, 3, 8, 8, 24]),
            think: rng.millis(20, 200) * if is_bulky { 5 } else { 1 },
            reads_percent: *rng.pick(&[20, 50, 80]),
            value_bytes,
            max_log_size: 64 * 1024,
            max_log_count: match *rng.pick(&[1, 2, 4]) {
                _ if cut_entries => 1,
                count => count,
            },
            snapshot_growth_percent: *rng.pick(if is_bulky { &[50] } else { &[0, 50] }),
            replace_after: rng.millis(2_000, 3_000),
            final_power_loss: rng.chance(40 * PERCENT),
            redis_percent: *rng.pick(&[0, 40, 40, 80]),
            old_builds_percent: *rng.pick(&[0, 50, 100, 100]),
            raise_level_after: *rng.pick(&[0, 500, 4_000].map(Duration::from_millis)),
            wrong_lists: rng.chance(20 * PERCENT) && nodes > 1 && !grows,
            lists_stay_wrong: rng.chance(20 * PERCENT),
            log_cache_bytes: match *rng.pick(&[4 << 20, 64 << 10, 0]) {
                _ if slow_leader => 0,
                bytes => bytes,
            },
            // A draw of its own, so that the others are those of before.
            caps: Rng::new(seed, "caps").chance(40 * PERCENT),
            users: Rng::new(seed, "runs with users").chance(30 * PERCENT),
        }
    }
}

/// How many nodes found the cluster if others are to join it, and what changes about members and their addresses.
/// Draws of their own, so that the others are those of before.
fn changes(seed: u64, nodes: usize) -> (Option<usize>, Vec<(Fault, u64)>) {
    let mut changes = Vec::new();
    let growth = Rng::new(seed, "growth");
    let grows = nodes > 1 && growth.chance(15 * PERCENT);
    let founders = grows.then(|| *growth.pick(&[1, 1, 3]).min(&(nodes - 1)));
    if grows {
        changes.push((Fault::ChangeMembers, growth.between(2, 12)));
    }
    let moves = Rng::new(seed, "moves");
    if nodes > 1 && moves.chance(20 * PERCENT) {
        changes.push((Fault::Move, moves.between(1, 6)));
    }
    (founders, changes)
}

fn weather(rng: &Rng) -> Weather {
    let fair = rng.chance(40 * PERCENT);
    let per_mille = |most: u64| {
        if fair { 0 } else { rng.below(most * 1_000 + 1) }
    };
    Weather {
        latency_us: *rng.pick(&[0, 200, 1_000, 5_000]),
        jitter_us: *rng.pick(&[100, 1_000, 10_000]),
        spike: per_mille(10),
        spike_ms: *rng.pick(&[20, 200, 1_000]),
        loss: per_mille(20),
        duplicate: per_mille(10),
        ghost: *rng.pick(&[0, 200_000, 1_000_000]),
    }
}

impl Weather {
    /// The same network in a storm.
    pub fn stormy(&self, rng: &Rng) -> Self {
        Self {
            jitter_us: self.jitter_us.max(5_000),
            spike: rng.between(PERCENT, 10 * PERCENT),
            loss: rng.between(PERCENT, 30 * PERCENT),
            duplicate: rng.between(0, 10 * PERCENT),
            ..self.clone()
        }
    }

    /// A network that does nothing wrong, for the end.
    pub fn calm(&self) -> Self {
        Self {
            spike: 0,
            loss: 0,
            duplicate: 0,
            ghost: 0,
            ..self.clone()
        }
    }
}
