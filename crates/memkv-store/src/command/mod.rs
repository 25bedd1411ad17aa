//! Write commands: their meaning, their encoding in the log, and their effect on the keyspace.
//!
//! Each family has a file, `execute` dispatches to them, `limits` bounds their sizes. SET and DEL, which are
//! most of the load, have an encoding of their own that is executed in place; the others are in `codec`.
//! Reads are not commands: they never enter the log by themselves. Invariants: an opcode is never
//! reused for another meaning, since old logs are replayed; decoding NOOP, SET and DEL never
//! allocates; execution is total, and a command that fails has changed nothing.

mod codec;
mod counter;
mod del;
mod estimate;
mod execute;
mod expire;
mod grows;
mod limits;
mod many;
mod name;
mod removes;
mod set;
mod string;
mod terms;
mod transaction;
mod work;

use bytes::{BufMut, Bytes, BytesMut};

use self::codec::Within;
pub(crate) use self::codec::{key_count, read_database};
use self::del::Del;
use self::execute::Context;
pub(crate) use self::limits::check_count;
pub use self::limits::check_steps;
use self::limits::{Part, check_key, check_value, visit_inner};
pub(crate) use self::many::Many;
use self::set::{Set, SetMany};
pub use self::terms::{ExpireIf, Expiry, SetIf};
pub use self::transaction::{Compare, Condition, Guard, MAX_TRANSACTION_STEPS, Seen, Step};
pub(crate) use self::work::KEY as KEY_WORK;
use crate::encoding::{DecodeError, Reader};
use crate::{EvictionPolicy, KeyEventClasses, Revision, UserSpec};

/// A write, as it is put into the log. One that changes nothing takes no revision, except for
/// [`Set`](Command::Set) and [`Del`](Command::Del), which take one whenever they succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Changes nothing and takes no revision; answers `Ok`. Fills a sequence number.
    Noop,
    /// Sets `key` to `value`, whether it existed or not, without a deadline; answers `Ok`.
    Set {
        /// The key, at most [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES); may be empty.
        key: Bytes,
        /// The value, at most
        /// [`MAX_VALUE_BYTES_CEILING`](crate::MAX_VALUE_BYTES_CEILING); may be empty.
        value: Bytes,
    },
    /// Removes the keys; answers the number of those that existed, as Redis's `DEL` does.
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
        /// The increment.
        by: i64,
    },
    /// `INCRBYFLOAT`: the new value as `Bulk`; an absent key counts as 0.
    IncrByFloat {
        /// The key.
        key: Bytes,
        /// The increment, as the client wrote it.
        by: Bytes,
    },
    /// `APPEND`: `Integer`, the new length in bytes.
    Append {
        /// The key.
        key: Bytes,
        /// The appended bytes; may be empty.
        suffix: Bytes,
    },
    /// `SETRANGE`: `Integer`, the new length in bytes. Fills up with zero bytes.
    SetRange {
        /// The key.
        key: Bytes,
        /// The position of the patch, in bytes.
        offset: u64,
        /// The bytes that are written; if empty, nothing changes.
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
    /// Moves the deadline that the key has: `Integer` 1, or 0 if the key is absent or has no
    /// deadline. One that has passed then removes the key.
    Prolong {
        /// The key.
        key: Bytes,
        /// The change in milliseconds; may be negative.
        by_ms: i64,
    },
    /// `PERSIST`: `Integer` 1, or 0 if the key is absent or has no deadline.
    Persist {
        /// The key.
        key: Bytes,
    },
    /// `RENAME`, which answers `Ok`, and `RENAMENX`: `Integer` 1, or 0 if `to` exists. The error
    /// `NoSuchKey` if `from` does not. The deadline moves with the value.
    Rename {
        /// The old name.
        from: Bytes,
        /// The new name, in the same database.
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
    /// `CONFIG SET notify-keyspace-events`: sets the events that all nodes announce from now on; `Ok`.
    /// Takes no revision.
    Announce {
        /// The events.
        classes: KeyEventClasses,
    },
    /// `CONFIG SET maxmemory` and `maxmemory-policy`; `Ok`. Takes no revision.
    SetMemory {
        /// The most that the keys may cost, in bytes; 0 takes back what was set before. `None` leaves
        /// it as it is.
        cap: Option<u64>,
        /// What makes room at the cap; `None` leaves it as it is.
        policy: Option<EvictionPolicy>,
    },
    /// `ACL SETUSER`: makes a user, or replaces the one that was last changed at `expected`. `Integer`, the
    /// new revision of the table; `Nil` if another record is there than the one expected. The errors
    /// `NoUsers` without a table, `TooManyUsers` if the table has no room, `UserTooLarge`. Takes no revision.
    SetUser {
        /// The name, 1 to [`MAX_USER_NAME_BYTES`](crate::MAX_USER_NAME_BYTES) bytes.
        name: Bytes,
        /// `changed_at` of the record that it replaces; 0 for none.
        expected: u64,
        /// The user from now on.
        user: UserSpec,
        /// Whether it takes any right from the user, other than by a secret that disappears: commands
        /// that were judged before are then judged anew.
        narrows: bool,
    },
    /// `ACL DELUSER`: `Integer`, the number of removed users; `default` stays. The error `NoUsers` without
    /// a table. Takes no revision.
    DelUsers {
        /// The names, at most [`MAX_USERS`](crate::MAX_USERS).
        names: Vec<Bytes>,
    },
    /// Makes the first table of users of a cluster that has none: `Integer` 1, or 0 if it has one. Takes no
    /// revision.
    InitUsers {
        /// The users, `default` among them.
        users: Vec<(Bytes, UserSpec)>,
    },
    /// Changes nothing; answers `Ok`. Its entry's stamp removes keys that are due, as any entry's stamp
    /// does, also that of a batch without parts.
    Tick,
    /// `EXEC`: executes `operations` if all guards hold, else `otherwise`; an `Array` of what
    /// each step answers. If guards fail, `Aborted` stands in front of the answers of `otherwise`,
    /// and alone if it is empty. Each write takes a revision of its own.
    Transaction {
        /// The conditions, at most [`MAX_TRANSACTION_STEPS`].
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
    /// Changes nothing; answers `Ok`. The only command of the next feature level, in the build that tests
    /// nodes with different highest levels.
    #[cfg(memkv_bugs)]
    OfNextLevel,
}

/// Opcode of [`Command::Noop`]; the others are in their command's file or in `codec`.
const NOOP: u8 = 0;

/// A whole [`Command::Noop`] in the log.
pub(crate) const NOOP_ENCODED: &[u8] = &[NOOP];

/// Whether an encoded command changes the table of users. Such a command ends its group, because a group is
/// judged by the table that is there when it begins.
pub fn changes_users(encoded: &[u8]) -> bool {
    matches!(encoded.first(), Some(codec::SET_USER..=codec::INIT_USERS))
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

    /// Reads a command up to the end; `own` makes the kept form of keys and values.
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
            Operation::SetMany(set) => set.to_command(own),
            Operation::Del(del) => Command::Del {
                keys: del.keys().map(own).collect(),
            },
            Operation::Other(command) => command,
        })
    }
}

/// A command as it is read from the log. The most frequent ones are borrowed, so that applying them
/// allocates only the memory that they leave behind.
#[derive(Debug, Clone)]
pub(crate) enum Operation<'a> {
    Noop,
    Set(Set<'a>),
    SetMany(SetMany<'a>),
    Del(Del<'a>),
    Other(Command),
}

impl<'a> Operation<'a> {
    /// Reads a command that fills `input`; `own` makes the kept form of parts that are not borrowed.
    pub(crate) fn decode(
        input: &'a [u8],
        own: &dyn Fn(&[u8]) -> Bytes,
    ) -> Result<Operation<'a>, DecodeError> {
        Operation::read(input, Within::Nothing, own)
    }

    /// The key that it looks up in the first database, if it is of the most frequent kind.
    pub(crate) fn key(&self) -> Option<&'a [u8]> {
        match self {
            Operation::Set(set) => Some(set.key()),
            _ => None,
        }
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
            set::MANY_OPCODE => SetMany::decode(reader).map(Operation::SetMany),
            del::OPCODE => Del::decode(reader).map(Operation::Del),
            opcode => codec::read(opcode, reader, within, own).map(Operation::Other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Query;
    use crate::{MAX_COMMAND_KEYS, MAX_KEY_BYTES, MAX_VALUE_BYTES_CEILING, ReplyError};

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
            Command::Del {
                keys: vec![key.clone()]
            }
            .encode(),
            &b"\x02\x01\x01k"[..]
        );
        let expire = Command::Expire {
            key,
            expiry: Expiry::In { ms: 3 },
            condition: ExpireIf::Later,
        };
        assert_eq!(expire.encode(), &b"\x0c\x01k\x02\x06\x03"[..]);
        let read = Query::DbSize.in_database(2);
        let transaction = Command::Transaction {
            guards: vec![],
            operations: vec![Step::Write(expire.in_database(15)), Step::Read(read)],
            otherwise: vec![],
        };
        assert_eq!(
            transaction.encode(),
            &b"\x15\0\x02\0\x08\x16\x0f\x0c\x01k\x02\x06\x03\x01\x03\x0b\x02\x0a\0"[..]
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
    fn a_command_lies_only_where_it_may() {
        let transaction = |operations| Command::Transaction {
            guards: vec![],
            operations,
            otherwise: vec![],
        };
        let nested = transaction(vec![Step::Write(transaction(vec![]))]);
        let wrapped = transaction(vec![]).in_database(3);
        let twice = Command::Noop.in_database(1).in_database(2);
        let long = transaction(vec![Step::Read(Query::DbSize); MAX_TRANSACTION_STEPS + 1]);
        for command in [nested, wrapped, twice, long] {
            assert_eq!(command.check_limits(), Err(ReplyError::TransactionTooLong));
            assert!(Command::decode(&command.encode()).is_err(), "{command:?}");
        }
        let step = Step::Write(Command::Noop.in_database(15));
        let fits = transaction(vec![step; MAX_TRANSACTION_STEPS]);
        assert_eq!(fits.check_limits(), Ok(()));
        assert_eq!(Command::decode(&fits.encode()), Ok(fits));
        let beyond = Command::Noop.in_database(16);
        assert_eq!(
            Command::decode(&beyond.encode()),
            Err(DecodeError::Invalid { what: "database" })
        );
    }

    #[test]
    fn the_keys_of_a_command_are_bounded() {
        let keys = |count| vec![Bytes::from_static(b"k"); count];
        let pairs = |count| vec![(Bytes::from_static(b"k"), Bytes::new()); count];
        let exec = |guards, operations| Command::Transaction {
            guards: vec![
                Guard {
                    database: 0,
                    key: Bytes::new(),
                    holds: Condition::Exists(true),
                };
                guards
            ],
            operations,
            otherwise: vec![],
        };
        let many = |if_none_exists| {
            move |count| Command::SetMany {
                pairs: pairs(count),
                if_none_exists,
            }
        };
        let commands: [&dyn Fn(usize) -> Command; 7] = [
            &|count| Command::Del { keys: keys(count) },
            &many(false),
            &many(true),
            &|count| many(false)(count).in_database(9),
            &|count| exec(0, vec![Step::Write(Command::Del { keys: keys(count) })]),
            &|count| {
                let read = |count| Step::Read(Query::GetMany { keys: keys(count) });
                exec(1, vec![read(count - 101), read(100)])
            },
            &|count| {
                let query = Query::Exists { keys: keys(count) };
                exec(0, vec![Step::Read(query.in_database(3))])
            },
        ];
        for command in commands {
            let (fits, over) = (command(MAX_COMMAND_KEYS), command(MAX_COMMAND_KEYS + 1));
            assert_eq!(fits.check_limits(), Ok(()));
            let encoded = fits.encode();
            assert!(Command::decode(&encoded) == Ok(fits));
            assert_eq!(over.check_limits(), Err(ReplyError::TooManyKeys));
            let refused = Command::decode(&over.encode());
            assert!(matches!(refused, Err(DecodeError::Invalid { .. })));
        }
    }

    #[test]
    fn limits_are_checked_before_proposing() {
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
