//! Numbers in strings. The arithmetic is the store's: nothing is read here before it is written.

use memkv_store::Command;

use super::{Args, Failure, Op, Shape};

fn add(args: &Args<'_>, by: i64) -> Result<Op, Failure> {
    let key = args.bytes(1);
    Ok(Op::Write(Command::IncrBy { key, by }, Shape::Plain))
}

pub(super) fn incr(args: &Args<'_>) -> Result<Op, Failure> {
    add(args, 1)
}

pub(super) fn decr(args: &Args<'_>) -> Result<Op, Failure> {
    add(args, -1)
}

pub(super) fn incrby(args: &Args<'_>) -> Result<Op, Failure> {
    add(args, args.int(2)?)
}

pub(super) fn decrby(args: &Args<'_>) -> Result<Op, Failure> {
    let by = args.int(2)?.checked_neg();
    add(
        args,
        by.ok_or(Failure::new("ERR decrement would overflow"))?,
    )
}

pub(super) fn incrbyfloat(args: &Args<'_>) -> Result<Op, Failure> {
    let (key, by) = (args.bytes(1), args.bytes(2));
    Ok(Op::Write(Command::IncrByFloat { key, by }, Shape::Plain))
}
