//! Scripts: the few that memkv recognises by their text (`known`), what they are in commands (`plan`),
//! and a clear refusal of all others. Never runs Lua.
//!
//! A node remembers the hashes of recognised scripts that were sent to it. A node to which a script
//! was not sent answers NOSCRIPT, and clients send the text.

mod known;
mod plan;
mod sha1;

use std::collections::HashMap;
use std::sync::LazyLock;

use memkv_node::lock::Mutex;

use super::{Args, Call, ErrorReply, Op};
use known::Known;

/// Longest text that is compared; the longest known script has 500 bytes, and comments.
const MAX_SCRIPT_BYTES: usize = 16 * 1024;

/// A hash in hex.
const HASH_BYTES: usize = 40;

/// Most hashes that are remembered: texts of one script that differ in white space have different
/// hashes.
const MAX_HASHES: usize = 10_000;

/// Hashes of recognised texts, for all connections. Never wrong: a hash has one text.
static SEEN: LazyLock<Mutex<HashMap<String, Known>>> = LazyLock::new(Mutex::default);

const NO_SCRIPT: ErrorReply = ErrorReply::new("NOSCRIPT No matching script. Please use EVAL.");

const UNKNOWN_SCRIPT: ErrorReply = ErrorReply::new(
    "ERR memkv does not run Lua; it recognises some scripts of common libraries by their text, and \
     this is none of them; nothing was executed",
);

/// Checks the number of keys as Redis does, before it looks at the script.
fn check_keys(args: &Args<'_>) -> Result<usize, ErrorReply> {
    let count = args.int(2)?;
    let Ok(count) = usize::try_from(count) else {
        return Err(ErrorReply::new("ERR Number of keys can't be negative"));
    };
    if count > args.len() - 3 {
        let text = "ERR Number of keys can't be greater than number of args";
        return Err(ErrorReply::new(text));
    }
    Ok(count)
}

/// The positions of the keys in a call, from its number of keys.
pub(super) fn key_positions(count: &[u8], arg_count: usize) -> Vec<usize> {
    let count = memkv_resp::parse_integer(count).and_then(|count| usize::try_from(count).ok());
    let count = count.unwrap_or(0);
    if count > arg_count.saturating_sub(3) {
        return Vec::new();
    }
    (3..3 + count).collect()
}

pub(super) fn eval(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let keys = check_keys(args)?;
    let (known, _hash) = learn(args.get(1))?;
    plan::plan(known, &quoted(args, keys))
}

pub(super) fn evalsha(args: &Args<'_>) -> Result<Op, ErrorReply> {
    let hash = args.get(1).to_ascii_lowercase();
    // As in Redis, nothing else of the request is checked if it cannot be a hash.
    if hash.len() != HASH_BYTES {
        return Err(NO_SCRIPT);
    }
    let keys = check_keys(args)?;
    let known = seen(&hash).ok_or(NO_SCRIPT)?;
    plan::plan(known, &quoted(args, keys))
}

/// The commands that the script of a call uses; none of a script that is not recognised, of which nothing
/// is executed.
pub(super) fn calls(args: &Args<'_>) -> &'static [&'static str] {
    let known = match args.name {
        "evalsha" | "evalsha_ro" => seen(&args.get(1).to_ascii_lowercase()),
        _ => (args.get(1).len() <= MAX_SCRIPT_BYTES)
            .then(|| known::recognise(args.get(1)))
            .flatten(),
    };
    known.map_or(&[], Known::calls)
}

/// The texts of the scripts that are recognised.
#[cfg(test)]
pub(crate) fn texts() -> impl Iterator<Item = &'static str> {
    known::SCRIPTS.iter().map(|(_, text)| *text)
}

fn quoted(args: &Args<'_>, keys: usize) -> plan::Call {
    plan::Call {
        keys: (3..3 + keys).map(|at| args.bytes(at)).collect(),
        args: args.bytes_from(3 + keys),
        db: args.db,
    }
}

fn seen(hash: &[u8]) -> Option<Known> {
    let hash = std::str::from_utf8(hash).ok()?;
    SEEN.lock().get(hash).copied()
}

/// Recognises a text, and remembers its hash.
fn learn(text: &[u8]) -> Result<(Known, String), ErrorReply> {
    if text.len() > MAX_SCRIPT_BYTES {
        return Err(UNKNOWN_SCRIPT);
    }
    let known = known::recognise(text).ok_or(UNKNOWN_SCRIPT)?;
    let hash = sha1::hex(text);
    let mut seen = SEEN.lock();
    if seen.len() < MAX_HASHES {
        seen.insert(hash.clone(), known);
    }
    Ok((known, hash))
}

pub(super) fn load(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let (_known, hash) = learn(call.args.get(2))?;
    call.reply().bulk(hash.as_bytes());
    Ok(())
}

pub(super) fn exists(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let mut reply = call.reply();
    reply.array(args.len() - 2);
    for at in 2..args.len() {
        let is_seen = seen(&args.get(at).to_ascii_lowercase()).is_some();
        reply.integer(is_seen.into());
    }
    Ok(())
}

pub(super) fn flush(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let is_mode = args.is(2, "SYNC") || args.is(2, "ASYNC");
    if args.len() > 3 || (args.len() == 3 && !is_mode) {
        let text = "ERR SCRIPT FLUSH only support SYNC|ASYNC option";
        return Err(ErrorReply::new(text));
    }
    call.reply().ok();
    Ok(())
}
