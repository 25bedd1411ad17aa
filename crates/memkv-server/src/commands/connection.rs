//! Commands about the connection itself: its protocol, user and database, and its end.

use memkv_resp::{Protocol, parse_integer};
use memkv_store::DATABASES;

use super::client::check_name;
use super::{Call, ErrorReply};
use crate::audit::{self, Event};
use crate::password::USER;

/// The version of Redis whose behaviour clients may expect.
pub(super) const REDIS_VERSION: &str = "7.2.4";

const NO_PASSWORD: ErrorReply = ErrorReply::new(
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

pub(super) fn auth(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    match call.args.len() {
        2 if call.server.settings.password.is_none() => return Err(NO_PASSWORD),
        2 => authenticate(call, USER.as_bytes(), 1)?,
        3 => authenticate(call, call.args.get(1), 2)?,
        _ => return Err(ErrorReply::SYNTAX),
    }
    call.reply().ok();
    Ok(())
}

/// There is one user, and any password is right where none is configured, as in Redis. A wrong one
/// changes nothing for a connection that was authenticated before.
fn authenticate(call: &mut Call<'_>, user: &[u8], password: usize) -> Result<(), ErrorReply> {
    let right = match &call.server.settings.password {
        Some(right) => right.is(call.args.get(password)),
        None => true,
    };
    let right = right && user == USER.as_bytes();
    audit::record(&Event {
        kind: audit::Kind::Authentication,
        allowed: right,
        user: &String::from_utf8_lossy(user),
        origin: Some(call.session.client.addr),
        detail: "password",
    });
    if !right {
        return Err(ErrorReply::WRONG_PASS);
    }
    call.session.is_authenticated = true;
    Ok(())
}

pub(super) fn hello(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let mut protocol = call.session.protocol;
    if args.len() > 1 {
        protocol = match parse_integer(args.get(1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(ErrorReply::new("NOPROTO unsupported protocol version")),
            None => {
                let text = "ERR Protocol version is not an integer or out of range";
                return Err(ErrorReply::new(text));
            }
        };
    }
    let mut name = None;
    let mut at = 2;
    while at < args.len() {
        if args.is(at, "AUTH") && at + 2 < args.len() {
            authenticate(call, args.get(at + 1), at + 2)?;
            at += 3;
        } else if args.is(at, "SETNAME") && at + 1 < args.len() {
            check_name(args.get(at + 1))?;
            name = Some(call.owned(at + 1));
            at += 2;
        } else {
            let text = [b"ERR Syntax error in HELLO option '", args.get(at), b"'"].concat();
            return Err(ErrorReply::with(text));
        }
    }
    if !call.session.is_authenticated {
        return Err(ErrorReply::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
             HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
             select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        call.session.client.shown.lock().name = name;
    }
    call.session.protocol = protocol;
    let id = call.session.client.id;
    let mut reply = call.reply();
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
    Ok(())
}
