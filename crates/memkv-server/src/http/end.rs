//! Finds the end of a request head in a buffer that grows. Reads each byte once, but for three, so
//! that a head costs the same in one piece and in thousands.
//!
//! Invariant: the answer depends on the bytes alone and never on the pieces in which they arrived.
//! Of several faults, the first one in the order of the bytes is reported.

use memchr::{memchr, memchr_iter, memmem};
use memkv_proto::{ErrorCode, KV_PREFIX, limits::MAX_KEY_BYTES};

use super::head::Refusal;
use super::limits::{Limits, MAX_REQUEST_LINE_BYTES};

/// The end of a head.
const END: &[u8] = b"\r\n\r\n";

/// Finds the end of one head.
#[derive(Debug, Default)]
pub(super) struct HeadEnd {
    /// Length of the part that has neither the end nor a fault.
    seen: usize,
    /// Length of the request line with its CR LF, once it is known.
    request_line: Option<usize>,
}

impl HeadEnd {
    /// Length of the head, or `None` if more bytes are needed. `buffer` must start with the same
    /// bytes on each call.
    ///
    /// # Errors
    /// A line that does not end with CR LF, or a length over its limit.
    pub(super) fn find(
        &mut self,
        buffer: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, Refusal> {
        let Some(request_line) = self.request_line(buffer)? else {
            return Ok(None);
        };
        let most = request_line + limits.header_bytes;
        let within = first(buffer, most);
        // The request line's own CR LF may be the first half of the end.
        let from = self
            .seen
            .saturating_sub(END.len() - 1)
            .max(request_line - 2);
        let found = memmem::find(within.get(from..).unwrap_or_default(), END);
        let end = found.map(|at| from + at + END.len());
        check_lines(within, self.seen, end.unwrap_or(within.len()))?;
        self.seen = within.len();
        if end.is_none() && buffer.len() > most {
            let detail = format!(
                "the header fields are more than {} bytes, the limit; send fewer or shorter ones",
                limits.header_bytes
            );
            return Err(Refusal::new(ErrorCode::HeaderTooLarge, detail));
        }
        Ok(end)
    }

    fn request_line(&mut self, buffer: &[u8]) -> Result<Option<usize>, Refusal> {
        if self.request_line.is_some() {
            return Ok(self.request_line);
        }
        let within = first(buffer, MAX_REQUEST_LINE_BYTES);
        let Some(found) = memchr(b'\n', within.get(self.seen..).unwrap_or_default()) else {
            self.seen = within.len();
            return if buffer.len() > MAX_REQUEST_LINE_BYTES {
                Err(line_too_long(within))
            } else {
                Ok(None)
            };
        };
        let end = self.seen + found + 1;
        check_lines(within, self.seen, end)?;
        self.seen = end;
        self.request_line = Some(end);
        Ok(self.request_line)
    }
}

fn first(buffer: &[u8], most: usize) -> &[u8] {
    buffer.get(..most).unwrap_or(buffer)
}

/// Whether each line feed from `from` to `to` follows a carriage return.
fn check_lines(bytes: &[u8], from: usize, to: usize) -> Result<(), Refusal> {
    let lines = bytes.get(from..to).unwrap_or_default();
    for at in memchr_iter(b'\n', lines) {
        let before = (from + at).checked_sub(1).and_then(|at| bytes.get(at));
        if before != Some(&b'\r') {
            let detail = "a line of the request head does not end with CR LF";
            return Err(Refusal::new(ErrorCode::BadRequest, detail));
        }
    }
    Ok(())
}

fn line_too_long(line: &[u8]) -> Refusal {
    let target = line.split(|&byte| byte == b' ').nth(1);
    if target.is_some_and(|target| target.starts_with(KV_PREFIX.as_bytes())) {
        let detail = format!("the key is longer than {MAX_KEY_BYTES} bytes, the limit");
        return Refusal::new(ErrorCode::KeyTooLarge, detail);
    }
    let detail =
        format!("the request line is longer than {MAX_REQUEST_LINE_BYTES} bytes, the limit");
    Refusal::new(ErrorCode::HeaderTooLarge, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of `bytes` when they arrive in pieces of this size.
    fn in_pieces(bytes: &[u8], piece: usize, limits: &Limits) -> Result<Option<usize>, Refusal> {
        let mut end = HeadEnd::default();
        let mut arrived = 0;
        while arrived < bytes.len() {
            arrived = bytes.len().min(arrived + piece);
            match end.find(&bytes[..arrived], limits) {
                Ok(None) => {}
                known => return known,
            }
        }
        Ok(None)
    }

    #[test]
    fn the_end_is_behind_the_first_empty_line() {
        let limits = Limits::default();
        for head in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ] {
            let bytes = format!("{head}next\n\r\n\r\n");
            assert_eq!(
                in_pieces(bytes.as_bytes(), 1, &limits),
                Ok(Some(head.len()))
            );
        }
    }

    #[test]
    fn the_pieces_do_not_show_in_the_answer() {
        let limits = Limits {
            header_bytes: 40,
            ..Limits::default()
        };
        let field = |length| "x".repeat(length);
        for text in [
            "GET / HTTP/1.1\r\nHost: h\r\n\r\nnext".to_owned(),
            "GET / HTTP/1.1\r\nHost: h\r\n\r".to_owned(),
            "\n".to_owned(),
            "\r\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\nHost: h\n\n".to_owned(),
            "GET / HTTP/1.1\r\n\nHost: h\r\n\r\n".to_owned(),
            "GET / HTTP/1.1\r\nHost: h\r\n\n".to_owned(),
            // The limit exactly, with one byte more, and with something wrong before and behind it.
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", field(33)),
            format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", field(34)),
            format!(
                "GET / HTTP/1.1\r\nX: {}\nY: {}\r\n\r\n",
                field(30),
                field(30)
            ),
            format!("GET / HTTP/1.1\r\nX: {}\nY: z\r\n\r\n", field(40)),
            format!("GET /v1/kv/{}", field(MAX_REQUEST_LINE_BYTES)),
            format!("GET /{}\n", field(MAX_REQUEST_LINE_BYTES)),
            format!("GET /{}\n\r\n\r\n", field(MAX_REQUEST_LINE_BYTES - 6)),
        ] {
            let bytes = text.as_bytes();
            let whole = in_pieces(bytes, bytes.len(), &limits);
            for piece in [1, 2, 3, 4, 5, 7, 64] {
                assert_eq!(
                    in_pieces(bytes, piece, &limits),
                    whole,
                    "{piece}: {text:.80}"
                );
            }
        }
    }
}
