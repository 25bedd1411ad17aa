//! Batches: the content of a log entry, encoded once and shared by disk, peers and `apply`.
//!
//! A batch is `version u8, stamp u64`, then parts up to the end. A part is a group of one
//! session's commands, `1, session u64, first_seq u64, acked_through u64, count u64, bytes u64`,
//! and in that many bytes each command with its length in front; or a system operation, `2` and
//! its encoding; or a group whose commands have principals, `3`, the same numbers, `revision u64,
//! principals u16`, as many of `user u64, credential u64`, and the commands. Fixed-width integers are little-endian. Nothing here executes anything.
//! Invariant: the iterators read every batch that [`Batch::check`] accepts to the end.

mod logged;

use bytes::{BufMut, Bytes, BytesMut};

#[doc(hidden)]
pub use self::logged::{Logged, read_batch, read_system};
use crate::command::{NOOP_ENCODED, Operation};
use crate::encoding::{DecodeError, Reader, put_prefixed};
use crate::rights::{GroupRights, Principals};
use crate::{EDGE_LEVEL, FIRST_LEVEL, SessionId, SystemOp, UserTable};

/// Version of the batch format: raised when an operation of the first feature level changed.
const VERSION: u8 = 2;

/// Bytes of a group before its commands.
const GROUP_HEADER_BYTES: usize = 1 + 5 * size_of::<u64>();

/// Bytes of the length before a command, at most: 32 bits in groups of seven.
const LONGEST_PREFIX_BYTES: usize = 5;

const GROUP: u8 = 1;
const SYSTEM: u8 = 2;
const GROUP_OF_USERS: u8 = 3;

/// Builds the bytes of one log entry.
#[derive(Debug)]
pub struct BatchBuilder {
    out: BytesMut,
    commands: usize,
    parts: usize,
}

impl BatchBuilder {
    /// Starts a batch that is stamped with log time `stamp_ms`, in milliseconds since the epoch.
    pub fn new(stamp_ms: u64) -> BatchBuilder {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u64_le(stamp_ms);
        BatchBuilder {
            out,
            commands: 0,
            parts: 0,
        }
    }

    /// Adds commands of one session, each encoded by [`Command::encode`](crate::Command::encode),
    /// numbered from `first_seq` on. The origin has the replies up to `acked_through`.
    pub fn group<'a>(
        &mut self,
        session: SessionId,
        first_seq: u64,
        acked_through: u64,
        commands: impl ExactSizeIterator<Item = &'a Bytes> + Clone,
    ) {
        self.commands += commands.len();
        self.parts += 1;
        let rights = GroupRights::default();
        put_group(
            &mut self.out,
            session,
            first_seq,
            acked_through,
            &rights,
            commands,
        );
    }

    /// Adds a group that another node has encoded with [`encode_group`]. The caller must have checked it
    /// with [`check_group`]: a malformed group would stop every node that applies the batch.
    pub fn raw_group(&mut self, group: &[u8]) {
        let commands = Group::read(&mut Reader::new(group)).map_or(0, |group| group.count);
        self.commands += commands;
        self.parts += 1;
        self.out.put_slice(group);
    }

    /// Adds a system operation; its outcome comes back under its ordinal among these.
    pub fn system(&mut self, op: &SystemOp) {
        self.parts += 1;
        self.out.put_u8(SYSTEM);
        op.encode_into(&mut self.out);
    }

    /// The batch's size so far, in bytes.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// The number of commands so far; system operations are not counted.
    pub fn commands(&self) -> usize {
        self.commands
    }

    /// Whether the batch holds neither a group nor a system operation.
    pub fn is_empty(&self) -> bool {
        self.parts == 0
    }

    /// The finished bytes.
    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }
}

/// Encodes a group for a node that will put it into its batch with [`BatchBuilder::raw_group`].
pub fn encode_group<'a>(
    session: SessionId,
    first_seq: u64,
    acked_through: u64,
    commands: impl ExactSizeIterator<Item = &'a Bytes> + Clone,
) -> Bytes {
    let rights = GroupRights::default();
    encode_group_of(session, first_seq, acked_through, &rights, commands)
}

/// The same with the principals of the commands.
pub fn encode_group_of<'a>(
    session: SessionId,
    first_seq: u64,
    acked_through: u64,
    rights: &GroupRights,
    commands: impl ExactSizeIterator<Item = &'a Bytes> + Clone,
) -> Bytes {
    let mut out = BytesMut::new();
    put_group(
        &mut out,
        session,
        first_seq,
        acked_through,
        rights,
        commands,
    );
    out.freeze()
}

/// The header of a checked group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupInfo {
    /// The session of all its commands.
    pub session: SessionId,
    /// The sequence number of the first command.
    pub first_seq: u64,
    /// The number of commands.
    pub count: u64,
    /// The size of the whole encoded group, in bytes.
    pub bytes: usize,
    /// The highest feature level that any of the commands belongs to.
    pub level: u32,
}

/// Checks everything about an encoded group that `apply` would find malformed.
///
/// # Errors
///
/// [`DecodeError`] if it is no group, has a command that is none, or is followed by more bytes.
pub fn check_group(whole: &[u8]) -> Result<GroupInfo, DecodeError> {
    let mut reader = Reader::new(whole);
    let group = Group::read(&mut reader)?;
    let level = group.check()?;
    let Group {
        session,
        first_seq,
        count,
        ..
    } = group;
    reader.finish("group")?;
    Ok(GroupInfo {
        session,
        first_seq,
        count: count as u64,
        bytes: whole.len(),
        level,
    })
}

/// Checks that an encoded command is one that `apply` of this build can read. To be called before the
/// command gets a number: a refusal after that would block all commands behind it.
///
/// # Errors
///
/// [`DecodeError`] if `apply` would find it malformed.
pub fn check_command(command: &[u8]) -> Result<(), DecodeError> {
    Operation::decode(command, &|_| Bytes::new()).map(drop)
}

/// Whether every command of an encoded group only removes, executed at log time `now_ms` or later;
/// `false` for bytes that are no group.
pub fn only_removes(group: &[u8], now_ms: u64) -> bool {
    let Ok(Group {
        count,
        mut commands,
        ..
    }) = Group::read(&mut Reader::new(group))
    else {
        return false;
    };
    (0..count).all(|_| {
        // The keys do not matter, so they are not kept.
        let command = commands.prefixed("group command");
        let operation = command.and_then(|command| Operation::decode(command, &|_| Bytes::new()));
        match operation {
            Ok(Operation::Noop | Operation::Del(_)) => true,
            Ok(Operation::Set(_) | Operation::SetMany(_)) | Err(_) => false,
            Ok(Operation::Other(command)) => command.only_removes(now_ms),
        }
    })
}

/// Whether any command of an encoded group may raise the cost of the keys; true for one that cannot be read.
pub fn may_grow(group: &[u8]) -> bool {
    let Ok(Group {
        count,
        mut commands,
        ..
    }) = Group::read(&mut Reader::new(group))
    else {
        return true;
    };
    (0..count).any(|_| {
        // The bytes decide for a RENAME, so they are copied.
        let command = commands.prefixed("group command");
        let operation =
            command.and_then(|command| Operation::decode(command, &Bytes::copy_from_slice));
        operation.map_or(true, |operation| operation.may_grow())
    })
}

fn put_group<'a>(
    out: &mut BytesMut,
    session: SessionId,
    first_seq: u64,
    acked_through: u64,
    rights: &GroupRights,
    commands: impl ExactSizeIterator<Item = &'a Bytes> + Clone,
) {
    let lengths = commands.clone().map(|command| command.len());
    let prefixes = commands.len() * LONGEST_PREFIX_BYTES;
    let header = GROUP_HEADER_BYTES + rights.encoded_len();
    out.reserve(header + prefixes + lengths.sum::<usize>());
    out.put_u8(match rights.is_empty() {
        true => GROUP,
        false => GROUP_OF_USERS,
    });
    for number in [session, first_seq, acked_through, commands.len() as u64] {
        out.put_u64_le(number);
    }
    let length_at = out.len();
    out.put_u64_le(0);
    if !rights.is_empty() {
        rights.write(out);
    }
    let start = out.len();
    for command in commands {
        put_prefixed(out, command);
    }
    let bytes = (out.len() - start) as u64;
    out[length_at..length_at + size_of::<u64>()].copy_from_slice(&bytes.to_le_bytes());
}

/// A batch that was checked as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Batch<'a> {
    pub(crate) stamp_ms: u64,
    /// The highest feature level that anything in it belongs to.
    pub(crate) level: u32,
    parts: Reader<'a>,
}

#[derive(Debug)]
pub(crate) enum Part<'a> {
    Group(Group<'a>),
    System(SystemOp),
}

impl<'a> Batch<'a> {
    /// Reads the whole batch, executing nothing, so that a malformed one has no effect at all.
    pub(crate) fn check(input: &'a [u8]) -> Result<Batch<'a>, DecodeError> {
        let mut reader = Reader::new(input);
        let found = reader.u8("batch version")?;
        if found != VERSION {
            return Err(DecodeError::Version {
                what: "batch",
                found,
                supported: VERSION,
            });
        }
        let stamp_ms = reader.u64("batch stamp")?;
        let mut batch = Batch {
            stamp_ms,
            level: FIRST_LEVEL,
            parts: reader.clone(),
        };
        while !reader.is_empty() {
            let level = match Part::read(&mut reader)? {
                Part::Group(group) => group.check()?,
                Part::System(op) => op.level(),
            };
            batch.level = batch.level.max(level);
        }
        Ok(batch)
    }

    /// The number of bytes of the batch's parts.
    pub(crate) fn parts_len(&self) -> usize {
        self.parts.rest().len()
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = Part<'a>> + use<'a> {
        let mut parts = self.parts.clone();
        std::iter::from_fn(move || Part::read(&mut parts).ok())
    }
}

impl<'a> Part<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Part<'a>, DecodeError> {
        match reader.rest().first() {
            Some(&SYSTEM) => {
                reader.u8("part")?;
                SystemOp::read(reader).map(Part::System)
            }
            _ => Group::read(reader).map(Part::Group),
        }
    }
}

/// One session's commands.
#[derive(Debug, Clone)]
pub(crate) struct Group<'a> {
    pub(crate) session: SessionId,
    pub(crate) first_seq: u64,
    pub(crate) acked_through: u64,
    pub(crate) count: usize,
    pub(crate) principals: Principals<'a>,
    commands: Reader<'a>,
}

impl<'a> Group<'a> {
    /// Reads a group's header and steps over its commands.
    fn read(reader: &mut Reader<'a>) -> Result<Group<'a>, DecodeError> {
        let of_users = match reader.u8("part")? {
            GROUP => false,
            GROUP_OF_USERS => true,
            tag => {
                return Err(DecodeError::UnknownTag {
                    what: "part of a batch",
                    tag,
                });
            }
        };
        let session = reader.u64("group session")?;
        let first_seq = reader.u64("group sequence")?;
        let acked_through = reader.u64("group acknowledgement")?;
        let count = reader.u64("group command count")?;
        let bytes = reader.u64("group length")?;
        // Numbers start at 1, and the one after the last must exist.
        if first_seq == 0 || first_seq.checked_add(count).is_none() {
            return Err(DecodeError::Invalid {
                what: "group sequence",
            });
        }
        let principals = match of_users {
            true => Principals::read(reader)?,
            false => Principals::NONE,
        };
        let truncated = |_| DecodeError::Truncated { what: "group" };
        let count = usize::try_from(count).map_err(truncated)?;
        let commands = reader.take(usize::try_from(bytes).map_err(truncated)?, "group")?;
        Ok(Group {
            session,
            first_seq,
            acked_through,
            count,
            principals,
            commands: Reader::new(commands),
        })
    }

    /// Reads all commands: there must be as many as announced, and nothing else. Returns the highest
    /// feature level that any of them belongs to.
    fn check(&self) -> Result<u32, DecodeError> {
        let mut commands = self.commands.clone();
        let mut level = match self.principals == Principals::NONE {
            true => FIRST_LEVEL,
            false => EDGE_LEVEL,
        };
        for _ in 0..self.count {
            // Only its kind counts: nothing of it is kept.
            let command =
                Operation::decode(commands.prefixed("group command")?, &|_| Bytes::new())?;
            level = level.max(command.level());
        }
        commands.finish("group")?;
        Ok(level)
    }

    /// Whether the judgements under which its commands were sent stand. Once there is a table, commands without
    /// a principal were judged by none: only fillers are executed.
    pub(crate) fn stands(&self, users: Option<&UserTable>) -> bool {
        match users {
            Some(_) if self.principals.is_empty() => self.only_fills(),
            users => self.principals.stand(users),
        }
    }

    /// Whether it has no other commands than `Noop`, which fill numbers.
    fn only_fills(&self) -> bool {
        let mut commands = self.commands.clone();
        while !commands.is_empty() {
            if commands.prefixed("group command") != Ok(NOOP_ENCODED) {
                return false;
            }
        }
        true
    }

    /// The number of bytes of the commands, which end the group.
    pub(crate) fn commands_len(&self) -> usize {
        self.commands.rest().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Command;

    fn commands() -> Vec<Bytes> {
        let key = Bytes::from_static(b"key");
        let set = Command::Set {
            key: key.clone(),
            value: Bytes::from_static(b"value"),
        };
        [Command::Noop, set, Command::Del { keys: vec![key] }]
            .map(|c| c.encode())
            .to_vec()
    }

    #[test]
    fn a_group_only_removes_if_all_its_commands_do() {
        let del = Command::Del {
            keys: vec![Bytes::from_static(b"k")],
        };
        let set = Command::Set {
            key: Bytes::from_static(b"k"),
            value: Bytes::new(),
        };
        let flush = Command::FlushDatabase.in_database(2);
        let group = |commands: &[Command]| {
            let encoded: Vec<Bytes> = commands.iter().map(Command::encode).collect();
            encode_group(1, 1, 0, encoded.iter())
        };
        let removes = group(&[Command::Noop, del.clone(), flush.clone()]);
        assert!(only_removes(&removes, 0));
        assert!(!only_removes(&group(&[del, set, flush]), 0));
        assert!(!only_removes(&removes[..removes.len() - 1], 0));
        assert!(!only_removes(b"", 0));
    }

    #[test]
    fn a_batch_shows_its_commands_and_their_numbers() {
        let commands = commands();
        let mut builder = BatchBuilder::new(77);
        builder.system(&SystemOp::OpenSession {
            node: 1,
            boot: 2,
            highest: 1,
        });
        builder.group(5, 9, 8, commands.iter());
        let (stamp_ms, logged) = read_batch(&builder.finish()).unwrap();
        let expected = (9..).zip(&commands).map(|(seq, command)| Logged {
            session: 5,
            seq,
            command: command.clone(),
        });
        assert_eq!((stamp_ms, logged), (77, expected.collect()));
        assert!(read_batch(&Bytes::from_static(b"\x02")).is_err());
    }

    #[test]
    fn a_forwarded_group_makes_the_same_batch_as_a_local_one() {
        let commands = commands();
        let mut local = BatchBuilder::new(5);
        assert!(local.is_empty());
        local.group(7, 3, 1, commands.iter());
        let group = encode_group(7, 3, 1, commands.iter());
        let mut forwarded = BatchBuilder::new(5);
        forwarded.raw_group(&group);
        for builder in [&local, &forwarded] {
            assert_eq!((builder.commands(), builder.is_empty()), (3, false));
        }
        let size = local.len();
        let batch = local.finish();
        assert_eq!(batch, forwarded.finish());
        assert_eq!(batch.len(), size);
        let info = GroupInfo {
            session: 7,
            first_seq: 3,
            count: 3,
            bytes: group.len(),
            level: FIRST_LEVEL,
        };
        assert_eq!(check_group(&group), Ok(info));
    }

    #[test]
    fn a_group_is_checked_as_strictly_as_a_batch() {
        let whole = encode_group(7, 3, 1, commands().iter());
        let in_batch = |group: &[u8]| {
            let mut builder = BatchBuilder::new(0);
            builder.raw_group(group);
            Batch::check(&builder.finish()).map(drop)
        };
        for len in 0..whole.len() {
            assert!(check_group(&whole[..len]).is_err(), "cut at {len}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.to_vec();
                flipped[at] ^= 1 << bit;
                let alone = check_group(&flipped).map(drop);
                let part_tag = at == 0;
                assert!(
                    part_tag || alone == in_batch(&flipped),
                    "byte {at}, bit {bit}"
                );
            }
        }
    }

    #[test]
    fn sequence_numbers_that_cannot_be_counted_are_refused() {
        let commands = commands();
        let invalid = Err(DecodeError::Invalid {
            what: "group sequence",
        });
        assert_eq!(
            check_group(&encode_group(1, 0, 0, commands.iter())),
            invalid
        );
        assert_eq!(
            check_group(&encode_group(1, u64::MAX - 2, 0, commands.iter())),
            invalid
        );
        assert!(check_group(&encode_group(1, u64::MAX - 3, 0, commands.iter())).is_ok());
        let unknown = Bytes::from_static(b"\xee");
        let tag = DecodeError::UnknownTag {
            what: "command",
            tag: 0xee,
        };
        assert_eq!(
            check_group(&encode_group(1, 1, 0, [&unknown].into_iter())),
            Err(tag)
        );
    }

    #[test]
    fn an_announced_count_is_not_believed() {
        let mut group = encode_group(1, 1, 0, commands().iter()).to_vec();
        let count_at = 1 + 3 * 8;
        group[count_at..count_at + 8].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
        assert_eq!(
            check_group(&group),
            Err(DecodeError::Truncated {
                what: "group command"
            })
        );
        group[count_at..count_at + 8].copy_from_slice(&2u64.to_le_bytes());
        assert!(matches!(
            check_group(&group),
            Err(DecodeError::Trailing { .. })
        ));
    }

    #[test]
    fn the_log_format_is_pinned() {
        let mut builder = BatchBuilder::new(0x0102);
        builder.group(3, 4, 2, [Command::Noop.encode()].iter());
        builder.system(&SystemOp::CloseSession { session: 9 });
        let expected = [
            &[2, 2, 1, 0, 0, 0, 0, 0, 0][..],
            &[
                1, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
            ],
            &[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0],
            &[2, 3, 9],
        ];
        assert_eq!(builder.finish(), expected.concat());
    }
}
