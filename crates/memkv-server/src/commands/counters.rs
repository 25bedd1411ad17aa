//! Numbers in strings. The arithmetic is the store's: nothing is read here before it is written.

use memkv_store::Command;

use super::{Args, ErrorReply, Op, ReplyFormat};

fn add(args: &Args<'_>, by: i64) -> Result<Op, ErrorReply> {
    let key = args.bytes(1);
    Ok(Op::Write(Command::IncrBy { key, by }, ReplyFormat::Plain))
}

pub(super) fn incr(args: &Args<'_>) -> Result<Op, ErrorReply> {
    add(args, 1)
}

pub(super) fn decr(args: &Args<'_>) -> Result<Op, ErrorReply> {
    add(args, -1)
}

pub(super) fn incrby(args: &Args<'_>) -> Result<Op, ErrorReply> {
    add(args, args.int(2)?)
}

pub(super) fn decrby(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let by = args.int(2)?.checked_neg();
    add(
        args,
        by.ok_or(ErrorReply::new("ERR decrement would overflow"))?,
    )
}

pub(super) fn incrbyfloat(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let (key, by) = (args.bytes(1), args.bytes(2));
    Ok(Op::Write(
        Command::IncrByFloat { key, by },
        ReplyFormat::Plain,
    ))
}
