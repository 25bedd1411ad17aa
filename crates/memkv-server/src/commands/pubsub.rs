//! Publish and subscribe. Replies to SUBSCRIBE and its kin are pushes, one per channel.

use bytes::Bytes;
use memkv_node::{MAX_CHANNEL_BYTES, MAX_PUBLICATION_BYTES, Publication};
use memkv_resp::{Protocol, ReplyWriter};

use super::{Args, Call, ErrorReply};
use crate::aside::step_aside;
use crate::ledger::Class;
use crate::resp::{Kind, Message, Out, STEPS_TO_LEAVE, memory_of};

/// Writes a message that the connection did not ask for.
pub(crate) fn push_message(out: &mut Out, protocol: Protocol, message: &Message) {
    let mut reply = ReplyWriter::new(out, protocol);
    reply.push(if message.pattern.is_some() { 4 } else { 3 });
    reply.bulk(message.kind.as_bytes());
    if let Some(pattern) = &message.pattern {
        reply.bulk(pattern);
    }
    reply.bulk(&message.channel);
    reply.bulk_shared(&message.payload);
}

/// Confirmation of one change: its name, the channel and how many are left.
fn confirm(call: &mut Call<'_>, kind: Kind, verb: &str, channel: Option<&[u8]>) {
    let count = match kind {
        Kind::Shard => call.session.listens[Kind::Shard as usize].len(),
        Kind::Channel | Kind::Pattern => call.session.subscriptions(),
    };
    let mut reply = call.reply();
    reply.push(3);
    reply.bulk(verb.as_bytes());
    match channel {
        Some(channel) => reply.bulk(channel),
        None => reply.null(),
    }
    reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
}

/// Listens to all that are named, or to none.
fn listen(call: &mut Call<'_>, kind: Kind, verb: &str) -> Result<(), ErrorReply> {
    let failed = |why: &dyn std::fmt::Display| ErrorReply::with(format!("ERR {why}"));
    for at in 1..call.args.len() {
        match kind {
            Kind::Pattern => drop(call.args.pattern(at)?),
            Kind::Channel | Kind::Shard => check_channel(call.args.get(at))?,
        }
    }
    let names: Vec<_> = (1..call.args.len()).map(|at| call.owned(at)).collect();
    let new = call.session.listens[kind as usize].new_of(kind, &names);
    let new = new.map_err(|why| failed(&why))?;
    let before = call.session.subscribed.charged();
    let more: usize = new.iter().map(|name| memory_of(kind, name)).sum();
    let most = call.server.ledger.most_of_one(Class::Subscriptions);
    if before + more > most || !call.session.subscribed.try_set(before + more) {
        return Err(failed(&format_args!(
            "subscriptions take too much memory: a connection's at most {most} bytes, and those of all \
             clients too; end some, or ask another node"
        )));
    }
    let listened = call
        .server
        .subscriptions
        .listen(kind, &new, &call.session.client);
    if let Err(why) = listened {
        call.session.subscribed.set(before);
        return Err(failed(&why));
    }
    for name in names {
        call.session.listens[kind as usize].insert(name.clone());
        confirm(call, kind, verb, Some(&name));
    }
    Ok(())
}

fn check_channel(channel: &[u8]) -> Result<(), ErrorReply> {
    if channel.len() <= MAX_CHANNEL_BYTES {
        return Ok(());
    }
    Err(ErrorReply::with(format!(
        "ERR the channel has {} bytes, and at most {MAX_CHANNEL_BYTES} are allowed",
        channel.len()
    )))
}

fn leave(call: &mut Call<'_>, kind: Kind, verb: &str) {
    let channels: Vec<Bytes> = if call.args.len() > 1 {
        (1..call.args.len()).map(|at| call.owned(at)).collect()
    } else {
        call.session.listens[kind as usize]
            .iter()
            .cloned()
            .collect()
    };
    step_aside(channels.len() * STEPS_TO_LEAVE, || {
        for channel in &channels {
            call.session.leave(kind, channel);
            confirm(call, kind, verb, Some(channel));
        }
    });
    if channels.is_empty() {
        confirm(call, kind, verb, None);
    }
}

pub(super) fn subscribe(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    listen(call, Kind::Channel, "subscribe")
}

pub(super) fn psubscribe(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    listen(call, Kind::Pattern, "psubscribe")
}

pub(super) fn ssubscribe(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    listen(call, Kind::Shard, "ssubscribe")
}

pub(super) fn unsubscribe(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    leave(call, Kind::Channel, "unsubscribe");
    Ok(())
}

pub(super) fn punsubscribe(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    leave(call, Kind::Pattern, "punsubscribe");
    Ok(())
}

pub(super) fn sunsubscribe(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    leave(call, Kind::Shard, "sunsubscribe");
    Ok(())
}

pub(super) fn publish(args: &Args<'_>) -> Result<Publication, ErrorReply> {
    publication(args, false)
}

pub(super) fn spublish(args: &Args<'_>) -> Result<Publication, ErrorReply> {
    publication(args, true)
}

fn publication(args: &Args<'_>, is_shard: bool) -> Result<Publication, ErrorReply> {
    check_channel(args.get(1))?;
    if args.get(1).len() + args.get(2).len() > MAX_PUBLICATION_BYTES {
        return Err(ErrorReply::with(format!(
            "ERR a message and its channel have at most {MAX_PUBLICATION_BYTES} bytes"
        )));
    }
    Ok(Publication {
        is_shard,
        // Without the buffer that they were read into: a listener may be slow.
        channel: Bytes::copy_from_slice(args.get(1)),
        payload: Bytes::copy_from_slice(args.get(2)),
    })
}

pub(super) fn channels(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    names(call, Kind::Channel)
}

pub(super) fn shardchannels(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    names(call, Kind::Shard)
}

fn names(call: &mut Call<'_>, kind: Kind) -> Result<(), ErrorReply> {
    let args = call.args;
    if args.len() > 3 {
        return Err(ErrorReply::subcommand_syntax(args.name, args.get(1)));
    }
    let pattern = (args.len() == 3).then(|| args.pattern(2)).transpose()?;
    let mut names = call.server.subscriptions.names(kind);
    if let Some(pattern) = pattern {
        let steps = names.iter().map(|name| pattern.steps(name)).sum();
        step_aside(steps, || names.retain(|name| pattern.matches(name)));
    }
    let mut reply = call.reply();
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name));
    Ok(())
}

pub(super) fn numsub(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    counts(call, Kind::Channel)
}

pub(super) fn shardnumsub(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    counts(call, Kind::Shard)
}

fn counts(call: &mut Call<'_>, kind: Kind) -> Result<(), ErrorReply> {
    let args = call.args;
    let server = call.server;
    let mut reply = call.reply();
    reply.array(2 * (args.len() - 2));
    for at in 2..args.len() {
        reply.bulk(args.get(at));
        let count = server.subscriptions.listeners(kind, args.get(at));
        reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
    }
    Ok(())
}

pub(super) fn numpat(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let count = call.server.subscriptions.len(Kind::Pattern);
    call.reply()
        .integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}
