//! Fuzzing without a fuzzer: each entry of a target's corpus, and inputs that one number decides.
//! Shared by the tests of the crates that have fuzz targets. It finds what is shallow on every
//! commit; libFuzzer, where there is a nightly compiler, looks deeper.

use std::fs;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::thread;

/// Inputs per target: half a minute for the slowest target on two cores.
pub(crate) const INPUTS: u64 = 100_000;

/// Mutations that one input has seen.
const MUTATIONS: usize = 6;

/// Longest input that comes from nowhere.
const RANDOM_BYTES: usize = 200;

/// Runs a target over `fuzz/corpus/NAME` and over so many inputs. `MEMKV_FUZZ_SEED` makes it one
/// input alone, the one that a failure has named.
pub(crate) fn run(name: &str, inputs: u64, target: impl Fn(&[u8]) + Sync) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let corpus = corpus(&dir.join(name));
    let attempt = |what: &str, input: &[u8]| {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
            eprintln!(
                "{name} fails with {what}, the input \"{}\"",
                input.escape_ascii()
            );
            resume_unwind(panic);
        }
    };
    let seeded = |seed: u64| {
        let input = Mutator(seed).input(&corpus);
        attempt(&format!("MEMKV_FUZZ_SEED={seed}"), &input);
    };
    if let Ok(seed) = std::env::var("MEMKV_FUZZ_SEED") {
        return seeded(seed.parse().expect("MEMKV_FUZZ_SEED is a number"));
    }
    for (entry, input) in &corpus {
        attempt(entry, input);
    }
    // Inputs have nothing to do with each other, so each core takes every so many-th.
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for first in 0..threads as u64 {
            let inputs = (first..inputs).step_by(threads);
            scope.spawn(|| inputs.for_each(&seeded));
        }
    });
}

/// The entries with their names, in order of name, so that a seed means the same everywhere.
fn corpus(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let listed = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", dir.display());
    let read = |path: &std::path::PathBuf| (path.display().to_string(), fs::read(path).unwrap());
    paths.iter().map(read).collect()
}

/// splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
struct Mutator(u64);

impl Mutator {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % bound as u64).unwrap_or_default()
    }

    fn byte(&mut self) -> u8 {
        // What the formats are made of, half of the time.
        const TELLING: &[u8] = b"\r\n*$+-:0123456789_,#(!=%~>\" '\\x\0\xff{}[];/?";
        if self.below(2) == 0 {
            return TELLING[self.below(TELLING.len())];
        }
        u8::try_from(self.below(256)).unwrap_or_default()
    }

    /// A range within `length` bytes, short more often than long.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = if self.below(4) == 0 { length } else { 8 };
        let end = start + self.below(most + 1);
        start..end.min(length)
    }

    /// An entry with some mutations, or one time in ten nothing but noise.
    fn input(mut self, corpus: &[(String, Vec<u8>)]) -> Vec<u8> {
        if self.below(10) == 0 {
            let length = self.below(RANDOM_BYTES);
            return (0..length).map(|_| self.byte()).collect();
        }
        let mut input = corpus[self.below(corpus.len())].1.clone();
        for _ in 0..=self.below(MUTATIONS) {
            self.mutate(&mut input, corpus);
        }
        input
    }

    fn mutate(&mut self, input: &mut Vec<u8>, corpus: &[(String, Vec<u8>)]) {
        let range = self.range(input.len());
        match self.below(6) {
            0 => drop(input.drain(range)),
            1 => {
                let again = input[range.clone()].to_vec();
                input.splice(range.start..range.start, again);
            }
            2 => {
                let other = &corpus[self.below(corpus.len())].1;
                let from = self.range(other.len());
                input.splice(range, other[from].iter().copied());
            }
            3 => {
                let byte = self.byte();
                input.insert(range.start, byte);
            }
            _ => {
                let byte = self.byte();
                if let Some(old) = input.get_mut(range.start) {
                    *old = byte;
                }
            }
        }
    }
}
