//! memkv-disk: the data directory of a node, the only crate that touches files.
//! Never interprets a record, never knows the members; never uses a runtime or a clock.
//! Invariant: acknowledged data is found again, or the node refuses to start and gives the reason.
//!
//! Start with [`open`]; [`layout`] lists the files and which of them a crash may tear; `recovery`
//! finds the log's end.

#![forbid(unsafe_code)]

mod active;
#[cfg(memkv_bugs)]
pub mod bugs;
mod clock_file;
pub mod disk;
mod format;
pub mod layout;
mod metadata;
mod open;
mod peers_file;
mod reader;
pub mod record;
mod recovering;
mod recovery;
mod reset_file;
mod restoring;
mod salvage;
mod segment;
mod shared;
mod snapshot_format;
mod snapshots;
mod space;
mod survey;
mod wal;
mod writer;

pub use clock_file::{ClockFile, ClockReading, boot_clock};
pub use layout::{Layout, Options};
pub use metadata::{MAX_IDENTITY, Metadata};
pub use open::{OpenError, Opened, RecoveryReport, open, quarantine, quarantined};
pub use peers_file::{MAX_PEERS_BYTES, PeersFile, condemn};
pub use reader::{ColdRecords, Found, LogReader};
pub use record::{HardState, LogId, Record};
pub use recovering::Recovery;
pub use recovery::TornTail;
pub use reset_file::{ResetAdmin, Stopped};
pub use restoring::Restoring;
pub use salvage::{Flaw, Salvage};
pub use snapshot_format::{MAX_BLOCK, MAX_EXTRA, SnapshotMeta, SnapshotReader};
pub use snapshots::{SnapshotReceiver, SnapshotStore, SnapshotWriter};
pub use space::{RESERVE_BASE, Space};
pub use survey::{Survey, survey};
pub use wal::{Completions, Done, WalHandle, WalWorker};
