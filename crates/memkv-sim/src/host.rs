//! The life of a process on a host: start, death in all its forms, orderly stop.
//!
//! A death cuts the process off from network and disk before anything else happens, so that its
//! remaining tasks can reach nothing; then the disk loses the data that a death of that kind loses.
//! Invariant: at most one process per host is connected to its disk and to the network.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use memkv_disk::disk::guard;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{WalHandle, WalWorker};
use memkv_node::{Env, FatalError, Node, PreciseTimer, StartError};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::cluster::{Cluster, Loss, WALL_CLOCK_START_MS, name};
use crate::disk;
use crate::lists::Change;
use crate::nemesis::stores;
use crate::net::Port;
use crate::promise::Promise;
use crate::users::ByWord;

/// Pause before a process that failed is started again, in milliseconds.
const RESTART_MS: (u64, u64) = (10, 2_000);

/// How long a node that stops waits for outcomes at least.
const STOP_WAITS: Duration = Duration::from_secs(1);

/// Mean time of work that takes a processor and no disk. Commands are small here, and work that leaves
/// the thread of consensus as heavy takes some microseconds: this is a thread's switch, which at
/// times takes longer.
const BUSY: Duration = Duration::from_micros(100);

/// A process.
pub(crate) struct Life {
    generation: u64,
    /// Highest feature level that its build knows.
    pub(crate) build: u32,
    dead: watch::Sender<bool>,
    /// An orderly stop: the WAL's driver ends when it has nothing left to do.
    stopping: Arc<AtomicBool>,
    tasks: Vec<AbortHandle>,
    pub(crate) node: Option<Node>,
}

/// How a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// Only the process: written data stays.
    Process,
    /// The host: data that was not synced is gone, torn, or there.
    Power,
}

impl Cluster {
    /// Starts a process on a host that has none.
    pub(crate) fn start(self: &Arc<Self>, slot: usize) {
        let mut host = self.hosts[slot].lock();
        if host.life.is_some() {
            return;
        }
        host.generation += 1;
        let generation = host.generation;
        let (dead, death) = watch::channel(false);
        self.net.begin(slot, generation);
        match self.lists.draw(slot) {
            Change::None => {}
            Change::Wrong => self.trace.count("starts with a wrong list"),
            Change::Corrected => self.trace.count("lists corrected between starts"),
        }
        self.trace.line(format_args!(
            "{} starts as process {generation}",
            name(slot)
        ));
        let build = host.build;
        let process = run_process(self.clone(), slot, (generation, build), death);
        let task = tokio::spawn(process);
        host.life = Some(Life {
            generation,
            build,
            dead,
            stopping: Arc::default(),
            tasks: vec![task.abort_handle()],
            node: None,
        });
    }

    /// Starts a host's process after a while, unless something else has.
    pub(crate) fn start_after(self: &Arc<Self>, slot: usize, pause: Duration) {
        let cluster = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            cluster.start(slot);
        });
    }

    /// Ends a host's process. Nothing starts it again by itself.
    pub(crate) fn kill(&self, slot: usize, death: Death, why: &str) {
        let mut host = self.hosts[slot].lock();
        let Some(life) = host.life.take() else { return };
        self.net.close(slot);
        life.dead.send_replace(true);
        life.tasks.iter().for_each(AbortHandle::abort);
        self.trace
            .line(format_args!("{} dies ({death:?}): {why}", name(slot)));
        if let Some(node) = &life.node {
            let now = self.trace.micros();
            self.invariants.note_death(slot, node, now);
        }
        let forgets = death == Death::Power || !host.disk.is_powered();
        self.invariants
            .note_clock(slot, forgets, self.trace.micros());
        host.excused = false;
        host.stops = None;
        if matches!(death, Death::Power) {
            host.boot_id += 1;
        }
        host.disk = disk::after(&host.disk, death, &self.rng, &self.trace);
        drop(host);
        if let Some(node) = life.node {
            node.kill();
        }
    }

    /// Mends all disks and gives every host the right list; all of them run soon.
    pub(crate) fn correct_lists(self: &Arc<Self>) {
        self.lists.correct_all();
        for slot in 0..self.nodes() {
            stores::relent(self, slot);
            let stopped = {
                let mut host = self.hosts[slot].lock();
                host.lies = false;
                host.disk_slow.1 = Instant::now();
                host.disk_stalled_until = Instant::now();
                disk::mend(&host.disk);
                !host.disk.is_powered()
            };
            if stopped {
                self.restart(slot, Death::Power, "its disk has stopped");
            } else if self.lists.is_right(slot) {
                self.start(slot);
            } else {
                self.restart(slot, Death::Process, "its list is corrected");
            }
        }
    }

    /// Kills and starts again after a while.
    pub(crate) fn restart(self: &Arc<Self>, slot: usize, death: Death, why: &str) {
        self.kill(slot, death, why);
        self.start_after(slot, self.rng.millis(RESTART_MS.0, RESTART_MS.1));
    }

    /// Stops a host's process in order; it starts again after a while.
    pub(crate) async fn stop(self: &Arc<Self>, slot: usize) {
        let (node, generation, stopping) = {
            let mut host = self.hosts[slot].lock();
            let Some(life) = &host.life else { return };
            let Some(node) = life.node.clone() else {
                return;
            };
            let stopping = (node, life.generation, life.stopping.clone());
            host.stops = Some(Instant::now());
            stopping
        };
        self.trace.line(format_args!("{} stops", name(slot)));
        node.shutdown().await;
        stopping.store(true, Ordering::Relaxed);
        // Long enough for the WAL to finish, unless its disk stalls.
        tokio::time::sleep(Duration::from_millis(50)).await;
        if self.is_life(slot, generation) {
            self.restart(slot, Death::Process, "stopped");
        }
    }

    /// A client of this host was told that the node has stopped and that an outcome is not known. An orderly stop
    /// does that to no command for as long as it may wait, unless the node fails meanwhile.
    pub(crate) fn check_stop(&self, slot: usize, detail: &str) {
        let host = self.hosts[slot].lock();
        let Some(node) = host.life.as_ref().and_then(|life| life.node.as_ref()) else {
            return;
        };
        let may_wait = host.stops.is_some_and(|since| since.elapsed() < STOP_WAITS);
        let has_failed = node.failed().now_or_never().is_some();
        if may_wait && !has_failed && detail == "the node stopped" {
            let seen = format!("{}: {detail}", name(slot));
            self.violated(Promise::StopAnswers, seen);
        }
    }

    fn is_life(&self, slot: usize, generation: u64) -> bool {
        let host = self.hosts[slot].lock();
        host.life
            .as_ref()
            .is_some_and(|life| life.generation == generation)
    }

    fn env(self: &Arc<Self>, slot: usize, death: watch::Receiver<bool>) -> Env {
        let (clock, machine, random) = (self.clone(), self.clone(), self.rng.clone());
        let (pacer, driver) = (self.clone(), self.clone());
        let (busy, running) = (self.clone(), death.clone());
        let (blocked, disk) = (death, self.hosts[slot].lock().disk.clone());
        Env {
            wall_clock_ms: Arc::new(move || {
                let now = WALL_CLOCK_START_MS + clock.trace.micros() / 1000;
                now.saturating_add_signed(clock.hosts[slot].lock().skew_ms)
            }),
            // It counts from the same moment on every machine; only differences matter.
            boot_clock: Arc::new(move || {
                let boot_id = machine.hosts[slot].lock().boot_id;
                Some((boot_id, machine.trace.micros() / 1000))
            }),
            resident: Arc::new(|| None),
            random: Arc::new(move || u128::from(random.next()) << 64 | u128::from(random.next())),
            blocking: Arc::new(move |work| {
                let (pacer, disk, dead) = (pacer.clone(), disk.clone(), blocked.clone());
                Box::pin(async move {
                    tokio::time::sleep(pacer.disk_delay(slot)).await;
                    // A dead process's work never reaches the disk.
                    if !*dead.borrow() {
                        guard::allow(work);
                        pacer.read(&disk).await;
                    }
                })
            }),
            busy: Arc::new(move |work| {
                let (cluster, dead) = (busy.clone(), running.clone());
                Box::pin(async move {
                    let takes = cluster.rng.wait(BUSY);
                    tokio::time::sleep(cluster.rng.rounded(takes)).await;
                    if !*dead.borrow() {
                        work();
                    }
                })
            }),
            drive_wal: Arc::new(move |worker, handle| driver.drive_wal(slot, worker, &handle)),
            reads: Handle::current(),
            precise_timer: Arc::new(|| PreciseTimer::Runtime),
        }
    }

    /// Sleeps for the time that reads from a disk have taken.
    async fn read(&self, disk: &SimDisk) {
        let took = disk.take_read_time();
        if !took.is_zero() {
            self.trace.count("slow reads");
            tokio::time::sleep(took).await;
        }
    }

    fn drive_wal(self: &Arc<Self>, slot: usize, worker: WalWorker, handle: &WalHandle) {
        let wakeup = Arc::new(Notify::new());
        let notify = wakeup.clone();
        handle.set_wakeup(Arc::new(move || notify.notify_one()));
        let mut host = self.hosts[slot].lock();
        let Some(life) = &mut host.life else { return };
        let stopping = life.stopping.clone();
        let disk = host.disk.clone();
        let task = drive_wal(self.clone(), slot, disk, worker, wakeup, stopping);
        let Some(life) = &mut host.life else { return };
        life.tasks.push(tokio::spawn(task).abort_handle());
    }
}

/// The WAL's thread, as a task: the disk takes its time, then does a round's work at once, and the
/// answers take theirs.
async fn drive_wal(
    cluster: Arc<Cluster>,
    slot: usize,
    disk: Arc<SimDisk>,
    mut worker: WalWorker,
    wakeup: Arc<Notify>,
    stopping: Arc<AtomicBool>,
) {
    loop {
        wakeup.notified().await;
        loop {
            tokio::time::sleep(cluster.disk_delay(slot)).await;
            let Some(answers) = guard::allow(|| worker.poll()) else {
                break;
            };
            cluster.read(&disk).await;
            // A thread's switch: the disk has the data, and no task knows it yet.
            if cluster.rng.coin() {
                tokio::time::sleep(cluster.disk_delay(slot)).await;
            }
            answers.fire();
        }
        if stopping.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// A process from its start to its end.
async fn run_process(
    cluster: Arc<Cluster>,
    slot: usize,
    (generation, build): (u64, u32),
    dead: watch::Receiver<bool>,
) {
    let disk = cluster.hosts[slot].lock().disk.clone();
    let link = Arc::new(cluster.net.link(slot, generation, dead.clone()));
    let env = cluster.env(slot, dead.clone());
    match Node::start(cluster.config(slot, build), disk, link, env).await {
        Err(error) => cluster.did_not_start(slot, &error),
        Ok(node) => {
            node.judge_by(Box::new(ByWord));
            cluster.started(slot, generation, &node, dead);
            let error = node.failed().await;
            if matches!(error, FatalError::Diverged(_)) && node.read_old(|_| ()).is_ok() {
                let seen = format!("{} still reads", name(slot));
                cluster.violated(Promise::WrongStoreReadsNoMore, seen);
            }
            cluster.failed(slot, error);
        }
    }
}

impl Cluster {
    fn started(&self, slot: usize, generation: u64, node: &Node, dead: watch::Receiver<bool>) {
        let mut host = self.hosts[slot].lock();
        let Some(life) = &mut host.life else { return };
        life.node = Some(node.clone());
        self.trace.count("processes started");
        self.net.open(
            slot,
            Port {
                generation,
                node: node.clone(),
                dead,
            },
        );
        let quarantines = disk::quarantines(&host.disk);
        let set_aside = quarantines > host.quarantines;
        host.quarantines = quarantines;
        let loss = host.loss;
        // An old disk and a wrong store are found a little later than damage.
        let is_open = host.is_old || host.differs.is_some();
        if let Some(known) = host.loss.take_if(|loss| !loss.gone && !is_open)
            && set_aside
        {
            host.loss = Some(Loss {
                gone: true,
                ..known
            });
        }
        drop(host);
        if set_aside {
            self.trace.count("quarantines");
            self.trace
                .line(format_args!("{} set its directory aside", name(slot)));
            if loss.is_none() {
                let seen = format!(
                    "{} found its directory corrupt, and nobody touched it",
                    name(slot)
                );
                self.violated(Promise::CrashIsNoCorruption, seen);
            }
        }
        if let Err(seen) = self.invariants.check_recovery(slot, node, set_aside) {
            self.violated(Promise::DurableSurvives, seen);
        }
    }

    fn did_not_start(self: &Arc<Self>, slot: usize, error: &StartError) {
        let excused = self.hosts[slot].lock().excused;
        self.trace
            .line(format_args!("{} did not start: {error}", name(slot)));
        if let StartError::TooOld(too_old) = error {
            return self.too_old(slot, *too_old);
        }
        if excused {
            return self.restart(slot, Death::Power, "it met a disk error at its start");
        }
        let seen = format!("{} does not start: {error}", name(slot));
        self.violated(Promise::StartsAfterCrash, seen);
    }

    /// Whether a node has ended because it has no part in its cluster any more. It counts as lost until it is back.
    fn has_no_part(self: &Arc<Self>, slot: usize, error: &FatalError) -> bool {
        let (counter, why) = match error {
            FatalError::Removed(_) => ("nodes told that they were removed", "it was removed"),
            FatalError::NoSeat(_) => ("joiners told that they have no seat", "it has no seat"),
            _ => return false,
        };
        if self.swarm.founders.is_none() {
            let seen = format!("{}, and nobody removes nodes: {error}", name(slot));
            self.violated(Promise::RemovedOnlyIfRemoved, seen);
            return true;
        }
        self.trace.count(counter);
        self.hosts[slot].lock().loss = Some(Loss {
            node_id: self.invariants.node_id(slot),
            gone: true,
        });
        self.restart(slot, self.death(), why);
        true
    }

    fn failed(self: &Arc<Self>, slot: usize, error: FatalError) {
        self.trace
            .line(format_args!("{} failed: {error}", name(slot)));
        if let FatalError::TooOld(too_old) = error {
            return self.too_old(slot, too_old);
        }
        if let FatalError::Unreadable { .. } = error {
            return self.unreadable(slot, &error.to_string());
        }
        if let FatalError::Replaced(_) = error {
            // As the message says: the operator moves the directory away.
            self.trace.count("told that it was replaced");
            self.wipe(slot);
            return;
        }
        let grows = self.swarm.founders.is_some();
        if (grows || matches!(error, FatalError::Removed(_))) && self.has_no_part(slot, &error) {
            return;
        }
        if let FatalError::NoSeat(_) = error {
            if self.hosts[slot].lock().loss.is_none() {
                let seen = format!("{} has lost its own: {error}", name(slot));
                return self.violated(Promise::NewcomerGivesUpSeat, seen);
            }
            self.trace.count("newcomers told that they have no seat");
            return self.restart(slot, self.death(), "it has no seat");
        }
        if let FatalError::OldDisk(_) = error {
            if !std::mem::take(&mut self.hosts[slot].lock().is_old) {
                let seen = format!("{}, and nobody put it back: {error}", name(slot));
                return self.violated(Promise::OldDiskIsOne, seen);
            }
            self.trace.count("old disks found");
            return self.restart(slot, self.death(), "its disk is an old one");
        }
        let differs = self.hosts[slot].lock().differs;
        if let FatalError::Diverged(_) = error {
            self.hosts[slot].lock().differs = None;
            if differs.is_none() {
                let seen = format!("{}: {error}", name(slot));
                return self.violated(Promise::SetAsideOnlyIfDifferent, seen);
            }
            self.trace.count("deviating stores found");
            return self.restart(slot, self.death(), "its store is another one");
        }
        if matches!(error, FatalError::Disk(_)) && differs.is_some() {
            // It could not mark its directory: there was no space.
            self.trace.count("deviating stores not marked");
            return self.restart(slot, Death::Process, "its store is another one");
        }
        if !self.hosts[slot].lock().excused {
            let seen = format!("{} failed, and its disk had not: {error}", name(slot));
            return self.violated(Promise::FailsOnlyWithDisk, seen);
        }
        self.trace.count("processes ended by their disk");
        // The kernel may have dropped data that it could not write, or still show it.
        self.restart(slot, self.death(), "its disk failed");
    }

    /// No entry is ever one that cannot be read. One that is must stop its node, and the next process
    /// too, with the same error.
    fn unreadable(self: &Arc<Self>, slot: usize, words: &str) {
        let before = self.hosts[slot].lock().unreadable.replace(words.to_owned());
        let Some(before) = before else {
            return self.restart(slot, Death::Process, "it cannot read an entry");
        };
        let promise = match before == words {
            true => Promise::EntriesCanBeRead,
            false => Promise::StopsAtSameEntry,
        };
        let seen = format!(
            "{} stopped, started again, and stopped: {words}",
            name(slot)
        );
        self.violated(promise, seen);
    }

    fn death(&self) -> Death {
        if self.rng.coin() {
            Death::Power
        } else {
            Death::Process
        }
    }

    /// Ends a host's process, puts its disk back to an older copy of itself, and starts it again.
    pub(crate) fn put_back(self: &Arc<Self>, slot: usize, image: disk::SimDisk) {
        self.kill(slot, Death::Process, "to be put back to an old copy");
        {
            let mut host = self.hosts[slot].lock();
            host.disk = Arc::new(image);
            host.is_old = true;
            host.differs = None;
            host.loss = Some(Loss {
                node_id: self.invariants.node_id(slot),
                gone: false,
            });
        }
        self.invariants.note_wipe(slot);
        self.invariants.note_clock(slot, true, self.trace.micros());
        self.start(slot);
    }

    /// Kills a host's process, empties its directory, and starts it again after a while.
    pub(crate) fn wipe(self: &Arc<Self>, slot: usize) {
        self.kill(slot, Death::Power, "to be wiped");
        {
            let mut host = self.hosts[slot].lock();
            host.disk = Arc::new(disk::SimDisk::new(self.rng.next()));
            host.loss = Some(Loss {
                node_id: self.invariants.node_id(slot),
                gone: true,
            });
            host.quarantines = 0;
            host.is_old = false;
            host.differs = None;
        }
        self.invariants.note_wipe(slot);
        self.invariants.note_clock(slot, true, self.trace.micros());
        self.start_after(slot, self.rng.millis(RESTART_MS.0, RESTART_MS.1));
    }
}
