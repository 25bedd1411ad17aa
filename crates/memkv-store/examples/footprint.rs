//! What keys cost: resident bytes per key and time per command, as a store is filled, read,
//! overwritten, photographed, loaded and emptied through its public interface.
//!
//! `cargo run --release -p memkv-store --example footprint [keys] [value bytes] [order]`, with the
//! allocator of the server; `order` is `random` (the default) or `ascending`. A development tool:
//! nothing depends on it.

#![allow(clippy::print_stdout, reason = "it prints a table")]
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use memkv_store::{
    BatchBuilder, Command, Loader, Rejected, Reply, SessionId, Sink, Store, SystemOp,
    SystemOutcome, Work,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Commands in an entry: what the batcher packs under load.
const BATCH: usize = 256;
/// The size of the server's blocks.
const BLOCK_BYTES: usize = 256 * 1024;

/// Drops everything; what an effect costs elsewhere is not the store's.
struct Nowhere;

impl Sink for Nowhere {
    fn reply(&mut self, _: SessionId, _: u64, _: &Reply) {}
    fn duplicate(&mut self, _: SessionId, _: u64, _: Option<&Reply>) {}
    fn rejected(&mut self, _: SessionId, _: u64, _: u64, why: Rejected) {
        panic!("a command was rejected: {why:?}");
    }
    fn system(&mut self, _: usize, _: &SystemOutcome) {}
    fn malformed(&mut self, why: &memkv_store::DecodeError) {
        panic!("an entry is malformed: {why}");
    }
}

struct Run {
    store: Store,
    session: SessionId,
    seq: u64,
    keys: u64,
    ascending: bool,
    resident_at_first: u64,
    /// Spent within `apply` since the last report.
    applying: Duration,
    /// The longest `apply` of one entry since the last report.
    longest: Duration,
}

impl Run {
    /// The key that comes as number `n`: 16 bytes.
    fn key(&self, n: u64) -> Bytes {
        // An odd factor permutes the numbers below a power of two.
        let shuffled = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let number = if self.ascending { n } else { shuffled };
        Bytes::from(format!("k{number:015}"))
    }

    /// Applies a command for each number, in entries of [`BATCH`].
    fn apply(&mut self, numbers: impl Iterator<Item = u64>, command: impl Fn(Bytes) -> Command) {
        let mut numbers = numbers.peekable();
        while numbers.peek().is_some() {
            let part = numbers.by_ref().take(BATCH);
            let commands: Vec<Bytes> = part.map(|n| command(self.key(n)).encode()).collect();
            let mut batch = BatchBuilder::new(0);
            batch.group(self.session, self.seq, self.seq - 1, commands.iter());
            let batch = batch.finish();
            self.seq += commands.len() as u64;
            let start = Instant::now();
            self.store
                .apply(self.store.applied_index() + 1, &batch, &mut Nowhere);
            let took = start.elapsed();
            self.applying += took;
            self.longest = self.longest.max(took);
        }
    }

    fn report(&mut self, what: &str, commands: u64) {
        let resident = resident().saturating_sub(self.resident_at_first);
        println!(
            "{what:<24} {:>7.1} B/key resident, {:>7.1} counted, {:>6.0} ns/command, longest entry {:>6} us",
            resident as f64 / self.keys as f64,
            self.store.memory_bytes() as f64 / self.keys as f64,
            self.applying.as_nanos() as f64 / commands.max(1) as f64,
            self.longest.as_micros(),
        );
        (self.applying, self.longest) = Default::default();
    }
}

/// Resident memory of the process, in bytes; 0 where there is no `/proc`.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0u64) * 4096
}

fn main() {
    let mut args = std::env::args().skip(1);
    let keys: u64 = args.next().map_or(1_000_000, |n| n.parse().expect("keys"));
    let value: usize = args.next().map_or(64, |n| n.parse().expect("value bytes"));
    let ascending = args.next().is_some_and(|order| order == "ascending");
    let mut run = Run {
        store: Store::new(),
        session: 1,
        seq: 1,
        keys,
        ascending,
        resident_at_first: 0,
        applying: Default::default(),
        longest: Default::default(),
    };
    let mut open = BatchBuilder::new(0);
    open.system(&SystemOp::OpenSession {
        node: 1,
        boot: 1,
        highest: 1,
    });
    run.store.apply(1, &open.finish(), &mut Nowhere);
    run.resident_at_first = resident();

    let set = |byte: u8, len: usize| {
        let value = Bytes::from(vec![byte; len]);
        move |key| Command::Set {
            key,
            value: value.clone(),
        }
    };
    let del = |key| Command::Del { keys: vec![key] };
    run.apply(0..keys, set(1, value));
    run.report("filled", keys);
    run.apply((0..keys).rev(), set(2, value));
    run.report("overwritten", keys);
    read(&run);
    let blocks = photograph(&mut run);
    run.report("photographed (not kept)", 0);
    load(&blocks);
    run.report("loaded (and dropped)", 0);
    drop(blocks);
    run.apply((0..keys).step_by(2), set(3, value + 40));
    run.report("every second grown", keys / 2);
    run.apply((0..keys).step_by(2), del);
    run.report("every second deleted", keys / 2);
    run.apply((0..keys).skip(1).step_by(2), del);
    run.report("all deleted", keys / 2);
}

fn read(run: &Run) {
    let wanted: Vec<Bytes> = (0..run.keys).map(|n| run.key(n)).collect();
    let start = Instant::now();
    let found = wanted.iter().filter_map(|key| run.store.get(key));
    let bytes: usize = found.map(|value| value.to_bytes().len()).sum();
    let each = start.elapsed().as_nanos() as f64 / run.keys as f64;
    println!("read                     {each:.0} ns/key, {bytes} bytes");
}

fn photograph(run: &mut Run) -> Vec<Vec<u8>> {
    let start = Instant::now();
    let (mut longest, mut held_in_all) = (Duration::ZERO, Duration::ZERO);
    let head = run.store.begin_snapshot().expect("no other snapshot");
    let mut blocks = vec![head.encode()];
    loop {
        let held = Instant::now();
        let shard = run.store.next_shard();
        longest = held.elapsed().max(longest);
        held_in_all += held.elapsed();
        let Some(shard) = shard else { break };
        let mut keep = |block: &[u8]| -> Result<(), std::convert::Infallible> {
            blocks.push(block.to_vec());
            Ok(())
        };
        let Ok(()) = shard.encode_blocks(BLOCK_BYTES, &mut keep);
    }
    println!(
        "photograph               {} ms, the store held for {} of them and {} us at most",
        start.elapsed().as_millis(),
        held_in_all.as_millis(),
        longest.as_micros()
    );
    blocks
}

/// Runs each piece on a thread.
fn run(work: Vec<Work<'_>>) {
    std::thread::scope(|scope| {
        work.into_iter().for_each(|piece| drop(scope.spawn(piece)));
    });
}

fn load(blocks: &[Vec<u8>]) {
    let before = resident();
    let start = Instant::now();
    let mut loader = Loader::new();
    for block in blocks {
        loader.block(block).expect("a block of this store");
    }
    let blocks_ms = start.elapsed().as_millis();
    let store = loader.finish_with(&run).expect("a whole snapshot");
    println!(
        "load                     {} ms, {blocks_ms} of them blocks; {:.1} B/key",
        start.elapsed().as_millis(),
        resident().saturating_sub(before) as f64 / store.len() as f64,
    );
}
