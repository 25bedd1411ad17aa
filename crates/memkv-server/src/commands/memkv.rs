//! Commands that Redis lacks: revisions, and ranges in the order of the keys.

use memkv_store::{Command, Expiry, Query};

use super::scan::natural;
use super::strings::milliseconds;
use super::{Args, Call, ErrorReply, Op, ReplyFormat};

/// Items per call without LIMIT.
const RANGE_LIMIT: u64 = 100;

/// Most items per call; the next call goes on AFTER the last one.
const RANGE_MAX: u64 = 10_000;

/// A backup is a file, and no reply.
pub(super) fn backup(_: &mut Call<'_>) -> Result<(), ErrorReply> {
    let text = "ERR a backup is taken over HTTP: memkv_client backup save FILE, or GET /v1/backup";
    Err(ErrorReply::new(text))
}

/// Events are read over HTTP, and so is no reply.
pub(super) fn events(_: &mut Call<'_>) -> Result<(), ErrorReply> {
    let text = "ERR events are read over HTTP: GET /v1/events";
    Err(ErrorReply::new(text))
}

pub(super) fn meta(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let query = Query::Meta {
        key: args.bytes(1),
        value: false,
    };
    Ok(Op::Read(query, ReplyFormat::Meta))
}

/// `MEMKV.CAS key revision value [PX milliseconds]`.
pub(super) fn cas(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let expiry = match args.len() {
        4 => Expiry::None,
        6 if args.is(4, "PX") => Expiry::In {
            ms: milliseconds(args, 5, 1)?,
        },
        _ => return Err(ErrorReply::SYNTAX),
    };
    let command = Command::CompareAndSet {
        key: args.bytes(1),
        revision: natural(args.get(2))?,
        value: args.bytes(3),
        expiry,
    };
    Ok(Op::Write(command, ReplyFormat::Plain))
}

pub(super) fn delrev(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let (key, revision) = (args.bytes(1), natural(args.get(2))?);
    Ok(Op::Write(
        Command::DelRevision { key, revision },
        ReplyFormat::Plain,
    ))
}

/// `MEMKV.RANGE prefix [AFTER key] [LIMIT n] [KEYS]`.
pub(super) fn range(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let (mut after, mut limit, mut keys_only) = (None, RANGE_LIMIT, false);
    let mut at = 2;
    while at < args.len() {
        match &args.word(at)[..] {
            b"AFTER" => {
                at = args.value_of_option(at)?;
                after = Some(args.get(at));
            }
            b"LIMIT" => {
                at = args.value_of_option(at)?;
                limit = natural(args.get(at))?.clamp(1, RANGE_MAX);
            }
            b"KEYS" => keys_only = true,
            _ => return Err(ErrorReply::SYNTAX),
        }
        at += 1;
    }
    let query = Query::prefix(args.get(1), after, limit, keys_only);
    Ok(Op::Read(query, ReplyFormat::Range))
}
