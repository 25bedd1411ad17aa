//! Strings: one value under one key.

use memkv_store::{Command, Expiry, Query, SetIf};

use super::{Args, ErrorReply, Op, ReplyFormat};

pub(super) fn get(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let key = args.bytes(1);
    Ok(Op::Read(Query::Get { key }, ReplyFormat::Plain))
}

pub(super) fn strlen(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let key = args.bytes(1);
    Ok(Op::Read(Query::StrLen { key }, ReplyFormat::Plain))
}

pub(super) fn getrange(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let (start, end) = (args.int(2)?, args.int(3)?);
    let key = args.bytes(1);
    Ok(Op::Read(
        Query::GetRange { key, start, end },
        ReplyFormat::Plain,
    ))
}

pub(super) fn mget(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let keys = args.bytes_from(1);
    Ok(Op::Read(Query::GetMany { keys }, ReplyFormat::Plain))
}

/// The options of SET and GETEX, as far as each has them.
struct Options {
    condition: SetIf,
    expiry: Option<Expiry>,
    get: bool,
}

/// Reads options from `from` on. As in Redis, an expiry that is given twice in the same unit counts
/// the last time, and its number is parsed only after all options were.
fn options(args: &Args<'_>, from: usize, is_set: bool) -> Result<Options, ErrorReply> {
    let mut condition = SetIf::Always;
    let mut get = false;
    // The word that says how the key expires, and where its number is.
    let mut expiry: Option<(Vec<u8>, usize)> = None;
    let mut at = from;
    while at < args.len() {
        let word = args.word(at);
        let is_same = |word: &[u8]| expiry.as_ref().is_none_or(|(earlier, _)| earlier == word);
        match &word[..] {
            b"NX" if is_set && matches!(condition, SetIf::Always | SetIf::Absent) => {
                condition = SetIf::Absent;
            }
            b"XX" if is_set && matches!(condition, SetIf::Always | SetIf::Present) => {
                condition = SetIf::Present;
            }
            b"IFEQ" | b"IFNE" if is_set && condition == SetIf::Always => {
                at = args.value_of_option(at)?;
                let value = args.bytes(at);
                condition = match &word[..] {
                    b"IFEQ" => SetIf::Equal(value),
                    _ => SetIf::Differs(value),
                };
            }
            b"GET" if is_set => get = true,
            b"KEEPTTL" if is_set && is_same(&word) => expiry = Some((word, at)),
            b"PERSIST" if !is_set && is_same(&word) => expiry = Some((word, at)),
            b"EX" | b"PX" | b"EXAT" | b"PXAT" if is_same(&word) => {
                at = args.value_of_option(at)?;
                expiry = Some((word, at));
            }
            _ => return Err(ErrorReply::SYNTAX),
        }
        at += 1;
    }
    let expiry = match expiry {
        None => None,
        Some((word, at)) => Some(match &word[..] {
            b"KEEPTTL" => Expiry::Keep,
            b"PERSIST" => Expiry::None,
            b"EX" => Expiry::In {
                ms: milliseconds(args, at, 1000)?,
            },
            b"PX" => Expiry::In {
                ms: milliseconds(args, at, 1)?,
            },
            b"EXAT" => Expiry::At {
                ms: milliseconds(args, at, 1000)?,
            },
            _ => Expiry::At {
                ms: milliseconds(args, at, 1)?,
            },
        }),
    };
    Ok(Options {
        condition,
        expiry,
        get,
    })
}

/// A time that must be positive, in a unit of so many milliseconds.
pub(super) fn milliseconds(args: &Args<'_>, at: usize, unit: i64) -> Result<i64, ErrorReply> {
    let number = args.int(at)?;
    let positive = number.checked_mul(unit).filter(|ms| *ms > 0);
    positive.ok_or_else(|| ErrorReply::invalid_expire(args.name))
}

pub(super) fn set(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let (key, value) = (args.bytes(1), args.bytes(2));
    if args.len() == 3 {
        return Ok(Op::Write(Command::Set { key, value }, ReplyFormat::Plain));
    }
    let Options {
        condition,
        expiry,
        get,
    } = options(args, 3, true)?;
    let expiry = expiry.unwrap_or(Expiry::None);
    let command = Command::SetWith {
        key,
        value,
        condition,
        expiry,
        get,
    };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

pub(super) fn setnx(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let command = Command::SetWith {
        key: args.bytes(1),
        value: args.bytes(2),
        condition: SetIf::Absent,
        expiry: Expiry::None,
        get: false,
    };
    Ok(Op::Write(command, ReplyFormat::Flag))
}

pub(super) fn setex(args: &Args<'_>) -> Result<Op, ErrorReply> {
    set_for(args, 1000)
}

pub(super) fn psetex(args: &Args<'_>) -> Result<Op, ErrorReply> {
    set_for(args, 1)
}

fn set_for(args: &Args<'_>, unit: i64) -> Result<Op, ErrorReply> {
    let command = Command::SetWith {
        key: args.bytes(1),
        value: args.bytes(3),
        condition: SetIf::Always,
        expiry: Expiry::In {
            ms: milliseconds(args, 2, unit)?,
        },
        get: false,
    };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

pub(super) fn getset(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let command = Command::SetWith {
        key: args.bytes(1),
        value: args.bytes(2),
        condition: SetIf::Always,
        expiry: Expiry::None,
        get: true,
    };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

pub(super) fn getdel(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let key = args.bytes(1);
    Ok(Op::Write(Command::GetDel { key }, ReplyFormat::Plain))
}

/// A read unless it has an option.
pub(super) fn getex(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let key = args.bytes(1);
    match options(args, 2, false) {
        Ok(Options { expiry: None, .. }) => get(args),
        Ok(Options {
            expiry: Some(expiry),
            ..
        }) => Ok(Op::Write(
            Command::GetEx { key, expiry },
            ReplyFormat::Plain,
        )),
        Err(failure) if failure == ErrorReply::SYNTAX => Err(failure),
        // As in Redis, the number is looked at only if there is a key.
        Err(failure) => Ok(Op::Read(
            Query::Get { key },
            ReplyFormat::FailIfPresent(failure),
        )),
    }
}

fn pairs(args: &Args<'_>, if_none_exists: bool) -> Result<Op, ErrorReply> {
    if args.len().is_multiple_of(2) {
        return Err(ErrorReply::arity(args.name));
    }
    let positions = (1..args.len()).step_by(2);
    let pairs = positions
        .map(|at| (args.bytes(at), args.bytes(at + 1)))
        .collect();
    let command = Command::SetMany {
        pairs,
        if_none_exists,
    };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

pub(super) fn mset(args: &Args<'_>) -> Result<Op, ErrorReply> {
    pairs(args, false)
}

pub(super) fn msetnx(args: &Args<'_>) -> Result<Op, ErrorReply> {
    pairs(args, true)
}

pub(super) fn append(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let (key, suffix) = (args.bytes(1), args.bytes(2));
    Ok(Op::Write(
        Command::Append { key, suffix },
        ReplyFormat::Plain,
    ))
}

pub(super) fn setrange(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let offset = u64::try_from(args.int(2)?);
    let offset = offset.map_err(|_| ErrorReply::new("ERR offset is out of range"))?;
    let (key, patch) = (args.bytes(1), args.bytes(3));
    Ok(Op::Write(
        Command::SetRange { key, offset, patch },
        ReplyFormat::Plain,
    ))
}

pub(super) fn delifeq(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let (key, condition) = (args.bytes(1), SetIf::Equal(args.bytes(2)));
    Ok(Op::Write(
        Command::DelIf { key, condition },
        ReplyFormat::Plain,
    ))
}

pub(super) fn delex(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let condition = match args.len() {
        2 => SetIf::Present,
        4 if args.is(2, "IFEQ") => SetIf::Equal(args.bytes(3)),
        4 if args.is(2, "IFNE") => SetIf::Differs(args.bytes(3)),
        _ => return Err(ErrorReply::SYNTAX),
    };
    let key = args.bytes(1);
    Ok(Op::Write(
        Command::DelIf { key, condition },
        ReplyFormat::Plain,
    ))
}
