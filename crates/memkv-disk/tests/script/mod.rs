//! Scripted runs of a data directory, with the power cut at an operation, and what must be found
//! after that: what was acknowledged, nothing that was never written, and no record without the
//! votes that were asked for before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::common::*;
use bytes::Bytes;
use memkv_disk::disk::sim::SimDisk;
use memkv_disk::{Done, HardState, LogId, Options, Record, SnapshotMeta};

/// A deterministic generator (xorshift64*, Vigna 2016).
pub(crate) struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// The content that the data directory must have after some calls.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// Index of the first record; everything before is purged or was never there.
    first: u64,
    records: Vec<Record>,
    hard_state: Option<HardState>,
    identity: Bytes,
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn truncate(&mut self, from: u64) {
        self.records
            .truncate(from.saturating_sub(self.first) as usize);
    }

    fn purge(&mut self, index: u64) {
        let gone = (index + 1)
            .saturating_sub(self.first)
            .min(self.records.len() as u64);
        self.records.drain(..gone as usize);
        self.first = index + 1;
    }
}

/// A node, and the states after each call made so far.
pub(crate) struct Run {
    pub disk: SimDisk,
    random: Random,
    states: Vec<State>,
    /// Number of the last call that was answered with success.
    answered: Arc<AtomicUsize>,
    term: u64,
    /// Every record that was purged, for logs that come back with an older purge mark.
    purged: BTreeMap<u64, Record>,
    snapshot: Option<LogId>,
    committed: u64,
}

impl Run {
    pub(crate) fn new(seed: u64, disk: SimDisk) -> Self {
        Self {
            disk,
            random: Random(seed * 2 + 1),
            states: vec![State::default()],
            answered: Arc::new(AtomicUsize::new(0)),
            term: 1,
            purged: BTreeMap::new(),
            snapshot: None,
            committed: 0,
        }
    }

    /// Notes the state after the next call and returns what answers it.
    fn call(&mut self, change: impl FnOnce(&mut State)) -> Done {
        let mut state = self.states.last().unwrap().clone();
        change(&mut state);
        self.states.push(state);
        let (answered, number) = (self.answered.clone(), self.states.len() - 1);
        Box::new(move |result| {
            if result.is_ok() {
                let before = answered.swap(number, Ordering::SeqCst);
                assert!(before < number, "answers come in order");
            }
        })
    }

    fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    /// Runs the script until its end or the power cut.
    pub(crate) fn run(&mut self, options: &Options, steps: usize) {
        let mut step = 0;
        while step < steps {
            let Ok(mut node) = Node::open(Arc::new(self.disk.clone()), options.clone()) else {
                assert!(
                    !self.disk.is_powered(),
                    "only the power cut may fail an open"
                );
                return;
            };
            let restart = step + 25 + self.random.below(25) as usize;
            while step < steps.min(restart) && self.disk.is_powered() {
                self.step(&mut node);
                step += 1;
            }
            if self.random.below(2) == 0 {
                node.close();
            } else {
                node.settle();
            }
            if !self.disk.is_powered() {
                return;
            }
        }
    }

    fn step(&mut self, node: &mut Node) {
        match self.random.below(20) {
            0..=8 => self.append(node),
            9 => {
                self.term += 1;
                let vote = vote(self.term);
                let done = self.call(|state| state.hard_state = Some(vote));
                node.opened.wal.save_hard_state(vote, done);
            }
            10 => {
                let len = self.random.below(900) as usize;
                let blob = payload(self.term, 0, len);
                let done = self.call(|state| state.identity = blob.clone());
                node.opened.wal.save_identity(blob, self.term, done);
            }
            11 | 12 => self.truncate(node),
            13 => self.purge(node),
            14 => self.install(node),
            15 => {
                let committed = self.now().next().checked_sub(1 + self.random.below(3));
                if let Some(id) = committed.and_then(|index| node.opened.log.id_at(index)) {
                    self.committed = self.committed.max(id.index);
                    node.opened.wal.save_committed(id);
                }
            }
            _ => node.settle(),
        }
    }

    fn append(&mut self, node: &mut Node) {
        let count = 1 + self.random.below(6);
        let first = self.now().next();
        let batch: Vec<_> = (first..first + count)
            .map(|index| {
                let len = match self.random.below(8) {
                    0 => 0,
                    1 => 30_000,
                    _ => self.random.below(1500),
                };
                record(self.term, index, len as usize)
            })
            .collect();
        let done = self.call(|state| state.records.extend(batch.iter().cloned()));
        node.opened.wal.append(batch, done);
    }

    fn truncate(&mut self, node: &mut Node) {
        let Some(last) = self.now().next().checked_sub(1 + self.random.below(8)) else {
            return;
        };
        if last < self.committed || last < self.now().first {
            return;
        }
        self.term += 1;
        let done = self.call(|state| state.truncate(last + 1));
        node.opened.wal.truncate_after(Some(last), done);
    }

    fn build(&mut self, node: &mut Node, last: LogId) -> bool {
        let built = node.snapshot(last, self.random.below(4) as usize).is_ok();
        if built {
            self.snapshot = Some(last);
        }
        built
    }

    fn purge(&mut self, node: &mut Node) {
        let Some(index) = self.now().next().checked_sub(1 + self.random.below(12)) else {
            return;
        };
        if index < self.now().first {
            return;
        }
        let Some(last) = node.opened.log.id_at(index) else {
            return;
        };
        if self.build(node, last) {
            self.committed = self.committed.max(index);
            let records = self
                .now()
                .records
                .iter()
                .filter(|record| record.id.index <= index);
            let records: Vec<_> = records.cloned().collect();
            self.purged
                .extend(records.into_iter().map(|record| (record.id.index, record)));
            drop(self.call(|state| state.purge(index)));
            node.opened.wal.purge_through(last);
        }
    }

    /// A leader's snapshot beyond the end of the log arrives.
    fn install(&mut self, node: &mut Node) {
        self.term += 1;
        let last = id(self.term, self.now().next() + self.random.below(50));
        let donor = Node::open(Arc::new(SimDisk::new(1)), options()).unwrap();
        let meta = SnapshotMeta {
            last,
            extra: Bytes::from_static(b"members"),
        };
        let mut writer = donor.opened.snapshots.create(meta);
        writer.block(&[7; 2000]).unwrap();
        writer.finish().unwrap();
        let reader = donor.opened.snapshots.open_latest().unwrap().unwrap();
        let mut bytes = vec![0; reader.raw_len() as usize];
        reader.read_raw(0, &mut bytes).unwrap();
        let mut receiver = node.opened.snapshots.receive();
        let (left, right) = bytes.split_at(1000);
        let arrived = receiver
            .write_raw(0, left)
            .and_then(|()| receiver.write_raw(1000, right));
        if arrived.is_err() || receiver.finish().is_err() {
            return;
        }
        self.snapshot = Some(last);
        self.committed = last.index;
        let done = self.call(|state| state.purge(last.index));
        if self.random.below(2) == 0 {
            node.opened.wal.reset_to(last, done);
        } else {
            node.opened.wal.purge_through(last);
        }
    }

    /// Opens the directory as a crash left it, and holds it against the calls. Returns the node.
    pub(crate) fn check(&self, disk: &SimDisk, options: &Options) -> Node {
        let node = match Node::open(Arc::new(disk.clone()), options.clone()) {
            Ok(node) => node,
            Err(error) => panic!("recovery failed: {error}"),
        };
        let from = self.answered.load(Ordering::SeqCst);
        let states = &self.states[from..];
        let opened = &node.opened;
        let vote = opened.metadata.hard_state;
        assert!(
            states.iter().any(|state| state.hard_state == vote),
            "vote {vote:?}"
        );
        let identity = &opened.metadata.identity;
        assert!(
            states.iter().any(|state| state.identity == identity),
            "identity {identity:?}"
        );
        // Calls after the found vote were not executed: their vote is written first.
        let voted = states.iter().rposition(|state| state.hard_state == vote);
        let records = node.all();
        let next = opened.log.last().map_or(0, |last| last.index + 1);
        let first = records.first().map_or(next, |record| record.id.index);
        let found =
            (0..=voted.unwrap_or(0)).any(|at| self.matches(at + from, first, &records, next));
        assert!(
            found,
            "log {first}..{next} is none that was written since call {from}"
        );
        let latest = opened.snapshots.latest().map(|meta| meta.last);
        let wanted = self.snapshot.map(|last| last.index);
        assert!(
            latest.map(|last| last.index) >= wanted,
            "snapshot {latest:?} for {wanted:?}"
        );
        if let Some(mut reader) = opened.snapshots.open_latest().unwrap() {
            while reader.next_block().unwrap().is_some() {}
        }
        if let Some(hint) = opened.metadata.committed_hint {
            assert!(
                hint.index <= self.committed,
                "hint {hint} above {}",
                self.committed
            );
            assert_eq!(opened.log.id_at(hint.index), Some(hint));
        }
        node
    }

    /// Whether a log is the one after call `at`, or between it and the next one. Purge marks may
    /// be older than at that call.
    fn matches(&self, at: usize, first: u64, records: &[Record], next: u64) -> bool {
        let state = &self.states[at];
        let after = self
            .states
            .get(at + 1)
            .filter(|after| after.first == state.first);
        let longer = after.filter(|after| after.next() >= next && after.next() > state.next());
        let state = longer.unwrap_or(state);
        let least = self.states[at].next();
        if next < least || next > state.next() || (first > state.first && first < next) {
            return false;
        }
        records.iter().all(|record| {
            let index = record.id.index;
            match index.checked_sub(state.first) {
                Some(position) => state.records.get(position as usize) == Some(record),
                None => self.purged.get(&index) == Some(record),
            }
        })
    }
}

/// Continues after a recovery: the found data is durable, and the log accepts more.
pub(crate) fn go_on(mut node: Node, disk: &SimDisk, seed: u64, options: &Options) {
    let found = node.all();
    let last = node.opened.log.last();
    drop(node);
    let disk = disk.crash(seed);
    node = Node::open(Arc::new(disk.clone()), options.clone()).unwrap();
    assert_eq!(node.all(), found, "what recovery shows is durable");
    assert_eq!(node.opened.log.last(), last);
    let next = last.map_or(0, |last| last.index + 1);
    node.append(records(99, next..next + 3, 700)).unwrap();
    let node = Node::open(Arc::new(disk.crash(seed)), options.clone()).unwrap();
    assert_eq!(node.opened.log.last(), Some(id(99, next + 2)));
    assert_eq!(node.all()[..found.len()], found);
}

/// Runs a script with the power cut at each of its operations, and checks what is found so many times:
/// how many states that were, and in how many a tail was cut.
pub(crate) fn enumerate(seed: u64, steps: usize, crashes: u64) -> (u64, u64) {
    let options = options();
    let mut whole = Run::new(seed, SimDisk::new(seed));
    whole.run(&options, steps);
    let operations = whole.disk.op_count();
    let (mut states, mut torn) = (0, 0);
    for at in 1..=operations {
        let mut run = Run::new(seed, SimDisk::new(seed));
        run.disk.crash_at_op(at);
        run.run(&options, steps);
        assert!(
            !run.disk.is_powered(),
            "run {seed} must reach operation {at}"
        );
        for crash in 0..crashes {
            let context = format!("seed {seed}, operation {at}, crash {crash}");
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // The last one is a kill: everything written is there, but not durable.
                let fork = run.disk.fork();
                let disk = if crash + 1 == crashes {
                    fork
                } else {
                    fork.crash(at * 97 + crash)
                };
                let node = run.check(&disk, &options);
                let torn = u64::from(node.opened.recovery.torn_tail.is_some());
                go_on(node, &disk, crash, &options);
                torn
            }));
            match result {
                Ok(more) => torn += more,
                Err(_) => panic!("failed at {context}"),
            }
            states += 1;
        }
    }
    (states, torn)
}
