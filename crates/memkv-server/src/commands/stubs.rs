//! Answers where memkv has nothing to tell: clients and tools ask anyway, and get what a Redis
//! answers that has no such thing.

use super::{Call, ErrorReply};

pub(super) fn ok(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.reply().ok();
    Ok(())
}

pub(super) fn empty_array(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    call.reply().array(0);
    Ok(())
}

pub(super) fn doctor(call: &mut Call<'_>) -> Result<(), ErrorReply> {
    let text = "memkv has nothing to say of its memory here; see INFO memory and LATENCY DOCTOR.\n";
    call.reply().verbatim(b"txt", text.as_bytes());
    Ok(())
}

/// What DEBUG answers in a Redis that is configured as by default.
pub(super) const NO_DEBUG: &str = "ERR DEBUG command not allowed. If the enable-debug-command option \
     is set to \"local\", you can run it from a local connection, otherwise you need to set this \
     option in the configuration file, and then restart the server.";
