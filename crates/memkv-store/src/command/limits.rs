//! The limits of commands, and where commands may be nested: for interfaces that refuse early, and for
//! execution, which must not rely on that.

use bytes::Bytes;

use super::codec::Within;
use super::transaction;
use super::{Command, MAX_TRANSACTION_STEPS, Step};
use crate::{MAX_COMMAND_KEYS, MAX_KEY_BYTES, MAX_VALUE_BYTES_CEILING, ReplyError, rights};

/// A piece of a command that has a size limit.
pub(super) enum Part<'a> {
    Key(&'a Bytes),
    Value(&'a Bytes),
}

impl Command {
    /// The error with which the command would fail for its size alone, so that an interface can refuse it
    /// before it costs a log entry.
    ///
    /// # Errors
    ///
    /// The same [`ReplyError`] that executing it would answer; for a transaction, the first step's
    /// that has one, or `TransactionTooLong` or `TooManyKeys` if it could not even be decoded.
    pub fn check_limits(&self) -> Result<(), ReplyError> {
        self.check_key_count()?;
        self.check_shape(Within::Nothing)?;
        self.check_users()?;
        self.check_sizes()
    }

    /// Whether it names no more keys than one command may.
    pub(super) fn check_key_count(&self) -> Result<(), ReplyError> {
        check_count(self.key_count())
    }

    /// The number of keys that it names, guards and steps included.
    pub(crate) fn key_count(&self) -> usize {
        match self {
            Command::Del { keys } => keys.len(),
            Command::SetMany { pairs, .. } => pairs.len(),
            Command::Rename { .. } | Command::Copy { .. } => 2,
            Command::InDatabase { command, .. } => command.key_count(),
            Command::Transaction {
                guards,
                operations,
                otherwise,
            } => guards.len() + key_counts(operations) + key_counts(otherwise),
            _ => 1,
        }
    }

    pub(super) fn check_sizes(&self) -> Result<(), ReplyError> {
        let mut result = Ok(());
        self.visit(&mut |part| {
            let checked = match part {
                Part::Key(key) => check_key(key),
                Part::Value(value) => check_value(value),
            };
            result = result.and(checked);
        });
        result
    }

    /// The lengths in bytes of the longest key and the longest value that the command carries.
    pub fn longest(&self) -> (usize, usize) {
        let (mut longest_key, mut longest_value) = (0, 0);
        self.visit(&mut |part| match part {
            Part::Key(key) => longest_key = longest_key.max(key.len()),
            Part::Value(value) => longest_value = longest_value.max(value.len()),
        });
        (longest_key, longest_value)
    }

    /// Whether the users that it carries are within their limits.
    fn check_users(&self) -> Result<(), ReplyError> {
        let fits = match self {
            Command::SetUser { name, user, .. } => {
                rights::check_name(name) && user.is_within_limits()
            }
            Command::DelUsers { names } => rights::check_names(names),
            Command::InitUsers { users } => rights::check_users(users),
            _ => true,
        };
        match fits {
            true => Ok(()),
            false => Err(ReplyError::UserTooLarge),
        }
    }

    /// Whether it is nested where [`Command::read`] would accept it.
    fn check_shape(&self, within: Within) -> Result<(), ReplyError> {
        let fits = match self {
            Command::Transaction {
                guards,
                operations,
                otherwise,
            } => {
                for step in operations.iter().chain(otherwise) {
                    if let Step::Write(command) = step {
                        command.check_shape(Within::Transaction)?;
                    }
                }
                let longest = guards.len().max(operations.len()).max(otherwise.len());
                within == Within::Nothing && longest <= MAX_TRANSACTION_STEPS
            }
            Command::InDatabase { command, .. } => {
                command.check_shape(Within::Database)?;
                within != Within::Database
            }
            Command::SetUser { .. } | Command::DelUsers { .. } | Command::InitUsers { .. } => {
                within == Within::Nothing
            }
            _ => true,
        };
        if fits {
            Ok(())
        } else {
            Err(ReplyError::TransactionTooLong)
        }
    }

    /// Hands every key and value to `f`.
    pub(super) fn visit<'a>(&'a self, f: &mut impl FnMut(Part<'a>)) {
        match self {
            Command::Noop
            | Command::FlushAll
            | Command::FlushDatabase
            | Command::Announce { .. }
            | Command::SetMemory { .. }
            | Command::SetUser { .. }
            | Command::DelUsers { .. }
            | Command::InitUsers { .. }
            | Command::Tick => {}
            #[cfg(memkv_bugs)]
            Command::OfNextLevel => {}
            Command::Del { keys } => keys.iter().for_each(|key| f(Part::Key(key))),
            Command::GetDel { key }
            | Command::GetEx { key, .. }
            | Command::IncrBy { key, .. }
            | Command::Expire { key, .. }
            | Command::Prolong { key, .. }
            | Command::Persist { key }
            | Command::DelRevision { key, .. } => f(Part::Key(key)),
            Command::Rename { from, to, .. } | Command::Copy { from, to, .. } => {
                f(Part::Key(from));
                f(Part::Key(to));
            }
            Command::Set { key, value }
            | Command::CompareAndSet { key, value, .. }
            | Command::IncrByFloat { key, by: value }
            | Command::Append { key, suffix: value }
            | Command::SetRange {
                key, patch: value, ..
            } => {
                f(Part::Key(key));
                f(Part::Value(value));
            }
            Command::SetWith {
                key,
                value,
                condition,
                ..
            } => {
                f(Part::Key(key));
                f(Part::Value(value));
                condition
                    .value()
                    .into_iter()
                    .for_each(|v| f(Part::Value(v)));
            }
            Command::DelIf { key, condition } => {
                f(Part::Key(key));
                condition
                    .value()
                    .into_iter()
                    .for_each(|v| f(Part::Value(v)));
            }
            Command::SetMany { pairs, .. } => {
                for (key, value) in pairs {
                    f(Part::Key(key));
                    f(Part::Value(value));
                }
            }
            Command::Transaction {
                guards,
                operations,
                otherwise,
            } => transaction::visit(guards, operations.iter().chain(otherwise), f),
            Command::InDatabase { command, .. } => visit_inner(command, f),
        }
    }

    /// Enough room for the encoding of most commands, so that it is allocated once.
    pub(super) fn encoded_len_hint(&self) -> usize {
        /// Opcode and numbers.
        const FIELDS: usize = 24;
        /// A length in front of a key or value.
        const PREFIX: usize = 6;
        let mut hint = FIELDS;
        self.visit(&mut |part| {
            hint += PREFIX
                + match part {
                    Part::Key(bytes) | Part::Value(bytes) => bytes.len(),
                };
        });
        hint
    }
}

/// Breaks the recursion of types between [`Command::visit`] and its closure.
pub(super) fn visit_inner<'a>(command: &'a Command, f: &mut dyn FnMut(Part<'a>)) {
    command.visit(&mut |part| f(part));
}

/// Whether a transaction may have so many guards and these steps, each of which is within its limits.
///
/// # Errors
///
/// `TooManyKeys` above [`MAX_COMMAND_KEYS`] for all of them together.
pub fn check_steps(guards: usize, steps: &[Step]) -> Result<(), ReplyError> {
    check_count(guards + key_counts(steps))
}

fn key_counts(steps: &[Step]) -> usize {
    let counts = steps.iter().map(|step| match step {
        Step::Write(command) => command.key_count(),
        Step::Read(query) => query.key_count(),
    });
    counts.sum()
}

/// Whether one command may name so many keys.
pub(crate) fn check_count(keys: usize) -> Result<(), ReplyError> {
    if keys > MAX_COMMAND_KEYS {
        Err(ReplyError::TooManyKeys)
    } else {
        Ok(())
    }
}

pub(super) fn check_key(key: &[u8]) -> Result<(), ReplyError> {
    if key.len() > MAX_KEY_BYTES {
        Err(ReplyError::KeyTooLong)
    } else {
        Ok(())
    }
}

pub(super) fn check_value(value: &[u8]) -> Result<(), ReplyError> {
    if value.len() > MAX_VALUE_BYTES_CEILING {
        Err(ReplyError::ValueTooLong)
    } else {
        Ok(())
    }
}
