//! Scripts: the few that memkv recognises by their text, and a clear refusal for all others.

use super::{Args, Call, Failure, Op};

const NO_SCRIPT: Failure = Failure::new("NOSCRIPT No matching script. Please use EVAL.");

const UNKNOWN_SCRIPT: Failure = Failure::new(
    "ERR memkv does not run Lua; it recognises some scripts of common libraries by their text, and \
     this is none of them; nothing was executed",
);

/// Checks the number of keys as Redis does, before it looks at the script.
fn check_keys(args: &Args<'_>) -> Result<usize, Failure> {
    let count = args.int(2)?;
    let Ok(count) = usize::try_from(count) else {
        return Err(Failure::new("ERR Number of keys can't be negative"));
    };
    if count > args.len() - 3 {
        let text = "ERR Number of keys can't be greater than number of args";
        return Err(Failure::new(text));
    }
    Ok(count)
}

/// Where the keys of a call are whose second argument is their number.
pub(super) fn key_positions(count: &[u8], arg_count: usize) -> Vec<usize> {
    let count = memkv_resp::parse_integer(count).and_then(|count| usize::try_from(count).ok());
    let count = count.unwrap_or(0).min(arg_count.saturating_sub(3));
    (3..3 + count).collect()
}

pub(super) fn eval(args: &Args<'_>) -> Result<Op, Failure> {
    check_keys(args)?;
    Err(UNKNOWN_SCRIPT)
}

pub(super) fn evalsha(args: &Args<'_>) -> Result<Op, Failure> {
    check_keys(args)?;
    Err(NO_SCRIPT)
}

pub(super) fn load(_: &mut Call<'_>) -> Result<(), Failure> {
    Err(UNKNOWN_SCRIPT)
}

pub(super) fn exists(call: &mut Call<'_>) -> Result<(), Failure> {
    let count = call.args.len() - 2;
    let mut reply = call.reply();
    reply.array(count);
    (0..count).for_each(|_| reply.integer(0));
    Ok(())
}

pub(super) fn flush(call: &mut Call<'_>) -> Result<(), Failure> {
    let args = call.args;
    let is_mode = args.is(2, "SYNC") || args.is(2, "ASYNC");
    if args.len() > 3 || (args.len() == 3 && !is_mode) {
        let text = "ERR SCRIPT FLUSH only support SYNC|ASYNC option";
        return Err(Failure::new(text));
    }
    call.reply().ok();
    Ok(())
}
