//! Keys, whatever they hold.

use memkv_store::{Command, Query};

use super::connection::database;
use super::{Args, Failure, Op, Shape};

const NO_LFU: Failure = Failure::new(
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that \
     when switching between policies at runtime LRU and LFU data will take some time to adjust.",
);

pub(super) fn del(args: &Args<'_>) -> Result<Op, Failure> {
    let keys = args.bytes_from(1);
    Ok(Op::Write(Command::Del { keys }, Shape::Plain))
}

pub(super) fn exists(args: &Args<'_>) -> Result<Op, Failure> {
    let keys = args.bytes_from(1);
    Ok(Op::Read(Query::Exists { keys }, Shape::Plain))
}

pub(super) fn type_of(args: &Args<'_>) -> Result<Op, Failure> {
    let keys = vec![args.bytes(1)];
    Ok(Op::Read(Query::Exists { keys }, Shape::Type))
}

pub(super) fn rename(args: &Args<'_>) -> Result<Op, Failure> {
    move_to(args, false)
}

pub(super) fn renamenx(args: &Args<'_>) -> Result<Op, Failure> {
    move_to(args, true)
}

fn move_to(args: &Args<'_>, if_absent: bool) -> Result<Op, Failure> {
    let (from, to) = (args.bytes(1), args.bytes(2));
    let command = Command::Rename {
        from,
        to,
        if_absent,
    };
    Ok(Op::Write(command, Shape::Plain))
}

pub(super) fn copy(args: &Args<'_>) -> Result<Op, Failure> {
    let (mut to_database, mut replace) = (args.db, false);
    let mut at = 3;
    while at < args.len() {
        match &args.word(at)[..] {
            b"REPLACE" => replace = true,
            b"DB" => {
                at = args.value_of_option(at)?;
                to_database = database(args.int(at)?)?;
            }
            _ => return Err(Failure::SYNTAX),
        }
        at += 1;
    }
    let (from, to) = (args.bytes(1), args.bytes(2));
    if from == to && to_database == args.db {
        let text = "ERR source and destination objects are the same";
        return Err(Failure::new(text));
    }
    let command = Command::Copy {
        from,
        to,
        to_database,
        replace,
    };
    Ok(Op::Write(command, Shape::Plain))
}

pub(super) fn dbsize(_: &Args<'_>) -> Result<Op, Failure> {
    Ok(Op::Read(Query::DbSize, Shape::Plain))
}

/// FLUSHDB and FLUSHALL take at once what they take; both words mean the same.
fn check_flush(args: &Args<'_>) -> Result<(), Failure> {
    match args.len() {
        1 => Ok(()),
        2 if args.is(1, "SYNC") || args.is(1, "ASYNC") => Ok(()),
        _ => Err(Failure::SYNTAX),
    }
}

pub(super) fn flushdb(args: &Args<'_>) -> Result<Op, Failure> {
    check_flush(args)?;
    Ok(Op::Write(Command::FlushDatabase, Shape::Plain))
}

pub(super) fn flushall(args: &Args<'_>) -> Result<Op, Failure> {
    check_flush(args)?;
    Ok(Op::Write(Command::FlushAll, Shape::Plain))
}

/// Something that is told of a value's bytes.
fn of_value(args: &Args<'_>, shape: Shape) -> Result<Op, Failure> {
    let key = args.bytes(2);
    Ok(Op::Read(Query::Get { key }, shape))
}

pub(super) fn encoding(args: &Args<'_>) -> Result<Op, Failure> {
    of_value(args, Shape::Encoding)
}

pub(super) fn freq(args: &Args<'_>) -> Result<Op, Failure> {
    of_value(args, Shape::FailIfPresent(NO_LFU))
}

pub(super) fn idletime(args: &Args<'_>) -> Result<Op, Failure> {
    of_value(args, Shape::IfPresent(0))
}

pub(super) fn refcount(args: &Args<'_>) -> Result<Op, Failure> {
    of_value(args, Shape::IfPresent(1))
}

pub(super) fn memory_usage(args: &Args<'_>) -> Result<Op, Failure> {
    let mut at = 3;
    while at < args.len() {
        if !args.is(at, "SAMPLES") {
            return Err(Failure::SYNTAX);
        }
        at = args.value_of_option(at)?;
        if args.int(at)? < 0 {
            return Err(Failure::SYNTAX);
        }
        at += 1;
    }
    of_value(
        args,
        Shape::MemoryUsage {
            key_bytes: args.get(2).len(),
        },
    )
}
