//! The RAM of a key: the resident memory of a node after it was filled, less that of the same node
//! when it was empty. One node, so that nothing is counted twice.

use std::thread;
use std::time::Duration;

use clap::Args;

use crate::machine::resident_bytes;
use crate::run::{fill, full};
use crate::system::{Durability, Flavour, Name, Redis, System};

/// Wait after the last write: by then memory that is returned late has been returned, by memkv a
/// second after it was freed.
const REST: Duration = Duration::from_secs(3);

#[derive(Args)]
pub(crate) struct Options {
    /// The system; Valkey and Redis run without persistence.
    #[arg(long, value_enum, default_value = "memkv")]
    system: Name,
    /// Keys of 16 bytes.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
}

/// Prints one line.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let bytes = bytes_per_key(options.system, options.keys, options.value_bytes)?;
    println!(
        "{:?}: {bytes:.0} bytes per key, {} keys of 16 bytes, values of {}",
        options.system, options.keys, options.value_bytes
    );
    Ok(())
}

/// Fills a new node and returns the bytes of RAM per key.
pub(crate) fn bytes_per_key(name: Name, keys: u64, value_bytes: usize) -> Result<f64, String> {
    let without_disk = |flavour| -> Result<Box<dyn System>, String> {
        Ok(Box::new(Redis::start(flavour, 1, Durability::None)?))
    };
    let system = match name {
        Name::Valkey => without_disk(Flavour::Valkey)?,
        Name::Redis => without_disk(Flavour::Redis)?,
        other => other.start(1, "sync")?,
    };
    let empty = resident_bytes(&system.processes());
    let filled = fill(&*system, name.protocol(), keys, value_bytes).map_err(full)?;
    if filled.failed > 0 {
        let why = filled.complaint.unwrap_or_default();
        return Err(format!("{} of the writes failed: {why}", filled.failed));
    }
    thread::sleep(REST);
    let more = resident_bytes(&system.processes()).saturating_sub(empty);
    Ok(more as f64 / keys as f64)
}
