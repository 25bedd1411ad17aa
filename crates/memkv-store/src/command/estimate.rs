//! Upper bounds of a transaction's answers and copies, from lengths alone, before any of it is executed.
//!
//! It is part of the state machine: it depends on the present keys and the steps alone, so every node
//! refuses the same transactions. It copies no value. Its bound for a point read behind writes of the same
//! transaction is the length that the read will find, or more. SCAN and ranges are measured on the keys
//! before the transaction, and each step is measured again when it executes.

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
    // Steps behind the last one that depends on a length do not matter.
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

/// Whether the length of a value decides how much the step answers or copies.
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

/// The lengths of values after the steps so far.
struct Lengths<'a> {
    keys: &'a Keyspace,
    /// The keys whose length the steps have changed; nothing if they have removed the key.
    changed: BTreeMap<(u8, &'a [u8]), Option<usize>>,
    /// The databases that were flushed: they hold nothing but `changed`.
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

    /// The value perhaps has this length, or has stayed as it was.
    fn raise(&mut self, database: u8, key: &'a [u8], len: usize) {
        let longest = self.of(database, key).unwrap_or(0).max(len);
        self.set(database, key, Some(longest));
    }

    /// The value gets this length, for certain or perhaps.
    fn set_if(&mut self, database: u8, key: &'a [u8], len: usize, is_certain: bool) {
        match is_certain {
            true => self.set(database, key, Some(len)),
            false => self.raise(database, key, len),
        }
    }

    fn rename(&mut self, database: u8, from: &'a [u8], to: &'a [u8], if_absent: bool) {
        let Some(len) = self.of(database, from).filter(|_| from != to) else {
            return;
        };
        if !if_absent {
            self.set(database, from, None);
        }
        self.set_if(database, to, len, !if_absent);
    }

    fn flush(&mut self, database: u8) {
        self.changed.retain(|(of, _), _| *of != database);
        if let Some(flushed) = self.flushed.get_mut(usize::from(database)) {
            *flushed = true;
        }
    }

    /// Takes a write into account; returns how many bytes of values it answers and copies.
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
                self.set_if(database, key, value.len(), *condition == SetIf::Always);
                return (answer, 0);
            }
            Command::SetMany {
                pairs,
                if_none_exists,
            } => {
                for (key, value) in pairs {
                    self.set_if(database, key, value.len(), !if_none_exists);
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
            } => self.rename(database, from, to, *if_absent),
            Command::Copy {
                from,
                to,
                to_database,
                replace,
            } => {
                if let Some(len) = self.of(database, from) {
                    self.set_if(*to_database, to, len, *replace);
                }
            }
            Command::FlushAll => (0..DATABASES).for_each(|database| self.flush(database)),
            Command::FlushDatabase => self.flush(database),
            // The others leave values as they are, or remove them.
            _ => {}
        }
        (0, 0)
    }

    /// A value is written anew with this length; returns how many bytes that copies. A value beyond the
    /// limit is refused when its step executes.
    fn grow(&mut self, database: u8, key: &'a [u8], len: usize) -> usize {
        if len > MAX_VALUE_BYTES_CEILING {
            return 0;
        }
        self.set(database, key, Some(len));
        len
    }
}
