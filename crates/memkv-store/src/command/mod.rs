//! Write commands: what each means, how it looks in the log, and what it does to the keyspace.
//!
//! One family is one file; this one defines and dispatches. SET and DEL, which most of the load
//! is, have an encoding of their own that is executed where it lies; the others are in `codec`.
//! Reads are not commands: they never enter the log by themselves. Invariants: an opcode is never
//! reused for another meaning, since old logs are replayed; decoding NOOP, SET and DEL never
//! allocates; execution is total, and a command that fails has changed nothing.

mod codec;
mod counter;
mod del;
mod expire;
mod set;
mod string;
mod terms;
mod transaction;

use bytes::{BufMut, Bytes, BytesMut};

use self::codec::Within;
pub(crate) use self::codec::read_database;
use self::del::Del;
use self::set::Set;
pub use self::terms::{ExpireIf, Expiry, SetIf};
pub use self::transaction::{Compare, Condition, Guard, MAX_TRANSACTION_STEPS, Seen, Step};
use crate::keyspace::{Keyspace, Record, Value};
use crate::wire::{DecodeError, Reader};
use crate::{DATABASES, MAX_KEY_BYTES, MAX_VALUE_BYTES_CEILING, ReplyError, ReplyValue, Revision};

/// A write, as it is put into the log. One that changes nothing takes no revision, except for
/// [`Set`](Command::Set) and [`Del`](Command::Del), which take one whenever they succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Changes nothing and takes no revision; answers `Ok`. Fills a sequence number.
    Noop,
    /// Sets `key` to `value`, whether it existed or not, without a deadline; answers `Ok`.
    Set {
        /// The key, at most [`MAX_KEY_BYTES`]; may be empty.
        key: Bytes,
        /// The value, at most [`MAX_VALUE_BYTES_CEILING`]; may be empty.
        value: Bytes,
    },
    /// Removes the keys; answers how many of them existed, as Redis's `DEL` does.
    Del {
        /// The keys; one that is named twice counts once.
        keys: Vec<Bytes>,
    },
    /// `SET` with options, `SETNX`, `SETEX`, `GETSET`. Answers `Ok`, or `Nil` if the condition
    /// does not hold; with `get` always the old value as `Bulk`, or `Nil` if there was none.
    SetWith {
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// When it is set.
        condition: SetIf,
        /// The deadline. `In` and `At` must be above 0, else `InvalidExpireTime`; one that has
        /// passed removes the key.
        expiry: Expiry,
        /// Whether to answer the old value.
        get: bool,
    },
    /// `MSET`, which answers `Ok`, and `MSETNX`: `Integer` 1, or 0 if any of the keys exists.
    SetMany {
        /// Keys and values; of equal keys the last one counts.
        pairs: Vec<(Bytes, Bytes)>,
        /// Whether to set all or nothing, depending on whether any exists.
        if_none_exists: bool,
    },
    /// Removes the key if the condition holds: `DELIFEQ`, `DELEX`. `Integer` 1, or 0.
    DelIf {
        /// The key.
        key: Bytes,
        /// When it is removed.
        condition: SetIf,
    },
    /// `GETDEL`: removes the key; the value it had as `Bulk`, or `Nil`.
    GetDel {
        /// The key.
        key: Bytes,
    },
    /// `GETEX` with an option: the value as `Bulk`, or `Nil`; changes its deadline.
    GetEx {
        /// The key.
        key: Bytes,
        /// The deadline, as for [`Command::SetWith`]; not checked if the key is absent.
        expiry: Expiry,
    },
    /// `INCR`, `DECR`, `INCRBY`, `DECRBY`: `Integer`, the new value; an absent key counts as 0.
    IncrBy {
        /// The key.
        key: Bytes,
        /// What is added.
        by: i64,
    },
    /// `INCRBYFLOAT`: the new value as `Bulk`; an absent key counts as 0.
    IncrByFloat {
        /// The key.
        key: Bytes,
        /// What is added, as the client wrote it.
        by: Bytes,
    },
    /// `APPEND`: `Integer`, the new length in bytes.
    Append {
        /// The key.
        key: Bytes,
        /// What is appended; may be empty.
        suffix: Bytes,
    },
    /// `SETRANGE`: `Integer`, the new length in bytes. Fills up with zero bytes.
    SetRange {
        /// The key.
        key: Bytes,
        /// Where the patch goes, in bytes.
        offset: u64,
        /// What is written there; if empty, nothing changes.
        patch: Bytes,
    },
    /// `EXPIRE` and its kin: `Integer` 1, or 0 if the key is absent or the condition does not
    /// hold. A deadline that has passed removes the key.
    Expire {
        /// The key.
        key: Bytes,
        /// The new deadline: `In` or `At` (also 0 and below). `None` is [`Command::Persist`] and
        /// `Keep` answers 0.
        expiry: Expiry,
        /// When it is set.
        condition: ExpireIf,
    },
    /// `PERSIST`: `Integer` 1, or 0 if the key is absent or has no deadline.
    Persist {
        /// The key.
        key: Bytes,
    },
    /// `RENAME`, which answers `Ok`, and `RENAMENX`: `Integer` 1, or 0 if `to` exists. The error
    /// `NoSuchKey` if `from` does not. The deadline moves with the value.
    Rename {
        /// The key that goes.
        from: Bytes,
        /// The key that comes, in the same database.
        to: Bytes,
        /// Whether `to` must be absent.
        if_absent: bool,
    },
    /// `COPY`: `Integer` 1, or 0 if `from` is absent, `to` exists and is not to be replaced, or
    /// both are the same key. The deadline is copied too.
    Copy {
        /// The key that is copied.
        from: Bytes,
        /// Its copy.
        to: Bytes,
        /// The copy's database, 0 to 15.
        to_database: u8,
        /// Whether a key at `to` is replaced.
        replace: bool,
    },
    /// `FLUSHALL`: removes every key of every database; `Ok`.
    FlushAll,
    /// `FLUSHDB`: removes every key of the database; `Ok`.
    FlushDatabase,
    /// Sets the key if it was last written at `revision`: `Integer`, the new revision; or `Nil`.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// The revision expected; 0 for an absent key.
        revision: Revision,
        /// The value.
        value: Bytes,
        /// The deadline, as for [`Command::SetWith`].
        expiry: Expiry,
    },
    /// Removes the key if it was last written at `revision`: `Integer` 1, or 0.
    DelRevision {
        /// The key.
        key: Bytes,
        /// The revision expected.
        revision: Revision,
    },
    /// Changes nothing; answers `Ok`. Its entry's stamp is what removes keys that are due, as any
    /// entry's does: so does a batch without any part.
    Tick,
    /// `EXEC`: executes `operations` if all guards hold, else `otherwise`; an `Array` of what
    /// each step answers. If guards fail and `otherwise` is empty, `Aborted`. Each write takes a
    /// revision of its own.
    Transaction {
        /// What must hold, at most [`MAX_TRANSACTION_STEPS`].
        guards: Vec<Guard>,
        /// At most [`MAX_TRANSACTION_STEPS`].
        operations: Vec<Step>,
        /// At most [`MAX_TRANSACTION_STEPS`].
        otherwise: Vec<Step>,
    },
    /// The command, executed in another database than 0.
    InDatabase {
        /// 0 to 15.
        database: u8,
        /// Any command but a transaction, whose steps have databases of their own, and this one.
        command: Box<Command>,
    },
}

/// Opcode of [`Command::Noop`]; the others are in their command's file or in `codec`.
const NOOP: u8 = 0;

/// A piece of a command that has a size limit.
enum Part<'a> {
    Key(&'a Bytes),
    Value(&'a Bytes),
}

impl Command {
    /// The same command for `database`; 0 needs no wrapping.
    #[must_use]
    pub fn in_database(self, database: u8) -> Command {
        match database {
            0 => self,
            _ => Command::InDatabase {
                database,
                command: Box::new(self),
            },
        }
    }

    /// The command's bytes in the log: its opcode and its body.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len_hint());
        self.encode_into(&mut out);
        out.freeze()
    }

    /// Appends the command's bytes in the log to `out`.
    pub fn encode_into(&self, out: &mut BytesMut) {
        match self {
            Command::Noop => out.put_u8(NOOP),
            Command::Set { key, value } => set::encode(key, value, out),
            Command::Del { keys } => del::encode(keys, out),
            other => codec::encode(other, out),
        }
    }

    /// Reads one command, which must fill `input`; keys and values share `input`'s memory.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are no command, or more than one.
    pub fn decode(input: &Bytes) -> Result<Command, DecodeError> {
        Command::read(input, Within::Nothing, &|part| input.slice_ref(part))
    }

    /// Reads a command up to the end; `own` says how keys and values are kept.
    fn read(
        input: &[u8],
        within: Within,
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<Command, DecodeError> {
        Ok(match Operation::read(input, within, own)? {
            Operation::Noop => Command::Noop,
            Operation::Set(set) => Command::Set {
                key: own(set.key()),
                value: own(set.value()),
            },
            Operation::Del(del) => Command::Del {
                keys: del.keys().map(own).collect(),
            },
            Operation::Other(command) => command,
        })
    }

    /// The command's name in lower case, for logs and metrics: Redis's, where one fits.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Noop => "noop",
            Command::Set { .. } | Command::SetWith { .. } => "set",
            Command::Del { .. } => "del",
            Command::SetMany { .. } => "mset",
            Command::DelIf { .. } => "delex",
            Command::GetDel { .. } => "getdel",
            Command::GetEx { .. } => "getex",
            Command::IncrBy { .. } => "incrby",
            Command::IncrByFloat { .. } => "incrbyfloat",
            Command::Append { .. } => "append",
            Command::SetRange { .. } => "setrange",
            Command::Expire { .. } => "expire",
            Command::Persist { .. } => "persist",
            Command::Rename { .. } => "rename",
            Command::Copy { .. } => "copy",
            Command::FlushAll => "flushall",
            Command::FlushDatabase => "flushdb",
            Command::CompareAndSet { .. } => "cas",
            Command::DelRevision { .. } => "delrev",
            Command::Tick => "tick",
            Command::Transaction { .. } => "exec",
            Command::InDatabase { command, .. } => command.name(),
        }
    }

    /// What the command would fail with for its size alone, so that a front door can refuse it
    /// before it costs a log entry.
    ///
    /// # Errors
    ///
    /// The same [`ReplyError`] that executing it would answer; for a transaction, the first step's
    /// that has one, or `TransactionTooLong` if it could not even be decoded.
    pub fn check_limits(&self) -> Result<(), ReplyError> {
        self.check_shape(Within::Nothing)?;
        self.check_sizes()
    }

    fn check_sizes(&self) -> Result<(), ReplyError> {
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

    /// Whether it lies where [`Command::read`] would accept it.
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
            _ => true,
        };
        if fits {
            Ok(())
        } else {
            Err(ReplyError::TransactionTooLong)
        }
    }

    /// Hands every key and value to `f`.
    fn visit<'a>(&'a self, f: &mut impl FnMut(Part<'a>)) {
        match self {
            Command::Noop | Command::FlushAll | Command::FlushDatabase | Command::Tick => {}
            Command::Del { keys } => keys.iter().for_each(|key| f(Part::Key(key))),
            Command::GetDel { key }
            | Command::GetEx { key, .. }
            | Command::IncrBy { key, .. }
            | Command::Expire { key, .. }
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
    fn encoded_len_hint(&self) -> usize {
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
fn visit_inner<'a>(command: &'a Command, f: &mut dyn FnMut(Part<'a>)) {
    command.visit(&mut |part| f(part));
}

/// A command as it is read from the log: what most of the load is borrowed, so that applying it
/// allocates only what stays.
#[derive(Debug, Clone)]
pub(crate) enum Operation<'a> {
    Noop,
    Set(Set<'a>),
    Del(Del<'a>),
    Other(Command),
}

/// What a command may touch while it executes.
pub(crate) struct Context<'a> {
    keys: &'a mut Keyspace,
    /// The database that it works on.
    database: u8,
    /// The revision that it makes if it changes anything.
    revision: Revision,
    /// Whether it did.
    changed: bool,
}

impl Context<'_> {
    /// Log time.
    fn now_ms(&self) -> u64 {
        self.keys.now_ms
    }

    fn get(&self, key: &[u8]) -> Option<Value<'_>> {
        self.keys.get(self.database, key)
    }

    /// Sets a key; `parts` are the key, then, one after another, the value.
    fn put(&mut self, parts: &[&[u8]], deadline_ms: Option<u64>) {
        self.put_record(parts, parts[0].len(), deadline_ms);
    }

    /// Sets a key; `parts` are, one after another, the key and the value.
    fn put_record(&mut self, parts: &[&[u8]], key_len: usize, deadline_ms: Option<u64>) {
        let record = Record {
            parts,
            key_len,
            deadline_ms,
        };
        self.keys.put(self.database, &record, self.revision);
        self.changed = true;
    }

    fn set_deadline(&mut self, key: &[u8], deadline_ms: Option<u64>) {
        let revision = self.revision;
        self.changed |= self
            .keys
            .set_deadline(self.database, key, deadline_ms, revision);
    }

    /// Removes a key; tells whether it was there.
    fn remove(&mut self, key: &[u8]) -> bool {
        let removed = self.keys.remove(self.database, key, self.revision);
        self.changed |= removed;
        removed
    }

    fn flush(&mut self, database: u8) {
        self.changed |= self.keys.flush(database, self.revision);
    }
}

/// Executes `what` with the revision after `last`, which it takes if it changes anything.
fn run(
    keys: &mut Keyspace,
    last: &mut Revision,
    what: impl FnOnce(&mut Context<'_>) -> Result<ReplyValue, ReplyError>,
) -> ReplyValue {
    let mut context = Context {
        keys,
        database: 0,
        revision: *last + 1,
        changed: false,
    };
    let result = what(&mut context);
    if context.changed {
        *last = context.revision;
    }
    result.unwrap_or_else(ReplyValue::Error)
}

impl Command {
    /// Executes any command; `last` is the store's revision.
    fn execute(&self, keys: &mut Keyspace, last: &mut Revision) -> ReplyValue {
        match self {
            Command::Transaction {
                guards,
                operations,
                otherwise,
            } => transaction::execute(keys, last, guards, operations, otherwise),
            command => run(keys, last, |context| {
                command.check_sizes()?;
                command.execute_in(context)
            }),
        }
    }

    /// Executes a command whose keys and values are within their limits.
    fn execute_in(&self, context: &mut Context<'_>) -> Result<ReplyValue, ReplyError> {
        Ok(match self {
            Command::Noop | Command::Tick => ReplyValue::Ok,
            Command::Set { key, value } => {
                context.put(&[key, value], None);
                ReplyValue::Ok
            }
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
            } => set::many(context, pairs, *if_none_exists),
            Command::DelIf { key, condition } => del::conditional(context, key, condition),
            Command::GetDel { key } => del::get(context, key),
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
            } => string::copy(context, from, to, *to_database, *replace),
            Command::FlushAll => {
                (0..DATABASES).for_each(|database| context.flush(database));
                ReplyValue::Ok
            }
            Command::FlushDatabase => {
                context.flush(context.database);
                ReplyValue::Ok
            }
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

impl<'a> Operation<'a> {
    /// Reads a command that fills `input`; `own` says how what is not borrowed is kept.
    pub(crate) fn decode(
        input: &'a [u8],
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<Operation<'a>, DecodeError> {
        Operation::read(input, Within::Nothing, own)
    }

    fn read(
        input: &'a [u8],
        within: Within,
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<Operation<'a>, DecodeError> {
        let mut reader = Reader::new(input);
        match reader.u8("command")? {
            NOOP => reader.finish("noop").map(|()| Operation::Noop),
            set::OPCODE => Set::decode(reader).map(Operation::Set),
            del::OPCODE => Del::decode(reader).map(Operation::Del),
            opcode => codec::read(opcode, reader, within, own).map(Operation::Other),
        }
    }

    /// Executes it; `last` is the store's revision, which rises with every change.
    pub(crate) fn execute(&self, keys: &mut Keyspace, last: &mut Revision) -> ReplyValue {
        match self {
            Operation::Noop => ReplyValue::Ok,
            Operation::Set(set) => run(keys, last, |context| set.execute(context)),
            Operation::Del(del) => run(keys, last, |context| del.execute(context)),
            Operation::Other(command) => command.execute(keys, last),
        }
    }
}

fn check_key(key: &[u8]) -> Result<(), ReplyError> {
    if key.len() > MAX_KEY_BYTES {
        Err(ReplyError::KeyTooLong)
    } else {
        Ok(())
    }
}

fn check_value(value: &[u8]) -> Result<(), ReplyError> {
    if value.len() > MAX_VALUE_BYTES_CEILING {
        Err(ReplyError::ValueTooLong)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Command> {
        let bytes = |len: usize| Bytes::from(vec![b'x'; len]);
        vec![
            Command::Noop,
            Command::Set {
                key: bytes(0),
                value: bytes(0),
            },
            Command::Set {
                key: bytes(1),
                value: bytes(300),
            },
            Command::Set {
                key: bytes(MAX_KEY_BYTES),
                value: bytes(0),
            },
            Command::Del { keys: vec![] },
            Command::Del {
                keys: vec![bytes(0)],
            },
            Command::Del {
                keys: vec![bytes(3), bytes(200), bytes(3)],
            },
        ]
    }

    #[test]
    fn commands_round_trip_within_their_allocation() {
        for command in samples() {
            let encoded = command.encode();
            assert!(encoded.len() <= command.encoded_len_hint());
            assert_eq!(Command::decode(&encoded), Ok(command));
        }
    }

    #[test]
    fn the_log_format_is_pinned() {
        let (key, value) = (Bytes::from_static(b"k"), Bytes::from_static(b"vw"));
        assert_eq!(Command::Noop.encode(), &b"\x00"[..]);
        assert_eq!(
            Command::Set {
                key: key.clone(),
                value
            }
            .encode(),
            &b"\x01\x01kvw"[..]
        );
        assert_eq!(
            Command::Del { keys: vec![key] }.encode(),
            &b"\x02\x01\x01k"[..]
        );
    }

    #[test]
    fn a_cut_command_never_decodes_to_the_same_command() {
        for command in samples() {
            let encoded = command.encode();
            for len in 0..encoded.len() {
                assert_ne!(Command::decode(&encoded.slice(..len)), Ok(command.clone()));
            }
        }
    }

    #[test]
    fn unknown_opcodes_and_trailing_bytes_are_refused() {
        let decode = |bytes: &'static [u8]| Command::decode(&Bytes::from_static(bytes));
        assert_eq!(
            decode(b"\xff"),
            Err(DecodeError::UnknownTag {
                what: "command",
                tag: 0xff
            })
        );
        assert_eq!(
            decode(b"\x00x"),
            Err(DecodeError::Trailing {
                what: "noop",
                bytes: 1
            })
        );
        assert_eq!(
            decode(b"\x02\x00x"),
            Err(DecodeError::Trailing {
                what: "del",
                bytes: 1
            })
        );
    }

    #[test]
    fn limits_are_told_before_proposing() {
        let long = Bytes::from(vec![0; MAX_KEY_BYTES + 1]);
        let fits = long.slice(1..);
        let set = |key: &Bytes| Command::Set {
            key: key.clone(),
            value: Bytes::new(),
        };
        assert_eq!(set(&fits).check_limits(), Ok(()));
        assert_eq!(set(&long).check_limits(), Err(ReplyError::KeyTooLong));
        let keys = vec![fits, long];
        assert_eq!(
            Command::Del { keys }.check_limits(),
            Err(ReplyError::KeyTooLong)
        );
        let value = Bytes::from(vec![0; MAX_VALUE_BYTES_CEILING + 1]);
        let set = Command::Set {
            key: Bytes::new(),
            value,
        };
        assert_eq!(set.check_limits(), Err(ReplyError::ValueTooLong));
    }
}
