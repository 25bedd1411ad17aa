//! Write commands: how each looks in the log and what it does to the keyspace.
//!
//! One command is one file with its opcode, its encoding and its execution; this file only
//! dispatches. Reads are not commands: they never enter the log. Invariants: an opcode is never
//! reused for another meaning, since old logs are replayed; decoding never allocates; execution is
//! total, and a command that fails has changed nothing.

mod del;
mod set;

use bytes::{BufMut, Bytes, BytesMut};

use self::del::Del;
use self::set::Set;
use crate::keyspace::Keyspace;
use crate::wire::{DecodeError, Reader};
use crate::{MAX_KEY_BYTES, MAX_VALUE_BYTES_CEILING, ReplyError, ReplyValue, Revision};

/// A write, as it is put into the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Changes nothing and takes no revision; answers `Ok`. Fills a sequence number.
    Noop,
    /// Sets `key` to `value`, whether it existed or not; answers `Ok`.
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
}

/// Opcode of [`Command::Noop`]; the others are in their command's file.
const NOOP: u8 = 0;

impl Command {
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
        }
    }

    /// Reads one command, which must fill `input`; keys and values share `input`'s memory.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are no command, or more than one.
    pub fn decode(input: &Bytes) -> Result<Command, DecodeError> {
        Ok(match Operation::decode(input)? {
            Operation::Noop => Command::Noop,
            Operation::Set(set) => Command::Set {
                key: input.slice_ref(set.key()),
                value: input.slice_ref(set.value()),
            },
            Operation::Del(del) => Command::Del {
                keys: del.keys().map(|key| input.slice_ref(key)).collect(),
            },
        })
    }

    /// The command's name in lower case, as in Redis, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Noop => "noop",
            Command::Set { .. } => "set",
            Command::Del { .. } => "del",
        }
    }

    /// What the command would fail with for its size alone, so that a front door can refuse it
    /// before it costs a log entry.
    ///
    /// # Errors
    ///
    /// The same [`ReplyError`] that executing it would answer.
    pub fn check_limits(&self) -> Result<(), ReplyError> {
        match self {
            Command::Noop => Ok(()),
            Command::Set { key, value } => check_key(key).and_then(|()| check_value(value)),
            Command::Del { keys } => keys.iter().try_for_each(|key| check_key(key)),
        }
    }

    /// Enough room for the encoding, so that it is allocated once.
    fn encoded_len_hint(&self) -> usize {
        /// Opcode and one length prefix of a key or value.
        const PREFIX: usize = 6;
        match self {
            Command::Noop => 1,
            Command::Set { key, value } => PREFIX + key.len() + value.len(),
            Command::Del { keys } => {
                2 * PREFIX + keys.iter().map(|key| PREFIX + key.len()).sum::<usize>()
            }
        }
    }
}

/// A command as it is read from the log: borrowed, so that applying it allocates only what stays.
#[derive(Debug, Clone)]
pub(crate) enum Operation<'a> {
    Noop,
    Set(Set<'a>),
    Del(Del<'a>),
}

/// What an operation may touch while it executes.
pub(crate) struct Context<'a> {
    pub(crate) keys: &'a mut Keyspace,
    /// The revision that this operation makes if it succeeds.
    pub(crate) revision: Revision,
}

impl<'a> Operation<'a> {
    pub(crate) fn decode(input: &'a [u8]) -> Result<Operation<'a>, DecodeError> {
        let mut reader = Reader::new(input);
        match reader.u8("command")? {
            NOOP => reader.finish("noop").map(|()| Operation::Noop),
            set::OPCODE => Set::decode(reader).map(Operation::Set),
            del::OPCODE => Del::decode(reader).map(Operation::Del),
            tag => Err(DecodeError::UnknownTag {
                what: "command",
                tag,
            }),
        }
    }

    /// Whether it takes a revision when it succeeds.
    pub(crate) fn is_write(&self) -> bool {
        !matches!(self, Operation::Noop)
    }

    pub(crate) fn execute(&self, context: &mut Context<'_>) -> Result<ReplyValue, ReplyError> {
        match self {
            Operation::Noop => Ok(ReplyValue::Ok),
            Operation::Set(set) => set.execute(context),
            Operation::Del(del) => del.execute(context),
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
