//! `SLOWLOG` in Redis's shape, and `MEMKV.SLOWLOG`, which also tells where the time went. A further element in
//! Redis's shape would be taken for the beginning of the next entry by a client that reads exactly six (go-redis).

use memkv_resp::{Output, ReplyWriter};

use super::{Call, ErrorReply};
use crate::report::Slow;

/// Entries without a count, as in Redis.
const COUNT: usize = 10;

/// The count of entries that is asked for at this place.
fn count(call: &Call<'_>, at: usize) -> Result<usize, ErrorReply> {
    if call.args.len() <= at {
        return Ok(COUNT);
    }
    match call.args.int(at) {
        Ok(-1) => Ok(usize::MAX),
        Ok(count @ 0..) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        _ => Err(ErrorReply::new(
            "ERR count should be greater than or equal to -1",
        )),
    }
}

pub(super) fn get(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    if args.len() > 3 {
        return Err(ErrorReply::subcommand_syntax(args.name, args.get(1)));
    }
    let slow = call.server.slow_log.last(count(call, 2)?);
    let mut reply = call.reply();
    reply.array(slow.len());
    for (id, slow) in slow {
        reply.array(6);
        reply.integer(id.cast_signed());
        reply.integer(slow.at.cast_signed());
        reply.integer(micros(slow.took));
        words(&mut reply, &slow);
        reply.bulk(slow.client.to_string().as_bytes());
        reply.bulk(&slow.client_name);
    }
    Ok(())
}

/// One map per entry; a stage that is not known is nil.
pub(super) fn by_stages(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    if call.args.len() > 2 {
        return Err(ErrorReply::SYNTAX);
    }
    let slow = call.server.slow_log.last(count(call, 1)?);
    let mut reply = call.reply();
    reply.array(slow.len());
    for (id, slow) in slow {
        reply.map(13);
        let numbers = [("id", id.cast_signed()), ("at", slow.at.cast_signed())];
        let took = [("took_usec", micros(slow.took))];
        for (name, number) in numbers.into_iter().chain(took) {
            reply.bulk(name.as_bytes());
            reply.integer(number);
        }
        reply.bulk(b"command");
        words(&mut reply, &slow);
        reply.bulk(b"with_it");
        reply.integer(i64::try_from(slow.more).unwrap_or(i64::MAX));
        let client = slow.client.to_string();
        let texts = [
            ("client", client.as_bytes()),
            ("client_name", &slow.client_name),
            ("user", &slow.user),
        ];
        for (name, text) in texts {
            reply.bulk(name.as_bytes());
            reply.bulk(text);
        }
        let stages = slow.stages;
        let of_writes = [
            ("queue_usec", stages.map(|stages| stages.queue)),
            ("fsync_usec", stages.map(|stages| stages.fsync)),
            ("replicate_usec", stages.map(|stages| stages.replicate)),
            ("apply_usec", stages.map(|stages| stages.apply)),
        ];
        let all = of_writes
            .into_iter()
            .chain([("send_usec", Some(slow.send))]);
        for (name, took) in all {
            reply.bulk(name.as_bytes());
            match took {
                Some(took) => reply.integer(micros(took)),
                None => reply.null(),
            }
        }
    }
    Ok(())
}

pub(super) fn len(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let len = call.server.slow_log.len();
    call.reply().integer(i64::try_from(len).unwrap_or(i64::MAX));
    Ok(())
}

pub(super) fn reset(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.server.slow_log.reset();
    call.reply().ok();
    Ok(())
}

fn words<O: Output + ?Sized>(reply: &mut ReplyWriter<'_, O>, slow: &Slow) {
    reply.array(slow.words.len());
    slow.words.iter().for_each(|word| reply.bulk(word));
}

fn micros(took: std::time::Duration) -> i64 {
    i64::try_from(took.as_micros()).unwrap_or(i64::MAX)
}
