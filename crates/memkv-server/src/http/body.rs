//! Request bodies, by length or in chunks (RFC 9112, sections 6 and 7).
//! Never grows a buffer for bytes that have not arrived, and never past the route's limit.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use memkv_proto::ErrorCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::conn::{App, Conn, Stop};
use super::head::{BodyLength, Head, Refusal};
use super::limits::Limits;
use crate::budget::Held;

/// Longest line between chunks: sixteen digits and a short extension.
const CHUNK_LINE_BYTES: usize = 256;

/// Until when the next bytes of a body must arrive, and the memory that they take.
struct Pace {
    start: Instant,
    received: u64,
    held: Held,
}

/// A body, and its share of the memory for bodies.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) held: Held,
}

impl Pace {
    fn new(limits: &Limits) -> Self {
        Self {
            start: Instant::now(),
            received: 0,
            held: limits.bodies.hold(),
        }
    }

    fn deadline(&self, limits: &Limits) -> Instant {
        let earned = Duration::from_secs(self.received / limits.body_bytes_per_second);
        self.start + limits.body_grace + earned
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Conn<S> {
    /// The whole body, if it is no longer than `limit`.
    pub(super) async fn read_body<A: App>(
        &mut self,
        app: &A,
        head: &Head,
        limit: usize,
    ) -> Result<Body, Stop> {
        let too_large = || Stop::Refuse(app.too_large(head, limit));
        if matches!(head.body, BodyLength::Known(length) if length > limit as u64) {
            return Err(too_large());
        }
        if head.expects_continue && self.input.is_empty() {
            self.queue_continue();
        }
        let result = match head.body {
            BodyLength::Known(length) => self.read_known(length as usize).await,
            BodyLength::Chunked => match self.read_chunked(limit).await {
                Ok(None) => return Err(too_large()),
                Ok(Some(body)) => Ok(body),
                Err(stop) => Err(stop),
            },
        };
        result.map_err(|stop| match stop {
            Stop::Slow => {
                let detail = format!(
                    "the body arrived too slowly: the limit is {:?} plus one second for each {} \
                     bytes; nothing was executed",
                    self.limits.body_grace, self.limits.body_bytes_per_second
                );
                Refusal::new(ErrorCode::RequestTimeout, detail).into()
            }
            stop => stop,
        })
    }

    /// A body of `length` bytes, which the caller has bounded.
    pub(super) async fn read_known(&mut self, length: usize) -> Result<Body, Stop> {
        let mut pace = Pace::new(&self.limits);
        while self.input.len() < length {
            // At most doubles, so that a length alone makes nobody allocate.
            let missing = length - self.input.len();
            self.input.reserve(missing.min(self.input.len()));
            self.fill_body(&mut pace).await?;
        }
        let bytes = self.input.split_to(length).freeze();
        Ok(Body {
            bytes,
            held: pace.held,
        })
    }

    /// A body in chunks; `None` if it is longer than `limit`.
    async fn read_chunked(&mut self, limit: usize) -> Result<Option<Body>, Stop> {
        let mut pace = Pace::new(&self.limits);
        let mut body = BytesMut::new();
        loop {
            let line = self.read_line(&mut pace).await?;
            let mut left = chunk_length(&line)?;
            if left == 0 {
                self.skip_trailers(&mut pace).await?;
                let bytes = body.freeze();
                return Ok(Some(Body {
                    bytes,
                    held: pace.held,
                }));
            }
            if left > (limit - body.len()) as u64 {
                return Ok(None);
            }
            while left > 0 {
                if self.input.is_empty() {
                    self.fill_body(&mut pace).await?;
                }
                let take = self
                    .input
                    .len()
                    .min(usize::try_from(left).unwrap_or(usize::MAX));
                body.extend_from_slice(&self.input[..take]);
                self.input.advance(take);
                left -= take as u64;
            }
            if !self.read_line(&mut pace).await?.is_empty() {
                return Err(bad_chunk("a chunk is longer than it says"));
            }
        }
    }

    async fn skip_trailers(&mut self, pace: &mut Pace) -> Result<(), Stop> {
        let mut bytes = 0;
        loop {
            let line = self.read_line(pace).await?;
            if line.is_empty() {
                return Ok(());
            }
            bytes += line.len();
            if bytes > self.limits.header_bytes {
                let detail = format!("more than {} bytes of trailers", self.limits.header_bytes);
                return Err(Refusal::new(ErrorCode::HeaderTooLarge, detail).into());
            }
        }
    }

    /// A line without its CR LF.
    async fn read_line(&mut self, pace: &mut Pace) -> Result<BytesMut, Stop> {
        loop {
            if let Some(end) = self.input.iter().position(|&byte| byte == b'\n') {
                let mut line = self.input.split_to(end + 1);
                if !line.ends_with(b"\r\n") {
                    return Err(bad_chunk("a line does not end with CR LF"));
                }
                line.truncate(end - 1);
                return Ok(line);
            }
            if self.input.len() > CHUNK_LINE_BYTES {
                return Err(bad_chunk("a chunk's size line is too long"));
            }
            self.fill_body(pace).await?;
        }
    }

    async fn fill_body(&mut self, pace: &mut Pace) -> Result<(), Stop> {
        let before = self.input.len();
        self.fill(pace.deadline(&self.limits)).await?;
        pace.received += (self.input.len() - before) as u64;
        if !pace
            .held
            .grow_to(usize::try_from(pace.received).unwrap_or(usize::MAX))
        {
            let detail = format!(
                "bodies of all connections together are more than {} bytes, the limit; nothing was \
                 executed; try again later, or ask another node",
                self.limits.bodies.max()
            );
            return Err(Refusal::new(ErrorCode::Overloaded, detail).into());
        }
        Ok(())
    }
}

fn bad_chunk(why: &str) -> Stop {
    Refusal::new(ErrorCode::BadRequest, format!("bad chunked body: {why}")).into()
}

/// Hexadecimal digits, then perhaps an extension, which is ignored.
fn chunk_length(line: &[u8]) -> Result<u64, Stop> {
    let digits = line
        .split(|&byte| byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii_end();
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let length = std::str::from_utf8(digits).ok().filter(|_| all_digits);
    length
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| bad_chunk("a chunk's size is not a hexadecimal number"))
}
