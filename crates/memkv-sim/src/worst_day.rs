//! The worst day, beside the run: all hosts lose power at once, some of their disks are gone for good, and what
//! the others hold is salvaged, ranked and restored, as `memkv_server salvage`, `memkv_client recover` and
//! `memkv_server restore` do.
//!
//! Works on copies of the disks, with randomness of its own: the run does not notice. Never judges a disk that
//! has been damaged on purpose, but for the state on it.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use memkv_backup::{Head, Rank};
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{Layout, LogId};
use memkv_node::{RestorePlan, SalvageError, Salvaged, restore, revision_of_restore, salvage};

use crate::cluster::{Cluster, WALL_CLOCK_START_MS, name};
use crate::disk;
use crate::invariants::{Verdict, fail};
use crate::promise::Promise;
use crate::rng::Rng;

/// Looks at the invariants from one such day to the next, on average: every two seconds of simulated time.
const LOOKS: u64 = 100;

/// The restore comes later, in milliseconds: above all by which clocks of hosts differ.
const LATER_MS: u64 = 3_600_000;

/// A disk that is left, and what it holds.
struct Survivor {
    slot: usize,
    /// What was acknowledged there, if that must still be there.
    acknowledged: Option<LogId>,
    last: LogId,
    head: Head,
    blocks: Vec<Vec<u8>>,
}

/// Such days of a run.
pub(crate) struct WorstDays {
    rng: Rng,
    /// Of the last committed entry that was looked at.
    term: Cell<u64>,
}

impl WorstDays {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed, "worst days"),
            term: Cell::new(0),
        }
    }

    /// Has one at times, and whenever a new leader has committed its first entry: for a moment the longest log may
    /// be that of the leader before.
    pub(crate) fn look(&self, cluster: &Cluster) {
        let term = cluster.invariants.committed_term();
        let is_new = self.term.replace(term) < term;
        let is_due = self.rng.below(LOOKS) == 0;
        if !is_new && !is_due {
            return;
        }
        if let Err((promise, what)) = self.day(is_new, cluster) {
            cluster.violated(promise, what);
        }
    }

    /// Has one, which all disks survive or a part of them.
    fn day(&self, all: bool, cluster: &Cluster) -> Verdict {
        let mut survivors = Vec::new();
        for slot in 0..cluster.nodes() {
            if self.rng.below(3) > 0 || all {
                survivors.extend(self.survivor(slot, cluster)?);
            }
        }
        let Some(best) = survivors.iter().max_by_key(|one| Rank::of(&one.head)) else {
            return Ok(());
        };
        for other in &survivors {
            let lost = other.acknowledged.filter(|held| !covers(best.last, *held));
            if let Some(lost) = lost {
                let seen = format!(
                    "{} ranks first with {:?}, and {} holds the acknowledged {lost:?}",
                    name(best.slot),
                    best.last,
                    name(other.slot)
                );
                return fail(Promise::BestHoldsAll, seen);
            }
        }
        if survivors.len() > 1 {
            cluster.trace.count("disks ranked after a lost majority");
        }
        let is_behind = |one: &Survivor| one.last.term < best.last.term;
        if survivors
            .iter()
            .any(|one| is_behind(one) && one.last.index >= best.last.index)
        {
            cluster
                .trace
                .count("logs of older terms that are as long as the best");
        }
        self.restore(best, cluster)
    }

    /// What a disk holds after the power is gone.
    fn survivor(
        &self,
        slot: usize,
        cluster: &Cluster,
    ) -> Result<Option<Survivor>, (Promise, String)> {
        let (image, is_as_left, build) = {
            let host = cluster.hosts[slot].lock();
            let is_as_left =
                host.loss.is_none() && host.differs.is_none() && !host.is_old && !host.lies;
            (host.disk.image(), is_as_left, host.build)
        };
        disk::mend(&image);
        let image = image.crash(self.rng.next());
        let acknowledged = cluster.invariants.acknowledged(slot).filter(|_| is_as_left);
        let mut salvaged = match salvage(&image, &layout(), build, false) {
            Ok(salvaged) => salvaged,
            Err(SalvageError::TooOld(_) | SalvageError::Condemned(_)) => return Ok(None),
            Err(why) => {
                // Before the cluster's first entry there is nothing to salvage.
                let first = cluster.invariants.first_batch();
                let held =
                    acknowledged.filter(|held| first.is_some_and(|first| held.index >= first));
                return match held {
                    None => Ok(None),
                    Some(held) => {
                        let seen = format!("{} held {held:?}: {why}", name(slot));
                        Err((Promise::SalvageHoldsAcknowledged, seen))
                    }
                };
            }
        };
        let is_whole = salvaged.stopped.is_none() && salvaged.passed_over.is_empty();
        let acknowledged = acknowledged.filter(|_| is_whole);
        if let Some(held) = acknowledged.filter(|held| !covers(salvaged.last, *held)) {
            let seen = format!(
                "{} held {held:?}, and {:?} was salvaged",
                name(slot),
                salvaged.last
            );
            return Err((Promise::SalvageHoldsAcknowledged, seen));
        }
        if is_as_left {
            let (last, digest) = (salvaged.last, salvaged.digest());
            let known = cluster.invariants.state_at(last);
            if let Some(known) = known.filter(|known| *known != digest) {
                let seen = format!(
                    "{} was salvaged up to {last:?} with the state {digest:016x}, which was {known:016x}",
                    name(slot)
                );
                return Err((Promise::SalvageIsAState, seen));
            }
            cluster.trace.count("disks salvaged");
        }
        let (head, blocks) = taken(&mut salvaged).expect("a store in memory gives itself out");
        Ok(Some(Survivor {
            slot,
            acknowledged,
            last: salvaged.last,
            head,
            blocks,
        }))
    }

    /// Founds a cluster anew with the best.
    fn restore(&self, best: &Survivor, cluster: &Cluster) -> Verdict {
        let config = cluster.config(best.slot, best.head.level);
        let now_ms = WALL_CLOCK_START_MS + cluster.trace.micros() / 1000 + LATER_MS;
        let (reached, stamp_ms) = (best.head.revision, best.head.log_time_ms);
        let Ok(revision) = revision_of_restore(reached, stamp_ms, now_ms, None) else {
            // It asks for a clock that is right, or a revision.
            cluster.trace.count("restores refused");
            return Ok(());
        };
        let highest = cluster.invariants.highest_revision();
        if revision <= highest {
            let seen = format!("a restore begins at {revision}, and {highest} was given out");
            return fail(Promise::RevisionsGoOn, seen);
        }
        let plan = RestorePlan {
            cluster: u128::from(self.rng.next()),
            directory: u128::from(self.rng.next()),
            revision,
            later_ms: 0,
            keep_users: true,
            now_ms,
        };
        let disk = Arc::new(SimDisk::new(self.rng.next()));
        let mut blocks = best.blocks.iter().cloned();
        let restored = restore(&config, disk.clone(), &plan, &mut || Ok(blocks.next()));
        let restored = match restored {
            Ok(restored) => restored,
            Err(why) => return fail(Promise::RestoreIsWhole, why.to_string()),
        };
        // The power fails once more before the node first starts.
        let found = salvage(
            &disk.crash(self.rng.next()),
            &layout(),
            best.head.level,
            false,
        );
        let found = found.map(|mut found| taken(&mut found).map(|(head, _)| (found.cluster, head)));
        let seen = match found {
            Ok(Ok((uuid, head))) if uuid == restored.cluster && head.keys == best.head.keys => {
                cluster.trace.count("restores after a lost majority");
                return Ok(());
            }
            Ok(Ok((uuid, head))) => format!(
                "{restored:?} of {} keys holds {} of {uuid:02x?}",
                best.head.keys, head.keys
            ),
            Ok(Err(why)) => why.to_string(),
            Err(why) => why.to_string(),
        };
        fail(Promise::RestoreIsWhole, seen)
    }
}

fn layout() -> Layout {
    Layout::under(Path::new("/memkv"))
}

/// Whether a log that ends at `last` holds a committed entry.
fn covers(last: LogId, entry: LogId) -> bool {
    last.index >= entry.index && (last.term, last.leader) >= (entry.term, entry.leader)
}

/// The head and the blocks of a backup.
fn taken(salvaged: &mut Salvaged) -> std::io::Result<(Head, Vec<Vec<u8>>)> {
    let state = salvaged.begin()?;
    let head = Head {
        cluster: String::new(),
        level: state.member_table().level(),
        revision: state.revision(),
        log_time_ms: state.stamp_ms(),
        keys: state.keys(),
        hash_seed: state.hash_seed(),
        term: salvaged.last.term,
        index: salvaged.last.index,
        node: String::new(),
        written_by: String::new(),
        salvaged: true,
        committed: salvaged.committed,
        terms: Vec::new(),
        stopped: None,
        condemned: None,
    };
    let mut blocks = vec![state.encode()];
    salvaged.blocks(|block| {
        blocks.push(block.to_vec());
        Ok(())
    })?;
    Ok((head, blocks))
}
