//! Commands about the connection itself: its protocol and database, and its end.

use bytes::Bytes;
use memkv_resp::{Protocol, ReplyWriter, parse_integer};
use memkv_store::DATABASES;

use super::client::check_name;
use super::{Args, Call, ErrorReply};
use crate::resp::Out;

/// The version of Redis whose behaviour clients may expect.
pub(super) const REDIS_VERSION: &str = "7.2.4";

pub(crate) const NO_PASSWORD: ErrorReply = ErrorReply::new(
    "ERR AUTH <password> called without any password configured for the default user. Are you \
     sure your configuration is correct?",
);

pub(super) fn ping(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    if args.len() > 2 {
        return Err(ErrorReply::arity(args.name));
    }
    if call.session.only_listens() {
        let mut reply = call.reply();
        reply.array(2);
        reply.bulk(b"pong");
        reply.bulk_shared(&args.bytes(1));
    } else if args.len() == 2 {
        call.reply().bulk_shared(&args.bytes(1));
    } else {
        call.reply().simple(b"PONG");
    }
    Ok(())
}

pub(super) fn echo(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    call.reply().bulk_shared(&args.bytes(1));
    Ok(())
}

pub(super) fn quit(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.session.is_closing = true;
    call.reply().ok();
    Ok(())
}

pub(super) fn reset(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.session.reset();
    call.reply().simple(b"RESET");
    Ok(())
}

pub(super) fn unwatch(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.session.watched.clear();
    call.reply().ok();
    Ok(())
}

pub(super) fn readonly(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.session.stale_reads = true;
    call.reply().ok();
    Ok(())
}

pub(super) fn readwrite(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.session.stale_reads = false;
    call.reply().ok();
    Ok(())
}

pub(super) fn select(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.session.db = database(call.args.int(1)?)?;
    call.reply().ok();
    Ok(())
}

/// The number of a database.
pub(crate) fn database(index: i64) -> Result<u8, ErrorReply> {
    if i32::try_from(index).is_err() {
        return Err(ErrorReply::new(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    u8::try_from(index)
        .ok()
        .filter(|index| *index < DATABASES)
        .ok_or(ErrorReply::DB_INDEX)
}

/// What HELLO asks for.
pub(crate) struct Hello {
    pub(crate) protocol: Protocol,
    /// Where user and password are among the arguments.
    pub(crate) auth: Option<(usize, usize)>,
    pub(crate) name: Option<Bytes>,
    /// Why it must not be answered, which is said only to a client that has authenticated.
    pub(crate) failed: Option<ErrorReply>,
}

impl Hello {
    /// Of a call, on a connection that speaks `protocol`.
    pub(crate) fn parse(args: &Args<'_>, protocol: Protocol) -> Result<Self, ErrorReply> {
        let mut hello = Self {
            protocol,
            auth: None,
            name: None,
            failed: None,
        };
        if args.len() > 1 {
            hello.protocol = match parse_integer(args.get(1)) {
                Some(2) => Protocol::Resp2,
                Some(3) => Protocol::Resp3,
                Some(_) => return Err(ErrorReply::new("NOPROTO unsupported protocol version")),
                None => {
                    let text = "ERR Protocol version is not an integer or out of range";
                    return Err(ErrorReply::new(text));
                }
            };
        }
        let mut at = 2;
        while at < args.len() && hello.failed.is_none() {
            if args.is(at, "AUTH") && at + 2 < args.len() {
                hello.auth = Some((at + 1, at + 2));
                at += 3;
            } else if args.is(at, "SETNAME") && at + 1 < args.len() {
                hello.failed = check_name(args.get(at + 1)).err();
                hello.name = Some(Bytes::copy_from_slice(args.get(at + 1)));
                at += 2;
            } else {
                let text = [b"ERR Syntax error in HELLO option '", args.get(at), b"'"].concat();
                hello.failed = Some(ErrorReply::with(text));
            }
        }
        Ok(hello)
    }
}

/// Writes the answer to HELLO, in the protocol that it has chosen.
pub(crate) fn write_hello(reply: &mut ReplyWriter<'_, Out>, protocol: Protocol, id: u64) {
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(id.cast_signed());
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
}
