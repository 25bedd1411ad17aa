//! Responses, and their way into bytes. A response is complete before its first byte leaves, but for one
//! whose body comes in pieces.

use std::fmt::Write as _;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use memkv_proto::{ErrorCode, PROBLEM_JSON, Problem};

use super::date;

/// Bodies up to this size are copied behind their head, so that both are one `write`.
const INLINE_BODY_BYTES: usize = 16 * 1024;

/// The answer to a request.
pub enum Answer {
    /// It is complete.
    Whole(Response),
    /// Its body, which the response leaves empty, comes in pieces.
    Streamed(Response, Box<dyn Pieces>),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Self {
        Self::Whole(response)
    }
}

/// A body that is made while it is sent: a piece is made when the one before has left.
pub trait Pieces: Send {
    /// The next piece, which is not empty; nothing after the last. After an error the connection ends, so
    /// that the client sees that the body is not whole.
    fn next(&mut self) -> BoxFuture<'_, io::Result<Option<Bytes>>>;
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Media type of the body.
    pub content_type: &'static str,
    /// Further header fields; neither names nor values come from a client.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Bytes,
}

impl Response {
    /// A JSON document.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type: "application/json",
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// Raw bytes.
    pub fn bytes(body: impl Into<Bytes>) -> Self {
        let content_type = "application/octet-stream";
        Self {
            status: 200,
            content_type,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    /// A line for people.
    pub fn text(status: u16, line: impl Into<String>) -> Self {
        let mut line = line.into();
        line.push('\n');
        let content_type = "text/plain; charset=utf-8";
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body: line.into(),
        }
    }

    /// The client has what it asks for (RFC 9110, section 15.4.5).
    pub fn not_modified() -> Self {
        Self {
            status: 304,
            ..Self::bytes(Bytes::new())
        }
    }

    /// A failure, as RFC 9457 problem details.
    pub fn problem(problem: &Problem) -> Self {
        let mut response = Self {
            status: problem.status,
            content_type: PROBLEM_JSON,
            headers: Vec::new(),
            body: problem.to_json().into(),
        };
        if let Some(milliseconds) = problem.retry_after_ms {
            response = response.with("retry-after", milliseconds.div_ceil(1000).to_string());
        }
        response
    }

    /// A failure of the table.
    pub fn error(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self::problem(&Problem::new(code, detail))
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Appends the response to `out`; returns the body if it is better written by itself.
    pub(super) fn encode(self, framing: Framing, out: &mut BytesMut) -> Option<Bytes> {
        let length = Length::Bytes(self.body.len());
        let body = self.encode_head(framing, Some(length), out);
        if framing.without_body || body.is_empty() {
            return None;
        }
        if body.len() <= INLINE_BODY_BYTES {
            out.extend_from_slice(&body);
            return None;
        }
        Some(body)
    }

    /// Appends the head to `out`; returns the body.
    pub(super) fn encode_head(
        self,
        framing: Framing,
        length: Option<Length>,
        out: &mut BytesMut,
    ) -> Bytes {
        let Self {
            status,
            content_type,
            headers,
            body,
        } = self;
        // Writing to memory cannot fail.
        let _ = write!(out, "HTTP/1.1 {status} {}\r\nDate: ", reason(status));
        date::with_now(|now| out.extend_from_slice(now.as_bytes()));
        // What 304 leaves out is as the client has it (RFC 9110, section 8.6).
        if status == 304 {
            out.extend_from_slice(b"\r\n");
        } else {
            let _ = write!(out, "\r\nContent-Type: {content_type}\r\n");
            match length {
                Some(Length::Bytes(bytes)) => {
                    let _ = write!(out, "Content-Length: {bytes}\r\n");
                }
                Some(Length::Chunks) => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
                None => {}
            }
            out.extend_from_slice(b"X-Content-Type-Options: nosniff\r\n");
        }
        for (name, value) in headers {
            let _ = write!(out, "{name}: {value}\r\n");
        }
        out.extend_from_slice(match framing.connection {
            Connection::Implied => b"\r\n".as_slice(),
            Connection::KeepAlive => b"Connection: Keep-Alive\r\n\r\n",
            Connection::Close => b"Connection: Close\r\n\r\n",
        });
        body
    }
}

/// How long a body is. Without one of these it ends with the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// So many bytes.
    Bytes(usize),
    /// The last chunk says.
    Chunks,
}

/// What the `Connection` header field of a response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// Nothing: HTTP/1.1 goes on.
    Implied,
    /// Goes on, said to a client that asked for it, as the original server does.
    KeepAlive,
    /// Ends.
    Close,
}

/// How a response is put on the wire, as the request and the connection demand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framing {
    /// What happens next on the connection.
    pub(super) connection: Connection,
    /// The answer to HEAD has the length of a body and no body.
    pub(super) without_body: bool,
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        507 => "Insufficient Storage",
        // A reason phrase may be empty (RFC 9112, section 4).
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(response: Response, connection: Connection, without_body: bool) -> String {
        let mut out = BytesMut::new();
        let rest = response.encode(
            Framing {
                connection,
                without_body,
            },
            &mut out,
        );
        assert_eq!(rest, None);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn the_head_says_length_type_and_connection() {
        let text = encoded(Response::json(200, "{}"), Connection::KeepAlive, false);
        assert!(text.starts_with("HTTP/1.1 200 OK\r\nDate: "), "{text}");
        assert!(text.contains("\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"));
        assert!(
            text.ends_with("\r\nConnection: Keep-Alive\r\n\r\n{}"),
            "{text}"
        );
    }

    #[test]
    fn head_has_the_length_and_not_the_body() {
        let text = encoded(Response::bytes("value"), Connection::Implied, true);
        assert!(
            text.contains("Content-Length: 5\r\n") && text.ends_with("\r\n\r\n"),
            "{text}"
        );
    }

    #[test]
    fn a_long_body_is_not_copied() {
        let body = Bytes::from(vec![7; INLINE_BODY_BYTES + 1]);
        let framing = Framing {
            connection: Connection::Implied,
            without_body: false,
        };
        let mut out = BytesMut::new();
        let rest = Response::bytes(body.clone()).encode(framing, &mut out);
        assert_eq!(rest, Some(body));
        assert!(out.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn every_status_of_the_error_table_has_its_phrase() {
        for line in ErrorCode::table() {
            assert_ne!(reason(line.http), "", "{line:?}");
        }
    }

    #[test]
    fn a_problem_that_may_be_retried_says_when_in_whole_seconds() {
        let problem = Problem::new(ErrorCode::NoLeader, "why").with_retry_after_ms(1500);
        let response = Response::problem(&problem);
        assert_eq!(response.status, 503);
        assert_eq!(response.headers, [("retry-after", "2".to_owned())]);
    }
}
