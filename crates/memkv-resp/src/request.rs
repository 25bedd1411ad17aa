//! Requests as a server reads them: arrays of bulk strings ("multibulk"), or lines of words
//! ("inline"). Never reads the same byte of a request twice, in whatever pieces it
//! arrives, and never copies a multibulk argument.
//!
//! Stricter than Redis in one way: CR LF must be exactly these two bytes. Redis skips any two bytes
//! there, and after a wrong length continues in the middle of an argument.

use std::mem;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::inline;
use crate::limits::{Limits, MAX_ARGS, MAX_BULK_BYTES};
use crate::number::parse_i64;

/// The most arguments that Redis takes (`INT_MAX`); above it, its own text is the answer.
const REDIS_MAX_ARGS: usize = 0x7fff_ffff;

/// An argument longer than this is announced by [`RequestParser::needed`] (32 KiB, as in Redis):
/// below it, two ordinary reads bring the whole argument anyway.
pub const BIG_BULK_BYTES: usize = 32 * 1024;

/// The largest list of arguments that [`RequestParser::recycle`] keeps for the next request: one
/// large request must not hold 16 MiB of its connection's memory for ever.
const MAX_RECYCLED_ARGS: usize = 1024;

/// One request: at least one argument, the first being the command's name.
///
/// The arguments are slices of the buffer that was read into. However small, a [`Bytes`] from here
/// keeps that whole buffer alive, with everything that was read together with it: code that stores an
/// argument must copy it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    bytes: Bytes,
    /// Where in `bytes` each argument is. Invariant: not empty, and each within `bytes`.
    spans: Vec<Range<usize>>,
}

impl Request {
    /// The number of arguments, the command's name included; at least 1.
    #[must_use]
    pub fn arg_count(&self) -> usize {
        self.spans.len()
    }

    /// The argument at `index`, the command's name being at 0.
    #[must_use]
    pub fn arg(&self, index: usize) -> Option<&[u8]> {
        Some(&self.bytes[self.spans.get(index)?.clone()])
    }

    /// The argument at `index`, sharing the buffer: for uses that end with the command.
    #[must_use]
    pub fn arg_bytes(&self, index: usize) -> Option<Bytes> {
        Some(self.bytes.slice(self.spans.get(index)?.clone()))
    }

    /// All arguments in their order.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.spans.iter().map(|span| &self.bytes[span.clone()])
    }

    /// Bytes of the request: on the wire for multibulk, of its decoded words for inline.
    #[must_use]
    pub fn byte_count(&self) -> usize {
        self.bytes.len()
    }

    /// The same request in memory of its own, of which it takes no more than it needs: it no longer keeps
    /// the buffer that it was read into.
    #[must_use]
    pub fn detached(self) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(&self.bytes),
            spans: self.spans.into_boxed_slice().into_vec(),
        }
    }

    /// Bytes of memory that a detached request takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.spans.len() * size_of::<Range<usize>>() + size_of::<Self>()
    }

    /// Whether the first word is one that a browser sends when a web page makes it send HTTP to Redis.
    fn is_http(&self) -> bool {
        self.arg(0).is_some_and(|name| {
            name.eq_ignore_ascii_case(b"POST") || name.eq_ignore_ascii_case(b"Host:")
        })
    }
}

/// Reads one connection's requests.
///
/// Call order: append the received bytes to the buffer; [`parse`](Self::parse) until it returns `None`
/// (after each request, [`set_limits`](Self::set_limits) if it changed what the connection may do,
/// and [`recycle`](Self::recycle) when it is done with); reserve [`needed`](Self::needed) and read
/// on. Between two calls of `parse`, bytes may only be appended to the buffer.
///
/// Memory: when `parse` returns `None`, the buffer holds at most [`Limits::max_request`] and one
/// unfinished line of [`Limits::max_inline`], and the parser 16 bytes (the list doubles, so up to
/// 32) for each argument that has arrived. The parser never makes the buffer larger.
#[derive(Debug)]
pub struct RequestParser {
    limits: Limits,
    /// Arguments of the current request that have not arrived; 0 between requests.
    missing: usize,
    /// The length of the argument whose bytes begin at `pos`, once its header was read.
    length: Option<usize>,
    /// Bytes of the buffer that were parsed as part of the current request.
    pos: usize,
    /// Bytes of the buffer that were searched for the end of a line; meaningless where below `pos`.
    searched: usize,
    /// The positions in the buffer of the arguments that have arrived. Invariant: empty between requests.
    spans: Vec<Range<usize>>,
    needed: usize,
    failed: Option<ProtocolError>,
}

impl RequestParser {
    /// A parser at the beginning of a connection.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            missing: 0,
            length: None,
            pos: 0,
            searched: 0,
            spans: Vec::new(),
            needed: 0,
            failed: None,
        }
    }

    /// Changes the limits; for the next request if called between two.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How many more bytes complete the argument that is arriving, if it is longer than
    /// [`BIG_BULK_BYTES`]; otherwise 0. To be called after [`parse`](Self::parse) returned `None`,
    /// so that one reservation makes room for all of it. At most [`Limits::max_bulk`] and a line
    /// end; but the client only has to name the length to have it reserved.
    #[must_use]
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Gives a request's list of arguments back, which saves the next request an allocation.
    pub fn recycle(&mut self, request: Request) {
        let spans = request.spans;
        let kept = self.spans.capacity();
        if self.missing == 0 && (kept + 1..=MAX_RECYCLED_ARGS).contains(&spans.capacity()) {
            self.spans = spans;
            self.spans.clear();
        }
    }

    /// Takes the next request off the front of `buf`, or returns `None` if it is not complete.
    /// Empty lines and empty arrays are skipped.
    ///
    /// # Errors
    ///
    /// The connection must be answered with [`ProtocolError::reply`] and closed. Every later call
    /// returns the same error.
    pub fn parse(&mut self, buf: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.needed = 0;
        let result = self.next(buf);
        self.failed = result.as_ref().err().copied();
        result
    }

    fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        loop {
            if self.missing > 0 {
                return self.multibulk(buf);
            }
            match buf.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(count) = self.count(buf)? else {
                        return Ok(None);
                    };
                    self.missing = count;
                    if count == 0 {
                        buf.advance(self.consume());
                    }
                }
                Some(_) => {
                    let Some(end) = self.find(b'\n', buf, ProtocolError::TooBigInline)? else {
                        return Ok(None);
                    };
                    let decoded = self.inline(&buf[..end])?;
                    self.pos = end + 1;
                    buf.advance(self.consume());
                    if !self.spans.is_empty() {
                        return self.request(decoded).map(Some);
                    }
                }
            }
        }
    }

    /// Decodes a line into `spans` and the bytes to which they point. The CR before the LF counts as
    /// white space.
    fn inline(&mut self, line: &[u8]) -> Result<Bytes, ProtocolError> {
        let mut decoded = Vec::with_capacity(line.len());
        inline::split(line, &mut decoded, &mut self.spans)
            .map_err(|_| ProtocolError::UnbalancedQuotes)?;
        Ok(decoded.into())
    }

    /// Reads the arrived part of an array whose count is known.
    fn multibulk(&mut self, buf: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        while self.missing > 0 {
            if self.length.is_none() {
                self.length = self.bulk_length(buf)?;
            }
            let Some(length) = self.length else {
                return Ok(None);
            };
            let end = self.pos + length;
            match buf.get(end..end + 2) {
                Some(b"\r\n") => {}
                Some(_) => return Err(ProtocolError::InvalidBulkLength),
                None => {
                    if length > BIG_BULK_BYTES {
                        self.needed = end + 2 - buf.len();
                    }
                    return Ok(None);
                }
            }
            self.spans.push(self.pos..end);
            self.pos = end + 2;
            self.length = None;
            self.missing -= 1;
        }
        let bytes = buf.split_to(self.consume()).freeze();
        self.request(bytes).map(Some)
    }

    /// Reads the line `*<count>`; a negative count is an empty array, as in Redis.
    fn count(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.line(buf, ProtocolError::TooBigMultibulkCount)? else {
            return Ok(None);
        };
        let count = number(line).ok_or(ProtocolError::InvalidMultibulkLength)?;
        let count = usize::try_from(count).unwrap_or(0);
        if count > REDIS_MAX_ARGS {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        let limit = self.limits.max_args.min(MAX_ARGS);
        if count > limit && self.limits.authenticated {
            return Err(ProtocolError::TooManyArguments { limit });
        }
        if count > MAX_ARGS {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if count > self.limits.max_args {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        self.pos += line.len();
        Ok(Some(count))
    }

    /// Reads the line `$<length>`.
    fn bulk_length(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let Some(line) = self.line(buf, ProtocolError::TooBigBulkCount)? else {
            return Ok(None);
        };
        if line[0] != b'$' {
            return Err(ProtocolError::ExpectedBulk { got: line[0] });
        }
        let length = number(line)
            .and_then(|length| usize::try_from(length).ok())
            .ok_or(ProtocolError::InvalidBulkLength)?;
        if length > MAX_BULK_BYTES || (length > self.limits.max_bulk && self.limits.authenticated) {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if length > self.limits.max_bulk {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        if self.pos + line.len() + length + 2 > self.limits.max_request {
            return Err(ProtocolError::TooBigRequest);
        }
        self.pos += line.len();
        Ok(Some(length))
    }

    /// The line with a number that begins at `pos`, up to its CR and the byte after it; nothing if
    /// it has not arrived. Never shorter than two bytes.
    fn line<'a>(
        &mut self,
        buf: &'a [u8],
        too_long: ProtocolError,
    ) -> Result<Option<&'a [u8]>, ProtocolError> {
        let end = self.find(b'\r', buf, too_long)?;
        Ok(end.and_then(|end| buf.get(self.pos..end + 2)))
    }

    /// Where the line that begins at `pos` has its first `end`. The answer does not depend on how
    /// much has arrived after it.
    fn find(
        &mut self,
        end: u8,
        buf: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let from = self.pos.max(self.searched);
        let last = self.pos.saturating_add(self.limits.max_inline);
        // Empty if the limit was lowered below the searched bytes: then the line is too long.
        let window = buf
            .get(from..buf.len().min(last.saturating_add(1)))
            .unwrap_or_default();
        let found = window.iter().position(|byte| *byte == end);
        self.searched = from + found.unwrap_or(window.len());
        match found {
            Some(_) => Ok(Some(self.searched)),
            None if self.searched > last => Err(too_long),
            None => Ok(None),
        }
    }

    /// Ends the current request, and returns how much of the buffer it took.
    fn consume(&mut self) -> usize {
        self.searched = 0;
        mem::take(&mut self.pos)
    }

    fn request(&mut self, bytes: Bytes) -> Result<Request, ProtocolError> {
        let spans = mem::take(&mut self.spans);
        let request = Request { bytes, spans };
        if request.is_http() {
            return Err(ProtocolError::CrossProtocol);
        }
        Ok(request)
    }
}

/// The number between a line's first byte and its CR LF.
fn number(line: &[u8]) -> Option<i64> {
    match line {
        [_, digits @ .., b'\r', b'\n'] => parse_i64(digits),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_RECYCLED_ARGS, RequestParser};
    use crate::limits::{Limits, MAX_ARGS, MAX_BULK_BYTES};
    use bytes::BytesMut;

    #[test]
    fn a_declared_length_reserves_nothing() {
        let mut parser = RequestParser::new(Limits::new(MAX_BULK_BYTES));
        let mut buf = BytesMut::from(format!("*{MAX_ARGS}\r\n${MAX_BULK_BYTES}\r\n").as_str());
        let capacity = buf.capacity();
        assert_eq!(parser.parse(&mut buf), Ok(None));
        assert_eq!(parser.spans.capacity(), 0);
        assert_eq!(buf.capacity(), capacity);
        assert_eq!(parser.needed(), MAX_BULK_BYTES + 2);
    }

    #[test]
    fn a_byte_is_searched_once() {
        let mut parser = RequestParser::new(Limits::new(100));
        let mut buf = BytesMut::from("GET key");
        assert_eq!(parser.parse(&mut buf), Ok(None));
        assert_eq!(parser.searched, 7);
        // A search from the start would now find this end.
        buf[3] = b'\n';
        assert_eq!(parser.parse(&mut buf), Ok(None));
        buf.extend_from_slice(b"\n");
        assert!(parser.parse(&mut buf).unwrap().is_some());
        assert_eq!(parser.searched, 0);
    }

    #[test]
    fn a_detached_request_lets_go_of_its_buffer() {
        let mut parser = RequestParser::new(Limits::new(1000));
        let mut buf = BytesMut::with_capacity(100_000);
        buf.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n");
        let whole = buf.as_ptr_range();
        let request = parser.parse(&mut buf).unwrap().unwrap();
        let shared = request.arg_bytes(1).unwrap();
        assert!(whole.contains(&shared.as_ptr()));
        let detached = request.clone().detached();
        assert_eq!(detached, request);
        assert!(!whole.contains(&detached.arg(1).unwrap().as_ptr()));
        assert_eq!(detached.spans.capacity(), 2);
        assert!(detached.memory() >= detached.byte_count() + 2 * 16);
    }

    #[test]
    fn only_small_lists_are_kept_for_the_next_request() {
        let mut parser = RequestParser::new(Limits::new(100));
        for (args, kept) in [(3, true), (MAX_RECYCLED_ARGS + 1, false)] {
            let mut buf = BytesMut::from(format!("*{args}\r\n").as_str());
            buf.extend_from_slice(b"$1\r\na\r\n".repeat(args).as_slice());
            let request = parser.parse(&mut buf).unwrap().unwrap();
            assert_eq!(request.arg_count(), args);
            assert_eq!(parser.spans.capacity(), 0);
            parser.recycle(request);
            assert_eq!(parser.spans.capacity() > 0, kept);
            assert!(parser.spans.is_empty());
        }
    }
}
