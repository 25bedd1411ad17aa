//! Commands about keys of any value.

use memkv_store::{Command, Query};

use super::connection::database;
use super::{Args, ErrorReply, Op, ReplyFormat};

const NO_LFU: ErrorReply = ErrorReply::new(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
     when switching between policies at runtime LRU and LFU data will take some time to adjust.",
);

pub(super) fn del(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let keys = args.bytes_from(1);
    Ok(Op::Write(Command::Del { keys }, ReplyFormat::Plain))
}

pub(super) fn exists(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let keys = args.bytes_from(1);
    Ok(Op::Read(Query::Exists { keys }, ReplyFormat::Plain))
}

pub(super) fn type_of(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let keys = vec![args.bytes(1)];
    Ok(Op::Read(Query::Exists { keys }, ReplyFormat::Type))
}

pub(super) fn rename(args: &Args<'_>) -> Result<Op, ErrorReply> {
    move_to(args, false)
}

pub(super) fn renamenx(args: &Args<'_>) -> Result<Op, ErrorReply> {
    move_to(args, true)
}

fn move_to(args: &Args<'_>, if_absent: bool) -> Result<Op, ErrorReply> {
    let (from, to) = (args.bytes(1), args.bytes(2));
    let command = Command::Rename {
        from,
        to,
        if_absent,
    };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

pub(super) fn copy(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let (mut to_database, mut replace) = (args.db, false);
    let mut at = 3;
    while at < args.len() {
        match &args.word(at)[..] {
            b"REPLACE" => replace = true,
            b"DB" => {
                at = args.value_of_option(at)?;
                to_database = database(args.int(at)?)?;
            }
            _ => return Err(ErrorReply::SYNTAX),
        }
        at += 1;
    }
    let (from, to) = (args.bytes(1), args.bytes(2));
    if from == to && to_database == args.db {
        let text = "ERR source and destination objects are the same";
        return Err(ErrorReply::new(text));
    }
    let command = Command::Copy {
        from,
        to,
        to_database,
        replace,
    };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

pub(super) fn dbsize(_: &Args<'_>) -> Result<Op, ErrorReply> {
    Ok(Op::Read(Query::DbSize, ReplyFormat::Plain))
}

/// FLUSHDB and FLUSHALL take at once what they take; both words mean the same.
fn check_flush(args: &Args<'_>) -> Result<(), ErrorReply> {
    match args.len() {
        1 => Ok(()),
        2 if args.is(1, "SYNC") || args.is(1, "ASYNC") => Ok(()),
        _ => Err(ErrorReply::SYNTAX),
    }
}

pub(super) fn flushdb(args: &Args<'_>) -> Result<Op, ErrorReply> {
    check_flush(args)?;
    Ok(Op::Write(Command::FlushDatabase, ReplyFormat::Plain))
}

pub(super) fn flushall(args: &Args<'_>) -> Result<Op, ErrorReply> {
    check_flush(args)?;
    Ok(Op::Write(Command::FlushAll, ReplyFormat::Plain))
}

/// Something that is told of a value's bytes.
fn of_value(args: &Args<'_>, format: ReplyFormat) -> Result<Op, ErrorReply> {
    let key = args.bytes(2);
    Ok(Op::Read(Query::Get { key }, format))
}

pub(super) fn encoding(args: &Args<'_>) -> Result<Op, ErrorReply> {
    of_value(args, ReplyFormat::Encoding)
}

pub(super) fn freq(args: &Args<'_>) -> Result<Op, ErrorReply> {
    of_value(args, ReplyFormat::FailIfPresent(NO_LFU))
}

pub(super) fn idletime(args: &Args<'_>) -> Result<Op, ErrorReply> {
    of_value(args, ReplyFormat::IfPresent(0))
}

pub(super) fn refcount(args: &Args<'_>) -> Result<Op, ErrorReply> {
    of_value(args, ReplyFormat::IfPresent(1))
}

pub(super) fn memory_usage(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let mut at = 3;
    while at < args.len() {
        if !args.is(at, "SAMPLES") {
            return Err(ErrorReply::SYNTAX);
        }
        at = args.value_of_option(at)?;
        if args.int(at)? < 0 {
            return Err(ErrorReply::SYNTAX);
        }
        at += 1;
    }
    of_value(
        args,
        ReplyFormat::MemoryUsage {
            key_bytes: args.get(2).len(),
        },
    )
}
