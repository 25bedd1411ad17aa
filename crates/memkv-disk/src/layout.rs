//! The files of the data directory, and which of them a crash may tear.
//! Never touches a file.
//!
//! ```text
//! log_path/
//!   00000000000000000000-0000000000000001.log   segment: first index, generation (hex)
//!   spare-0000000000000002                      zero-filled or recycled file for a next segment
//!   reserve                                     space kept for a full disk, no content
//! metadata_path/
//!   metadata-a  metadata-b                      term and vote, identity, boot counter, frontier
//!   clock                                       log time and the machine's; never synced
//!   peers                                       memory of the peers; two slots, rarely synced
//!   condemned                                   why this directory must be set aside
//!   reset-admin                                 a user that gets all rights and a new password
//!   restoring                                   a restore is under way here
//!   recovering                                  the files are being set aside, to be filled anew
//! snapshot_path/
//!   00000000-00000000000000000500-...-....snap  group (hex), index, term (hex), leader (hex); newest two
//!   incoming-1.part  building-2.part            unfinished; removed at the next start
//! each of the three: memkv.lock, quarantine-1/ (contents set aside, never deleted by memkv)
//! ```
//!
//! All three paths may be the same directory. The states that a crash may leave, and the reaction of
//! recovery:
//!
//! | where | may be torn | reaction |
//! |---|---|---|
//! | last segment, records above the durable frontier | any subset of their sectors | cut; the log continues there in a new segment with a new generation |
//! | segment header | never: it is synced under the name `spare-*` before the rename | refuse to start |
//! | any other record | never | refuse to start |
//! | `metadata-a` | yes, while being overwritten | `metadata-b` holds the last acknowledged value |
//! | `metadata-b` | yes, while being overwritten | `metadata-a` is complete and at least as new |
//! | `clock` | yes | it is ignored; the wall clock or the peers give the time |
//! | `peers` | yes, one of its slots | the other, older slot is read; without one the memory is empty |
//! | `condemned` | its text | the directory is set aside nevertheless |
//! | `reset-admin` | never: synced before the rename | the node says so and goes on |
//! | any file, while there is `restoring` | yes | refuse to start; the next restore begins anew |
//! | `recovering` | never: synced before the rename | refuse to start; the next recovery goes on |
//! | snapshot | never: synced and re-read before the rename | the older one, if the log covers the gap; else refuse |
//! | `*.part`, `spare-*`, `reserve` | always | removed or overwritten |
//!
//! Every file belongs to Raft group 0, the only one that this build knows. Log records and metadata carry
//! the group, and so does the name of a snapshot. An intact segment, record or metadata file of another
//! group or of another format version is refused, and so is a snapshot's name of another group or without
//! one, which is that of the first format: the node does not start and changes nothing. The contents of a
//! snapshot of another version count as damage; `clock` and `peers` of another version count as absent.
//!
//! With `durability: "os"` records are not synced, so a power cut (not a crash of the process) may
//! tear any segment written so; recovery cuts the log there.

use std::path::{Path, PathBuf};

use crate::format::{GROUP, Unreadable, check_group};
use crate::record::LogId;

/// Holder of the lock of each directory; its content is a process id, for messages only.
pub(crate) const LOCK_FILE: &str = "memkv.lock";

/// Name of the reserve for a full disk.
pub(crate) const RESERVE_FILE: &str = "reserve";

/// Names of the two metadata copies, in the order in which they are written.
pub(crate) const METADATA_FILES: [&str; 2] = ["metadata-a", "metadata-b"];

/// Name of the file that carries the log clock over a restart of the process.
pub(crate) const CLOCK_FILE: &str = "clock";

/// Name of the file with the node's memory of its peers.
pub(crate) const PEERS_FILE: &str = "peers";

/// Name of the file with the reason why a directory must not be used any more.
pub(crate) const CONDEMNED_FILE: &str = "condemned";

/// Name of the file that gives a user all rights.
pub(crate) const RESET_FILE: &str = "reset-admin";
/// Name of the file that marks a directory in which a restore has not ended.
pub(crate) const RESTORING_FILE: &str = "restoring";

/// Name of the file that marks a directory whose files are being set aside, to be filled anew.
pub(crate) const RECOVERING_FILE: &str = "recovering";

/// Directories with contents set aside start with this.
pub(crate) const QUARANTINE_PREFIX: &str = "quarantine-";

/// Segments are multiples of this, as in the original.
pub(crate) const SEGMENT_UNIT: u64 = 64 << 10;

/// The three directories of a node, as its configuration names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Log segments.
    pub log: PathBuf,
    /// Term, vote, identity.
    pub metadata: PathBuf,
    /// Snapshots.
    pub snapshot: PathBuf,
}

impl Layout {
    /// The original's three names below one directory.
    pub fn under(root: &Path) -> Self {
        Self {
            log: root.join("log"),
            metadata: root.join("metadata"),
            snapshot: root.join("snapshot"),
        }
    }

    /// The directories, each once, in an order that is always the same.
    pub(crate) fn directories(&self) -> Vec<&Path> {
        let mut all: Vec<&Path> = vec![&self.log, &self.snapshot, &self.metadata];
        let mut seen = Vec::new();
        all.retain(|path| {
            let new = !seen.contains(path);
            seen.push(*path);
            new
        });
        all
    }
}

/// How the log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes per segment, rounded up to 64 KiB. A record larger than that gets a segment of its
    /// own, and no new segment is smaller than 1/64 of the log, which bounds open files.
    pub max_log_size: u64,
    /// Whether a record is acknowledged only after fdatasync (`durability: "sync"`). Without it
    /// (`"os"`) acknowledged records survive the death of the process, not of the machine.
    /// Votes and everything else are synced in both.
    pub sync: bool,
    /// Bytes of recent records kept in memory for replication.
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_log_size: SEGMENT_UNIT,
            sync: true,
            // As much as can be in flight at once, four entries of a mebibyte. The leader never reads its
            // log for a follower that keeps up; for one that is further behind, it reads from the disk.
            cache_bytes: 4 << 20,
        }
    }
}

pub(crate) fn segment_name(first: u64, generation: u64) -> String {
    format!("{first:020}-{generation:016x}.log")
}

/// First index and generation in a segment's name; `None` for any other name.
pub(crate) fn parse_segment_name(name: &str) -> Option<(u64, u64)> {
    let (first, generation) = name.strip_suffix(".log")?.split_once('-')?;
    let first = first.parse().ok()?;
    let generation = u64::from_str_radix(generation, 16).ok()?;
    (segment_name(first, generation) == name).then_some((first, generation))
}

pub(crate) fn snapshot_name(id: LogId) -> String {
    format!("{GROUP:08x}-{}", without_group(id))
}

/// The rest of a snapshot's name, which was all of it in version 1.
fn without_group(id: LogId) -> String {
    format!("{:020}-{:016x}-{:016x}.snap", id.index, id.term, id.leader)
}

/// The last entry in a snapshot's name, or why this build must not read the file; `None` for any name
/// that is not a snapshot's.
pub(crate) fn parse_snapshot_name(name: &str) -> Option<Result<LogId, Unreadable>> {
    if parse_without_group(name).is_some() {
        let (found, known) = (b'1', b'2');
        return Some(Err(Unreadable::Version { found, known }));
    }
    let (hex, rest) = name.split_once('-')?;
    let group = u32::from_str_radix(hex, 16).ok()?;
    let id = parse_without_group(rest).filter(|_| format!("{group:08x}") == hex)?;
    Some(check_group(group).map(|()| id))
}

fn parse_without_group(name: &str) -> Option<LogId> {
    let mut parts = name.strip_suffix(".snap")?.splitn(3, '-');
    let index = parts.next()?.parse().ok()?;
    let mut hex = || u64::from_str_radix(parts.next()?, 16).ok();
    let id = LogId {
        index,
        term: hex()?,
        leader: hex()?,
    };
    (without_group(id) == name).then_some(id)
}

pub(crate) fn spare_name(generation: u64) -> String {
    format!("spare-{generation:016x}")
}

pub(crate) fn is_spare_name(name: &str) -> bool {
    name.starts_with("spare-")
}

/// Whether a name in the list above belongs to a file that carries data.
pub(crate) fn is_data_name(name: &str) -> bool {
    let ends = [".snap", ".snap.bad", ".part"];
    parse_segment_name(name).is_some()
        || is_spare_name(name)
        || METADATA_FILES.iter().any(|file| name.starts_with(file))
        || [PEERS_FILE, CONDEMNED_FILE, RESET_FILE].contains(&name)
        || ends.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_names_parse_back_and_nothing_else_does() {
        let name = segment_name(12, 0xab);
        assert_eq!(name, "00000000000000000012-00000000000000ab.log");
        assert_eq!(parse_segment_name(&name), Some((12, 0xab)));
        for bad in [
            "",
            "1-2.log",
            "spare-1",
            "00000000000000000012-00000000000000AB.log",
        ] {
            assert_eq!(parse_segment_name(bad), None, "{bad}");
        }
    }

    #[test]
    fn snapshot_names_parse_back_and_another_group_or_version_is_refused() {
        let id = LogId {
            term: 0xa,
            leader: 3,
            index: 500,
        };
        let rest = "00000000000000000500-000000000000000a-0000000000000003.snap";
        assert_eq!(snapshot_name(id), format!("00000000-{rest}"));
        assert_eq!(parse_snapshot_name(&snapshot_name(id)), Some(Ok(id)));
        let other = parse_snapshot_name(&format!("0000000b-{rest}"));
        assert_eq!(other, Some(Err(Unreadable::Group(11))));
        let (found, known) = (b'1', b'2');
        let first = Some(Err(Unreadable::Version { found, known }));
        assert_eq!(parse_snapshot_name(rest), first);
        for bad in ["", ".snap", "0-1-2-3.snap", "spare.part"] {
            assert_eq!(parse_snapshot_name(bad), None, "{bad}");
        }
        for bad in ["0000000B-", "000000000-", "00000000-00000000-", "-"] {
            assert_eq!(parse_snapshot_name(&format!("{bad}{rest}")), None, "{bad}");
        }
    }

    #[test]
    fn one_directory_for_all_three_is_listed_once() {
        let same = PathBuf::from("data");
        let layout = Layout {
            log: same.clone(),
            metadata: same.clone(),
            snapshot: same,
        };
        assert_eq!(layout.directories().len(), 1);
        assert_eq!(Layout::under(Path::new("d")).directories().len(), 3);
    }
}
