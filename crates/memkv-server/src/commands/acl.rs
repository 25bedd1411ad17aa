//! `ACL`, as far as a node answers it from what it holds. Changes of users are in `resp/account.rs`.

use bytes::BytesMut;
use memkv_resp::{Limits, Request, RequestParser, encode_command, parse_integer};

use super::judge::judge;
use super::spec::{Handler, find};
use super::table::TABLE;
use super::{Args, Call, ErrorReply, Spec};
use crate::rights::{CATEGORIES, User, shown};

/// Bits of a password of `GENPASS`, and the most.
const PASSWORD_BITS: i64 = 256;
const MAX_PASSWORD_BITS: i64 = 4096;

/// Entries of `ACL LOG` without a number.
const LOG_ENTRIES: usize = 10;

/// Redis's words, for tools that know them.
const NO_FILE: ErrorReply = ErrorReply::new(
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the \
     ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file \
     set) in order to store users in the Redis configuration.",
);

pub(super) fn whoami(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let name = call.session.user_name();
    call.reply().bulk(&name);
    Ok(())
}

pub(super) fn users(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let table = call.server.rights.table();
    let names: Vec<_> = table.users().map(|user| &user.name).collect();
    let mut reply = call.reply();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name));
    Ok(())
}

pub(super) fn list(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let table = call.server.rights.table();
    let lines: Vec<_> = table.users().map(|user| describe(user)).collect();
    let mut reply = call.reply();
    reply.array(lines.len());
    lines.iter().for_each(|line| reply.bulk(line));
    Ok(())
}

/// A line of `ACL LIST`.
fn describe(user: &User) -> Vec<u8> {
    let mut line = [b"user ", &user.name[..]].concat();
    for flag in flags(user) {
        line.extend([b" ", flag.as_bytes()].concat());
    }
    for secret in user.secrets.iter().filter_map(shown) {
        line.extend([b" #", secret.as_bytes()].concat());
    }
    line.push(b' ');
    line.extend(user.rules.text());
    line
}

fn flags(user: &User) -> Vec<&'static str> {
    let mut flags = vec![if user.enabled { "on" } else { "off" }];
    if user.nopass {
        flags.push("nopass");
    }
    flags
}

pub(super) fn getuser(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let table = call.server.rights.table();
    let Some(user) = table.get(call.args.get(2)) else {
        call.reply().null();
        return Ok(());
    };
    let (flags, secrets) = (flags(user), user.secrets.iter().filter_map(shown));
    let secrets: Vec<_> = secrets.collect();
    let mut reply = call.reply();
    reply.map(6);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(secrets.len());
    secrets
        .iter()
        .for_each(|secret| reply.bulk(secret.as_bytes()));
    let (root, others) = match user.rules.selectors() {
        [root, others @ ..] => (Some(root), others),
        [] => (None, &[][..]),
    };
    for selector in root.into_iter() {
        for (name, text) in [
            ("commands", selector.commands_text().into_bytes()),
            ("keys", selector.keys_text()),
            ("channels", selector.channels_text()),
        ] {
            reply.bulk(name.as_bytes());
            reply.bulk(&text);
        }
    }
    reply.bulk(b"selectors");
    reply.array(others.len());
    for selector in others {
        reply.map(3);
        for (name, text) in [
            ("commands", selector.commands_text().into_bytes()),
            ("keys", selector.keys_text()),
            ("channels", selector.channels_text()),
        ] {
            reply.bulk(name.as_bytes());
            reply.bulk(&text);
        }
    }
    Ok(())
}

pub(super) fn cat(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let names: Vec<&str> = match args.len() {
        2 => CATEGORIES.to_vec(),
        3 => {
            let asked = args.get(2).to_ascii_lowercase();
            let category = CATEGORIES.iter().find(|known| known.as_bytes() == asked);
            let Some(category) = category else {
                let text = [b"ERR Unknown category '", args.get(2), b"'"].concat();
                return Err(ErrorReply::with(text));
            };
            let specs = TABLE.iter().filter(|spec| spec.is_in(category));
            specs.map(|spec| spec.name).collect()
        }
        _ => return Err(ErrorReply::subcommand_syntax(args.name, args.get(1))),
    };
    let mut reply = call.reply();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name.as_bytes()));
    Ok(())
}

pub(super) fn genpass(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let bits = match args.len() {
        2 => Some(PASSWORD_BITS),
        3 => parse_integer(args.get(2)).filter(|bits| (1..=MAX_PASSWORD_BITS).contains(bits)),
        _ => return Err(ErrorReply::subcommand_syntax(args.name, args.get(1))),
    };
    let bits = bits.and_then(|bits| usize::try_from(bits).ok());
    let bits = bits.ok_or(ErrorReply::new(
        "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number \
         up to 4096",
    ))?;
    let digits = bits.div_ceil(4);
    let mut text = String::with_capacity(digits + 1);
    while text.len() < digits {
        text.push_str(&format!("{:02x}", rand::random::<u8>()));
    }
    text.truncate(digits);
    call.reply().bulk(text.as_bytes());
    Ok(())
}

pub(super) fn no_file(_: &mut Call<'_>) -> Result<(), ErrorReply> {
    Err(NO_FILE)
}

pub(super) fn log(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let count = match args.len() {
        2 => LOG_ENTRIES,
        3 if args.is(2, "RESET") => {
            call.server.rights.log.clear();
            call.reply().ok();
            return Ok(());
        }
        3 => usize::try_from(args.int(2)?).unwrap_or(0),
        _ => return Err(ErrorReply::subcommand_syntax(args.name, args.get(1))),
    };
    let entries = call.server.rights.log.last(count);
    let mut reply = call.reply();
    reply.array(entries.len());
    for entry in entries {
        reply.map(7);
        reply.bulk(b"count");
        reply.integer(i64::try_from(entry.count).unwrap_or(i64::MAX));
        for (name, text) in [
            ("reason", entry.reason.as_bytes()),
            ("context", entry.context.as_bytes()),
            ("object", &entry.object),
            ("username", &entry.user),
        ] {
            reply.bulk(name.as_bytes());
            reply.bulk(text);
        }
        reply.bulk(b"age-seconds");
        reply.double(entry.since.elapsed().as_secs_f64());
        reply.bulk(b"client-info");
        reply.bulk(&entry.client);
    }
    Ok(())
}

/// Arguments before the call that is quoted.
const BEFORE: usize = 3;

pub(super) fn dryrun(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    let table = call.server.rights.table();
    let user = table
        .get(args.get(2))
        .ok_or_else(|| ErrorReply::with([b"ERR User '", args.get(2), b"' not found"].concat()))?;
    let quoted = quote(&args)?;
    let spec = named(&quoted).ok_or_else(|| {
        ErrorReply::with([b"ERR Command '", args.get(BEFORE), b"' not found"].concat())
    })?;
    if !spec.fits(quoted.arg_count()) {
        return Err(ErrorReply::arity(spec.name));
    }
    let quoted = Args {
        request: &quoted,
        name: spec.name,
        db: args.db,
    };
    let op = match spec.handler {
        Handler::Data(data) => data(&quoted).ok(),
        _ => None,
    };
    match judge(&user.rules, spec, &quoted, op.as_ref()) {
        Ok(()) => call.reply().ok(),
        Err(denied) => {
            let what = match denied.reason() {
                "command" => "run the '",
                _ => "access the '",
            };
            let end = [" ", denied.reason()].concat();
            let text = [
                b"This user has no permissions to ",
                what.as_bytes(),
                denied.object(),
                b"'",
                end.as_bytes(),
            ];
            call.reply().bulk(&text.concat());
        }
    }
    Ok(())
}

/// The call that follows in the arguments, as a request of its own.
fn quote(args: &Args<'_>) -> Result<Request, ErrorReply> {
    let words: Vec<&[u8]> = (BEFORE..args.len()).map(|at| args.get(at)).collect();
    let mut bytes = BytesMut::new();
    encode_command(&mut bytes, &words);
    let mut parser = RequestParser::new(Limits::new(args.request.byte_count()));
    let request = parser.parse(&mut bytes);
    request.ok().flatten().ok_or(ErrorReply::SYNTAX)
}

/// The line of the command that a request names, of the container if the subcommand is missing.
fn named(request: &Request) -> Option<&'static Spec> {
    let name = request.arg(0)?;
    let spec = find(name).filter(|spec| !spec.is_subcommand())?;
    match (spec.handler, request.arg(1)) {
        (Handler::Container | Handler::ContainerOr(_), Some(sub)) => {
            find(&[spec.name.as_bytes(), b"|", sub].concat())
        }
        _ => Some(spec),
    }
}
