//! `CLIENT`: this connection and the others of this node.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Call, ErrorReply};
use crate::aside::step_aside;
use crate::resp::{Client, Replies};

/// Steps to write a connection's line.
const STEPS_TO_DESCRIBE: usize = 2048;

const BAD_NAME: ErrorReply =
    ErrorReply::new("ERR Client names cannot contain spaces, newlines or special characters.");

/// Names are printed in lists: no spaces, nothing that does not print.
pub(super) fn check_name(name: &[u8]) -> Result<(), ErrorReply> {
    if name.iter().all(u8::is_ascii_graphic) {
        Ok(())
    } else {
        Err(BAD_NAME)
    }
}

pub(super) fn id(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let id = call.session.client.id.cast_signed();
    call.reply().integer(id);
    Ok(())
}

pub(super) fn info(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.session.show();
    let mut line = call.session.client.describe();
    line.push(b'\n');
    call.reply().verbatim(b"txt", &line);
    Ok(())
}

pub(super) fn getname(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let name = call.session.client.shown.lock().name.clone();
    if name.is_empty() {
        call.reply().null();
    } else {
        call.reply().bulk(&name);
    }
    Ok(())
}

pub(super) fn setname(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    check_name(call.args.get(2))?;
    let name = call.owned(2);
    call.session.client.shown.lock().name = name;
    call.reply().ok();
    Ok(())
}

pub(super) fn setinfo(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let value = call.owned(3);
    let is_version = args.is(2, "LIB-VER");
    if !is_version && !args.is(2, "LIB-NAME") {
        let text = [b"ERR Unrecognized option '", args.get(2), b"'"].concat();
        return Err(ErrorReply::with(text));
    }
    let option = if is_version { "lib-ver" } else { "lib-name" };
    if !value.iter().all(u8::is_ascii_graphic) {
        return Err(ErrorReply::with(format!(
            "ERR {option} cannot contain spaces, newlines or special characters."
        )));
    }
    let mut shown = call.session.client.shown.lock();
    if is_version {
        shown.lib_ver = value;
    } else {
        shown.lib_name = value;
    }
    drop(shown);
    call.reply().ok();
    Ok(())
}

pub(super) fn reply(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let replies = match &call.args.word(2)[..] {
        b"ON" => Replies::On,
        b"OFF" => Replies::Off,
        // Where replies are off, skipping one changes nothing.
        b"SKIP" if call.session.replies == Replies::Off => Replies::Off,
        b"SKIP" => Replies::SkipNext,
        _ => return Err(ErrorReply::SYNTAX),
    };
    call.session.replies = replies;
    if replies == Replies::On {
        call.reply().ok();
    }
    Ok(())
}

/// Accepts `ON` and `OFF`, which change nothing.
pub(super) fn on_off(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    if call.args.is(2, "ON") || call.args.is(2, "OFF") {
        call.reply().ok();
        Ok(())
    } else {
        Err(ErrorReply::SYNTAX)
    }
}

pub(super) fn unblock(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    args.int(2)?;
    let is_reason = |at| args.is(at, "TIMEOUT") || args.is(at, "ERROR");
    if args.len() > 4 {
        return Err(ErrorReply::subcommand_syntax(args.name, args.get(1)));
    }
    if args.len() == 4 && !is_reason(3) {
        let text = "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR";
        return Err(ErrorReply::new(text));
    }
    call.reply().integer(0);
    Ok(())
}

pub(super) fn tracking(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    match &call.args.word(2)[..] {
        b"OFF" => call.reply().ok(),
        b"ON" => {
            let text = "ERR client-side caching is not supported by this version of memkv";
            return Err(ErrorReply::new(text));
        }
        _ => return Err(ErrorReply::SYNTAX),
    }
    Ok(())
}

pub(super) fn trackinginfo(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let mut reply = call.reply();
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(1);
    reply.bulk(b"off");
    reply.bulk(b"redirect");
    reply.integer(-1);
    reply.bulk(b"prefixes");
    reply.array(0);
    Ok(())
}

pub(super) fn getredir(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.reply().integer(-1);
    Ok(())
}

/// Kinds of clients: a listener, or not. There are no masters and no replicas among them.
fn check_type(name: &[u8]) -> Result<Option<bool>, ErrorReply> {
    match &name.to_ascii_lowercase()[..] {
        b"normal" => Ok(Some(false)),
        b"pubsub" => Ok(Some(true)),
        b"master" | b"replica" | b"slave" => Ok(None),
        _ => Err(ErrorReply::with(
            [b"ERR Unknown client type '", name, b"'"].concat(),
        )),
    }
}

pub(super) fn list(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    call.session.show();
    let mut clients = call.server.clients.all();
    if args.len() == 4 && args.is(2, "TYPE") {
        let wanted = check_type(args.get(3))?;
        clients.retain(|client| wanted == Some(client.is_listener()));
    } else if args.len() > 3 && args.is(2, "ID") {
        let mut ids = BTreeSet::new();
        for at in 3..args.len() {
            let id = args.int(at).ok().filter(|id| *id >= 0);
            let id = id.ok_or(ErrorReply::new("ERR Invalid client ID"))?;
            ids.insert(id.cast_unsigned());
        }
        clients.retain(|client| ids.contains(&client.id));
    } else if args.len() > 2 {
        return Err(ErrorReply::SYNTAX);
    }
    let mut lines = Vec::new();
    step_aside(clients.len() * STEPS_TO_DESCRIBE, || {
        for client in clients {
            lines.extend_from_slice(&client.describe());
            lines.push(b'\n');
        }
    });
    call.reply().verbatim(b"txt", &lines);
    Ok(())
}

/// Which connections `CLIENT KILL` is about.
#[derive(Default)]
struct Filter {
    id: Option<u64>,
    addr: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    user: Option<Vec<u8>>,
    /// Outer: was there a type; inner: can a connection be of it.
    listens: Option<Option<bool>>,
    not_me: bool,
}

impl Filter {
    fn fits(&self, client: &Client, me: u64) -> bool {
        let is = |wanted: &Option<Vec<u8>>, addr: std::net::SocketAddr| {
            wanted
                .as_ref()
                .is_none_or(|wanted| *wanted == addr.to_string().as_bytes())
        };
        self.id.is_none_or(|id| id == client.id)
            && is(&self.addr, client.addr)
            && is(&self.local, client.local)
            && self
                .user
                .as_ref()
                .is_none_or(|user| client.shown.lock().user_name() == &user[..])
            && self
                .listens
                .is_none_or(|wanted| wanted == Some(client.is_listener()))
            && !(self.not_me && client.id == me)
    }
}

pub(super) fn kill(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    // `CLIENT KILL ip:port`, the old form.
    if args.len() == 3 {
        let addr = Some(args.get(2).to_vec());
        let filter = Filter {
            addr,
            ..Filter::default()
        };
        return match kill_all(call, &filter) {
            0 => Err(ErrorReply::new("ERR No such client")),
            _ => {
                call.reply().ok();
                Ok(())
            }
        };
    }
    let mut filter = Filter {
        not_me: true,
        ..Filter::default()
    };
    let mut at = 2;
    while at < args.len() {
        let value = args.get(args.value_of_option(at)?);
        match &args.word(at)[..] {
            b"ID" => {
                let id = args.int(at + 1).ok().filter(|id| *id > 0);
                let id = id.ok_or(ErrorReply::new("ERR client-id should be greater than 0"))?;
                filter.id = Some(id.cast_unsigned());
            }
            b"ADDR" => filter.addr = Some(value.to_vec()),
            b"LADDR" => filter.local = Some(value.to_vec()),
            b"TYPE" => filter.listens = Some(check_type(value)?),
            b"USER" if call.server.rights.table().get(value).is_some() => {
                filter.user = Some(value.to_vec());
            }
            b"USER" => {
                let text = [b"ERR No such user '", value, b"'"].concat();
                return Err(ErrorReply::with(text));
            }
            b"SKIPME" if args.is(at + 1, "YES") => filter.not_me = true,
            b"SKIPME" if args.is(at + 1, "NO") => filter.not_me = false,
            _ => return Err(ErrorReply::SYNTAX),
        }
        at += 2;
    }
    let killed = kill_all(call, &filter);
    call.reply().integer(killed);
    Ok(())
}

/// Ends the connections that fit; this one only after its answer.
fn kill_all(call: &mut Call<'_>, filter: &Filter) -> i64 {
    let me = call.session.client.id;
    call.session.show();
    let fits = |client: &Arc<Client>| filter.fits(client, me);
    let mut killed = 0;
    for client in call
        .server
        .clients
        .all()
        .iter()
        .filter(|client| fits(client))
    {
        if client.id == me {
            call.session.is_closing = true;
        } else {
            client.kill();
        }
        killed += 1;
    }
    killed
}
