//! When keys expire. Relative times stay relative here: the log's stamp makes them absolute.

use memkv_store::{Command, ExpireIf, Expiry, Query};

use super::{Args, ErrorReply, Op, ReplyFormat};

pub(super) fn expire(args: &Args<'_>) -> Result<Op, ErrorReply> {
    set(args, 1000, |ms| Expiry::In { ms })
}

pub(super) fn pexpire(args: &Args<'_>) -> Result<Op, ErrorReply> {
    set(args, 1, |ms| Expiry::In { ms })
}

pub(super) fn expireat(args: &Args<'_>) -> Result<Op, ErrorReply> {
    set(args, 1000, |ms| Expiry::At { ms })
}

pub(super) fn pexpireat(args: &Args<'_>) -> Result<Op, ErrorReply> {
    set(args, 1, |ms| Expiry::At { ms })
}

fn set(args: &Args<'_>, unit: i64, expiry: fn(i64) -> Expiry) -> Result<Op, ErrorReply> {
    let condition = condition(args)?;
    let ms = args.int(2)?.checked_mul(unit);
    let ms = ms.ok_or_else(|| ErrorReply::invalid_expire(args.name))?;
    let command = Command::Expire {
        key: args.bytes(1),
        expiry: expiry(ms),
        condition,
    };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

fn condition(args: &Args<'_>) -> Result<ExpireIf, ErrorReply> {
    let [mut nx, mut xx, mut gt, mut lt] = [false; 4];
    for at in 3..args.len() {
        match &args.word(at)[..] {
            b"NX" => nx = true,
            b"XX" => xx = true,
            b"GT" => gt = true,
            b"LT" => lt = true,
            _ => {
                let text = [b"ERR Unsupported option ", args.get(at)].concat();
                return Err(ErrorReply::with(text));
            }
        }
    }
    if nx && (xx || gt || lt) {
        return Err(ErrorReply::new(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if gt && lt {
        return Err(ErrorReply::new(
            "ERR GT and LT options at the same time are not compatible",
        ));
    }
    Ok(match (nx, xx, gt, lt) {
        (true, ..) => ExpireIf::NoDeadline,
        // A key without a deadline never expires, so nothing is later.
        (_, _, true, _) => ExpireIf::Later,
        (_, true, _, true) => ExpireIf::HasDeadlineSooner,
        (_, _, _, true) => ExpireIf::Sooner,
        (_, true, ..) => ExpireIf::HasDeadline,
        _ => ExpireIf::Always,
    })
}

pub(super) fn ttl(args: &Args<'_>) -> Result<Op, ErrorReply> {
    left(args, true, false)
}

pub(super) fn pttl(args: &Args<'_>) -> Result<Op, ErrorReply> {
    left(args, false, false)
}

pub(super) fn expiretime(args: &Args<'_>) -> Result<Op, ErrorReply> {
    left(args, true, true)
}

pub(super) fn pexpiretime(args: &Args<'_>) -> Result<Op, ErrorReply> {
    left(args, false, true)
}

fn left(args: &Args<'_>, seconds: bool, absolute: bool) -> Result<Op, ErrorReply> {
    let key = args.bytes(1);
    let query = Query::Ttl {
        key,
        seconds,
        absolute,
    };
    Ok(Op::Read(query, ReplyFormat::Plain))
}

pub(super) fn persist(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let key = args.bytes(1);
    Ok(Op::Write(Command::Persist { key }, ReplyFormat::Plain))
}
