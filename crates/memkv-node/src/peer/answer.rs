//! Answers to peers' requests, as every part that gives one makes them.

use std::future::ready;

use futures_util::future::BoxFuture;

use crate::Frame;
use crate::peer::encoding::DecodeError;
use crate::peer::message::{self, WIRE_VERSION};

/// The answer to a request, which may take a while.
pub(crate) type Answer = BoxFuture<'static, Frame>;

/// An answer that needs no wait.
pub(crate) fn answer(frame: Frame) -> Answer {
    Box::pin(ready(frame))
}

/// The answer to what cannot be read.
pub(crate) fn bad(error: &DecodeError) -> Frame {
    message::refused(&format!(
        "unreadable request ({error}); this node speaks peer protocol {WIRE_VERSION}: run the same \
         memkv version on all nodes"
    ))
}
