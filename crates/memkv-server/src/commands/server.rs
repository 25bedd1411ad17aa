//! Commands about the node and the cluster that need no key.

use std::time::Duration;

use memkv_node::Copies;

use super::{Args, Call, ErrorReply, Waiting};
use crate::backend::Introspection;

pub(super) fn time(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let now_ms = node(call)?.now_ms;
    let mut reply = call.reply();
    reply.array(2);
    reply.bulk((now_ms / 1000).to_string().as_bytes());
    reply.bulk((now_ms % 1000 * 1000).to_string().as_bytes());
    Ok(())
}

/// Every acknowledged write is durable already, so "now" is right.
pub(super) fn lastsave(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let seconds = node(call)?.now_ms / 1000;
    call.reply().integer(seconds.cast_signed());
    Ok(())
}

fn node(call: &Call<'_>) -> Result<Introspection, ErrorReply> {
    call.server.introspect().ok_or_else(ErrorReply::loading)
}

pub(super) fn lolwut(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let version = env!("CARGO_PKG_VERSION");
    let text = format!("memkv {version}: Redis's interface, and no acknowledged write is lost.\n");
    call.reply().verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// Any node executes anything, so every node is a master; some clients refuse to write otherwise.
pub(super) fn role(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let index = call
        .server
        .introspect()
        .map_or(0, |node| node.status.applied_index);
    let mut reply = call.reply();
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(index.cast_signed());
    reply.array(0);
    Ok(())
}

/// How long to wait; 0 is for ever.
fn timeout(args: &Args<'_>, at: usize) -> Result<Option<Duration>, ErrorReply> {
    match args.int(at).map(u64::try_from) {
        Ok(Ok(0)) => Ok(None),
        Ok(Ok(ms)) => Ok(Some(Duration::from_millis(ms))),
        Ok(Err(_)) => Err(ErrorReply::new("ERR timeout is negative")),
        Err(_) => Err(ErrorReply::new(
            "ERR timeout is not an integer or out of range",
        )),
    }
}

fn count(nodes: u64) -> i64 {
    i64::try_from(nodes).unwrap_or(i64::MAX)
}

/// Writes that were acknowledged before this command are on a majority already; this is for more.
pub(super) fn wait(args: &Args<'_>) -> Result<Waiting, ErrorReply> {
    let wanted = args.int(1)?;
    Ok(Waiting {
        wanted: Copies {
            here: false,
            elsewhere: u64::try_from(wanted).unwrap_or(0),
        },
        within: timeout(args, 2)?,
        write: |reply, copies, _| reply.integer(count(copies.elsewhere)),
    })
}

pub(super) fn waitaof(args: &Args<'_>) -> Result<Waiting, ErrorReply> {
    let local = args.int(1)?;
    if !(0..=1).contains(&local) {
        return Err(ErrorReply::new(
            "ERR value is out of range, must be between 0 and 1",
        ));
    }
    let Ok(elsewhere) = u64::try_from(args.int(2)?) else {
        return Err(ErrorReply::new(
            "ERR value is out of range, must be positive",
        ));
    };
    Ok(Waiting {
        wanted: Copies {
            here: local == 1,
            elsewhere,
        },
        within: timeout(args, 3)?,
        // Without fsync nothing is certain to be on a disk.
        write: |reply, copies, sync| {
            reply.array(2);
            reply.integer((sync && copies.here).into());
            reply.integer(if sync { count(copies.elsewhere) } else { 0 });
        },
    })
}

pub(super) fn shutdown(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    for at in 1..args.len() {
        match &args.word(at)[..] {
            b"NOSAVE" | b"SAVE" | b"NOW" | b"FORCE" => {}
            b"ABORT" if args.len() == 2 => {
                return Err(ErrorReply::new("ERR No shutdown in progress."));
            }
            _ => return Err(ErrorReply::SYNTAX),
        }
    }
    call.session.is_closing = true;
    call.server.stop.notify_one();
    Ok(())
}
