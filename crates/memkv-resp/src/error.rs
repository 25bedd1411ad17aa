//! Why a request cannot be read. Each of these ends the connection: after a fault in the framing the
//! start of the next request is unknown.

use std::fmt;

/// A fault in a client's bytes. `Display` is for logs, [`ProtocolError::reply`] for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// The number after `*` is no number, or its line does not end in CR LF.
    InvalidMultibulkLength,
    /// The number after `*` is above [`MAX_ARGS`](crate::MAX_ARGS) or
    /// [`Limits::max_args`](crate::Limits::max_args).
    TooManyArguments {
        /// The limit, the command's name included.
        limit: usize,
    },
    /// The number after `$` is no number, negative, or above the limit, or the argument or the
    /// length itself is not followed by CR LF.
    InvalidBulkLength,
    /// An argument begins with another byte than `$`.
    ExpectedBulk {
        /// The byte that was there.
        got: u8,
    },
    /// No line end within [`Limits::max_inline`](crate::Limits::max_inline) bytes.
    TooBigInline,
    /// The same for a line that begins with `*`.
    TooBigMultibulkCount,
    /// The same for a line where `$` and a length should be.
    TooBigBulkCount,
    /// A quote in an inline request is not closed, or is followed by another byte than a space.
    UnbalancedQuotes,
    /// More arguments than a connection may send before it authenticates.
    UnauthenticatedMultibulkLength,
    /// A longer argument than a connection may send before it authenticates.
    UnauthenticatedBulkLength,
    /// The whole request is above [`Limits::max_request`](crate::Limits::max_request). A text that
    /// Redis does not have: there the connection is closed without one.
    TooBigRequest,
    /// The request's first word is `POST` or `Host:`. A web page made a browser send HTTP here, and the
    /// page may have chosen the commands that follow. Close, and answer nothing.
    CrossProtocol,
}

impl ProtocolError {
    /// The error to send before closing, code included and without `-` and line end, as
    /// [`ReplyWriter::error`](crate::ReplyWriter::error) takes it; nothing for
    /// [`ProtocolError::CrossProtocol`]. The bytes are Redis's.
    #[must_use]
    pub fn reply(&self) -> Option<Vec<u8>> {
        let text = self.text()?;
        let mut reply = format!("ERR Protocol error: {text}").into_bytes();
        match self {
            Self::ExpectedBulk { got } => reply.extend_from_slice(&[*got, b'\'']),
            Self::TooManyArguments { limit } => {
                reply.extend_from_slice(limit.to_string().as_bytes())
            }
            _ => {}
        }
        Some(reply)
    }

    /// The fixed part of the text, after `Protocol error: `.
    fn text(&self) -> Option<&'static str> {
        Some(match self {
            Self::InvalidMultibulkLength => "invalid multibulk length",
            Self::TooManyArguments { .. } => {
                "invalid multibulk length: the most arguments of a request are "
            }
            Self::InvalidBulkLength => "invalid bulk length",
            Self::ExpectedBulk { .. } => "expected '$', got '",
            Self::TooBigInline => "too big inline request",
            Self::TooBigMultibulkCount => "too big mbulk count string",
            Self::TooBigBulkCount => "too big bulk count string",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
            Self::TooBigRequest => "too big request",
            Self::CrossProtocol => return None,
        })
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            None => f.write_str("the request looks like HTTP: cross-protocol scripting?"),
            Some(text) => {
                write!(f, "Protocol error: {text}")?;
                match self {
                    Self::ExpectedBulk { got } => write!(f, "{}'", got.escape_ascii()),
                    Self::TooManyArguments { limit } => write!(f, "{limit}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::ProtocolError;

    #[test]
    fn texts_are_those_of_redis() {
        let reply = |error: ProtocolError| error.reply().unwrap();
        assert_eq!(
            reply(ProtocolError::ExpectedBulk { got: b'x' }),
            b"ERR Protocol error: expected '$', got 'x'"
        );
        // The byte goes out as it came in, which no `String` could hold.
        assert_eq!(
            reply(ProtocolError::ExpectedBulk { got: 0xff }),
            b"ERR Protocol error: expected '$', got '\xff'"
        );
        let many = ProtocolError::TooManyArguments { limit: 10 };
        assert_eq!(
            reply(many),
            b"ERR Protocol error: invalid multibulk length: the most arguments of a request are 10"
        );
        assert_eq!(format!("ERR {many}").into_bytes(), reply(many));
        for (error, text) in [
            (
                ProtocolError::InvalidMultibulkLength,
                "Protocol error: invalid multibulk length",
            ),
            (
                ProtocolError::InvalidBulkLength,
                "Protocol error: invalid bulk length",
            ),
            (
                ProtocolError::TooBigInline,
                "Protocol error: too big inline request",
            ),
            (
                ProtocolError::TooBigMultibulkCount,
                "Protocol error: too big mbulk count string",
            ),
            (
                ProtocolError::TooBigBulkCount,
                "Protocol error: too big bulk count string",
            ),
            (
                ProtocolError::UnbalancedQuotes,
                "Protocol error: unbalanced quotes in request",
            ),
            (
                ProtocolError::UnauthenticatedMultibulkLength,
                "Protocol error: unauthenticated multibulk length",
            ),
            (
                ProtocolError::UnauthenticatedBulkLength,
                "Protocol error: unauthenticated bulk length",
            ),
        ] {
            assert_eq!(error.to_string(), text);
            assert_eq!(reply(error), format!("ERR {text}").into_bytes());
        }
        assert_eq!(ProtocolError::CrossProtocol.reply(), None);
    }
}
