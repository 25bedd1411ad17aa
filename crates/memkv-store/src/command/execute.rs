//! How commands execute: the context that they change, the revision that they take, and the dispatch to
//! their files.
//!
//! Execution is total. Invariant: a command that fails has changed nothing, and one that changed
//! something took the next revision.

use bytes::Bytes;

use super::{Command, Operation, counter, del, expire, set, string, transaction};
use crate::keyspace::{Keyspace, Record, Value};
use crate::{
    DATABASES, EvictionPolicy, KeyEventClasses, MAX_WRITE_REPLY_BYTES, ReplyError, ReplyValue,
    Revision, rights,
};

/// The part of the store that a command may change while it executes.
pub(crate) struct Context<'a> {
    keys: &'a mut Keyspace,
    /// The database that it works on.
    pub(super) database: u8,
    /// The revision that it makes if it changes anything.
    pub(super) revision: Revision,
    /// Whether it did.
    pub(super) changed: bool,
    /// The most bytes of a value that it may answer.
    room: usize,
}

/// The value and the deadline that one key takes over from another.
pub(super) struct Taken {
    value: Bytes,
    is_shared: bool,
    deadline_ms: Option<u64>,
}

impl Taken {
    pub(super) fn of(found: &Value<'_>) -> Taken {
        let shared = found.share();
        Taken {
            is_shared: shared.is_some(),
            value: shared.unwrap_or_else(|| found.to_bytes()),
            deadline_ms: found.deadline_ms,
        }
    }
}

impl<'a> Context<'a> {
    /// For a piece of a command of many keys, which answers no value.
    pub(super) fn of(keys: &'a mut Keyspace, database: u8, revision: Revision) -> Context<'a> {
        Context {
            keys,
            database,
            revision,
            changed: false,
            room: 0,
        }
    }
}

impl Context<'_> {
    /// Log time.
    pub(super) fn now_ms(&self) -> u64 {
        self.keys.now_ms
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<Value<'_>> {
        self.keys.get(self.database, key)
    }

    /// A value as an answer, which is kept on every node until its origin has it.
    pub(super) fn answer(&self, value: Value<'_>) -> Result<ReplyValue, ReplyError> {
        if value.value.len() > self.room {
            return Err(ReplyError::ReplyTooLong);
        }
        Ok(ReplyValue::Bulk(value.to_bytes()))
    }

    /// Sets a key; `parts` are the key, then, one after another, the value.
    pub(super) fn put(&mut self, parts: &[&[u8]], deadline_ms: Option<u64>) {
        self.put_record(parts, parts[0].len(), deadline_ms);
    }

    /// Sets a key; `parts` are, one after another, the key and the value.
    pub(super) fn put_record(&mut self, parts: &[&[u8]], key_len: usize, deadline_ms: Option<u64>) {
        let record = Record {
            parts,
            key_len,
            deadline_ms,
            shared: None,
        };
        self.keys.put(self.database, &record, self.revision);
        self.changed = true;
    }

    /// Gives a key the value that another has, without copying a large one.
    pub(super) fn put_taken(&mut self, key: &[u8], taken: &Taken) {
        let parts: [&[u8]; 2] = [key, &taken.value];
        let record = Record {
            parts: &parts,
            key_len: key.len(),
            deadline_ms: taken.deadline_ms,
            shared: Some(&taken.value).filter(|_| taken.is_shared),
        };
        self.keys.put(self.database, &record, self.revision);
        self.changed = true;
    }

    pub(super) fn set_deadline(&mut self, key: &[u8], deadline_ms: Option<u64>) {
        let revision = self.revision;
        self.changed |= self
            .keys
            .set_deadline(self.database, key, deadline_ms, revision);
    }

    /// Removes a key; returns whether it existed.
    pub(super) fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.keys.remove(self.database, key, self.revision);
        self.changed |= removed;
        removed
    }

    /// Notes an event of the commands that all types share.
    pub(super) fn note_generic(&mut self, event: &'static str, key: &[u8]) {
        self.note(KeyEventClasses::GENERIC, event, key);
    }

    /// Notes an event of a string.
    pub(super) fn note_string(&mut self, event: &'static str, key: &[u8]) {
        self.note(KeyEventClasses::STRING, event, key);
    }

    /// Notes that log time has reached a key's deadline.
    pub(super) fn note_expired(&mut self, key: &[u8]) {
        self.note(KeyEventClasses::EXPIRED, "expired", key);
    }

    /// Notes that a key is new where putting it does not: it took the name of another.
    pub(super) fn note_new(&mut self, key: &[u8]) {
        self.note(KeyEventClasses::NEW, "new", key);
    }

    fn note(&mut self, class: u16, event: &'static str, key: &[u8]) {
        self.keys.key_events.note(class, event, self.database, key);
    }

    /// Plain SET.
    #[inline]
    fn set(&mut self, key: &[u8], value: &[u8]) -> ReplyValue {
        self.put(&[key, value], None);
        self.note_string("set", key);
        ReplyValue::Ok
    }

    #[inline]
    fn announce(&mut self, classes: KeyEventClasses) -> ReplyValue {
        self.keys.key_events.set(Some(classes));
        ReplyValue::Ok
    }

    fn set_memory(&mut self, cap: Option<u64>, policy: Option<EvictionPolicy>) -> ReplyValue {
        let keys = &mut *self.keys;
        keys.memory.set(cap, policy);
        let (operator, policy) = (keys.memory.operator(), keys.memory.policy);
        keys.effects.memory(operator, policy as u8);
        ReplyValue::Ok
    }

    /// Whether a value may become so many bytes longer.
    ///
    /// # Errors
    ///
    /// `OutOfMemory` if that would go too far beyond the memory cap.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), ReplyError> {
        match self.keys.has_room_for(bytes) {
            true => Ok(()),
            false => Err(ReplyError::OutOfMemory),
        }
    }

    fn change_users(&mut self, command: &Command) -> Result<ReplyValue, ReplyError> {
        let Keyspace { users, effects, .. } = &mut *self.keys;
        match command {
            Command::SetUser {
                name,
                expected,
                user,
                narrows,
            } => rights::set(users, effects, name, *expected, user, *narrows),
            Command::DelUsers { names } => rights::delete(users, effects, names),
            Command::InitUsers { users: first } => rights::init(users, effects, first),
            // No other command comes here.
            _ => Ok(ReplyValue::Ok),
        }
    }

    #[inline]
    fn flush(&mut self, database: u8) -> ReplyValue {
        self.changed |= self.keys.flush(database, self.revision);
        ReplyValue::Ok
    }

    #[inline]
    fn flush_all(&mut self) -> ReplyValue {
        for database in 0..DATABASES {
            self.flush(database);
        }
        ReplyValue::Ok
    }
}

/// Executes `what` with the revision after `last`, which it takes if it changes anything.
fn run(
    keys: &mut Keyspace,
    last: &mut Revision,
    room: usize,
    what: impl FnOnce(&mut Context<'_>) -> Result<ReplyValue, ReplyError>,
) -> ReplyValue {
    let mut context = Context {
        keys,
        database: 0,
        revision: *last + 1,
        changed: false,
        room,
    };
    let result = what(&mut context);
    if context.changed {
        *last = context.revision;
    }
    result.unwrap_or_else(ReplyValue::Error)
}

impl Command {
    /// Executes any command; `last` is the store's revision.
    pub(super) fn execute(&self, keys: &mut Keyspace, last: &mut Revision) -> ReplyValue {
        // A transaction decides for the branch that it takes.
        let is_transaction = matches!(self, Command::Transaction { .. });
        if keys.is_at_cap() && !is_transaction && self.may_grow() {
            return ReplyValue::Error(ReplyError::OutOfMemory);
        }
        self.execute_within(keys, last, MAX_WRITE_REPLY_BYTES)
    }

    /// The same for one that may answer a value of at most `room` bytes.
    pub(super) fn execute_within(
        &self,
        keys: &mut Keyspace,
        last: &mut Revision,
        room: usize,
    ) -> ReplyValue {
        match self {
            Command::Transaction {
                guards,
                operations,
                otherwise,
            } => transaction::execute(keys, last, guards, operations, otherwise),
            command => run(keys, last, room, |context| {
                command.check_sizes()?;
                command.execute_in(context)
            }),
        }
    }

    /// Executes a command whose keys and values are within their limits.
    fn execute_in(&self, context: &mut Context<'_>) -> Result<ReplyValue, ReplyError> {
        Ok(match self {
            Command::Noop | Command::Tick => ReplyValue::Ok,
            #[cfg(memkv_bugs)]
            Command::OfNextLevel => ReplyValue::Ok,
            Command::Set { key, value } => context.set(key, value),
            Command::Del { keys } => del::all(context, keys.iter().map(|key| &key[..])),
            Command::SetWith {
                key,
                value,
                condition,
                expiry,
                get,
            } => return set::with(context, key, value, condition, *expiry, *get),
            Command::SetMany {
                pairs,
                if_none_exists,
            } => {
                let pairs = pairs.iter().map(|(key, value)| (&key[..], &value[..]));
                set::many(context, pairs, *if_none_exists)
            }
            Command::DelIf { key, condition } => del::conditional(context, key, condition),
            Command::GetDel { key } => return del::get(context, key),
            Command::GetEx { key, expiry } => return expire::get(context, key, *expiry),
            Command::IncrBy { key, by } => return counter::by(context, key, *by),
            Command::IncrByFloat { key, by } => return counter::by_float(context, key, by),
            Command::Append { key, suffix } => return string::append(context, key, suffix),
            Command::SetRange { key, offset, patch } => {
                return string::set_range(context, key, *offset, patch);
            }
            Command::Expire {
                key,
                expiry,
                condition,
            } => return expire::expire(context, key, *expiry, *condition),
            Command::Prolong { key, by_ms } => expire::prolong(context, key, *by_ms)?,
            Command::Persist { key } => expire::persist(context, key),
            Command::Rename {
                from,
                to,
                if_absent,
            } => return string::rename(context, from, to, *if_absent),
            Command::Copy {
                from,
                to,
                to_database,
                replace,
            } => return string::copy(context, from, to, *to_database, *replace),
            Command::Announce { classes } => context.announce(*classes),
            Command::SetMemory { cap, policy } => context.set_memory(*cap, *policy),
            Command::SetUser { .. } | Command::DelUsers { .. } | Command::InitUsers { .. } => {
                return context.change_users(self);
            }
            Command::FlushAll => context.flush_all(),
            Command::FlushDatabase => context.flush(context.database),
            Command::CompareAndSet {
                key,
                revision,
                value,
                expiry,
            } => return set::compare_and_set(context, key, *revision, value, *expiry),
            Command::DelRevision { key, revision } => del::at_revision(context, key, *revision),
            Command::InDatabase { database, command } => {
                context.database = *database;
                return command.execute_in(context);
            }
            // It is executed by `execute`; decoding refuses it in any other place.
            Command::Transaction { .. } => ReplyValue::Error(ReplyError::TransactionTooLong),
        })
    }
}

impl Operation<'_> {
    /// Whether it may raise the cost of the keys.
    pub(crate) fn may_grow(&self) -> bool {
        match self {
            Operation::Noop | Operation::Del(_) => false,
            Operation::Set(_) | Operation::SetMany(_) => true,
            Operation::Other(command) => command.may_grow(),
        }
    }

    /// Executes it; `last` is the store's revision, which rises with every change.
    pub(crate) fn execute(&self, keys: &mut Keyspace, last: &mut Revision) -> ReplyValue {
        match self {
            Operation::Noop => ReplyValue::Ok,
            Operation::Set(_) | Operation::SetMany(_) if keys.is_at_cap() => {
                ReplyValue::Error(ReplyError::OutOfMemory)
            }
            Operation::Set(set) => run(keys, last, 0, |context| set.execute(context)),
            Operation::SetMany(set) => run(keys, last, 0, |context| set.execute(context)),
            Operation::Del(del) => run(keys, last, 0, |context| del.execute(context)),
            Operation::Other(command) => command.execute(keys, last),
        }
    }
}
