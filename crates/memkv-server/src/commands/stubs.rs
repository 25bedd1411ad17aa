//! Answers where memkv has nothing to tell: clients and tools ask anyway, and get what a Redis
//! answers that has no such thing.

use super::{Call, ErrorReply};

pub(super) fn ok(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.reply().ok();
    Ok(())
}

pub(super) fn zero(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.reply().integer(0);
    Ok(())
}

pub(super) fn empty_array(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.reply().array(0);
    Ok(())
}

pub(super) fn slowlog_get(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let args = call.args;
    if args.len() > 3 {
        return Err(ErrorReply::subcommand_syntax(args.name, args.get(1)));
    }
    if args.len() == 3 && !args.int(2).is_ok_and(|count| count >= -1) {
        let text = "ERR count should be greater than or equal to -1";
        return Err(ErrorReply::new(text));
    }
    empty_array(call)
}

pub(super) fn doctor(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let text = "memkv keeps no such statistics; see INFO, /v1/status and the node's log.\n";
    call.reply().verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// What DEBUG answers in a Redis that is configured as by default.
pub(super) const NO_DEBUG: &str = "ERR DEBUG command not allowed. If the enable-debug-command option \
     is set to \"local\", you can run it from a local connection, otherwise you need to set this \
     option in the configuration file, and then restart the server.";
