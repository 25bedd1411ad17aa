//! What a transaction answers and copies at most, from lengths alone, before any of it is executed.
//!
//! It is part of the state machine: it looks at the keys as they are and at the steps, and at nothing
//! else, so every node refuses the same transactions. It copies no value. What it says of
//! point reads behind writes of the same transaction is what they will find, or more; SCAN and ranges
//! are measured on the keys as they are before, and each step is measured again when its turn comes.

use std::collections::BTreeMap;

use super::{Command, SetIf, Step};
use crate::keyspace::Keyspace;
use crate::reply::ELEMENT_OVERHEAD_BYTES;
use crate::{
    DATABASES, MAX_COPIED_BYTES, MAX_VALUE_BYTES_CEILING, MAX_WRITE_REPLY_BYTES, ReplyError,
};

/// The longest text that INCRBY makes: the sign and the digits of 64 bits.
const LONGEST_INTEGER_BYTES: usize = 20;

/// The longest text that INCRBYFLOAT makes: the digits of the largest 80-bit number.
const LONGEST_FLOAT_BYTES: usize = 5 * 1024;

/// Whether the steps may be executed.
///
/// # Errors
///
/// `ReplyTooLong` if they would answer more than [`MAX_WRITE_REPLY_BYTES`], `TooMuchCopied` if they
/// would copy more than [`MAX_COPIED_BYTES`].
pub(super) fn check(keys: &Keyspace, steps: &[Step]) -> Result<(), ReplyError> {
    // The steps before the last one that depends on a length are all that matters.
    let Some(last) = steps.iter().rposition(depends_on_lengths) else {
        return Ok(());
    };
    let mut lengths = Lengths {
        keys,
        changed: BTreeMap::new(),
        flushed: [false; DATABASES as usize],
    };
    let (mut reply, mut copied) = (0usize, 0usize);
    for step in steps.iter().take(last + 1) {
        let answer = match step {
            Step::Read(query) => {
                let of = |database, key: &[u8]| lengths.of(database, key);
                query.answer_len(keys.into(), &of, MAX_WRITE_REPLY_BYTES)
            }
            Step::Write(command) => {
                let (answer, copies) = lengths.write(command, 0);
                copied = copied.saturating_add(copies);
                answer
            }
        };
        reply = reply.saturating_add(ELEMENT_OVERHEAD_BYTES + answer);
        if reply > MAX_WRITE_REPLY_BYTES {
            return Err(ReplyError::ReplyTooLong);
        }
        if copied > MAX_COPIED_BYTES {
            return Err(ReplyError::TooMuchCopied);
        }
    }
    Ok(())
}

/// Whether the length of a value says how much the step answers or copies.
fn depends_on_lengths(step: &Step) -> bool {
    match step {
        Step::Read(_) => true,
        Step::Write(command) => command_depends(command),
    }
}

fn command_depends(command: &Command) -> bool {
    match command {
        Command::SetWith { get, .. } => *get,
        Command::GetDel { .. }
        | Command::GetEx { .. }
        | Command::Append { .. }
        | Command::SetRange { .. } => true,
        Command::InDatabase { command, .. } => command_depends(command),
        _ => false,
    }
}

/// How long values are after the steps so far.
struct Lengths<'a> {
    keys: &'a Keyspace,
    /// What the steps have given another length; nothing if they have removed it.
    changed: BTreeMap<(u8, &'a [u8]), Option<usize>>,
    /// The databases of which nothing else is left.
    flushed: [bool; DATABASES as usize],
}

impl<'a> Lengths<'a> {
    fn of(&self, database: u8, key: &[u8]) -> Option<usize> {
        if let Some(changed) = self.changed.get(&(database, key)) {
            return *changed;
        }
        let is_flushed = self.flushed.get(usize::from(database)) == Some(&true);
        let found = self.keys.get(database, key).filter(|_| !is_flushed)?;
        Some(found.value.len())
    }

    fn set(&mut self, database: u8, key: &'a [u8], len: Option<usize>) {
        self.changed.insert((database, key), len);
    }

    /// The value may have become so long, or have stayed as it was.
    fn raise(&mut self, database: u8, key: &'a [u8], len: usize) {
        let longest = self.of(database, key).unwrap_or(0).max(len);
        self.set(database, key, Some(longest));
    }

    fn flush(&mut self, database: u8) {
        self.changed.retain(|(of, _), _| *of != database);
        if let Some(flushed) = self.flushed.get_mut(usize::from(database)) {
            *flushed = true;
        }
    }

    /// Takes a write into account; tells how many bytes of values it answers and copies.
    fn write(&mut self, command: &'a Command, database: u8) -> (usize, usize) {
        let old = |lengths: &Self, key: &[u8]| lengths.of(database, key).unwrap_or(0);
        match command {
            Command::InDatabase { database, command } => return self.write(command, *database),
            Command::Set { key, value } => self.set(database, key, Some(value.len())),
            Command::SetWith {
                key,
                value,
                condition,
                get,
                ..
            } => {
                let answer = if *get { old(self, key) } else { 0 };
                match condition {
                    SetIf::Always => self.set(database, key, Some(value.len())),
                    _ => self.raise(database, key, value.len()),
                }
                return (answer, 0);
            }
            Command::SetMany {
                pairs,
                if_none_exists,
            } => {
                for (key, value) in pairs {
                    match if_none_exists {
                        true => self.raise(database, key, value.len()),
                        false => self.set(database, key, Some(value.len())),
                    }
                }
            }
            Command::CompareAndSet { key, value, .. } => self.raise(database, key, value.len()),
            Command::Del { keys } => {
                keys.iter().for_each(|key| self.set(database, key, None));
            }
            Command::GetDel { key } => {
                let answer = old(self, key);
                self.set(database, key, None);
                return (answer, 0);
            }
            Command::GetEx { key, .. } => return (old(self, key), 0),
            Command::IncrBy { key, .. } => self.raise(database, key, LONGEST_INTEGER_BYTES),
            Command::IncrByFloat { key, .. } => self.raise(database, key, LONGEST_FLOAT_BYTES),
            Command::Append { key, suffix } => {
                let len = old(self, key).saturating_add(suffix.len());
                return (0, self.grow(database, key, len));
            }
            Command::SetRange { key, offset, patch } if !patch.is_empty() => {
                let offset = usize::try_from(*offset).unwrap_or(usize::MAX);
                let end = offset.saturating_add(patch.len()).max(old(self, key));
                return (0, self.grow(database, key, end));
            }
            Command::Rename {
                from,
                to,
                if_absent,
            } => {
                let Some(len) = self.of(database, from).filter(|_| from != to) else {
                    return (0, 0);
                };
                match if_absent {
                    true => self.raise(database, to, len),
                    false => {
                        self.set(database, from, None);
                        self.set(database, to, Some(len));
                    }
                }
            }
            Command::Copy {
                from,
                to,
                to_database,
                replace,
            } => match self.of(database, from) {
                Some(len) if *replace => self.set(*to_database, to, Some(len)),
                Some(len) => self.raise(*to_database, to, len),
                None => {}
            },
            Command::FlushAll => (0..DATABASES).for_each(|database| self.flush(database)),
            Command::FlushDatabase => self.flush(database),
            // What remains leaves values as they are, or removes them.
            _ => {}
        }
        (0, 0)
    }

    /// A value is written anew with this length; tells how many bytes that copies. One beyond the
    /// limit is refused in its turn.
    fn grow(&mut self, database: u8, key: &'a [u8], len: usize) -> usize {
        if len > MAX_VALUE_BYTES_CEILING {
            return 0;
        }
        self.set(database, key, Some(len));
        len
    }
}
