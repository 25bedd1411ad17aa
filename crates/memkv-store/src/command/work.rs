//! An upper bound of a command's work before it is executed, so that `apply` can yield in time.
//!
//! A unit is about 50 nanoseconds: one key that a walk passes, or 64 bytes that are copied. A key that is
//! found, written or removed anywhere else is sixteen. The numbers are bounds from present counts and
//! lengths. They are no part of the state, and no effect of a command depends on them.

use super::{Command, Operation, Part, Step};
use crate::Query;
use crate::keyspace::{Keyspace, SHARDS, SHARED_BYTES};

/// A key that is looked up, written or removed.
pub(crate) const KEY: u64 = 16;
/// A key that is looked up, with a copy of its value if that is small.
const READ: u64 = 24;
/// A key among others that are walked over in order.
const WALKED: u64 = 4;
/// A change of the table of users, which copies references to all of them.
const USERS: u64 = 2_000;
/// Bytes that are copied for one unit.
const COPIED_BYTES: u64 = 64;

pub(super) fn copied(bytes: usize) -> u64 {
    bytes as u64 / COPIED_BYTES
}

fn keys(count: usize) -> u64 {
    KEY * count as u64
}

impl Operation<'_> {
    #[inline]
    pub(crate) fn work(&self, store: &Keyspace) -> u64 {
        #[cfg(test)]
        let _pause = crate::rights::recording::Pause::begin();
        match self {
            Operation::Noop => 1,
            Operation::Set(set) => KEY + copied(set.value().len()),
            Operation::SetMany(set) => {
                let (count, bytes) = set.size();
                keys(count) + copied(bytes)
            }
            Operation::Del(del) => KEY + keys(del.count()),
            Operation::Other(command) => command.work(store, 0),
        }
    }
}

impl Command {
    fn work(&self, store: &Keyspace, database: u8) -> u64 {
        let old = |key: &[u8]| {
            store
                .get(database, key)
                .map_or(0, |found| found.value.len())
        };
        // Large values are shared.
        let taken = |key: &[u8]| {
            store
                .get(database, key)
                .map_or(0, |found| found.copied_len())
        };
        match self {
            Command::InDatabase { database, command } => command.work(store, *database),
            Command::SetUser { .. } | Command::DelUsers { .. } | Command::InitUsers { .. } => USERS,
            // The most frequent ones, which carry a number and a key.
            Command::IncrBy { .. } | Command::GetDel { .. } => 2 * KEY,
            Command::Append { key, suffix } => KEY + copied(old(key).saturating_add(suffix.len())),
            Command::SetRange { key, .. } => KEY + copied(old(key).max(self.patched())),
            Command::Rename { from, .. } | Command::Copy { from, .. } => {
                2 * KEY + copied(taken(from))
            }
            Command::GetEx { key, .. }
            | Command::Expire { key, .. }
            | Command::Prolong { key, .. }
            | Command::Persist { key } => KEY + copied(taken(key)),
            Command::Transaction {
                guards,
                operations,
                otherwise,
            } => {
                let steps = [operations, otherwise];
                let branches = steps.map(|steps| transaction(store, steps));
                keys(guards.len()) + branches[0].max(branches[1])
            }
            plain => plain.carried(),
        }
    }

    /// The work of the command by its own fields alone.
    fn carried(&self) -> u64 {
        let mut bytes = self.patched();
        self.visit(&mut |part| {
            let (Part::Key(part) | Part::Value(part)) = part;
            bytes += part.len();
        });
        keys(self.key_count()) + copied(bytes)
    }

    /// The end of a SETRANGE, if it may be executed.
    fn patched(&self) -> usize {
        match self {
            Command::SetRange { offset, patch, .. } => usize::try_from(*offset)
                .ok()
                .and_then(|offset| offset.checked_add(patch.len()))
                .filter(|end| *end <= crate::MAX_VALUE_BYTES_CEILING)
                .unwrap_or(0),
            Command::InDatabase { command, .. } => command.patched(),
            _ => 0,
        }
    }

    /// How it makes a value out of one that existed before.
    fn reuses(&self) -> Reuse {
        match self {
            Command::Append { .. } | Command::SetRange { .. } => Reuse::Rewrites,
            Command::Rename { .. }
            | Command::Copy { .. }
            | Command::GetEx { .. }
            | Command::Expire { .. }
            | Command::Prolong { .. }
            | Command::Persist { .. } => Reuse::Takes,
            Command::InDatabase { command, .. } => command.reuses(),
            _ => Reuse::Nothing,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reuse {
    Nothing,
    /// It writes the value anew.
    Rewrites,
    /// It copies the value, unless that is large enough to be shared.
    Takes,
}

/// The steps of one branch. Each that rewrites or takes a value may find the longest of all that the branch
/// names or makes, since an earlier step may have moved it there; a taken value is shared from
/// [`SHARED_BYTES`] on.
fn transaction(store: &Keyspace, steps: &[Step]) -> u64 {
    let mut work = 0;
    let (mut rewrites, mut takes) = (0, 0);
    for step in steps {
        match step {
            Step::Read(query) => work += query.work(store, 0),
            Step::Write(command) => {
                work += command.carried();
                match command.reuses() {
                    Reuse::Rewrites => rewrites += 1,
                    Reuse::Takes => takes += 1,
                    Reuse::Nothing => {}
                }
            }
        }
    }
    let (mut longest, mut copied_longest) = (0, 0);
    if rewrites + takes > 0 {
        for step in steps {
            if let Step::Write(command) = step {
                let (_, carried) = command.longest();
                let named = command.longest_named(store, 0);
                longest = longest.max(named.whole).max(command.patched());
                copied_longest = copied_longest.max(named.copied).max(carried);
            }
        }
    }
    let grown = (longest as u64)
        .saturating_add(work.saturating_mul(COPIED_BYTES))
        .min(MOST);
    let taken = match rewrites {
        0 => copied_longest as u64,
        _ => grown,
    };
    let taken = taken.min(SHARED_BYTES as u64);
    let reused = (rewrites * grown).saturating_add(takes * taken);
    work.saturating_add(reused / COPIED_BYTES)
}

/// No value is longer.
const MOST: u64 = crate::MAX_VALUE_BYTES_CEILING as u64;

/// The longest values at the keys of a command.
#[derive(Default)]
struct Longest {
    whole: usize,
    /// Of those that are copied where they are taken.
    copied: usize,
}

impl Command {
    fn longest_named(&self, store: &Keyspace, database: u8) -> Longest {
        if let Command::InDatabase { database, command } = self {
            return command.longest_named(store, *database);
        }
        let mut longest = Longest::default();
        // A command of many keys writes them; a command that reuses a value names one or two.
        if self.key_count() <= 2 {
            self.visit(&mut |part| {
                if let Part::Key(key) = part
                    && let Some(found) = store.get(database, key)
                {
                    longest.whole = longest.whole.max(found.value.len());
                    longest.copied = longest.copied.max(found.copied_len());
                }
            });
        }
        longest
    }
}

impl Query {
    /// As for commands, within a transaction.
    fn work(&self, store: &Keyspace, database: u8) -> u64 {
        let len = store.database_len(database) as u64;
        match self {
            Query::InDatabase { database, query } => query.work(store, *database),
            Query::Range { limit, .. } => KEY + WALKED * (*limit).min(len),
            Query::Scan { count, .. } => {
                KEY + WALKED * (*count).min(len).saturating_add(len / SHARDS as u64)
            }
            Query::RandomKey { .. } => KEY + WALKED * (len / SHARDS as u64),
            other => READ * other.key_count() as u64,
        }
    }
}
