//! One run's cluster: its hosts, its network, and whether anything went wrong so far.
//!
//! Holds state and answers questions; processes live and die in `host`, faults come from `nemesis`.
//! Invariant: of several violations the first is kept, because the others may follow from it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use memkv_disk::Layout;
use memkv_disk::disk::sim::SimDisk;
use memkv_node::{Node, NodeConfig, Peer};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::host::Life;
use crate::invariants::Invariants;
use crate::levels::{NEW, OLD};
use crate::lists::Lists;
use crate::net::Net;
use crate::promise::Promise;
use crate::rng::Rng;
use crate::swarm::Swarm;
use crate::trace::Trace;
use crate::users::SentByUsers;

/// A broken promise, or something that the simulator does not understand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub promise: Promise,
    /// What was seen.
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.seen)
    }
}

/// A machine: its disk and, while it lives, its process.
pub(crate) struct Host {
    pub(crate) disk: Arc<SimDisk>,
    /// Counts the processes on this host.
    pub(crate) generation: u64,
    pub(crate) life: Option<Life>,
    /// Names the machine's run since it last had power.
    pub(crate) boot_id: u128,
    /// Distance of its wall clock from the simulated time.
    pub(crate) skew_ms: i64,
    /// Disk operations take longer by this factor, until then.
    pub(crate) disk_slow: (u32, Instant),
    /// The disk does nothing before this moment.
    pub(crate) disk_stalled_until: Instant,
    /// The current process has met a disk error on purpose, and may die of it.
    pub(crate) excused: bool,
    /// The current process stops in order, since then.
    pub(crate) stops: Option<Instant>,
    /// Its disk was put back to an older copy, and that has not been found yet.
    pub(crate) is_old: bool,
    /// The process of this generation was told to compute another effect than the others, and that has
    /// not been found yet.
    pub(crate) differs: Option<u64>,
    /// Its process sends its peers the checkpoints of another store than its own.
    pub(crate) lies: bool,
    /// Its directory was emptied or damaged, and the cluster has not given it a new seat yet.
    pub(crate) loss: Option<Loss>,
    /// How often a directory of this host has been set aside.
    pub(crate) quarantines: usize,
    /// Highest feature level that the build of its next process knows.
    pub(crate) build: u32,
    /// It has run the newer build.
    pub(crate) was_new: bool,
    /// The error of its process when it met an entry that it could not read.
    pub(crate) unreadable: Option<String>,
    /// How often it has moved to another address.
    pub(crate) moves: u32,
    /// The number of the address that it has now.
    pub(crate) at: u32,
}

impl Host {
    /// The next process runs this build.
    pub(crate) fn set_build(&mut self, build: u32) {
        self.build = build;
        self.was_new |= build == NEW;
    }
}

/// Damage that was done to a directory. Hosts with a loss count against the minority that may be lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loss {
    /// Id that the directory belonged to.
    pub(crate) node_id: u64,
    /// Emptied or set aside. A damage that the next start does not find did not matter, or was
    /// repaired.
    pub(crate) gone: bool,
}

impl Host {
    /// Whether its disk neither is slow nor stalls.
    pub(crate) fn disk_is_as_usual(&self) -> bool {
        let now = Instant::now();
        self.disk_slow.1 <= now && self.disk_stalled_until <= now
    }
}

/// Everything in a run.
pub struct Cluster {
    /// The decisions of the seed.
    pub swarm: Swarm,
    /// All links.
    pub net: Net,
    /// The record of the run.
    pub trace: Arc<Trace>,
    pub(crate) rng: Rng,
    pub(crate) hosts: Vec<Mutex<Host>>,
    pub(crate) invariants: Invariants,
    pub(crate) lists: Lists,
    pub(crate) sent_by_users: SentByUsers,
    /// A client of another host than this one is to write much at once.
    flood_beside: Mutex<Option<usize>>,
    violation: watch::Sender<Option<Violation>>,
    pub(crate) seed: u64,
}

/// Simulated time starts here: an arbitrary moment in the past.
pub(crate) const WALL_CLOCK_START_MS: u64 = 1_750_000_000_000;

/// A node's name. They sort as their numbers do.
pub(crate) fn name(slot: usize) -> String {
    format!("n{}", slot + 1)
}

/// A host's address after so many moves. As long as names of pods are: with two of them an identity takes more
/// than a sector, so that a power cut may tear it.
pub(crate) fn addr(slot: usize, moves: u32) -> String {
    let moved = match moves {
        0 => String::new(),
        moves => format!("-{moves}"),
    };
    let pod = format!("memkv-production-{slot}{moved}.memkv-production-peers");
    format!("{pod}.some-rather-long-namespace.svc.cluster.example.org:7000")
}

impl Cluster {
    /// Hosts with empty disks, nothing running. Must be called inside the run's runtime.
    pub fn new(seed: u64, swarm: Swarm, trace: Arc<Trace>) -> Arc<Self> {
        let addresses: Vec<String> = (0..swarm.nodes).map(|slot| addr(slot, 0)).collect();
        let net_rng = Rng::new(seed, "net");
        let net = Net::new(&addresses, swarm.weather.clone(), net_rng, trace.clone());
        let rng = Rng::new(seed, "cluster");
        let now = Instant::now();
        let hosts = (0..swarm.nodes)
            .map(|_| {
                let is_old = rng.below(100) < swarm.old_builds_percent;
                Mutex::new(Host {
                    disk: Arc::new(SimDisk::new(rng.next())),
                    generation: 0,
                    life: None,
                    boot_id: 0,
                    skew_ms: 0,
                    disk_slow: (1, now),
                    disk_stalled_until: now,
                    excused: false,
                    stops: None,
                    is_old: false,
                    differs: None,
                    lies: false,
                    loss: None,
                    quarantines: 0,
                    build: if is_old { OLD } else { NEW },
                    was_new: !is_old,
                    unreadable: None,
                    moves: 0,
                    at: 0,
                })
            })
            .collect();
        Arc::new(Self {
            invariants: Invariants::new(swarm.nodes),
            sent_by_users: SentByUsers::default(),
            lists: Lists::new(seed, swarm.nodes, swarm.wrong_lists),
            swarm,
            net,
            trace,
            rng,
            hosts,
            flood_beside: Mutex::new(None),
            violation: watch::Sender::new(None),
            seed,
        })
    }

    /// Has a client write much at once, through any node but this one.
    pub(crate) fn ask_for_flood(&self, slot: usize) {
        *self.flood_beside.lock() = Some(slot);
    }

    /// Whether a client of this host is to do that, now.
    pub(crate) fn takes_flood(&self, home: usize) -> bool {
        let other = self.flood_beside.lock().take_if(|slot| *slot != home);
        other.is_some()
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Number of hosts.
    pub fn nodes(&self) -> usize {
        self.hosts.len()
    }

    /// Nodes that may be lost for good: less than half.
    pub(crate) fn minority(&self) -> usize {
        (self.nodes() - 1) / 2
    }

    /// Notes that a promise was broken.
    pub(crate) fn violated(&self, promise: Promise, seen: String) {
        self.trace.line(format_args!("VIOLATION {promise}: {seen}"));
        self.violation.send_if_modified(|violation| {
            let first = violation.is_none();
            violation.get_or_insert(Violation { promise, seen });
            first
        });
    }

    /// The first broken promise.
    pub fn violation(&self) -> Option<Violation> {
        self.violation.borrow().clone()
    }

    /// Resolves when a promise is broken.
    pub(crate) async fn broken(&self) {
        let mut violation = self.violation.subscribe();
        // The sender lives as long as `self`.
        let _ = violation.wait_for(Option::is_some).await;
    }

    /// The node of a host, if its process has started.
    pub(crate) fn node(&self, slot: usize) -> Option<Node> {
        self.hosts[slot]
            .lock()
            .life
            .as_ref()
            .and_then(|life| life.node.clone())
    }

    /// All nodes that run.
    pub(crate) fn live(&self) -> Vec<(usize, Node)> {
        (0..self.nodes())
            .filter_map(|slot| Some((slot, self.node(slot)?)))
            .collect()
    }

    /// The host whose node leads under the newest vote.
    pub(crate) fn leader(&self) -> Option<usize> {
        let leads = |(slot, node): (usize, Node)| Some((node.inspect()?.leads?, slot));
        self.live()
            .into_iter()
            .filter_map(leads)
            .max()
            .map(|(_, slot)| slot)
    }

    /// Where a host is now. A wrong list names hosts that do not exist.
    pub(crate) fn addr(&self, slot: usize) -> String {
        let host = self.hosts.get(slot);
        addr(slot, host.map_or(0, |host| host.lock().at))
    }

    /// A host without a process gets an address that it never had.
    pub(crate) fn move_away(&self, slot: usize) {
        let moves = {
            let mut host = self.hosts[slot].lock();
            host.moves += 1;
            host.at = host.moves;
            host.at
        };
        self.net.readdress(slot, addr(slot, moves));
    }

    /// A host without a process gets an address back that it has had.
    pub(crate) fn settle_at(&self, slot: usize, known: &str) {
        let mut host = self.hosts[slot].lock();
        if let Some(at) = (0..=host.moves).find(|at| addr(slot, *at) == known) {
            host.at = at;
            self.net.readdress(slot, known.to_owned());
        }
    }

    /// The configuration of a process of this build: with the addresses that the hosts have at its start.
    pub(crate) fn config(&self, slot: usize, build: u32) -> NodeConfig {
        let peer = |slot| Peer {
            name: name(slot),
            addr: self.addr(slot),
        };
        let mut config = NodeConfig::new(peer(slot), Layout::under(Path::new("/memkv")));
        let others = self.lists.of(slot).into_iter();
        config.peers = others.filter(|other| *other != slot).map(peer).collect();
        if let Some(founders) = self.swarm.founders {
            self.grow(slot, founders, &mut config);
        }
        config.max_log_size = self.swarm.max_log_size;
        config.log_cache_bytes = self.swarm.log_cache_bytes;
        config.max_log_count = self.swarm.max_log_count;
        config.snapshot_growth_percent = self.swarm.snapshot_growth_percent;
        config.replace_after = self.swarm.replace_after;
        config.highest_level = build;
        config.raise_level_after = self.swarm.raise_level_after;
        config
    }

    /// The configuration of a host of a cluster that grows. Once it exists, every node is told to join it: the
    /// operator does not leave a node that could found another one.
    fn grow(&self, slot: usize, founders: usize, config: &mut NodeConfig) {
        let names: Vec<String> = (0..founders).map(name).collect();
        let founds = slot < founders;
        config
            .peers
            .retain(|peer| founds && names.contains(&peer.name));
        if !founds || self.invariants.level() > 0 {
            let others = (0..self.nodes()).filter(|other| *other != slot);
            config.join = others.map(|other| self.addr(other)).collect();
        }
        config.promote_after = self.swarm.replace_after / 4;
        config.drop_joiner_after = self.swarm.replace_after * 4;
    }

    /// How long the next operation on a host's disk takes. An operation that began on a slow disk ends
    /// as usual once the disk is slow no more.
    pub(crate) fn disk_delay(&self, slot: usize) -> Duration {
        let (slowness, stall, slow_for) = {
            let host = self.hosts[slot].lock();
            let (slowness, slow_until) = host.disk_slow;
            let left = |until: Instant| until.saturating_duration_since(Instant::now());
            (slowness, left(host.disk_stalled_until), left(slow_until))
        };
        let usual = self.rng.wait(Duration::from_micros(self.swarm.disk_us));
        let slow = usual.saturating_mul(slowness).min(slow_for + usual);
        stall + self.rng.rounded(slow)
    }

    /// Breaks the circle of nodes that hold the network that holds the nodes.
    pub fn tear_down(&self) {
        self.net.ignore_all();
        for slot in 0..self.nodes() {
            self.net.close(slot);
            self.hosts[slot].lock().life = None;
        }
    }
}
