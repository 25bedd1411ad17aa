//! The state of a simulated disk: contents, names, changes that are not durable yet, and power cuts.
//! Never checks which process calls, except where requested; the parent module does.
//! Invariants: `durable` and `durable_names` change only by a sync or a power cut, or because space that a
//! removal freed is used again; files that a power cut brings back never exceed the capacity.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::strike::{Step, Strike, Target};
use super::{Op, Stats};
use crate::disk::guard;

/// The unit that a disk writes as a whole.
const SECTOR: usize = 512;

/// A small deterministic generator (SplitMix64, Steele et al., OOPSLA 2014).
#[derive(Clone)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A change of a file's contents that is not durable yet.
#[derive(Clone)]
pub(super) enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl Change {
    pub(super) fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = *offset as usize + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset as usize..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => content.resize(*len as usize, 0),
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct File {
    pub(super) durable: Vec<u8>,
    pub(super) seen: Vec<u8>,
    pub(super) pending: Vec<Change>,
    /// Reserved length; takes space, holds zeros. Durable at once, since it carries no data.
    pub(super) allocated: u64,
    /// Whether `seen` has writes that a failed sync has dropped.
    pub(super) dropped: bool,
    /// Open handles of the present process.
    pub(super) handles: u64,
}

impl File {
    pub(super) fn len(&self) -> u64 {
        self.allocated.max(self.seen.len() as u64)
    }

    /// Makes the changes up to the last cut of its length durable.
    fn settle_cuts(&mut self) {
        let is_cut = |change: &Change| matches!(change, Change::SetLen(_));
        let Some(last) = self.pending.iter().rposition(is_cut) else {
            return;
        };
        for change in self.pending.drain(..=last) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn drop_cache(&mut self) {
        if !self.dropped {
            return;
        }
        self.seen.clone_from(&self.durable);
        for change in &self.pending {
            change.apply(&mut self.seen);
        }
        self.dropped = false;
    }
}

/// A change of a directory that is not durable yet.
#[derive(Clone)]
pub(super) enum Name {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, u64),
}

impl Name {
    pub(super) fn directory(&self) -> Option<&Path> {
        let (Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _)) = self;
        path.parent()
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Link(path, file) => {
                names.insert(path.clone(), *file);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }
}

/// The support of direct writes: file systems differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direct {
    /// They work.
    Taken,
    /// A file is opened for them, and each is refused once `after` further ones have succeeded.
    Refused {
        /// The error.
        kind: io::ErrorKind,
        /// Direct writes that still succeed.
        after: u64,
    },
    /// No file is opened for them.
    Absent,
}

impl Direct {
    fn drawn(seed: u64) -> Self {
        match seed % 3 {
            0 => Self::Absent,
            1 => Self::Taken,
            _ => Self::Refused {
                kind: REFUSALS[(seed / 3 % 3) as usize],
                after: 0,
            },
        }
    }

    /// Takes or refuses one write.
    pub(super) fn answer(&mut self) -> io::Result<()> {
        match self {
            Self::Refused { kind, after: 0 } => {
                Err(io::Error::new(*kind, "simulated refusal of a direct write"))
            }
            Self::Refused { after, .. } => {
                *after -= 1;
                Ok(())
            }
            Self::Taken | Self::Absent => Ok(()),
        }
    }
}

/// The errors with which file systems, kernels and sandboxes refuse.
const REFUSALS: [io::ErrorKind; 3] = [
    io::ErrorKind::InvalidInput,
    io::ErrorKind::Unsupported,
    io::ErrorKind::PermissionDenied,
];

#[derive(Clone)]
pub(super) struct State {
    pub(super) direct: Direct,
    pub(super) random: Random,
    pub(super) files: BTreeMap<u64, File>,
    pub(super) next_file: u64,
    pub(super) directories: Vec<PathBuf>,
    pub(super) durable_names: BTreeMap<PathBuf, u64>,
    pub(super) names: BTreeMap<PathBuf, u64>,
    pub(super) pending_names: Vec<Name>,
    pub(super) locks: Vec<PathBuf>,
    /// Number of the process that may work now.
    pub(super) process: u64,
    pub(super) powered: bool,
    pub(super) crash_at: Option<u64>,
    pub(super) strike: Option<Strike>,
    /// The power cut tears sectors, too.
    pub(super) tears: bool,
    pub(super) fail_next: BTreeMap<Op, Vec<io::ErrorKind>>,
    pub(super) fail_rate: BTreeMap<Op, u32>,
    pub(super) capacity: Option<u64>,
    /// Longest time of a read, and that of those which were not waited for yet.
    pub(super) slowest_read: Duration,
    pub(super) read_time: Duration,
    pub(super) stats: Stats,
}

pub(super) fn power_lost() -> io::Error {
    io::Error::other("simulated power cut")
}

pub(super) fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("`{}` does not exist", path.display()),
    )
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            direct: Direct::drawn(seed),
            random: Random(seed),
            files: BTreeMap::new(),
            next_file: 0,
            directories: Vec::new(),
            durable_names: BTreeMap::new(),
            names: BTreeMap::new(),
            pending_names: Vec::new(),
            locks: Vec::new(),
            process: 0,
            powered: true,
            crash_at: None,
            strike: None,
            tears: false,
            fail_next: BTreeMap::new(),
            fail_rate: BTreeMap::new(),
            capacity: None,
            slowest_read: Duration::ZERO,
            read_time: Duration::ZERO,
            stats: Stats::default(),
        }
    }

    pub(super) fn check(&self, process: u64) -> io::Result<()> {
        if self.process != process || !self.powered {
            Err(power_lost())
        } else {
            Ok(())
        }
    }

    /// Whether the power is to go during this step.
    pub(super) fn is_struck(&self, step: Step, target: Target<'_>) -> bool {
        let Some(strike) = &self.strike else {
            return false;
        };
        let path = match target {
            Target::Path(path) => Some(path),
            Target::File(number) => {
                let mut names = self.names.iter();
                names.find_map(|(path, file)| (*file == number).then_some(path.as_path()))
            }
        };
        path.is_some_and(|path| strike(step, path, &self.names))
    }

    /// Notes a call on a thread that must not wait.
    pub(super) fn note_waiting(&mut self) {
        self.stats.forbidden += u64::from(!guard::may_wait());
    }

    /// Draws how long a read takes.
    pub(super) fn take_time(&mut self) {
        let most = u64::try_from(self.slowest_read.as_micros()).unwrap_or(u64::MAX);
        if most > 0 {
            let time = Duration::from_micros(self.random.below(most));
            self.read_time = self.read_time.max(time);
        }
    }

    pub(super) fn fault(&mut self, op: Op) -> Option<io::Error> {
        let queued = self
            .fail_next
            .get_mut(&op)
            .filter(|queue| !queue.is_empty());
        let kind = match queued {
            Some(queue) => Some(queue.remove(0)),
            None => {
                let rate = u64::from(self.fail_rate.get(&op).copied().unwrap_or(0));
                // Drawn only where needed, so that other runs stay as they are.
                (rate > 0 && self.random.below(1_000_000) < rate).then_some(io::ErrorKind::Other)
            }
        };
        let kind = kind?;
        self.stats.errors += 1;
        Some(io::Error::new(kind, format!("simulated {op:?} error")))
    }

    pub(super) fn file(&mut self, number: u64) -> io::Result<&mut File> {
        self.files.get_mut(&number).ok_or_else(power_lost)
    }

    pub(super) fn start_process(&mut self) {
        self.process += 1;
        self.powered = true;
        self.crash_at = None;
        self.strike = None;
        self.tears = false;
        self.fail_next.clear();
        self.locks.clear();
        for file in self.files.values_mut() {
            file.handles = 0;
        }
        self.collect();
    }

    /// Bytes of the files that have a name now, or are open.
    pub(super) fn used(&self) -> u64 {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        let files = self.files.iter();
        let taken = files.filter(|(number, file)| file.handles > 0 || named.contains(number));
        taken.map(|(_, file)| file.len()).sum()
    }

    /// Refuses growth beyond the capacity.
    pub(super) fn grow(&mut self, number: u64, len: u64) -> io::Result<()> {
        let grows = len.saturating_sub(self.file(number)?.len());
        let Some(capacity) = self.capacity.filter(|_| grows > 0) else {
            return Ok(());
        };
        if self.used() + grows <= capacity {
            self.settle(capacity.saturating_sub(grows));
            return Ok(());
        }
        self.stats.full += 1;
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            "simulated full disk",
        ))
    }

    /// Makes removals and cuts durable if the files that a power cut could bring back do not fit any more,
    /// and with them all other changes of names, as the commit of a journal does: a file system reuses
    /// space only once the file that had it cannot come back.
    pub(super) fn settle(&mut self, capacity: u64) {
        let named = self.may_be_named();
        let files = self.files.iter();
        let taken = files.filter(|(number, file)| file.handles > 0 || named.contains(number));
        let most = |file: &File| file.len().max(file.durable.len() as u64);
        if taken.map(|(_, file)| most(file)).sum::<u64>() <= capacity {
            return;
        }
        for name in std::mem::take(&mut self.pending_names) {
            name.apply(&mut self.durable_names);
        }
        for file in self.files.values_mut() {
            file.settle_cuts();
        }
        self.collect();
    }

    /// Files that have a name, or may have one after a power cut.
    fn may_be_named(&self) -> BTreeSet<u64> {
        let named = self.names.values().chain(self.durable_names.values());
        let pending = self.pending_names.iter().filter_map(|name| match name {
            Name::Link(_, file) | Name::Rename(_, _, file) => Some(file),
            Name::Unlink(_) => None,
        });
        named.chain(pending).copied().collect()
    }

    /// Frees files that neither have a name, nor may get one back by a power cut, nor are open.
    pub(super) fn collect(&mut self) {
        let named = self.may_be_named();
        self.files
            .retain(|number, file| file.handles > 0 || named.contains(number));
    }

    pub(super) fn lose_power(&mut self, random: &mut Random) {
        self.stats.crashes += 1;
        let mut style = Style::draw(random);
        for file in self.files.values_mut() {
            for mut change in std::mem::take(&mut file.pending) {
                if let Change::Write(_, bytes) = &mut change
                    && self.tears
                    && random.below(4) > 0
                {
                    // It ends within its first sector, but for the smallest ones.
                    bytes.truncate(random.below(SECTOR as u64) as usize);
                    change.apply(&mut file.durable);
                    continue;
                }
                let (kept, lost) = style.apply(random, &change, &mut file.durable);
                self.stats.sectors_kept += kept;
                self.stats.sectors_lost += lost;
            }
            file.seen.clone_from(&file.durable);
            file.dropped = false;
        }
        for name in std::mem::take(&mut self.pending_names) {
            if style.keeps(random) {
                name.apply(&mut self.durable_names);
            } else {
                self.stats.names_lost += 1;
            }
        }
        self.names.clone_from(&self.durable_names);
    }
}

/// How much a power cut keeps. Extremes come up often, because bugs live there.
pub(super) enum Style {
    All,
    Nothing,
    /// Everything up to some moment, then nothing.
    Prefix(u64),
    /// Each sector by itself, at a rate per 256.
    Some(u64),
}

impl Style {
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.below(8) {
            0 => Self::All,
            1 => Self::Nothing,
            2 | 3 => Self::Prefix(random.below(48)),
            _ => Self::Some(random.below(255) + 1),
        }
    }

    pub(super) fn keeps(&mut self, random: &mut Random) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Prefix(left) => {
                let keep = *left > 0;
                *left = left.saturating_sub(1);
                keep
            }
            Self::Some(chance) => random.below(256) < *chance,
        }
    }

    /// Applies the kept part of a change; returns how many sectors were kept and lost.
    pub(super) fn apply(
        &mut self,
        random: &mut Random,
        change: &Change,
        content: &mut Vec<u8>,
    ) -> (u64, u64) {
        let (mut kept, mut lost) = (0, 0);
        match change {
            Change::SetLen(_) if self.keeps(random) => change.apply(content),
            Change::SetLen(_) => {}
            Change::Write(offset, bytes) => {
                let mut at = 0;
                while at < bytes.len() {
                    let start = *offset as usize + at;
                    let end = (bytes.len()).min(at + SECTOR - start % SECTOR);
                    if self.keeps(random) {
                        Change::Write(start as u64, bytes[at..end].to_vec()).apply(content);
                        kept += 1;
                    } else {
                        lost += 1;
                    }
                    at = end;
                }
            }
        }
        (kept, lost)
    }
}
