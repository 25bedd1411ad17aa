//! The Redis protocol, RESP2 and RESP3: bytes in, requests and frames out, all of it bounded.
//!
//! A server reads with [`RequestParser`] and answers with [`ReplyWriter`]; a client writes with
//! [`encode_command`] and reads with [`FrameParser`]. Texts and limits are those of Redis 7.0,
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>.
//!
//! Nothing here opens a socket, reads a clock, knows a command, or names another crate of this
//! workspace.
//!
//! Invariant: a number that a peer declares (a length, a count) allocates nothing. Memory follows
//! the bytes that arrived, and no more of these are taken than a limit allows.

mod error;
mod frame;
mod glob;
mod inline;
mod limits;
mod number;
mod pattern;
mod reply;
mod request;

pub use error::ProtocolError;
pub use frame::{
    Frame, FrameError, FrameParser, MAX_FRAME_BYTES, MAX_FRAME_DEPTH, encode_command, parse_frame,
};
pub use inline::{UnbalancedQuotes, split_args};
pub use limits::{Limits, MAX_ARGS, MAX_BULK_BYTES};
pub use number::parse_i64 as parse_integer;
pub use pattern::{MAX_PATTERN_BYTES, Pattern, PatternTooLong};
pub use reply::{Output, Protocol, ReplyWriter};
pub use request::{BIG_BULK_BYTES, Request, RequestParser};
